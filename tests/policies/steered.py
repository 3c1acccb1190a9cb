"""A place where the best dose, and what every dose costs, are known without any fitting.

x is drawn anew at each step and y tells how well the last dose suited, so that a dose decides its
own step alone:

    y' = 1 - (a - SLOPE x)^2,   chance to be unsafe next  (1 + a) / 2

The reward of a step is y'. Nobody dies, but where a high dose kills.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from ogsrl.dynamics.answers import Next
from ogsrl.policies.problem import Problem
from ogsrl.preparation.history import History
from tests.guardian.cohorts import planted
from tests.policies.problems import SLOPE, one_decision

STEPS = 4
#: Of the highest dose, where it kills.
DEADLY = 0.4
#: States that policies are asked about: many x, y at 0.
X = torch.linspace(-0.9, 0.9, 40)[:, None]
ASKED = torch.cat([X, torch.zeros_like(X)], 1)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def layout(reward: str = "y") -> History:
    """Two numbers, one dose, one constraint. A state does not know its step."""
    return planted(
        {"x": {"plausible": [-100, 100]}, "y": {"plausible": [-100, 100]}},
        {"a0": {"bounds": [-1, 1]}},
        max_steps=STEPS,
        reward={"step": reward},
        constraints={"unsafe": {"expression": "x > 5", "limit": {"absolute": 0.5}}},
    )


@dataclass(frozen=True)
class Place:
    """The place itself; it answers as fitted dynamics do.

    Attributes:
        history: The layout of states.
        deadly: Whether a high dose kills instead, and everybody is unsafe whatever is given.
    """

    history: History
    deadly: bool = False

    def step(
        self, states: torch.Tensor, doses: torch.Tensor, generator: torch.Generator, **_: Any
    ) -> Next:
        x, a = states[:, 0], doses[:, 0]
        death, unsafe = torch.zeros_like(a), (1 + a) / 2
        if self.deadly:
            death, unsafe = DEADLY * (1 + a) / 2, torch.full_like(a, 0.9)
        drawn = 2 * torch.rand(len(states), generator=generator) - 1
        following = torch.stack([drawn, 1 - (a - SLOPE * x).square()], 1)
        never, nothing = torch.zeros_like(x, dtype=torch.bool), torch.zeros_like(x)
        return Next(
            states=following,
            observed=following,
            expected=following,
            missing=states.new_zeros(len(states), 0),
            p_death=death,
            p_discharge=nothing,
            p_late_death=nothing,
            died=never,
            discharged=never,
            horizon=never,
            unsafe=unsafe[:, None],
            disagreement=None,
        )

    def step_with_gradient(
        self, states: torch.Tensor, doses: torch.Tensor, generator: torch.Generator
    ) -> Next:
        return self.step(states, doses, generator)


@dataclass(frozen=True)
class Anything:
    """Clinicians who give any dose."""

    def sample(self, states: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return 2 * torch.rand(len(states), 1, generator=generator) - 1


@dataclass(frozen=True)
class Mark:
    """Where a guardian refuses."""

    value: float


@dataclass(frozen=True)
class Below:
    """A guardian that knows doses up to a mark."""

    most: float

    @property
    def threshold(self) -> Mark:
        return Mark(self.most)

    def score(self, states: torch.Tensor, doses: torch.Tensor) -> torch.Tensor:
        del states
        return doses[:, 0]

    def accepts(self, scores: torch.Tensor) -> torch.Tensor:
        return scores <= self.most


def problem(
    limit: float = 10.0, most: float = 1.0, reward: str = "y", *, deadly: bool = False
) -> Problem:
    """What training knows of it; `limit` is d of the constraint, `most` the guardian's mark.

    Clinicians usually give nothing in particular: a dose of 0.
    """
    history, rows = layout(reward), one_decision(1_000)
    rows = replace(rows, states=torch.cat([rows.states, torch.zeros_like(rows.states)], 1))
    count = len(rows.row)
    return Problem(
        history=history,
        behaviour=Anything(),  # type: ignore[arg-type]
        dynamics=Place(history, deadly),  # type: ignore[arg-type]
        guardian=Below(most),  # type: ignore[arg-type]
        rows=rows,
        stay=torch.arange(count),
        after=torch.full((count,), -1),
        first=torch.arange(count),
        usual=torch.zeros(count, 1),
        to_go=torch.zeros(count, 3),
        known=torch.arange(count),
        limits={"unsafe": limit},
    )
