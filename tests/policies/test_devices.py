"""Training where `device` says: everything moves there, and the same comes of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ogsrl.errors import SpecError
from ogsrl.policies.codes import DoseLevels
from ogsrl.policies.config import AlgorithmParams, TrainParams
from ogsrl.policies.devices import CPU, checked, moved
from ogsrl.policies.saved import load_policy
from ogsrl.policies.training import Place, train_seed
from tests.policies.problems import three_levels
from tests.policies.test_learner import SMALL, problem

ROOT = Path(__file__).parents[2]
NO_CUDA = "CUDA IS NOT HERE: `device: cuda` was tried on a pretended accelerator alone"


@pytest.mark.slow
def test_every_loop_comes_to_the_same_bits_on_a_pretended_accelerator() -> None:
    command = [sys.executable, "-m", "tests.policies.pretend"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3_000:]
    said = json.loads(done.stdout)
    assert {name: one["status"] for name, one in said.items()} == dict.fromkeys(said, "done")
    assert {name for name, one in said.items() if not one["same"]} == set()
    assert {"ogsrl", "offline", "cpo", "bc"} <= set(said)


def test_a_device_that_is_not_here_is_named_before_anything_is_trained() -> None:
    assert checked("cpu") == CPU
    with pytest.raises(SpecError, match=r"device: cuda:97 cannot be used here \(.*set it to cpu"):
        checked("cuda:97")


def test_what_is_moved_leaves_the_original_alone() -> None:
    made = problem()
    made.shared["kept"] = "here"
    try:
        other = moved(made, torch.device("meta"))
    finally:
        del made.shared["kept"]
    assert made.rows.states.device == CPU
    assert other.device == other.dynamics.fitted.noise.device == torch.device("meta")
    assert other.shared is not made.shared
    assert other.history.names == made.history.names


def test_levels_are_made_where_tensors_are_made() -> None:
    with torch.device("meta"):
        assert DoseLevels.of(three_levels()).levels.device == torch.device("meta")
    assert DoseLevels.of(three_levels()).levels.device == CPU


@pytest.mark.skipif(not torch.cuda.is_available(), reason=NO_CUDA)
def test_a_seed_trains_on_cuda_and_its_policy_is_read_on_the_processor(tmp_path: Path) -> None:
    there = moved(problem(), checked("cuda"))
    place = Place(tmp_path / "policies", tmp_path / "checkpoint", "these data")
    entry = AlgorithmParams(name="ogsrl", ogsrl=SMALL)
    done = train_seed(there, entry, TrainParams(steps=40, checkpoint_every=20), 3, place)
    assert (done.status, done.steps) == ("done", [20, 40])
    actor, _ = load_policy(place.policy(40), problem().history)
    assert actor is not None
    proposed = actor.propose(problem().rows.states[:100], torch.Generator().manual_seed(0))
    assert proposed.device == CPU
    assert bool(proposed.isfinite().all())
