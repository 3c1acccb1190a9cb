"""Planted stays of one number and two doses, and policies of a fixed dose over them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch

from ogsrl.evaluation.clinical import Clinical, measure
from ogsrl.evaluation.executed import Executed
from ogsrl.policies.deployed import Deployed
from ogsrl.preparation.history import History
from ogsrl.preparation.tensors import StayTensors
from tests.guardian.cohorts import planted

STEPS = 4
HAZARDS = {
    "untreated": {"expression": "low < 55 and pressor == 0"},
    "filled": {"expression": "low > 90 and fluid >= 800"},
    "venous": {"expression": "cvp > 15 and fluid > 0"},
}


@cache
def layout() -> History:
    """One number, two doses; under 65 is unsafe. Nobody charts `cvp`."""
    return planted(
        {"low": {"plausible": [0, 200]}},
        {
            "fluid": {"bounds": [0, 1000], "zero_inflated": True, "increment": 50},
            "pressor": {"bounds": [0, 1], "zero_inflated": True},
        },
        max_steps=STEPS,
        constraints={"hypotension": {"expression": "low < 65", "limit": {"relative": 0.9}}},
        hazards=HAZARDS,
    )


def scaled(fluid: Any, pressor: Any) -> torch.Tensor:
    scales = layout().preparation.doses.values()
    made = [s.forward(np.asarray(x, float)) for s, x in zip(scales, (fluid, pressor), strict=True)]
    return torch.from_numpy(np.stack(np.broadcast_arrays(*made), -1).astype(np.float32))


def logged(low: Any, fluid: Any, pressor: Any, at: History | None = None) -> StayTensors:
    """Stays of STEPS steps each; arguments are (stays, STEPS)."""
    at = at or layout()
    low, fluid, pressor = (np.asarray(x, float) for x in (low, fluid, pressor))
    stays, rows = len(low), low.size
    step = torch.arange(STEPS).repeat(stays)
    stay = torch.arange(stays).repeat_interleave(STEPS)
    given = np.stack([fluid, pressor], -1)
    before = np.concatenate([np.zeros_like(given[:, :1]), given[:, :-1]], 1)
    last = step == STEPS - 1
    none, nothing = torch.zeros(rows, dtype=torch.bool), torch.zeros(rows)
    return StayTensors(
        history=at,
        states=torch.from_numpy(low.reshape(-1, 1)).float(),
        doses=scaled(fluid.ravel(), pressor.ravel()),
        given=torch.from_numpy(given.reshape(-1, 2)).float(),
        last_given=torch.from_numpy(before.reshape(-1, 2)).float(),
        rewards=nothing,
        shaping=nothing,
        costs=torch.zeros(rows, 1),
        decision=~none,
        terminal=last,
        death=none,
        next_row=torch.where(last, -1, torch.arange(rows) + 1),
        step=step,
        stay=stay,
        patient=stay,
    )


def ordinary(stays: int = 30) -> StayTensors:
    """The pressure falls; clinicians double the fluid at each step, and give a pressor last."""
    ones = np.ones((stays, 1))
    return logged(ones * [80, 70, 60, 50], ones * [100, 200, 400, 800], ones * [0, 0, 0, 0.5])


def gives(
    stays: StayTensors, doses: torch.Tensor, deferred: torch.Tensor | None = None
) -> Executed:
    none = torch.zeros(len(stays.step), dtype=torch.bool)
    everywhere = doses.expand(len(none), -1)
    return Executed(everywhere[None], (none if deferred is None else deferred)[None])


def as_given(stays: StayTensors) -> Executed:
    return gives(stays, stays.doses)


def nobody(stays: StayTensors) -> Deployed:
    return Deployed.of(None, None, stays.history)


@dataclass(frozen=True)
class Proposes:
    """The same doses for everybody."""

    doses: torch.Tensor

    def propose(self, states: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        del generator
        return self.doses.expand(len(states), -1)


def measured(stays: StayTensors, executed: Executed, **more: Any) -> Clinical:
    """Of a policy whose rules nobody asks for."""
    careful = Deployed.of(Proposes(scaled(100, 0.1)), None, stays.history)
    return measure(stays, executed, careful, torch.Generator().manual_seed(0), **more)
