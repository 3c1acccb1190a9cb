"""Settings of training that cannot be meant are named before anything is deleted or trained."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ogsrl.errors import SpecError
from ogsrl.policies.config import AlgorithmParams, OgsrlParams, TrainParams
from ogsrl.policies.training import check
from ogsrl.spec import Cohort
from pipelines.params import parse_params
from tests.selection.line import validation
from tests.workspace import REPOSITORY

TRAIN = TrainParams()


def cohort() -> Cohort:
    return validation().history.preparation.cohort


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"train": {"seeds": [0, 1, 0]}}, "train.seeds: .*0: named twice"),
        ({"train": {"algorithms": ["bc", "bc"]}}, "train.algorithms: .*bc: named twice"),
        ({"train": {"seeds": [2**70]}}, "train.seeds.0"),
        (
            {"algorithms": {"x": {"ogsrl": {"margin": 0.01, "last_margin": 0.02}}}},
            "algorithms.x.ogsrl: .*last_margin: above margin",
        ),
    ],
)
def test_what_cannot_be_meant_is_an_error_that_names_the_key(
    values: dict[str, Any], said: str
) -> None:
    with pytest.raises(SpecError, match=said):
        parse_params({"cohort": "sepsis", **values}, {}, "params.yaml")


def test_a_cohort_cannot_change_the_matrix_that_dvc_makes() -> None:
    with pytest.raises(SpecError, match=r"overrides\.train\.algorithms: dvc.yaml"):
        parse_params({"cohort": "sepsis"}, {"train": {"algorithms": ["ogsrl"]}}, "overrides")


def test_an_empty_entry_is_not_taken_for_ogsrl() -> None:
    with pytest.raises(SpecError, match=r"algorithms\.x: empty"):
        check(AlgorithmParams(name="x"), TRAIN, cohort())


def test_cloning_reads_nothing_that_it_is_not_told_of() -> None:
    asked = OgsrlParams(cloning_only=True, start="logged", horizon=7, guardian=False)
    with pytest.raises(SpecError, match="guardian, horizon: not read by the loop that only copies"):
        check(AlgorithmParams(name="x", ogsrl=asked), TRAIN, cohort())


def test_a_constraint_that_no_training_knows_is_said_before_any() -> None:
    changed = {"low": cohort().constraints["low"].model_copy(update={"kind": "ever"})}
    asked = cohort().model_copy(update={"constraints": changed})
    with pytest.raises(SpecError, match=r"constraints\.low\.kind: ever: no policy is trained"):
        check(AlgorithmParams(name="x", ogsrl=OgsrlParams()), TRAIN, asked)


@pytest.mark.parametrize("name", ["../x", "foo/bar", "A"])
def test_an_algorithm_s_name_cannot_be_a_path(name: str, tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "pipelines", "train", "--cohort", "sepsis", "--algorithm", name],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert ended.stderr.startswith("--algorithm: small letters")
    assert not list(tmp_path.iterdir())
