"""The train stage on an ordinal cohort: tables are planned, and what has no form there says so."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml

from ogsrl.behaviour.config import BehaviourParams, BoostedParams
from ogsrl.behaviour.fitting import fit as fit_behaviour
from ogsrl.dynamics.counts import fit_counts
from ogsrl.guardian.config import GuardianParams
from ogsrl.guardian.counts import Counts
from ogsrl.guardian.protocol import Rows
from ogsrl.policies.actors import LevelsActor, TableActor
from ogsrl.policies.saved import load_policy
from ogsrl.preparation.history import History
from pipelines import train
from pipelines.stage import Stage
from tests.guardian.cohorts import layout
from tests.policies.tables import table_frames
from tests.workspace import REPOSITORY

PARAMS: dict[str, Any] = {
    "cohort": "table",
    "guardian": {"kind": "counts", "min_stays": 40},
    "train": {
        "algorithms": ["bc", "ogsrl", "peer", "td3bc"],
        "seeds": [0],
        "steps": 20,
        "checkpoint_every": 10,
    },
    "algorithms": {
        "bc": {"ogsrl": {"cloning_only": True, "start": "logged"}},
        "ogsrl": {"ogsrl": {"refresh": 10}},
        "peer": {"peer": "d3rlpy_bc"},
        "td3bc": {"peer": "d3rlpy_td3bc"},
    },
}


def ordinal(
    root: Path,
    params: dict[str, Any],
    limit: dict[str, float] | None = None,
    patients: int = 1_500,
) -> Stage:
    """Everything that training and selection read of a table cohort, fitted."""
    stays, prepared = table_frames(patients)
    preparation = stays.history.preparation
    (root / "data_contracts").mkdir()
    told = preparation.cohort.model_dump(mode="json", exclude_defaults=True)
    told["source"] = {"kind": "table", "path": "nowhere.parquet"}  # never read here
    if limit is not None:
        told["constraints"]["ill"]["limit"] = limit
    (root / "data_contracts" / "table.yaml").write_text(yaml.safe_dump(told))
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    made = Stage("train", "table", root)
    made.data("prepared").mkdir(parents=True)
    preparation.save(made.data("prepared"))
    for part in ("train", "calibration", "validation"):
        prepared.to_parquet(made.data("prepared", f"{part}.parquet"))
    g, rows = torch.Generator().manual_seed(0), Rows.of(stays)
    boosted = BoostedParams(trees=5, scale_trees=2, depth=2, learning_rate=0.3, min_leaf=30)
    params = BehaviourParams(kinds=("boosted",), boosted=boosted)
    made.model().mkdir(parents=True)
    fit_behaviour(stays, stays, stays, params, g).save(made.model("behaviour"))
    fit_counts(stays, stays).save(made.model("dynamics"))
    region = Counts.fit([rows], layout(stays.history), GuardianParams(min_stays=40), g)
    calibrated = region.calibrate(rows.states, rows.doses, rows.patient, 0.05)
    calibrated.save(made.model("guardian"))
    return made


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    made = ordinal(tmp_path_factory.mktemp("ordinal"), PARAMS)
    train.run(made)
    return made


def status(stage: Stage, name: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(
        stage.model("policies", name, "status.json").read_text(encoding="utf-8")
    )
    return told


def test_an_ordinal_cohort_is_planned_cloned_and_given_to_d3rlpy(stage: Stage) -> None:
    history: History = table_frames()[0].history
    forms = {"bc": (TableActor, 1200), "ogsrl": (TableActor, 20), "peer": (LevelsActor, 20)}
    for name, (form, step) in forms.items():
        assert status(stage, name)["status"] == "trained", name
        actor, about = load_policy(stage.model("policies", name, "seed_0", f"step_{step}"), history)
        assert isinstance(actor, form)
        assert about["algorithm"] == name
    log = pd.read_parquet(stage.model("policies", "ogsrl", "log.parquet"))
    assert log["step"].tolist() == [0, 10]
    assert float(log["deaths"].iloc[-1]) < float(log["deaths"].iloc[0])
    assert stage.report("figures", "train_curves_ogsrl.svg").exists()


def test_what_has_no_form_for_ordinal_doses_fails_alone_and_says_so(stage: Stage) -> None:
    told = status(stage, "td3bc")
    assert told["status"] == "no_form"
    said = "d3rlpy_td3bc: d3rlpy has it for no ordinal doses; take it out of `train`"
    assert told["seeds"] == {"0": {"status": said, "steps": []}}


def test_a_stage_run_again_gives_the_same_bytes(stage: Stage) -> None:
    def read() -> dict[Path, bytes]:
        return {p: p.read_bytes() for p in stage.model("policies").rglob("*") if p.is_file()}

    before = read()
    train.run(stage)
    assert read() == before


def test_seeds_side_by_side_are_what_each_is_alone(stage: Stage, tmp_path: Path) -> None:
    shutil.copytree(stage.root, tmp_path / "two")
    two = Stage("train", "table", tmp_path / "two", "peer")
    seeds = {**PARAMS["train"], "seeds": [1, 0]}
    (two.root / "params.yaml").write_text(yaml.safe_dump({**PARAMS, "train": seeds}))
    train.run(two)
    assert list(status(two, "peer")["seeds"]) == ["1", "0"]
    alone, beside = (
        (at.model("policies", "peer", "seed_0", "step_20", "weights.safetensors")).read_bytes()
        for at in (stage, two)
    )
    assert alone == beside


def _hears_ctrl_c() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.slow
def test_ctrl_c_keeps_what_was_done_and_the_same_command_goes_on_bit_for_bit(
    stage: Stage, tmp_path: Path
) -> None:
    longer = {**PARAMS["train"], "seeds": [0, 1], "steps": 100, "checkpoint_every": 10}
    ends = {}
    for name in ("stopped", "whole"):
        shutil.copytree(stage.root, tmp_path / name)
        at = Stage("train", "table", tmp_path / name, "ogsrl")
        (at.root / "params.yaml").write_text(yaml.safe_dump({**PARAMS, "train": longer}))
        shutil.rmtree(at.model("policies"))
        command = [sys.executable, "-m", "pipelines", "train", "--cohort", "table"]
        command += ["--algorithm", "ogsrl"]
        asked: dict[str, Any] = {"cwd": at.root, "stdout": subprocess.PIPE, "text": True}
        asked["env"] = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        # a shell's background jobs ignore Ctrl-C, and what they start inherits that
        asked["preexec_fn"] = _hears_ctrl_c
        if name == "stopped":
            scratch = at.cache / "train" / "table" / "ogsrl"
            with subprocess.Popen(command, stderr=subprocess.PIPE, **asked) as running:
                while running.poll() is None and not list(scratch.glob("seed_1/policies/step_20")):
                    time.sleep(0.02)
                running.send_signal(signal.SIGINT)
                out, error = running.communicate(timeout=60)
            assert running.returncode == 130, out + error
            assert "what was done is kept; run it again, and it goes on" in out
            kept = len(list(scratch.glob("seed_*/policies/step_*")))
            assert 2 <= kept < 20
            assert not at.model("policies", "ogsrl").exists()
        subprocess.run(command, check=True, **asked)
        ends[name] = {
            path.relative_to(at.root): path.read_bytes()
            for path in at.model("policies").rglob("*")
            if path.is_file()
        }
    assert ends["stopped"] == ends["whole"]
    assert len([path for path in ends["whole"] if path.parent.name == "step_100"]) > 2
