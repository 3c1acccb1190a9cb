"""A simulated cohort, split and fitted once for all tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from ogsrl.preparation import Preparation, PrepareParams, TrainingRows, assign_parts, fit
from ogsrl.sources.simulator import simulate
from ogsrl.spec import Cohort
from ogsrl.spec.reader import load_cohort

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def sepsis() -> Cohort:
    return load_cohort(ROOT / "data_contracts" / "sepsis.yaml")


@pytest.fixture(scope="session")
def simulated() -> pd.DataFrame:
    return simulate(1500, seed=7)


@pytest.fixture(scope="session")
def train(simulated: pd.DataFrame) -> pd.DataFrame:
    parts = assign_parts(simulated["patient_id"], PrepareParams())
    return simulated[parts == "train"].reset_index(drop=True)


@pytest.fixture(scope="session")
def fitted(train: pd.DataFrame, sepsis: Cohort) -> Preparation:
    return fit(TrainingRows.of(train, sepsis), sepsis, PrepareParams())


@pytest.fixture(scope="session")
def prepared(simulated: pd.DataFrame, fitted: Preparation) -> pd.DataFrame:
    return fitted.apply(simulated)
