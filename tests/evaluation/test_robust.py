"""Robust fitted Q finds what the worst confounder of each step could do, and no more."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from ogsrl.errors import EstimateError, ModelError
from ogsrl.evaluation.config import FqeParams
from ogsrl.evaluation.robust import Robust, fit_robust
from ogsrl.evaluation.sensitivity import Widening
from tests.evaluation.ward import GIVEN, STEPS, Ward, WardClinicians, acting

SMALL = FqeParams(
    fits=1,
    networks=2,
    hidden=24,
    start_steps=100,
    steps=2_000,
    batch_size=256,
    learning_rate=2e-3,
    target_rate=0.05,
    dose_weight=1,
    draws=8,
)
GAMMAS = (2.0,)
#: As little as tells who is widened at all.
QUICK = SMALL.model_copy(update={"steps": 30, "start_steps": 10})
#: No dose is a hazard for the ill: there clinicians act.
HAZARD = {"untreated": {"expression": "x > 0 and a < 0"}}


@pytest.fixture(scope="module")
def ward() -> Ward:
    return Ward.draw(5_000, 1, hazards=HAZARD)


def fitted(
    ward: Ward,
    doses: dict[str, float | None],
    gammas: tuple[float, ...] = GAMMAS,
    params: FqeParams = QUICK,
    seed: int = 0,
) -> Robust:
    policies = {name: acting(dose, ward.stays.history) for name, dose in doses.items()}
    generator = torch.Generator().manual_seed(seed)
    names = ("mortality", "value")
    return fit_robust(ward.stays, policies, WardClinicians(), params, gammas, generator, names)


@pytest.fixture(scope="module")
def robust(ward: Ward) -> Robust:
    return fitted(ward, {"treats": 1.0, "does nothing": -1.0}, params=SMALL)


@pytest.fixture(scope="module")
def quick(ward: Ward) -> Robust:
    return fitted(ward, {"treats": 1.0, "no policy": None}, (3.0, 1.0, 1.3))


def greatest(chance: np.ndarray, outcome: np.ndarray, gamma: float) -> float:
    """sup E[m T] over m in [1 / gamma, gamma] with mean 1: the large ones first."""
    order = np.argsort(-outcome)
    room, total = 1 - 1 / gamma, float(chance @ outcome) / gamma
    for p, t in zip(chance[order], outcome[order], strict=True):
        more = min(room, p * (gamma - 1 / gamma))
        total, room = total + more * t, room - more
    return total


def induction(ward: Ward, dose: int, gamma: float, side: int, quantity: str) -> float:
    """Backward induction in the ward as the log counts it; doing nothing defers for the ill."""
    value = np.zeros(2)
    for t in range(STEPS - 1, -1, -1):
        q = np.zeros((2, 2, 2))  # widened or not, state, dose
        for s in (0, 1):
            for a in (0, 1):
                ends = ward.end[t][(ward.state[t] == s) & (ward.dose[t] == a)]
                p = np.bincount(ends, minlength=5) / len(ends)
                if quantity == "mortality":
                    outcome = np.array([value[0], value[1], 1, 1, 0])
                else:
                    outcome = np.array([0.9 * value[0], 0.9 * value[1], -1, -1, 1])
                q[0, s, a] = p @ outcome
                q[1, s, a] = side * greatest(p, side * outcome, gamma)
        clinicians = (1 - GIVEN) * q[0, :, 0] + GIVEN * q[0, :, 1]
        value = q[1, :, 1] if dose else np.array([q[1, 0, 0], clinicians[1]])
    return float(value[ward.state[0]].mean())


@pytest.mark.parametrize("quantity", ["mortality", "value"])
@pytest.mark.parametrize("policy", ["treats", "does nothing"])
def test_bounds_are_those_of_the_robust_recursion(
    ward: Ward, robust: Robust, policy: str, quantity: str
) -> None:
    tolerance = 0.06 if quantity == "value" else 0.03  # value spans two units
    for g, gamma in enumerate((1.0, *GAMMAS)):
        for k, side in enumerate((-1, 1)):
            known = induction(ward, int(policy == "treats"), gamma, side, quantity)
            found = float(robust.bounds[policy][quantity][g, k].mean())
            assert found == pytest.approx(known, abs=tolerance), (gamma, side)


def test_a_confounder_moves_bounds_by_more_than_the_tolerance_and_not_by_everything(
    robust: Robust,
) -> None:
    for policy in ("treats", "does nothing"):
        wide = robust.widening(policy, "mortality", 2.0)
        mean = float(robust.bounds[policy]["mortality"][0].mean())
        assert 0.06 < mean - wide.down < mean - 0.06
        assert mean + 0.06 < mean + wide.up < 0.6


def test_nothing_is_added_at_gamma_1_and_never_less_as_it_grows(quick: Robust) -> None:
    assert quick.gammas == (1, 1.3, 3)
    for policy in quick.policies:
        for quantity in quick.quantities:
            each = [quick.widening(policy, quantity, gamma) for gamma in quick.gammas]
            assert (each[0].down, each[0].up) == (0, 0)
            assert each[0].down <= each[1].down <= each[2].down
            assert each[0].up <= each[1].up <= each[2].up
    assert quick.widening("treats", "mortality", 3.0).up > 0


def test_gamma_1_alone_adds_nothing(ward: Ward) -> None:
    alone = fitted(ward, {"treats": 1.0}, (1.0,))
    assert alone.gammas == (1.0,)
    assert alone.widening("treats", "mortality", 1.0) == Widening(0.0, 0.0)


def test_luck_is_shared_so_that_a_gamma_hardly_above_1_adds_hardly_anything(ward: Ward) -> None:
    params = SMALL.model_copy(update={"steps": 300, "networks": 1})
    wide = fitted(ward, {"treats": 1.0}, (1.001,), params).widening("treats", "mortality", 1.001)
    assert wide.down < 0.004
    assert wide.up < 0.004


def test_who_always_defers_is_not_widened(quick: Robust) -> None:
    wide = quick.widening("no policy", "mortality", 3.0)
    assert (wide.down, wide.up) == (0, 0)


def test_a_crossing_of_fits_is_no_shrinking(quick: Robust) -> None:
    bounds = torch.zeros(3, 2, 1, 4)
    bounds[1, 1], bounds[2, 1] = 0.2, 0.1
    crossed = replace(quick, bounds={"treats": {"mortality": bounds}})
    one, two = (crossed.widening("treats", "mortality", gamma) for gamma in (1.3, 3.0))
    assert one == two
    assert one.up == pytest.approx(0.2)


def test_same_seed_same_bits(ward: Ward) -> None:
    made = [fitted(ward, {"treats": 1.0}, seed=seed).bounds["treats"] for seed in (4, 4, 5)]
    one, two, other = (each["mortality"] for each in made)
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_what_cannot_be_told_is_refused(ward: Ward, robust: Robust) -> None:
    with pytest.raises(ModelError, match=r"Gamma 1\.7 was not fitted; known: 1, 2$"):
        robust.widening("treats", "mortality", 1.7)
    with pytest.raises(ModelError, match="refusal of treats was not fitted"):
        robust.widening("treats", "refusal", 1.3)
    with pytest.raises(EstimateError, match=r"0\.5 found"):
        fitted(ward, {"treats": 1.0}, (0.5,))
    with pytest.raises(ModelError, match="no policy or no decision"):
        fitted(ward, {})
