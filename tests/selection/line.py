"""The line (tests/dynamics/worlds.py) as a place where policies are chosen; its truth is known.

x rises with the dose. Where x is high patients die; where it is below -1 they are unsafe. So who
gives nothing is unsafe, who gives the maximum kills, and who steers x does better than clinicians.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch

from ogsrl.dynamics.config import DynamicsParams
from ogsrl.evaluation.rollouts import Model
from ogsrl.policies.deployed import Deployed
from ogsrl.preparation.history import History
from ogsrl.preparation.tensors import StayTensors
from ogsrl.selection.screen import second_model
from tests.dynamics.worlds import (
    KEPT,
    MAX_STEPS,
    NOISE,
    RISK,
    RISK_OF_X,
    line_cohort,
    line_table,
    prepare,
    push,
)

LOW = {"low": {"expression": "x < -1", "limit": {"relative": 0.9}}}
SMALL = DynamicsParams(members=2, hidden=16, hidden_ends=8, max_epochs=8, learning_rate=5e-3)


@dataclass(frozen=True)
class LineClinicians:
    """Nothing to two in five, else 0 to 300 mL."""

    history: History

    def sample(self, states: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        n = len(states)
        given = 50.0 * torch.randint(7, (n,), generator=generator)
        given = torch.where(torch.rand(n, generator=generator) < 0.4, 0.0, given)
        return scaled(self.history, given)


@dataclass(frozen=True)
class Gives:
    """The same to everybody, in mL."""

    history: History
    amount: float

    def propose(self, states: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        del generator
        return scaled(self.history, torch.full((len(states),), self.amount))


@dataclass(frozen=True)
class Steers:
    """As much as brings x to a goal."""

    history: History
    goal: float = -0.2

    def propose(self, states: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        del generator
        place = self.history.names.index("x")
        x = self.history.preparation.states["x"].inverse_torch(states[:, place])
        return scaled(self.history, steering(x, self.goal))


def steering(x: torch.Tensor, goal: float) -> torch.Tensor:
    """mL."""
    return ((goal - KEPT * x + 0.5) / push(np.array(1.0)).item()).clip(0, 500)


def scaled(history: History, given: torch.Tensor) -> torch.Tensor:
    scale = history.preparation.doses["fluid"]
    return torch.from_numpy(scale.forward(given.numpy()))[:, None].float()


@cache
def validation(patients: int = 1_500) -> StayTensors:
    return prepare(line_table(patients, 21), line_cohort(constraints=LOW))


@cache
def model() -> Model:
    """The second model."""
    return second_model(validation(), SMALL, torch.Generator().manual_seed(0))


def deployed(actor: Any) -> Deployed:
    """Without a guardian: what selection makes of a policy is to be seen."""
    return Deployed.of(actor, None, validation().history)


def truth(amount: float | None, goal: float | None, patients: int = 40_000) -> dict[str, float]:
    """Of who gives an amount, steers to a goal, or (neither) doses as clinicians do."""
    rng = np.random.default_rng(5)
    x, alive = rng.normal(0, 1, patients), np.ones(patients, bool)
    dead, cost, before = np.zeros(patients), np.zeros(patients), np.zeros(patients)
    for step in range(MAX_STEPS):
        if goal is not None:
            fluid = 50 * np.round(steering(torch.from_numpy(x), goal).numpy() / 50)
        elif amount is not None:
            fluid = np.full(patients, amount)
        else:
            some = 50 * rng.integers(0, 7, patients)
            fluid = np.where(rng.random(patients) < 0.4, 0, some)
        dies = alive & (rng.random(patients) < 1 / (1 + np.exp(-(RISK + RISK_OF_X * x))))
        leaves = alive & ~dies & (rng.random(patients) < 0.04)
        dead += dies
        cost += dies * (MAX_STEPS - step) / MAX_STEPS
        alive &= ~dies & ~leaves
        x = KEPT * x + push(fluid) - 0.5 + NOISE * rng.normal(0, 1, patients)
        if step < MAX_STEPS - 1:
            before += alive * (x < -1) / MAX_STEPS
    return {
        "mortality": float(dead.mean()),
        "cost:low": float((cost + before).mean()),
        "before": float(before.mean()),
    }
