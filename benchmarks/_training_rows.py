"""Rows like real vitals, for the training benchmark: correlated within stays, heavy tails.

Their settings are such that a row itself would win, and a list of so many neighbours proves the
answer, about as often as with real four-hourly vitals (98, 89, 56 % and 89 % at beta .25, K 128).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from ogsrl.policies.problem import Problem
from ogsrl.preparation import DoseTransform, Preparation
from ogsrl.preparation.history import History
from ogsrl.preparation.tensors import Transitions
from ogsrl.preparation.transforms import ColumnTransform
from ogsrl.spec import Cohort

COLUMNS, DOSES, STEPS = 13, 2, 12
#: Share of a value's variance that is the patient's own; what the next step keeps of the rest.
PERSON, KEPT = 0.6, 0.8
#: Tails; share of stays whose values hardly move, and how much less they do.
TAIL, QUIET, CALM = 1.3, 0.15, 0.2
#: How far logged doses scatter about what a policy would propose.
SCATTER = 0.7


@dataclass(frozen=True)
class Vitals:
    """Rows of stays of twelve steps.

    Attributes:
        states: Scaled.
        doses: As logged.
        proposed: What a policy would propose: the logged dose without its scatter.
        stay: Number of each row's stay.
    """

    states: torch.Tensor
    doses: torch.Tensor
    proposed: torch.Tensor
    stay: torch.Tensor


def vitals(rows: int, seed: int) -> Vitals:
    """So many rows."""
    g = torch.Generator().manual_seed(seed)
    stays = -(-rows // STEPS)
    person = torch.randn(stays, 1, COLUMNS, generator=g)
    moving = torch.randn(stays, STEPS, COLUMNS, generator=g)
    for t in range(1, STEPS):
        moving[:, t] = KEPT * moving[:, t - 1] + (1 - KEPT**2) ** 0.5 * moving[:, t]
    x = PERSON**0.5 * person + (1 - PERSON) ** 0.5 * moving
    x = torch.where(torch.rand(stays, 1, 1, generator=g) < QUIET, CALM * x, x)
    x = (x.sign() * x.abs() ** TAIL).flatten(0, 1)[:rows]
    x = (x - x.mean(0)) / x.std(0)
    usual = x @ (torch.randn(COLUMNS, DOSES, generator=g) / COLUMNS**0.5)
    doses = torch.tanh(usual + SCATTER * torch.randn(rows, DOSES, generator=g))
    stay = torch.arange(stays).repeat_interleave(STEPS)[:rows]
    return Vitals(x, doses, torch.tanh(usual), stay)


def history() -> History:
    """Thirteen numbers and two doses, taken as they are."""
    names = [f"x{i}" for i in range(COLUMNS)]
    cohort = Cohort.model_validate(
        {
            "name": "vitals",
            "version": 1,
            "time_step_hours": 4,
            "max_steps": STEPS,
            "discount": 0.99,
            "source": {"kind": "table"},
            "observations": {n: {"unit": "1", "plausible": [-100, 100]} for n in names},
            "actions": {f"a{i}": {"unit": "1", "bounds": [-1, 1]} for i in range(DOSES)},
            "reward": {"step": "1 > 0"},
            "guardian": {"columns": names},
        }
    )
    states = {
        n: ColumnTransform(
            n, "numeric", "identity", 0.0, 1.0, -100.0, 100.0, "never", None, False, False, 1.0
        )
        for n in names
    }
    doses = {n: DoseTransform(n, a.transform, *a.range) for n, a in cohort.actions.items()}
    return History(Preparation(cohort, states, doses, 0), 0, False)


def problem(rows: int, seed: int) -> Problem:
    """Logged decisions alone: nothing is fitted, since the loops that race here ask for nothing."""
    made, nothing = vitals(rows, seed), None
    last = torch.cat([made.stay.diff() > 0, torch.tensor([True])])
    after = torch.where(last, -1, torch.arange(rows) + 1)
    following = made.states[after.clip(min=0)].masked_fill(last[:, None], 0.0)
    logged = Transitions(
        states=made.states,
        doses=made.doses,
        rewards=made.states[:, 0].sign() * last,
        costs=torch.zeros(rows, 0),
        next_states=following,
        terminal=last,
        row=torch.arange(rows),
    )
    unfitted: dict[str, Any] = {"behaviour": nothing, "dynamics": nothing, "guardian": nothing}
    return Problem(
        history=history(),
        rows=logged,
        stay=made.stay,
        after=after,
        first=(torch.arange(rows) % STEPS == 0).nonzero().squeeze(1),
        usual=made.proposed,
        to_go=torch.zeros(rows, 2),
        known=torch.arange(rows),
        limits={},
        **unfitted,
    )
