"""What of the next row is learned, what is computed from the cohort file, and what goes in.

Called by the ensemble and its training. It looks at no outcome; columns are found by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch.nn import functional

from ogsrl.dynamics.codes import check_codes
from ogsrl.errors import ModelError
from ogsrl.preparation.history import History
from ogsrl.spec import Observation


@dataclass(frozen=True)
class Layout:
    """The roles that a state's columns play in the dynamics.

    numeric, binary and categorical observations are learned; a `cumulative_of` column is its last
    value plus the dose given; statics stay. `gaps` are observations whose charting is learned.
    """

    history: History

    @property
    def _observed(self) -> dict[str, Observation]:
        return self.history.preparation.cohort.observations

    @cached_property
    def numeric(self) -> tuple[str, ...]:
        """Learned numbers, those of one transform side by side."""
        columns = self.history.preparation.states
        names = [
            n for n, c in self._observed.items() if c.kind == "numeric" and not c.cumulative_of
        ]
        return tuple(sorted(names, key=lambda name: columns[name].transform))

    @cached_property
    def binary(self) -> tuple[str, ...]:
        """Learned states of yes or no."""
        return tuple(n for n, c in self._observed.items() if c.kind == "binary")

    @cached_property
    def categorical(self) -> dict[str, int]:
        """Learned codes, with their number of levels."""
        observed = self._observed.items()
        return {n: len(c.levels) for n, c in observed if c.kind == "categorical"}

    @cached_property
    def cumulative(self) -> dict[str, str]:
        """Running sums, with the dose that they sum."""
        return {n: c.cumulative_of for n, c in self._observed.items() if c.cumulative_of}

    @cached_property
    def gaps(self) -> tuple[str, ...]:
        """Learned observations that are sometimes not charted."""
        learned = {*self.numeric, *self.binary, *self.categorical}
        return tuple(n for n in self.history.preparation.indicators if n in learned)

    @cached_property
    def current(self) -> dict[str, int]:
        """Where each column's current value lies in a state (and among statics, observations)."""
        return {name: i for i, name in enumerate(self.history.preparation.states)}

    @cached_property
    def indicator(self) -> dict[str, int]:
        """Where each indicator lies in a state."""
        first = len(self.current)
        names = self.history.preparation.indicators
        return {name: first + i for i, name in enumerate(names)}

    @cached_property
    def step_place(self) -> int | None:
        """Where the step lies in a state, if it is there."""
        return next(iter(self.history.place("step")), None)

    @cached_property
    def _codes(self) -> list[tuple[int, int]]:
        """Columns of codes among the states, and their number of levels."""
        states = self.history.preparation.cohort.states
        return [
            (i, len(states[c.of].levels))
            for i, c in enumerate(self.history.columns)
            if c.role in ("current", "lag") and states[c.of].kind == "categorical"
        ]

    @cached_property
    def _plain(self) -> list[int]:
        codes = {place for place, _ in self._codes}
        return [i for i in range(len(self.history.columns)) if i not in codes]

    @cached_property
    def _inflated(self) -> list[int]:
        actions = self.history.preparation.cohort.actions.values()
        return [i for i, action in enumerate(actions) if action.zero_inflated]

    @cached_property
    def width(self) -> int:
        """Number of inputs of a network."""
        doses = len(self.history.preparation.doses) + len(self._inflated)
        return len(self._plain) + sum(levels for _, levels in self._codes) + doses

    def inputs(self, states: torch.Tensor, doses: torch.Tensor) -> torch.Tensor:
        """States, codes as one column a level, doses, and whether a dose is none at all."""
        parts = [states] if not self._codes else [states[:, self._plain]]
        for place, levels in self._codes:
            code = states[:, place].round().long()
            parts.append(functional.one_hot(code, levels).to(states.dtype))
        parts.append(doses)
        if self._inflated:
            parts.append((doses[:, self._inflated] <= -1 + 1e-4).to(states.dtype))
        return torch.cat(parts, dim=1)

    def check(self, states: torch.Tensor, doses: torch.Tensor) -> None:
        """Raise if these are no states and doses of this layout, or hold something unknown."""
        wanted = len(self.history.columns), len(self.history.preparation.doses)
        if (states.shape[1:], doses.shape[1:]) != ((wanted[0],), (wanted[1],)):
            raise ModelError(
                f"states of {states.shape[-1]} columns and {doses.shape[-1]} doses; the dynamics "
                f"know {wanted[0]} and {wanted[1]}; build them with the same preparation"
            )
        if len(states) != len(doses):
            raise ModelError(f"{len(states)} states and {len(doses)} doses; one dose a state")
        names = (*self.history.names, *self.history.preparation.doses)
        broken = [
            name
            for values, first in ((states, 0), (doses, wanted[0]))
            if not bool(torch.isfinite(values.sum()))
            for name, bad in zip(names[first:], (~torch.isfinite(values)).any(0), strict=False)
            if bool(bad)
        ]
        if broken:
            raise ModelError(
                f"{', '.join(broken[:8])}{' ...' if len(broken) > 8 else ''}: values that are no "
                "number in a question to the dynamics; prepare the rows first"
            )
        if self._codes:
            places, levels = zip(*self._codes, strict=True)
            check_codes(states[:, places], [names[place] for place in places], levels)


def check_fitted_on(config: Mapping[str, Any], history: History) -> None:
    """Raise if a saved model was fitted on other columns, doses, levels or transforms."""
    made = history.preparation
    if (config["states"], config["doses"]) != (list(history.names), list(made.doses)):
        raise ModelError(
            "dynamics: fitted on other state columns or doses, or in another order; run stage "
            "dynamics again"
        )
    if config["transforms"] != made.fingerprint:
        raise ModelError(
            "dynamics: transforms.json or the levels of a column are not those it was fitted "
            "with; run stage dynamics again"
        )
