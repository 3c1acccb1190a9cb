"""What a guardian reads: the cohort's guardian columns and every dose, found by name.

Called by every guardian. It reads the current values alone, never a row's identity, and says
which rows cannot be read: nothing that is not a number gets a score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ogsrl.errors import SupportError
from ogsrl.preparation.history import History
from ogsrl.preparation.transforms import DoseTransform

if TYPE_CHECKING:
    from ogsrl.preparation.fitting import Preparation

MAX_COLUMNS = 16


@dataclass(frozen=True)
class Layout:
    """Where a guardian's columns lie in a state, by name; doses follow them in what it reads.

    Attributes:
        columns: State columns that are read.
        doses: The doses, in the cohort's order.
        kinds: numeric, binary or categorical, one a column.
        dose_kinds: continuous or ordinal, one a dose.
        state_names: All columns of a state.
        scaling: How each column and dose was scaled; another scaling is another guardian.
    """

    columns: tuple[str, ...]
    doses: tuple[str, ...]
    kinds: tuple[str, ...]
    dose_kinds: tuple[str, ...]
    state_names: tuple[str, ...]
    scaling: tuple[dict[str, Any], ...]

    @classmethod
    def of(cls, history: History) -> Layout:
        """The columns that the cohort file gives to the guardian."""
        preparation = history.preparation
        columns, actions = preparation.cohort.guardian.columns, preparation.cohort.actions
        absent = [name for name in columns if name not in history.names]
        if absent:
            raise SupportError(
                f"guardian.columns: {', '.join(absent)} not among the state's columns; take them "
                "out of the cohort file or prepare them"
            )
        if not 1 <= len(columns) <= MAX_COLUMNS:
            raise SupportError(f"guardian.columns: {len(columns)} columns; give 1 to {MAX_COLUMNS}")
        return cls(
            columns=tuple(columns),
            doses=tuple(preparation.doses),
            kinds=tuple(preparation.states[name].kind for name in columns),
            dose_kinds=tuple(action.kind for action in actions.values()),
            state_names=history.names,
            scaling=_scaling(preparation, columns),
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns of what `read` gives: state columns, then doses."""
        return (*self.columns, *self.doses)

    @property
    def width(self) -> int:
        """Number of state columns read."""
        return len(self.columns)

    @property
    def places(self) -> list[int]:
        """Where the columns lie in a state."""
        where = {name: i for i, name in enumerate(self.state_names)}
        return [where[name] for name in self.columns]

    @property
    def levels(self) -> tuple[int, ...]:
        """How many levels the cohort file gives each state column; 0 where it names none."""
        return tuple(len(made["levels"]) for made in self.scaling[: self.width])

    @property
    def dose_grids(self) -> tuple[tuple[float, ...], ...]:
        """The scaled levels of each dose by the cohort file; none of a continuous one."""
        grids = []
        for name, made in zip(self.doses, self.scaling[self.width :], strict=True):
            dose = DoseTransform(name, made["transform"], made["low"], made["high"])
            grids.append(tuple(dose.forward(np.arange(float(len(made["levels"])))).tolist()))
        return tuple(grids)

    def read(self, states: torch.Tensor, doses: torch.Tensor) -> torch.Tensor:
        """(rows, columns + doses): what the guardian looks at, in the order of `names`."""
        self._check("states", states, len(self.state_names))
        self._check("doses", doses, len(self.doses))
        if len(states) != len(doses):
            raise SupportError(
                f"doses: {len(doses)} rows beside {len(states)} states; give one a state"
            )
        return torch.cat([states[:, self.places], doses.to(states.dtype)], dim=1)

    def _check(self, what: str, tensor: torch.Tensor, columns: int) -> None:
        if tensor.ndim != 2 or tensor.shape[1] != columns:
            found = "x".join(str(size) for size in tensor.shape)
            raise SupportError(
                f"{what}: {found}, expected rows x {columns}; build them with the history that the "
                "guardian was fitted with"
            )

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {name: list(value) for name, value in asdict(self).items()}

    @classmethod
    def matching(cls, saved: dict[str, Any], history: History) -> Layout:
        """The layout of this history, if it is what a saved guardian was fitted on."""
        now = cls.of(history)
        for part in ("columns", "doses", "kinds", "dose_kinds"):
            found, wanted = list(getattr(now, part)), list(saved[part])
            if found != wanted:
                raise SupportError(
                    f"guardian: was fitted on {part} {', '.join(wanted)}; the cohort file now says "
                    f"{', '.join(found)}; run the stage guardian again"
                )
        changed = [
            name
            for name, mine, theirs in zip(now.names, now.scaling, saved["scaling"], strict=True)
            if mine != theirs
        ]
        if changed:
            raise SupportError(
                f"{', '.join(changed)}: scaled otherwise than when the guardian was fitted; run "
                "the stage guardian again"
            )
        return now


def _scaling(preparation: Preparation, columns: Sequence[str]) -> tuple[dict[str, Any], ...]:
    """The numbers that decide what a scaled value means."""
    cohort = preparation.cohort
    states = (
        {
            "transform": c.transform,
            "center": c.center,
            "scale": c.scale,
            "levels": list(cohort.states[c.name].levels),
        }
        for c in (preparation.states[name] for name in columns)
    )
    doses = (
        {
            "transform": d.transform,
            "low": d.low,
            "high": d.high,
            "levels": list(cohort.actions[d.name].levels),
        }
        for d in preparation.doses.values()
    )
    return (*states, *doses)
