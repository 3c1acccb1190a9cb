"""OGSRL's loop where the best dose, its cost and the region are known without any fitting."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

from ogsrl.dynamics.answers import Next
from ogsrl.errors import ModelError
from ogsrl.policies.config import CpoParams, DatasetParams, OgsrlParams
from ogsrl.policies.cpo import Cpo
from ogsrl.policies.learner import Learner
from ogsrl.policies.problem import Problem
from ogsrl.policies.rollouts import World
from ogsrl.preparation.history import History
from tests.guardian.cohorts import planted
from tests.policies.problems import best_dose, one_decision
from tests.policies.steered import ASKED, STEPS, Anything, Below, X, generator, problem

SMALL = OgsrlParams(
    hidden=32,
    start_steps=100,
    critic_start_steps=10,
    refresh=20,
    pool=1,
    starts=300,
    first_decisions=200,
    horizon=2,
    batch_size=128,
    value_batch=128,
    actor_rate=5e-3,
    target_rate=0.05,
    disagreement=0.0,
    refusal_limit=0.5,
    dataset=DatasetParams(weight=0.0),
)
#: The guardian's mark.
MOST = 0.1


def trained(made: Problem, steps: int = 400, **settings: Any) -> Learner:
    learner = Learner(made, SMALL.model_copy(update=settings), 0, steps)
    learner.begin()
    list(learner.train(steps))
    return learner


def dosed(learner: Learner) -> torch.Tensor:
    return learner.policy.propose(ASKED, generator())


def shares(learner: Learner) -> dict[str, float]:
    """Of what it saves, in the place itself: constraints and refusals, as shares of steps."""
    made = learner.problem
    world = World(learner.deployed, made.behaviour, made.dynamics)
    found = world.follow(made.rows.states, torch.ones(3), generator(9))[1]
    return dict(zip(made.quantities, found.totals.tolist(), strict=True))


def test_it_finds_the_best_dose() -> None:
    free = trained(problem(most=2.0))
    assert float((dosed(free) - best_dose(X)).abs().mean()) < 0.1


def test_a_limit_at_half_of_what_the_best_dose_costs_binds_and_the_true_cost_falls() -> None:
    free = trained(problem(most=2.0))
    half = shares(free)["unsafe"] / 2
    bound = trained(problem(limit=half, most=2.0), integral=2.0, proportional=4.0, aim=1.0)
    assert float(free.costs.active[0]) == 0
    assert float(bound.costs.active[0]) > 0.5
    assert shares(bound)["unsafe"] < 1.4 * half < 0.75 * shares(free)["unsafe"]
    assert float(dosed(bound).mean()) < float(dosed(free).mean()) - 0.2


def test_the_region_s_edge_holds_proposals_inside_and_nothing_else_does() -> None:
    held = trained(problem(most=MOST), refusal_limit=0.04)
    loose = trained(problem(most=MOST), refusal_limit=0.04, margin_weight=0.0)
    best = best_dose(X)[:, 0]
    assert float(best.max()) > 3 * MOST
    beyond = best > MOST
    assert float((dosed(held)[beyond, 0] <= MOST).float().mean()) > 0.9
    assert float((dosed(loose)[beyond, 0] <= MOST).float().mean()) < 0.5
    assert shares(held)["refusal"] < 0.05 < shares(loose)["refusal"]
    # inside it still does what is best
    inside = best < MOST - 0.2
    assert float((dosed(held)[inside, 0] - best[inside]).abs().mean()) < 0.15


def test_where_it_is_refused_it_feels_the_edge_alone_and_is_masked_out_of_the_rest() -> None:
    for weight in (0.0, 2.0):
        params = SMALL.model_copy(update={"margin_weight": weight})
        learner = Learner(problem(most=MOST), params, 0, 10)
        learner.begin()
        learner.refresh()
        states = ASKED[:20]
        proposed = torch.full((20, 1), MOST + 0.2)
        proposed[10:] = MOST - 0.5
        proposed.requires_grad_(True)
        loss = learner._actor_loss(states, proposed, torch.zeros(0, 1))
        (slope,) = torch.autograd.grad(loss.total, proposed)
        assert float(loss.refused) == 0.5
        refused, acting = slope[:10], slope[10:]
        assert bool((refused == 0).all()) if not weight else bool((refused > 0).all())
        assert bool((acting != 0).all())


def test_refusals_weigh_what_their_multiplier_says_and_nothing_without_a_guardian() -> None:
    learner = Learner(problem(most=MOST), SMALL, 0, 10)
    learner.refusals.update(torch.tensor([0.9]))
    assert float(learner.refusals.values[0]) > 0
    assert float(learner._weights()[-1]) == float(learner.refusals.values[0])
    unguarded = Learner(problem(most=MOST), SMALL.model_copy(update={"guardian": False}), 0, 10)
    assert float(unguarded._weights()[-1]) == 0


def test_of_stays_that_are_short_beside_the_horizon_refusals_are_bounded_by_the_steps_lived() -> (
    None
):
    made = problem(most=MOST)
    assert made.lived == 1 / STEPS  # its logged stays have one decision
    learner = Learner(made, SMALL.model_copy(update={"refusal_limit": 0.1}), 0, 10)
    assert float(learner.refusals.limits[0]) == pytest.approx(2 * 0.1 / STEPS)


# states that hold codes

WARDS = 30
BEST = torch.where(torch.arange(WARDS) % 2 == 0, 0.8, -0.8)


def wards() -> History:
    names = [f"w{i}" for i in range(WARDS)]
    return planted(
        {"ward": {"kind": "categorical", "levels": names}, "y": {"plausible": [-100, 100]}},
        {"a0": {"bounds": [-1, 1]}},
        max_steps=STEPS,
        reward={"step": "y"},
        constraints={"unsafe": {"expression": "y > 5", "limit": {"absolute": 0.5}}},
    )


@dataclass(frozen=True)
class Wards:
    """Each ward has a best dose of its own; the next ward is any."""

    def step(
        self, states: torch.Tensor, doses: torch.Tensor, generator: torch.Generator, **_: Any
    ) -> Next:
        ward, a = states[:, 0].long(), doses[:, 0]
        nothing, never = torch.zeros(len(a)), torch.zeros(len(a), dtype=torch.bool)
        drawn = torch.randint(WARDS, (len(a),), generator=generator).float()
        following = torch.stack([drawn, 1 - (a - BEST[ward]).square()], 1)
        return Next(
            states=following,
            observed=following,
            expected=following,
            missing=states.new_zeros(len(a), 0),
            p_death=nothing,
            p_discharge=nothing,
            p_late_death=nothing,
            died=never,
            discharged=never,
            horizon=never,
            unsafe=nothing[:, None],
            disagreement=None,
        )

    def step_with_gradient(
        self, states: torch.Tensor, doses: torch.Tensor, generator: torch.Generator
    ) -> Next:
        return self.step(states, doses, generator)


def coded() -> Problem:
    rows = one_decision(1_000)
    ward = torch.randint(WARDS, (1_000,), generator=generator()).float()
    states = torch.stack([ward, torch.zeros(1_000)], 1)
    rows = replace(rows, states=states, next_states=torch.zeros_like(states))
    made = problem(most=2.0)
    return replace(
        made,
        history=wards(),
        rows=rows,
        dynamics=Wards(),  # type: ignore[arg-type]
        behaviour=Anything(),  # type: ignore[arg-type]
        guardian=Below(2.0),  # type: ignore[arg-type]
    )


def of_each_ward(learner: Learner | Cpo) -> torch.Tensor:
    states = torch.stack([torch.arange(WARDS).float(), torch.zeros(WARDS)], 1)
    return learner.policy.propose(states, generator())[:, 0]


def test_codes_are_no_numbers_every_ward_gets_its_own_best_dose() -> None:
    learner = trained(coded(), 600)
    assert float((of_each_ward(learner) - BEST).abs().mean()) < 0.1
    assert learner.policy.codes is not None


def test_the_guarded_cpo_sees_a_column_a_level_too() -> None:
    params = CpoParams(
        hidden=16, start_steps=50, critic_start_steps=0, critic_steps=10, value_batch=128,
        stays=300, steps_per_update=1, damping=1e-2, radius=0.06,
    )  # fmt: skip
    learner = Cpo(coded(), params, 0, 40)
    learner.begin()
    list(learner.train(40))
    right = (of_each_ward(learner).sign() == BEST.sign()).float().mean()
    assert float(right) > 0.9


def test_d3rlpy_s_interface_refuses_codes_that_it_would_take_as_numbers() -> None:
    from ogsrl.policies import OGSRLConfig  # noqa: PLC0415 - d3rlpy takes seconds to import

    with pytest.raises(ModelError, match="codes"):
        OGSRLConfig(steps=10).create().attach(coded())
