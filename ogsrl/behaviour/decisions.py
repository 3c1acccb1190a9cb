"""What behaviour is fitted on: the decisions of a part, and the state columns as a model sees them.

Called by fitting and by every question asked of the policy. A state that is not whole is refused
here, by the names of its columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
import torch

from ogsrl.errors import ModelError
from ogsrl.preparation.history import History
from ogsrl.preparation.tensors import StayTensors

#: Standardised values beyond this are as this: no model is asked far outside what it saw.
FARTHEST = 6.0
STEP = "share(step)"


@dataclass(frozen=True)
class Decisions:
    """Rows in which a dose was chosen.

    Attributes:
        states: (rows, state columns).
        doses: (rows, doses) in [-1, 1].
        last: (rows, doses) in [-1, 1], the doses of the step before; the lower bound at step 0.
        step: (rows,) the step's number.
        patient: (rows,) number of the patient.
    """

    states: torch.Tensor
    doses: torch.Tensor
    last: torch.Tensor
    step: torch.Tensor
    patient: torch.Tensor

    @classmethod
    def of(cls, stays: StayTensors) -> Decisions:
        """The decisions of a part; a censored last row is none."""
        last = stays.doses.roll(1, 0)
        last[stays.step == 0] = -1
        rows = stays.decision
        return cls(
            stays.states[rows],
            stays.doses[rows],
            last[rows],
            stays.step[rows].long(),
            stays.patient[rows].long(),
        )

    def __len__(self) -> int:
        return len(self.states)

    @property
    def patients(self) -> int:
        """Number of patients with a decision."""
        return len(torch.unique(self.patient))

    def where(self, rows: torch.Tensor) -> Decisions:
        """Some of the rows, by mask or index."""
        return Decisions(*(getattr(self, field.name)[rows] for field in fields(self)))

    def split(self, share: float, generator: torch.Generator) -> tuple[Decisions, Decisions]:
        """The decisions of about this share of the patients, at least one, and of the others."""
        people = torch.unique(self.patient)
        order = people[torch.randperm(len(people), generator=generator)]
        chosen = torch.isin(self.patient, order[: max(1, round(share * len(order)))])
        return self.where(chosen), self.where(~chosen)


@dataclass(frozen=True)
class Inputs:
    """The layout of states that a model was fitted on, and how its columns are scaled for it.

    Attributes:
        names: All state columns, in order.
        levels: Levels of the categorical ones, by name.
        steps: Steps of the longest stay, if a column says which step it is: each is a level too,
            since habits follow the clock (shifts, rounds) as no smooth function of the step can.
        center: Mean of each column over training decisions.
        scale: Their standard deviation; 0 for a constant column, which is not looked at.
    """

    names: tuple[str, ...]
    levels: Mapping[str, int]
    steps: int
    center: torch.Tensor
    scale: torch.Tensor

    @classmethod
    def of(cls, history: History, states: torch.Tensor) -> Inputs:
        """The layout and scales of training states."""
        columns = history.preparation.cohort.states
        levels = {
            column.name: len(columns[column.of].levels)
            for column in history.columns
            if column.role in ("current", "lag") and columns[column.of].kind == "categorical"
        }
        values = states.double()
        center, scale = values.mean(0), values.std(0, correction=0)
        constant = values.amax(0) == values.amin(0)
        scale[constant] = 0
        steps = history.preparation.cohort.max_steps if STEP in history.names else 0
        return cls(history.names, levels, steps, center.float(), scale.float())

    @cached_property
    def numeric(self) -> torch.Tensor:
        """Where the numeric and binary columns that vary lie."""
        kept = [n not in self.levels and s > 0 for n, s in zip(self.names, self.scale, strict=True)]
        return torch.tensor(kept).nonzero()[:, 0]

    @property
    def categorical(self) -> dict[int, int]:
        """Where categorical columns that vary lie, with their number of levels; the step too."""
        known = {**self.levels, STEP: self.steps + 1}
        return {
            i: known[name]
            for i, name in enumerate(self.names)
            if name in known and self.scale[i] > 0
        }

    @property
    def constant(self) -> tuple[str, ...]:
        """Columns that do not vary among training decisions and are not looked at."""
        return tuple(n for n, s in zip(self.names, self.scale, strict=True) if s == 0)

    def checked(self, states: torch.Tensor) -> torch.Tensor:
        """The states, if they have these columns and no gap."""
        if states.ndim != 2 or states.shape[1] != len(self.names):
            raise ModelError(
                f"states: a tensor of {tuple(states.shape)}, expected (rows, {len(self.names)}); "
                "build states with the history that behaviour was fitted with"
            )
        if bool(torch.isfinite(states.sum())):
            return states
        wrong = (~torch.isfinite(states)).sum(0)
        if not bool(wrong.any()):  # finite values whose sum is not
            return states
        told = [f"{n} ({int(c)})" for n, c in zip(self.names, wrong, strict=True) if c]
        more = f" and {len(told) - 8} more columns" if len(told) > 8 else ""
        raise ModelError(
            f"states: missing or infinite values in {', '.join(told[:8])}{more}; prepare fills "
            "gaps, so build states from prepared rows"
        )

    def check_names(self, names: Sequence[str], what: str) -> None:
        """Refuse another layout, by name."""
        if tuple(names) == self.names:
            return
        absent = [name for name in self.names if name not in names]
        extra = [name for name in names if name not in self.names]
        told = [f"missing {', '.join(absent[:5])}"] if absent else []
        told += [f"unknown {', '.join(extra[:5])}"] if extra else []
        if not told:
            pairs = zip(self.names, names, strict=False)
            first = next((a for a, b in pairs if a != b), "the number of columns")
            told = [f"another order, first at {first}"]
        raise ModelError(
            f"{what}: state columns are not those behaviour was fitted on ({'; '.join(told)}); "
            "run behaviour again, or prepare with the same transforms.json"
        )

    def scaled(self, states: torch.Tensor) -> torch.Tensor:
        """Numeric columns, standardised and kept within what can be known."""
        at = self.numeric
        moved = (states[:, at] - self.center[at]) / self.scale[at]
        return moved.clamp(-FARTHEST, FARTHEST)

    def codes(self, states: torch.Tensor) -> dict[int, torch.Tensor]:
        """Codes of the categorical columns that vary, by place."""
        found = {}
        for i, levels in self.categorical.items():
            if self.names[i] == STEP:
                found[i] = (states[:, i] * self.steps).round().long().clamp(0, self.steps)
                continue
            code = states[:, i].round().long()
            wrong = int(((code < 0) | (code >= levels) | (code != states[:, i])).sum())
            if wrong:
                raise ModelError(
                    f"{self.names[i]}: {wrong} values are no code of its {levels} levels; "
                    "validate the table first"
                )
            found[i] = code
        return found

    def config(self) -> dict[str, Any]:
        """Plain values without the scales."""
        return {"names": list(self.names), "levels": dict(self.levels), "steps": self.steps}

    def arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        """The scales."""
        return {"inputs.center": self.center.numpy(), "inputs.scale": self.scale.numpy()}

    @classmethod
    def from_parts(cls, config: Mapping[str, Any], arrays: Mapping[str, Any]) -> Inputs:
        """Back from `config` and `arrays`."""
        return cls(
            tuple(config["names"]),
            dict(config["levels"]),
            int(config["steps"]),
            torch.tensor(arrays["inputs.center"]),
            torch.tensor(arrays["inputs.scale"]),
        )


def check_whole(decisions: Decisions, part: str, names: Sequence[str]) -> None:
    """Refuse decisions with gaps, or in which all patients are the same."""
    wrong = {n: int(c) for n, c in zip(names, (~decisions.states.isfinite()).sum(0), strict=True)}
    told = [f"{name} ({count})" for name, count in wrong.items() if count]
    doses = int((~decisions.doses.isfinite()).sum())
    if told or doses:
        told += [f"doses ({doses})"] if doses else []
        raise ModelError(
            f"{part}: missing or infinite values in {', '.join(told[:8])}; run prepare again"
        )


def check_varied(decisions: Decisions) -> None:
    """Refuse a cohort in which every patient has the same states and doses at every step."""
    rows = torch.cat([decisions.states, decisions.doses], 1)
    steps = int(decisions.step.max()) + 1
    shape = (steps, rows.shape[1])
    index = decisions.step[:, None].expand(-1, rows.shape[1])
    low = torch.full(shape, torch.inf).scatter_reduce(0, index, rows, "amin")
    high = torch.full(shape, -torch.inf).scatter_reduce(0, index, rows, "amax")
    seen = low <= high
    if bool((low[seen] == high[seen]).all()):
        raise ModelError(
            f"all {decisions.patients} training patients are the same: no state column and no "
            "dose differs between them at any step; check the source"
        )
