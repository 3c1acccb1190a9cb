"""OGSRL among levels: it finds the best combination, keeps limits, and defers only when told."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ogsrl.dynamics.answers import Next
from ogsrl.errors import ModelError
from ogsrl.policies.actors import LevelsActor
from ogsrl.policies.categorical import LevelsLearner
from ogsrl.policies.codes import DoseLevels
from ogsrl.policies.config import AlgorithmParams, DatasetParams, OgsrlParams, TrainParams
from ogsrl.policies.problem import Problem
from ogsrl.policies.rollouts import World
from ogsrl.policies.saved import load_policy
from ogsrl.policies.training import Place, learner_of, train_seed
from ogsrl.preparation.history import History
from tests.guardian.cohorts import planted
from tests.policies.problems import best_levels, one_choice
from tests.policies.steered import Below

STEPS = 3
SMALL = OgsrlParams(
    hidden=32,
    start_steps=60,
    critic_start_steps=10,
    refresh=20,
    starts=100,
    first_decisions=60,
    horizon=2,
    batch_size=64,
    value_batch=128,
    actor_rate=5e-3,
    disagreement=0.0,  # this model has one member
    dataset=DatasetParams(weight=1e-4, neighbours=8),
)


def layout() -> History:
    """x, a ward, and how many of the last doses were the best ones."""
    return planted(
        {
            "x": {"plausible": [-100, 100]},
            "ward": {"kind": "categorical", "levels": ["a", "b"]},
            "y": {"plausible": [-100, 100]},
        },
        {
            "fluid": {"kind": "ordinal", "levels": ["none", "some", "much"]},
            "drug": {"kind": "ordinal", "levels": ["no", "yes"]},
        },
        max_steps=STEPS,
        reward={"step": "y"},
        constraints={"unsafe": {"expression": "x > 5", "limit": {"absolute": 0.5}}},
    )


@dataclass(frozen=True)
class Ward:
    """Who gets the best levels is paid for it; the drug is unsafe for one in two."""

    history: History

    def step(
        self, states: torch.Tensor, doses: torch.Tensor, generator: torch.Generator, **_: Any
    ) -> Next:
        count = len(states)
        right = (doses == best_levels(states[:, :2])).float().sum(1)
        x = 2 * torch.rand(count, generator=generator) - 1
        ward = torch.randint(2, (count,), generator=generator).float()
        following = torch.stack([x, ward, right], 1)
        nothing, never = torch.zeros(count), torch.zeros(count, dtype=torch.bool)
        unsafe = 0.5 * (doses[:, 1] > 0).float()
        ends = {"died": never, "discharged": never, "horizon": never}
        chances = dict.fromkeys(("p_death", "p_discharge", "p_late_death"), nothing)
        return Next(
            states=following,
            observed=following,
            expected=following,
            missing=torch.zeros(count, 0),
            unsafe=unsafe[:, None],
            disagreement=None,
            **ends,
            **chances,
        )


@dataclass(frozen=True)
class AnyLevel:
    """Clinicians who give any combination."""

    levels: DoseLevels

    def sample(self, states: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        cells = torch.randint(len(self.levels), (len(states),), generator=generator)
        return self.levels.levels[cells].float()


def problem(limit: float = 9.0, most: float = 1.0) -> Problem:
    """A guardian refuses more fluid than `most`."""
    history, rows = layout(), one_choice(600)
    nothing = torch.zeros(600, 1)
    rows = replace(rows, states=torch.cat([rows.states, nothing], 1))
    return Problem(
        history=history,
        behaviour=AnyLevel(DoseLevels.of(history)),  # type: ignore[arg-type]
        dynamics=Ward(history),  # type: ignore[arg-type]
        guardian=Below(most),  # type: ignore[arg-type]
        rows=rows,
        stay=torch.arange(600),
        after=torch.full((600,), -1),
        first=torch.arange(600),
        usual=torch.tensor([[0.0, -1.0]]).expand(600, -1),
        to_go=torch.zeros(600, 3),
        known=torch.arange(600),
        limits={"unsafe": limit},
    )


def trained(made: Problem, steps: int, **settings: Any) -> LevelsLearner:
    learner = LevelsLearner(made, SMALL.model_copy(update=settings), 0, steps)
    learner.begin()
    list(learner.train(steps))
    return learner


def right(learner: LevelsLearner) -> torch.Tensor:
    """(doses,) how often each is the best one."""
    states = learner.problem.rows.states
    doses = learner.policy.propose(states, torch.Generator())
    return (doses == best_levels(states[:, :2])).float().mean(0)


def value(learner: LevelsLearner) -> dict[str, float]:
    made = learner.problem
    world = World(learner.deployed, made.behaviour, made.dynamics)
    g = torch.Generator().manual_seed(1)
    _, shares = world.follow(made.rows.states, torch.ones(3), g)
    return dict(zip(made.quantities, shares.totals.tolist(), strict=True))


def test_it_starts_as_the_clinicians_usual_levels() -> None:
    begun = trained(problem(), 0)
    doses = begun.policy.propose(begun.problem.rows.states, torch.Generator())
    assert torch.equal(doses, begun.problem.usual)


def test_it_finds_the_best_levels() -> None:
    found = right(trained(problem(), 150))
    assert bool((found > 0.93).all())
    assert bool((right(trained(problem(), 0)) < 0.6).all())


def test_a_limit_at_half_the_cost_binds_and_the_cost_falls() -> None:
    free = value(trained(problem(), 150))
    assert free["unsafe"] == pytest.approx(0.25, abs=0.05)  # the drug to one in two
    bound = trained(problem(limit=free["unsafe"] / 2), 150, integral=3.0, proportional=0.0)
    assert bound.measured()["active_unsafe"] > 0.3
    assert value(bound)["unsafe"] < 0.8 * free["unsafe"]
    assert float(right(bound)[0]) > 0.9  # fluid costs nothing


def test_levels_that_are_refused_are_not_run_into() -> None:
    """Much fluid is refused; then clinicians act, who are right in one of three."""
    learner = trained(problem(most=0.5), 150)
    states = learner.problem.rows.states
    doses = learner.policy.propose(states, torch.Generator())
    assert float((doses[:, 0] > 0.5).float().mean()) < 0.06
    # where much would be best, nothing better is left
    low = states[:, 0] < -0.1
    assert float((doses[low, 0] == -1).float().mean()) > 0.9


def test_clinicians_are_copied_the_more_the_heavier_they_weigh() -> None:
    apart = []
    for weight in (0.0, 50.0):
        learner = trained(problem(), 60, clinicians=weight)
        rows = learner.problem.rows
        chance = learner.actor.answer(learner.codes.inputs(rows.states))[0].softmax(1)
        cells = learner.levels.codes(rows.doses)
        apart.append(float(-chance[torch.arange(len(cells)), cells].log().mean()))
    assert apart[1] < apart[0] - 0.3


def test_ordinal_cohorts_are_given_this_loop_and_a_stopped_run_goes_on(tmp_path: Path) -> None:
    algorithm = AlgorithmParams(name="ogsrl", ogsrl=SMALL)
    made, train = problem(limit=0.1), TrainParams(steps=60, checkpoint_every=20)
    assert isinstance(learner_of(made, algorithm, 0, 10), LevelsLearner)

    def place(name: str) -> Place:
        return Place(tmp_path / name / "policies", tmp_path / name / "checkpoint", "these")

    def stop(steps: int) -> None:
        seen.append(steps)
        if sum(seen) >= 40:
            raise KeyboardInterrupt

    seen: list[int] = []
    whole = train_seed(made, algorithm, train, 3, place("whole"))
    with pytest.raises(KeyboardInterrupt):
        train_seed(made, algorithm, train, 3, place("parts"), stop)
    assert train_seed(made, algorithm, train, 3, place("parts")) == whole
    assert whole.status == "done"
    actor, _ = load_policy(place("whole").policy(60), made.history)
    assert isinstance(actor, LevelsActor)


def test_more_combinations_than_can_be_tried_are_refused() -> None:
    history = planted(
        {"x": {"plausible": [-1, 1]}},
        {n: {"kind": "ordinal", "levels": list("abcdefghi")} for n in ("one", "two")},
    )
    with pytest.raises(ModelError, match="one, two: 81 combinations of levels, at most 64"):
        LevelsLearner(replace(problem(), history=history), SMALL, 0, 1)
