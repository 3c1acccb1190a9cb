"""What a decision may know: the current row, the steps before it, and running summaries.

Called by everything that learns or acts, and step by step inside model rollouts. A state at step t
holds values charted up to t and doses given strictly before t, and never anything later.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from ogsrl.errors import PreparationError
from ogsrl.preparation.fitting import Preparation
from ogsrl.trajectories import Stays

if TYPE_CHECKING:
    import torch

Singles = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
StateRole = Literal[
    "current", "indicator", "step", "lag", "dose_lag", "known", "min", "max", "mean", "since"
]
_SHIFTED: tuple[StateRole, ...] = ("lag", "dose_lag", "known")
_RUNNING: tuple[StateRole, ...] = ("min", "max", "mean", "since")


@dataclass(frozen=True)
class StateColumn:
    """A column of the state: its name, what it is made of and how, and how many steps back."""

    name: str
    of: str
    role: StateRole
    lag: int = 0


@dataclass(frozen=True)
class History:
    """How a state is built from prepared rows.

    Columns, in order: every static and observation as prepared, under its own name; `missing_x`;
    then, with `summaries`, `share(step)`; for each i up to `steps` the observations `x[-i]`, doses
    `dose[-i]` and `known[-i]`, which is 0 (as are the others) before the stay began; then, with
    `summaries`, `min(x)`, `max(x)` and `mean(x)` of numeric observations so far, and `since(x)`:
    steps since x was charted over max_steps, 1 where it never was.

    Attributes:
        preparation: The fitted columns.
        steps: Earlier steps in a state.
        summaries: Whether a state has running summaries and the step.
    """

    preparation: Preparation
    steps: int
    summaries: bool

    @classmethod
    def of(cls, preparation: Preparation) -> History:
        """As the parameters say; with no history steps the current row is all there is."""
        return cls(preparation, preparation.history_steps, preparation.history_steps > 0)

    @cached_property
    def columns(self) -> tuple[StateColumn, ...]:
        """The state's columns, in order."""
        made = self.preparation
        columns = [StateColumn(name, name, "current") for name in made.states]
        columns += [StateColumn(f"missing_{n}", n, "indicator") for n in made.indicators]
        if self.summaries:
            columns.append(StateColumn("share(step)", "step", "step"))
        for lag in range(1, self.steps + 1):
            columns += [StateColumn(f"{n}[-{lag}]", n, "lag", lag) for n in self.lagged]
            columns += [StateColumn(f"{n}[-{lag}]", n, "dose_lag", lag) for n in made.doses]
            columns.append(StateColumn(f"known[-{lag}]", "step", "known", lag))
        if self.summaries:
            for role in _RUNNING[:3]:
                columns += [StateColumn(f"{role}({n})", n, role) for n in self.summarised]
            columns += [StateColumn(f"since({n})", n, "since") for n in self._dated]
        return tuple(columns)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The state's column names, in order."""
        return tuple(column.name for column in self.columns)

    @property
    def lagged(self) -> tuple[str, ...]:
        """Columns whose earlier values a state holds: all observations."""
        return tuple(self.preparation.cohort.observations)

    @property
    def summarised(self) -> tuple[str, ...]:
        """Columns that are summarised: numeric observations that are no running sum."""
        observed = self.preparation.cohort.observations
        return tuple(
            name
            for name, column in observed.items()
            if column.kind == "numeric" and column.cumulative_of is None
        )

    @property
    def _dated(self) -> tuple[str, ...]:
        observed = self.preparation.cohort.observations
        return tuple(name for name in self.preparation.indicators if name in observed)

    @cached_property
    def _places(self) -> dict[tuple[StateRole, int], list[int]]:
        places: dict[tuple[StateRole, int], list[int]] = {}
        for i, column in enumerate(self.columns):
            places.setdefault((column.role, column.lag), []).append(i)
        return places

    def place(self, role: StateRole, lag: int = 0) -> list[int]:
        """Where the columns of a role lie, so that nobody counts by hand."""
        return list(self._places.get((role, lag), ()))

    def _among(self, states: torch.Tensor, role: StateRole, lag: int = 0) -> torch.Tensor:
        """The columns of a role, which lie side by side."""
        places = self._places.get((role, lag), ())
        return states[:, places[0] : places[-1] + 1] if places else states[:, :0]

    def clinical(self, states: torch.Tensor, names: Iterable[str]) -> dict[str, Doubles]:
        """Current values of these columns in clinical units; a gap holds what filled it."""
        made, wanted = self.preparation.states, set(names)
        places = zip(made, self.place("current"), strict=True)
        return {n: made[n].inverse(states[:, i].cpu().numpy()) for n, i in places if n in wanted}

    def uncharted(self, states: torch.Tensor, names: Sequence[str]) -> torch.Tensor:
        """(rows, names) Whether each was never charted so far; its value there is a guess.

        Without summaries: whether it is not charted now, since no more is known.
        """
        never = 1 - 0.5 / self.preparation.cohort.max_steps  # a step below it was charted
        return states[:, self._told_of_gaps(names)] > never

    def gaps(self, states: torch.Tensor, names: Sequence[str]) -> torch.Tensor:
        """(rows, names) For how many steps each was not charted; 0: it is charted now.

        Where it never was, since before the stay began. Without summaries: 1 where it is not now.
        """
        told = states[:, self._told_of_gaps(names)]
        if not self.summaries:
            return told.round()
        steps = self.preparation.cohort.max_steps
        step = self._among(states, "step") * steps
        return (told * steps).round().minimum(step.round() + 1)

    def _told_of_gaps(self, names: Sequence[str]) -> list[int]:
        """Where a state says since when a column was charted, or else whether it is."""
        return [self._gap_places[name] for name in names]

    @cached_property
    def _gap_places(self) -> dict[str, int]:
        told = zip(self.preparation.indicators, self.place("indicator"), strict=True)
        dated = zip(self._dated, self.place("since"), strict=True) if self.summaries else ()
        return {**dict(told), **dict(dated)}

    def build(self, prepared: pd.DataFrame, stays: Stays | None = None) -> Singles:
        """The state of every row of whole prepared stays, as one matrix with columns `names`."""
        stays = stays or Stays.of(prepared["stay_id"])
        if (prepared["step"].to_numpy() != stays.step).any():
            raise PreparationError("step: rows are not in order from 0; sort by stay and step")
        return self.of_arrays(prepared, stays)

    def of_arrays(
        self, prepared: pd.DataFrame | Mapping[str, npt.NDArray[np.generic]], stays: Stays
    ) -> Singles:
        """The same of prepared columns by name, whose rows are in order."""
        step = stays.step
        state = np.zeros((stays.rows, len(self.columns)), np.float32)
        current = _matrix(prepared, list(self.preparation.states))
        missing = _matrix(prepared, [f"missing_{n}" for n in self.preparation.indicators])
        _put(state, self.place("current"), current)
        _put(state, self.place("indicator"), missing)
        observed = current.take(_among(self.lagged, self.preparation.states), axis=1)
        doses = _matrix(prepared, list(self.preparation.doses))
        for lag in range(1, self.steps + 1):
            past = np.flatnonzero(step >= lag)
            _put(state, self.place("lag", lag), observed[past - lag], past)
            _put(state, self.place("dose_lag", lag), doses[past - lag], past)
            _put(state, self.place("known", lag), np.ones((len(past), 1), np.float32), past)
        if self.summaries:
            max_steps = np.float32(self.preparation.cohort.max_steps)
            _put(state, self.place("step"), (step / max_steps).astype(np.float32)[:, None])
            self._summarise(state, current, missing, stays)
        return state

    def _summarise(self, state: Singles, current: Singles, missing: Singles, stays: Stays) -> None:
        """Running summaries by the same recurrence as `advance`, all stays a step at a time."""
        values = current.take(_among(self.summarised, self.preparation.states), axis=1)
        gaps = missing.take(_among(self._dated, self.preparation.indicators), axis=1)
        low, high, mean = values.copy(), values.copy(), values.copy()
        since = gaps.copy()  # never charted: 1
        later = np.float32(1 / self.preparation.cohort.max_steps)
        for step in range(1, int(stays.length.max(initial=0))):
            row = stays.start[stays.length > step] + step
            now = values[row]
            low[row] = np.minimum(low[row - 1], now)
            high[row] = np.maximum(high[row - 1], now)
            mean[row] = mean[row - 1] + (now - mean[row - 1]) / np.float32(step + 1)
            since[row] = gaps[row] * np.minimum(since[row - 1] + later, 1)
        _put(state, self.place("min"), low)
        _put(state, self.place("max"), high)
        _put(state, self.place("mean"), mean)
        _put(state, self.place("since"), since)

    def advance(
        self,
        states: torch.Tensor,
        doses: torch.Tensor,
        observed: torch.Tensor,
        missing: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The next states, once doses were given and the next values charted.

        Args:
            states: States now, one a row, with columns `names`.
            doses: Scaled doses given now, in the cohort's order.
            observed: Scaled statics and observations of the next step, in the cohort's order.
            missing: Their indicators, in the order of `preparation.indicators`; none: all charted.
        """
        import torch  # noqa: PLC0415 - tables are prepared without it

        if missing is None:
            missing = states.new_zeros(len(states), len(self.preparation.indicators))
        parts = [observed, missing]
        if self.summaries:
            max_steps = self.preparation.cohort.max_steps
            step = (self._among(states, "step") * max_steps).round() + 1
            parts.append(step / max_steps)
        if self.steps:
            lagged = _among(self.lagged, self.preparation.states)
            now = self._among(states, "current")[:, lagged]
            parts += [now, doses, states.new_ones(len(states), 1)]
        for lag in range(2, self.steps + 1):
            parts += [self._among(states, role, lag - 1) for role in _SHIFTED]
        if self.summaries:
            parts += self._advanced_summaries(states, observed, missing, step)
        return torch.cat(parts, dim=1)  # in the order of `columns`

    def _advanced_summaries(
        self,
        states: torch.Tensor,
        observed: torch.Tensor,
        missing: torch.Tensor,
        step: torch.Tensor,
    ) -> list[torch.Tensor]:
        now = observed[:, _among(self.summarised, self.preparation.states)]
        gaps = missing[:, _among(self._dated, self.preparation.indicators)]
        low, high, mean, since = (self._among(states, role) for role in _RUNNING)
        later = 1 / self.preparation.cohort.max_steps
        return [
            low.minimum(now),
            high.maximum(now),
            mean + (now - mean) / (step + 1),
            gaps * (since + later).clip(max=1),
        ]


def _matrix(
    frame: pd.DataFrame | Mapping[str, npt.NDArray[np.generic]], names: list[str]
) -> Singles:
    absent = [name for name in names if name not in frame]
    if absent:
        raise PreparationError(
            f"{', '.join(absent)}: not in the prepared rows; they were prepared by another "
            "transforms.json, run prepare again"
        )
    if isinstance(frame, pd.DataFrame):
        return np.ascontiguousarray(frame[names].to_numpy(np.float32))
    if not names:
        return np.zeros((len(next(iter(frame.values()))), 0), np.float32)
    return np.stack([frame[name] for name in names], 1).astype(np.float32)


def _among(names: tuple[str, ...], all_names: Iterable[str]) -> list[int]:
    where = {name: i for i, name in enumerate(all_names)}
    return [where[name] for name in names]


def _put(
    state: Singles,
    columns: list[int],
    values: Singles,
    rows: npt.NDArray[np.int64] | None = None,
) -> None:
    """Write a block; a role's columns lie side by side."""
    if not columns:
        return
    block = slice(columns[0], columns[-1] + 1)
    if rows is None:
        state[:, block] = values
    else:
        state[rows, block] = values
