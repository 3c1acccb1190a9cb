"""The select stage: what it saves is what it chose; with nothing to choose from it says why."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from ogsrl.behaviour.policy import Behaviour
from ogsrl.guardian.counts import Counts
from ogsrl.policies.actors import LevelsActor
from ogsrl.policies.saved import load_policy
from ogsrl.preparation.history import History
from ogsrl.selection.config import SelectParams
from ogsrl.selection.report import nothing_to_select_report
from pipelines import guardian, select, train
from pipelines.parts import load_preparation
from pipelines.stage import Stage
from tests.pipelines.test_guardian_stage import workspace
from tests.pipelines.test_train_stage import PARAMS, ordinal

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


@pytest.fixture(scope="module")
def chosen(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """Three algorithms, two seeds, two checkpoints of one, limits that are easily met."""
    train_params = {"algorithms": ["bc", "ogsrl", "peer"], "seeds": [0, 3], "steps": 20}
    fqe = {"fits": 2, "networks": 1, "hidden": 16, "steps": 150, "start_steps": 100}
    params = PARAMS | {
        "guardian": {"kind": "counts", "min_stays": 40, "max_refusal": 0.9},
        "train": train_params | {"checkpoint_every": 10},
        "select": {"screen_stays": 300, "no_worse": False, "fqe": fqe, "predictions": fqe},
    }
    made = ordinal(tmp_path_factory.mktemp("chosen"), params, {"absolute": 0.9})
    train.run(made)
    stage = Stage("select", "table", made.root)
    select.run(stage)
    return stage


def test_every_policy_that_was_saved_is_a_candidate_under_its_own_name(chosen: Stage) -> None:
    report = json.loads(chosen.report("selection.json").read_text(encoding="utf-8"))
    assert report["cloning_compared"]
    saved = {
        (path.parent.parent.name, path.parent.name, path.name)
        for path in chosen.model("policies").glob("*/seed_*/step_*")
    }
    told = {
        (one["algorithm"], f"seed_{one['seed']}", one["checkpoint"]) for one in report["candidates"]
    }
    assert told == saved
    assert len(told) == 8
    history = History.of(load_preparation(chosen))
    behaviour = Behaviour.load(chosen.model("behaviour"), history.preparation)
    region = Counts.load(chosen.model("guardian"), history, behaviour)
    states = torch.arange(2.0)[:, None]
    networks = []
    for one in select._candidates(chosen, history, behaviour, region):
        folder = chosen.model("policies", one.algorithm, f"seed_{one.seed}", one.checkpoint)
        actor, about = load_policy(folder, history, behaviour)
        assert (about["algorithm"], about["seed"]) == (one.algorithm, one.seed)
        assert actor is not None
        assert one.deployed.actor is not None
        assert one.deployed.guardian is region
        theirs, ours = (a.propose(states, torch.Generator()) for a in (actor, one.deployed.actor))
        assert torch.equal(theirs, ours)
        if one.algorithm == "peer":
            assert isinstance(one.deployed.actor, LevelsActor)
            networks.append((one.deployed.actor.networks.flat, actor))
    (first, own), (second, other) = networks
    assert not torch.equal(first, second)
    assert isinstance(own, LevelsActor)
    assert isinstance(other, LevelsActor)
    assert torch.equal(first, own.networks.flat)
    assert torch.equal(second, other.networks.flat)


def test_what_is_put_forward_is_bit_for_bit_the_checkpoint_that_was_chosen(chosen: Stage) -> None:
    report = json.loads(chosen.report("selection.json").read_text(encoding="utf-8"))
    assert report["status"] == "selected"
    who = report["chosen"]
    (winner,) = [one for one in report["candidates"] if one["chosen"]]
    assert {name: winner[name] for name in who} == who
    folder = chosen.model("policies", who["algorithm"], f"seed_{who['seed']}", who["checkpoint"])
    weights = [p for p in folder.iterdir() if p.suffix in (".npz", ".safetensors")]
    assert weights
    for file in weights:
        assert chosen.model("selected", file.name).read_bytes() == file.read_bytes()
    _, about = load_policy(chosen.model("selected"), History.of(load_preparation(chosen)))
    assert about == {
        "status": "selected",
        "algorithm": who["algorithm"],
        "seed": who["seed"],
        "step": who["checkpoint"],
    }


def test_its_figures_are_drawn_and_each_loser_has_a_reason(chosen: Stage) -> None:
    report = json.loads(chosen.report("selection.json").read_text(encoding="utf-8"))
    assert all(one["reason"] for one in report["candidates"])
    for name in ("select_candidates", "select_finalists"):
        assert chosen.report("figures", f"{name}.svg").stat().st_size > 1000


def test_a_matrix_without_cloning_is_told_to_have_none(
    chosen: Stage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(chosen.root, tmp_path / "alone")
    stage = Stage("select", "table", tmp_path / "alone")
    params = yaml.safe_load((stage.root / "params.yaml").read_text())
    params["train"]["algorithms"] = ["ogsrl"]
    (stage.root / "params.yaml").write_text(yaml.safe_dump(params))
    select.run(stage)
    report = json.loads(stage.report("selection.json").read_text(encoding="utf-8"))
    assert not report["cloning_compared"]
    assert "nobody is compared with behaviour cloning" in capsys.readouterr().out
