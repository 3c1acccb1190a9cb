"""Small problems whose best doses are known, shared by tests of every learner."""

from __future__ import annotations

from functools import cache

import torch

from ogsrl.preparation.history import History
from ogsrl.preparation.tensors import Transitions
from tests.guardian.cohorts import numeric, planted

#: The best dose is this much of x.
SLOPE = 0.8
#: TD3+BC's weight of Q against the logged dose.
ALPHA = 2.5


def one_dose() -> History:
    """One number x0 and one dose a0, each in [-1, 1]."""
    return numeric(1)


def best_dose(states: torch.Tensor) -> torch.Tensor:
    """The dose of the greatest reward."""
    return SLOPE * states


@cache
def one_decision(rows: int = 4_000, seed: int = 0) -> Transitions:
    """Stays of one decision: reward 1 - (a - SLOPE x)^2, doses given whatever x is.

    Q(x, a) is the reward itself, and the clinicians' mean dose is 0.
    """
    generator = torch.Generator().manual_seed(seed)
    states, doses = 2 * torch.rand(2, rows, 1, generator=generator) - 1
    return Transitions(
        states=states,
        doses=doses,
        rewards=1 - (doses - best_dose(states)).square()[:, 0],
        costs=torch.zeros(rows, 0),
        next_states=torch.zeros(rows, 1),
        terminal=torch.ones(rows, dtype=torch.bool),
        row=torch.arange(rows),
    )


def td3bc_dose(states: torch.Tensor, alpha: float = ALPHA) -> torch.Tensor:
    r"""The dose that TD3+BC's objective is greatest at.

        E[lambda Q(x, pi(x)) - (pi(x) - a)^2], lambda = alpha / E|Q(x, pi(x))|

    With E[a|x] = 0 the maximum is pi = lambda / (1 + lambda) x the best dose; lambda is found by
    its own equation, E[Q] = 1 - E[best^2] / (1 + lambda)^2, x uniform.
    """
    weight, spread = alpha, SLOPE**2 / 3
    for _ in range(50):
        weight = alpha / (1 - spread / (1 + weight) ** 2)
    return weight / (1 + weight) * best_dose(states)


def cloned_dose(states: torch.Tensor) -> torch.Tensor:
    """The mean dose that clinicians gave."""
    return torch.zeros_like(states)


def three_levels() -> History:
    """One number and a code of two wards; doses of three and of two levels."""
    return planted(
        {
            "x0": {"plausible": [-100, 100]},
            "ward": {"kind": "categorical", "levels": ["a", "b"]},
        },
        {
            "fluid": {"kind": "ordinal", "levels": ["none", "some", "much"]},
            "drug": {"kind": "ordinal", "levels": ["no", "yes"]},
        },
    )


def best_levels(states: torch.Tensor) -> torch.Tensor:
    """Much fluid where x0 > 0, else none; the drug in ward b alone."""
    fluid = torch.where(states[:, 0] > 0, 1.0, -1.0)
    drug = torch.where(states[:, 1] == 1, 1.0, -1.0)
    return torch.stack([fluid, drug], 1)


@cache
def one_choice(rows: int = 3_000, seed: int = 0, skill: float = 0.0) -> Transitions:
    """Stays of one decision among levels; reward 1 for each dose that is the best one.

    Clinicians give the best levels in a share `skill` of stays, else any.
    """
    generator = torch.Generator().manual_seed(seed)
    x = 2 * torch.rand(rows, generator=generator) - 1
    ward = torch.randint(2, (rows,), generator=generator).float()
    states = torch.stack([x, ward], 1)
    fluid = torch.randint(3, (rows,), generator=generator) - 1.0
    drug = 2.0 * torch.randint(2, (rows,), generator=generator) - 1
    skilled = torch.rand(rows, 1, generator=generator) < skill
    doses = torch.where(skilled, best_levels(states), torch.stack([fluid, drug], 1))
    return Transitions(
        states=states,
        doses=doses,
        rewards=(doses == best_levels(states)).float().sum(1),
        costs=torch.zeros(rows, 0),
        next_states=torch.zeros(rows, 2),
        terminal=torch.ones(rows, dtype=torch.bool),
        row=torch.arange(rows),
    )
