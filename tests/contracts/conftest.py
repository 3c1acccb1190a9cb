"""A clean simulated cohort, judged once."""

from pathlib import Path

import pandas as pd
import pytest

from ogsrl.contracts import Contract, Verdict
from ogsrl.sources.simulator import simulate
from ogsrl.spec import Cohort, load_cohort

SEPSIS = Path(__file__).parents[2] / "data_contracts" / "sepsis.yaml"


@pytest.fixture(scope="session")
def cohort() -> Cohort:
    return load_cohort(SEPSIS)


@pytest.fixture(scope="session")
def clean() -> pd.DataFrame:
    return simulate(400, 7)


@pytest.fixture(scope="session")
def clean_verdict(cohort: Cohort, clean: pd.DataFrame) -> Verdict:
    return Contract(cohort).check(clean)
