"""Fixtures of more than one room: a small model, for all tests that ask it."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from ogsrl.query.model import Model
from ogsrl.registry import Entry, Registry
from ogsrl.sources.simulator import simulate
from ogsrl.spec import load_cohort
from tests.query.small import small_model
from tests.registered import entry_of
from tests.workspace import REPOSITORY

CONTRACT = REPOSITORY / "data_contracts" / "sepsis.yaml"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole runs come first: what takes long and begins last is waited for by an idle core."""
    items.sort(key=lambda item: "pipelines" not in item.path.parts)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models of 600 simulated patients."""
    cohort = load_cohort(CONTRACT)
    folder = tmp_path_factory.mktemp("asked") / "models" / "sepsis"
    small_model(folder, simulate(600, 1)[list(cohort.table_columns)], CONTRACT)
    return folder


@pytest.fixture(scope="session")
def model(models: Path) -> Model:
    """It, loaded."""
    return Model.load(models)


@pytest.fixture(scope="session")
def rows() -> pd.DataFrame:
    """Other patients, as the trajectory table has them."""
    cohort = load_cohort(CONTRACT)
    return simulate(40, 2)[list(cohort.table_columns)]


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """One of its own, empty."""
    return Registry.open(f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path)


@pytest.fixture
def entry(models: Path, tmp_path: Path) -> Entry:
    """The small model, to be registered."""
    return entry_of(models, tmp_path)
