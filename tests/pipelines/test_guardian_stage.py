"""The guardian's stage: it reports what it fitted, and refuses everything rather than fail."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from ogsrl.behaviour.config import BehaviourParams, NeuralParams
from ogsrl.behaviour.fitting import fit as fit_behaviour
from ogsrl.behaviour.policy import Behaviour
from ogsrl.dynamics.saved import save_too_few
from ogsrl.errors import SpecError
from ogsrl.figures.guardian import FIGURES
from ogsrl.guardian.christoffel import ChristoffelGuardian
from ogsrl.guardian.columns import Layout
from ogsrl.guardian.conformal import Threshold
from ogsrl.guardian.counts import Counts
from ogsrl.guardian.shortage import Shortage
from ogsrl.preparation import Preparation
from ogsrl.preparation.tensors import StayTensors, stay_tensors
from ogsrl.spec.reader import load_cohort
from pipelines import guardian
from pipelines.stage import Stage
from tests.guardian.cohorts import ROOT, simulated


def workspace(
    root: Path, patients: int | None, guardian_params: str = "degree: 1", least: int = 20
) -> Stage:
    """A cohort that is prepared, with a small behaviour and no dynamics."""
    (root / "data_contracts").mkdir(parents=True)
    shutil.copy(ROOT / "data_contracts" / "sepsis.yaml", root / "data_contracts")
    text = f"cohort: sepsis\nseed: 0\nguardian: {{{guardian_params}}}\n"
    (root / "params.yaml").write_text(text, encoding="utf-8")
    stage = Stage("guardian", "sepsis", root)
    folder = stage.data("prepared")
    folder.mkdir(parents=True)
    tensors, frames = simulated()
    preparation = tensors["train"].history.preparation
    preparation.save(folder)
    for part, frame in frames.items():
        people = frame["patient_id"].unique()[:patients]
        frame[frame["patient_id"].isin(people)].to_parquet(folder / f"{part}.parquet")
    made = {part: stays(folder, part) for part in frames}
    params = BehaviourParams(
        kinds=("neural",),
        neural=NeuralParams(hidden=8, head=8, max_epochs=1),
        min_train=50,
        min_calibration=least,
    )
    behaviour = fit_behaviour(*made.values(), params, torch.Generator().manual_seed(0))
    stage.model().mkdir(parents=True)
    behaviour.save(stage.model("behaviour"))
    save_too_few(stage.model("dynamics"), 80)
    return stage


def stays(folder: Path, part: str) -> StayTensors:
    cohort = load_cohort(ROOT / "data_contracts" / "sepsis.yaml")
    frame = pd.read_parquet(folder / f"{part}.parquet")
    return stay_tensors(frame, Preparation.load(folder, cohort))


def told(stage: Stage) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(stage.report("guardian.json").read_text(encoding="utf-8"))
    return report


def outputs(root: Path) -> dict[str, bytes]:
    files = [*(root / "models" / "sepsis" / "guardian").iterdir(), *root.glob("reports/**/*.*")]
    return {str(file.relative_to(root)): file.read_bytes() for file in files if file.is_file()}


def test_the_stage_saves_a_guardian_and_tells_the_same_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guardian, "DEADLY", 150)
    found = []
    for name in ("one", "two"):
        stage = workspace(tmp_path / name, None)
        guardian.run(stage)
        found.append(outputs(tmp_path / name))
    assert found[0] == found[1]
    report = told(stage)
    assert report["status"] == "ready"
    assert {check["name"] for check in report["checks"]} >= {"promise", "power"}
    assert report["truth"]["false_support"] is None  # without dynamics nobody can say
    assert {f"{figure}.svg" for figure in FIGURES} <= {
        path.name for path in stage.report("figures").iterdir()
    }
    history = simulated()[0]["train"].history
    behaviour = Behaviour.load(stage.model("behaviour"), history.preparation)
    loaded = ChristoffelGuardian.load(stage.model("guardian"), history, behaviour)
    assert loaded.status == "ready"


def test_a_handful_of_patients_gives_a_guardian_that_refuses_everything(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = workspace(tmp_path, 12)
    guardian.run(stage)
    report = told(stage)
    assert report["status"] == "too_few_patients"
    assert report["needed"] > 12
    assert report["needed_of"] == "training"
    assert report["false_alarm"] is None
    said = capsys.readouterr().out
    assert f"at least {report['needed']} training patients are needed" in said
    tensors = simulated()[0]["validation"]
    loaded = ChristoffelGuardian.load(stage.model("guardian"), tensors.history, None)
    assert not loaded.supported(tensors.states, tensors.doses).any()
    assert stage.report("figures", "guardian_power.svg").exists()


def test_too_few_patients_for_the_density_that_is_asked_for_refuse_everything(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = workspace(tmp_path, None, "degree: 1, usual: density", least=300)
    guardian.run(stage)
    report = told(stage)
    assert (report["status"], report["needed"]) == ("too_few_patients", 300)
    assert report["needed_of"] == "calibration"  # 450 training patients are enough, 225 are not
    assert "at least 300 calibration patients are needed" in capsys.readouterr().out
    assert report["false_alarm"] is None
    tensors = simulated()[0]["validation"]
    loaded = ChristoffelGuardian.load(stage.model("guardian"), tensors.history, None)
    assert not loaded.supported(tensors.states, tensors.doses).any()
    assert stage.report("figures", "guardian_power.svg").exists()


def test_the_verdict_says_what_is_promised_and_what_is_only_measured() -> None:
    layout = Layout.of(simulated()[0]["train"].history)
    lacking = ChristoffelGuardian.refusing(layout, Shortage("training", 160))
    assert guardian._verdict(lacking) == (
        "christoffel, too_few_patients, at least 160 training patients are needed: "
        "everything is refused"
    )
    promised = replace(lacking, shortage=None, threshold=ready(0.05))
    assert guardian._verdict(promised) == (
        "christoffel, ready: at most 0.05 of a patient's steps refused"
    )
    counts = Counts(layout, ready(None), None, torch.zeros(1, 1), 10)
    assert guardian._verdict(counts) == (
        "counts, ready: 3.1 % of a patient's steps refused in calibration, no promise"
    )


def ready(alpha: float | None) -> Threshold:
    return Threshold(alpha, 0.9, "ready", 100, 19, 0.031, 0.1)


def test_a_guardian_that_holds_rows_never_acts(tmp_path: Path) -> None:
    stage = workspace(tmp_path, 12, "kind: kde")
    with pytest.raises(SpecError, match="christoffel or counts"):
        guardian.run(stage)
    assert not stage.model("guardian").exists()
