"""What followed each decision: next values, what was charted of them, and how stays ended.

Called by training, calibration and reports. The next row is read here and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch

from ogsrl.constraints import constraint_rules
from ogsrl.dynamics.layout import Layout
from ogsrl.errors import ModelError
from ogsrl.preparation.tensors import StayTensors

ENDS = ("death", "discharge", "late_death")


@dataclass(frozen=True)
class Outcomes:
    """One row a decision; columns in the layout's order.

    Attributes:
        inputs: What goes into a network.
        states: The states.
        doses: The scaled doses.
        follows: Whether there is a next row.
        numeric: Next scaled values.
        charted: Whether each was charted.
        codes: Next codes of binary (0, 1) and then categorical columns.
        codes_charted: Whether each was charted.
        gap: Whether each of `gaps` was not charted.
        unsafe: Per constraint: whether the next row violates it, by its last known values.
        ends: Per end of ENDS: whether it came about.
        at_risk: Per end: whether it could be seen to come about.
        patient: Number of the patient.
        stay: Number of the stay.
        step: Number of the step.
        row: Number of the row in the stays' tensors.
    """

    inputs: torch.Tensor
    states: torch.Tensor
    doses: torch.Tensor
    follows: torch.Tensor
    numeric: torch.Tensor
    charted: torch.Tensor
    codes: torch.Tensor
    codes_charted: torch.Tensor
    gap: torch.Tensor
    unsafe: torch.Tensor
    ends: torch.Tensor
    at_risk: torch.Tensor
    patient: torch.Tensor
    stay: torch.Tensor
    step: torch.Tensor
    row: torch.Tensor

    def __len__(self) -> int:
        return len(self.inputs)

    def take(self, rows: torch.Tensor) -> Outcomes:
        """Some of the decisions."""
        return Outcomes(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    @property
    def patients(self) -> int:
        """Patients with a next row."""
        return len(torch.unique(self.patient[self.follows]))


def outcomes(stays: StayTensors, layout: Layout) -> Outcomes:
    """What followed each decision of whole stays."""
    if stays.state_names != layout.history.names:
        raise ModelError(
            "the stays' states have other columns than the dynamics; build both with the same "
            "preparation and history"
        )
    made = stays.transitions()
    layout.check(made.states, made.doses)
    following = stays.next_row[made.row] >= 0
    next_states = made.next_states
    binary = [layout.current[name] for name in layout.binary]
    categorical = [layout.current[name] for name in layout.categorical]
    codes = [(next_states[:, binary] > 0).long(), next_states[:, categorical].round().long()]
    coded = (*layout.binary, *layout.categorical)
    return Outcomes(
        inputs=layout.inputs(made.states, made.doses),
        states=made.states,
        doses=made.doses,
        follows=following,
        numeric=next_states[:, [layout.current[name] for name in layout.numeric]],
        charted=_charted(layout, layout.numeric, next_states) & following[:, None],
        codes=torch.cat(codes, dim=1),
        codes_charted=_charted(layout, coded, next_states) & following[:, None],
        gap=~_charted(layout, layout.gaps, next_states),
        unsafe=_unsafe(layout, next_states) & following[:, None],
        patient=stays.patient[made.row],
        stay=stays.stay[made.row],
        step=stays.step[made.row],
        row=made.row,
        **_ends(stays, made.row),
    )


def check_varied(stays: StayTensors) -> None:
    """Refuse patients of whom every row is the same: all would be known, and with certainty."""
    told = [stays.terminal, stays.death, stays.decision, stays.rewards]
    rows = torch.cat([stays.states, stays.doses, *(one.float()[:, None] for one in told)], dim=1)
    shape = (int(stays.step.max()) + 1, rows.shape[1])
    step = stays.step.long()[:, None].expand_as(rows)
    low = torch.full(shape, torch.inf).scatter_reduce(0, step, rows, "amin")
    high = torch.full(shape, -torch.inf).scatter_reduce(0, step, rows, "amax")
    if bool((low < high).any()):
        return
    names = ", ".join([*stays.history.preparation.states, *stays.dose_names][:8])
    raise ModelError(
        f"dynamics: all {len(torch.unique(stays.patient))} training patients are the same: no "
        f"state column, no dose ({names} ...) and no end differs between them at any step; check "
        "the source"
    )


def _charted(layout: Layout, names: tuple[str, ...], states: torch.Tensor) -> torch.Tensor:
    """Whether each column was charted in its row; columns without gaps always are."""
    known = torch.ones((len(states), len(names)), dtype=torch.bool)
    for i, name in enumerate(names):
        if name in layout.indicator:
            known[:, i] = states[:, layout.indicator[name]] < 0.5
    return known


def _unsafe(layout: Layout, states: torch.Tensor) -> torch.Tensor:
    preparation = layout.history.preparation
    found = torch.zeros((len(states), len(preparation.cohort.constraints)), dtype=torch.bool)
    for i, rule in enumerate(constraint_rules(preparation.cohort).values()):
        values = {
            name: preparation.states[name].inverse(states[:, layout.current[name]].numpy())
            for name in rule.columns
        }
        if len(states):
            found[:, i] = torch.from_numpy(rule.numpy(values) > 0)
    return found


def _ends(stays: StayTensors, row: torch.Tensor) -> dict[str, torch.Tensor]:
    """Death; discharge of those alive before the last step; later death of those who left alive.

    At the last step all who live have reached the horizon, so a discharge cannot be told apart. A
    later death is one that is paid as a death (constraints.attach_rewards).
    """
    cohort = stays.history.preparation.cohort
    death, terminal = stays.death[row], stays.terminal[row]
    left = terminal & ~death
    before_last = stays.step[row] < cohort.max_steps - 1
    ends = [death, left & before_last]
    at_risk = [torch.ones_like(death), ~death & before_last]
    rewards = cohort.reward.terminal
    told = rewards is not None and rewards.death not in (rewards.discharge, rewards.horizon)
    paid = stays.rewards[row] == (rewards.death if rewards is not None else 0.0)
    ends.append(left & paid & told)
    at_risk.append(left & told)
    return {"ends": torch.stack(ends, dim=1), "at_risk": torch.stack(at_risk, dim=1)}
