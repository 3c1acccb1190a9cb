"""The select stage with nothing to choose from: it says why, and nobody is put forward."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ogsrl.policies.saved import load_policy
from ogsrl.preparation.history import History
from ogsrl.selection.config import SelectParams
from ogsrl.selection.report import nothing_to_select_report
from pipelines import guardian, select, train
from pipelines.parts import load_preparation
from pipelines.stage import Stage
from tests.pipelines.test_guardian_stage import workspace

ASKED = """degree: 1}
train: {algorithms: [bc, ogsrl], seeds: [0], steps: 20, checkpoint_every: 10}
algorithms:
  bc: {ogsrl: {cloning_only: true}}
  ogsrl: {ogsrl: {refresh: 10}"""


def test_too_few_patients_are_said_by_training_and_again_by_selection(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = workspace(tmp_path, 20, ASKED)
    guardian.run(stage)
    train.run(Stage("train", "sepsis", tmp_path))
    chosen = Stage("select", "sepsis", tmp_path)
    select.run(chosen)
    report = json.loads(chosen.report("selection.json").read_text(encoding="utf-8"))
    assert report["status"] == "too_few_patients"
    assert report["training"] == {"bc": "too_few_patients", "ogsrl": "too_few_patients"}
    assert report["chosen"] is None
    assert "too few patients: nobody" in capsys.readouterr().out
    actor, about = load_policy(chosen.model("selected"), History.of(load_preparation(chosen)))
    assert actor is None
    assert about == {"status": "too_few_patients"}


def test_training_that_ended_in_several_ways_is_told_by_algorithm() -> None:
    ended = {"bc": "too_few_patients", "ogsrl": "every_seed_failed"}
    report = nothing_to_select_report(ended, SelectParams())
    assert report["status"] == "nothing_was_trained"
    assert report["training"] == ended
