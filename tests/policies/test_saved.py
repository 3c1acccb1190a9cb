"""A policy read back proposes the same to the last bit, and only where it was made for."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from ogsrl.errors import ModelError
from ogsrl.policies.actors import (
    ConstantActor,
    DenoisedActor,
    LevelsActor,
    MarginalActor,
    NetworkActor,
    ProtocolActor,
)
from ogsrl.policies.codes import DoseLevels, StateCodes
from ogsrl.policies.deployed import Actor, Deployed
from ogsrl.policies.networks import Perceptrons, Shape
from ogsrl.policies.saved import load_policy, save_policy
from ogsrl.preparation.history import History
from tests.guardian.cohorts import numeric, simulated
from tests.policies.clinicians import PROTOCOL, behaviour
from tests.policies.problems import one_choice, three_levels

HISTORY = simulated()[0]["train"].history
STATES = simulated()[0]["validation"].states
LEVELS = three_levels()
ABOUT = {"algorithm": "ogsrl", "seed": 0, "step": 250, "settings": {"beta": 0.25, "pull": None}}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(shape: Shape) -> Perceptrons:
    return Perceptrons.drawn(shape, generator(4))


def actors() -> dict[str, tuple[Actor, History, torch.Tensor]]:
    codes, levels, choices = StateCodes.of(LEVELS), DoseLevels.of(LEVELS), one_choice(200).states
    plain = drawn(Shape(1, STATES.shape[1], 16, 2))
    return {
        "network": (NetworkActor(plain), HISTORY, STATES),
        "levels": (LevelsActor(drawn(Shape(1, 3, 16, 6)), levels, codes), LEVELS, choices),
        "bcq": (LevelsActor(drawn(Shape(2, 3, 16, 6)), levels, codes, 0.3), LEVELS, choices),
        "constant": (ConstantActor((0.1, -1 / 3)), HISTORY, STATES),
        "marginal": (MarginalActor(behaviour().marginal), HISTORY, STATES),
        "denoised": (DenoisedActor(behaviour()), HISTORY, STATES),
        "protocol": (ProtocolActor.of(HISTORY, PROTOCOL), HISTORY, STATES),
    }


@pytest.mark.parametrize("name", actors())
def test_a_policy_read_back_proposes_the_same_bits_and_says_what_it_is(
    name: str, tmp_path: Path
) -> None:
    actor, history, states = actors()[name]
    save_policy(tmp_path / "once", actor, history, ABOUT)
    save_policy(tmp_path / "twice", actor, history, ABOUT)
    for file in (tmp_path / "once").iterdir():
        assert file.read_bytes() == (tmp_path / "twice" / file.name).read_bytes()
    read, about = load_policy(tmp_path / "once", history, behaviour())
    assert read is not None
    assert type(read) is type(actor)
    assert about == ABOUT
    proposed = read.propose(states, generator())
    assert torch.equal(proposed, actor.propose(states, generator()))
    assert len(proposed) == len(states)


def test_no_policy_is_saved_too_and_always_defers(tmp_path: Path) -> None:
    save_policy(tmp_path / "none", None, HISTORY, {"reason": "nothing feasible"})
    actor, about = load_policy(tmp_path / "none", HISTORY)
    assert actor is None
    assert about == {"reason": "nothing feasible"}
    decided = Deployed.of(actor, None, HISTORY).decide(STATES, generator())
    assert decided.deferred.all()


def test_what_is_saved_does_not_grow_with_patients(tmp_path: Path) -> None:
    for name, (actor, history, _) in actors().items():
        save_policy(tmp_path / name, actor, history, ABOUT)
        bytes_of_weights = (tmp_path / name / "weights.safetensors").stat().st_size
        numbers = actor.networks.flat.numel() if hasattr(actor, "networks") else 60
        assert bytes_of_weights <= 4 * numbers + 1_000
        config = json.loads((tmp_path / name / "config.json").read_text())["config"]
        assert set(config) <= {
            *("about", "states", "doses", "transforms", "form"),
            *("shape", "coded", "flexibility", "value", "grids", "behaviour", "protocol"),
        }


def test_another_layout_is_refused_by_what_differs(tmp_path: Path) -> None:
    actor = NetworkActor(drawn(Shape(1, 3, 8, 1)))
    save_policy(tmp_path / "p", actor, numeric(3), {})
    with pytest.raises(ModelError, match="other state columns or doses"):
        load_policy(tmp_path / "p", numeric(4))
    same, moved = numeric(3), numeric(3)
    column = moved.preparation.states["x1"]
    moved.preparation.states["x1"] = replace(column, scale=2.0)
    load_policy(tmp_path / "p", same)
    with pytest.raises(ModelError, match=r"transforms\.json"):
        load_policy(tmp_path / "p", moved)


def test_networks_that_do_not_fit_the_cohort_are_not_saved(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="this cohort needs 1 of 4 and 1"):
        save_policy(tmp_path / "p", NetworkActor(drawn(Shape(1, 3, 8, 1))), numeric(4), {})
    assert not (tmp_path / "p").exists()


def test_clinicians_without_variation_need_the_behaviour_they_were_made_from(
    tmp_path: Path,
) -> None:
    save_policy(tmp_path / "p", DenoisedActor(behaviour()), HISTORY, {})
    with pytest.raises(ModelError, match="behaviour that is not here"):
        load_policy(tmp_path / "p", HISTORY)
    with pytest.raises(ModelError, match="behaviour that is not here"):
        load_policy(tmp_path / "p", HISTORY, behaviour(trees=9))
    behaviour().save(tmp_path / "behaviour")
    again = type(behaviour()).load(tmp_path / "behaviour", HISTORY.preparation)
    actor, _ = load_policy(tmp_path / "p", HISTORY, again)
    assert actor is not None
    doses = DenoisedActor(behaviour()).propose(STATES, generator())
    assert torch.equal(actor.propose(STATES, generator()), doses)


def test_a_changed_or_foreign_directory_is_an_error_that_a_user_can_mend(tmp_path: Path) -> None:
    save_policy(tmp_path / "p", ConstantActor((0.0, 0.0)), HISTORY, {})
    with (tmp_path / "p" / "config.json").open("a") as config:
        config.write(" ")
    with pytest.raises(ModelError, match="somebody changed it"):
        load_policy(tmp_path / "p", HISTORY)
    behaviour().save(tmp_path / "b")
    with pytest.raises(ModelError, match="holds a model of kind 'behaviour'"):
        load_policy(tmp_path / "b", HISTORY)


@dataclass(frozen=True)
class Unknown:
    def propose(self, states: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return states[:, :2]


def test_what_has_no_form_and_what_is_no_json_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="class Unknown has no form"):
        save_policy(tmp_path / "p", Unknown(), HISTORY, {})
    for about in ({"x": torch.zeros(1)}, {"x": float("nan")}, {"x": (1, 2)}):
        with pytest.raises(ModelError, match="not plain JSON"):
            save_policy(tmp_path / "p", None, HISTORY, about)
