"""What no single cell shows: order, ends, repetition and sums within a stay, counted per row.

Called by `contract` on each part. Every measure is 1 where its rule is broken and 0 elsewhere, in
vectorised numpy; what is allowed stands in `rules`. Nothing here judges, and no identifier leaves.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ogsrl.contracts.rules import END_CODES, flag
from ogsrl.spec import Cohort
from ogsrl.trajectories import starts

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Hashes = npt.NDArray[np.uint64]

#: Part of a step by which `hours` may differ from step x time_step_hours: rounding.
_HOURS_TOLERANCE = 0.01
#: Part of a dose's upper bound by which a charted cumulative sum may be rounded.
_SUM_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Layout:
    """Where the stays of a part begin, and which row is whose.

    >>> layout = Layout.of(pd.DataFrame({"stay_id": ["a", "a", "b"]}))
    >>> layout.number.tolist(), layout.position.tolist(), layout.last.tolist()
    ([0, 0, 1], [0, 1, 0], [False, True, True])
    """

    first: Ints
    length: Ints

    @classmethod
    def of(cls, frame: pd.DataFrame) -> Layout:
        """The layout of a part; a stay is a run of rows with the same stay_id."""
        first = starts(frame["stay_id"])
        return cls(first, np.diff(np.append(first, len(frame))))

    @property
    def stays(self) -> int:
        """How many stays."""
        return len(self.first)

    @cached_property
    def number(self) -> Ints:
        """The stay of each row, from 0."""
        return np.repeat(np.arange(self.stays), self.length)

    @cached_property
    def position(self) -> Ints:
        """The place of each row in its stay, from 0."""
        return np.arange(len(self.number)) - self.first[self.number]

    @cached_property
    def last(self) -> Flags:
        """Whether a row is its stay's last."""
        return np.asarray(self.position == self.length[self.number] - 1, bool)

    @cached_property
    def later(self) -> Flags:
        """Whether a row has one before it in its stay."""
        return self.position > 0

    def before(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The value on the row before; at a stay's first row its own."""
        moved = np.concatenate([values[:1], values[:-1]])
        return np.where(self.later, moved, values)

    def total(self, values: npt.NDArray[Any]) -> Ints:
        """Sums over each stay, of counts."""
        return np.add.reduceat(values.astype(np.int64), self.first)


def judged_rows(
    frame: pd.DataFrame, cohort: Cohort, layout: Layout, usable: set[str]
) -> pd.DataFrame:
    """The frame that the row rules are judged on: numbers and measures, never an identifier.

    Args:
        frame: Whole stays, rows of a stay together.
        cohort: The cohort.
        layout: The layout of `frame`.
        usable: Columns that exist with their declared type; others are left out.
    """
    measures: dict[str, Any] = {}
    for name in (*cohort.states, *cohort.actions):
        if name in usable:
            measures[name] = frame[name].to_numpy(np.float64, na_value=np.nan)
    measures.update(_key_measures(frame, cohort, layout))
    end = end_codes(frame["end"]) if "end" in usable else np.zeros(len(frame), np.int64)
    if "end" in usable:
        measures.update(_end_measures(end, layout))
        if "died" in usable and cohort.outcome is not None:
            measures.update(_died_measures(frame["died"], end, layout))
    for name in cohort.static:
        if name in usable:
            values = measures[name]
            held = values[layout.first][layout.number]
            changed = (values != held) & ~(np.isnan(values) & np.isnan(held))
            measures[flag("static_constant", name)] = changed.astype(np.int64)
    measures.update(_dose_measures(measures, cohort, layout, end, usable))
    measures.update(_sum_measures(measures, cohort, layout, usable))
    return pd.DataFrame(measures, copy=False)


def places_in_groups(ranked: npt.NDArray[Any]) -> Ints:
    """The place of each entry among its equals, from 0, where equals stand together.

    >>> places_in_groups(np.array([5, 5, 7, 7, 7])).tolist()
    [0, 1, 0, 1, 2]
    """
    places = np.arange(len(ranked))
    if len(ranked) == 0:
        return places
    fresh = np.concatenate([[True], ranked[1:] != ranked[:-1]])
    return np.asarray(places - np.maximum.accumulate(np.where(fresh, places, 0)), np.int64)


def end_codes(ends: pd.Series) -> Ints:
    """`end` as numbers: 0 for none, -1 for one that is not known.

    >>> end_codes(pd.Series([None, "death", "cured"])).tolist()
    [0, 1, -1]
    """
    codes, names = pd.factorize(ends)
    meaning = np.array([*(END_CODES.get(str(name), -1) for name in names), 0], np.int64)
    return np.asarray(meaning[codes], np.int64)


def blank(values: pd.Series) -> Flags:
    """Whether each text is missing or only spaces."""
    codes, names = pd.factorize(values)
    empty = np.array([*(not str(name).strip() for name in names), True], bool)
    return np.asarray(empty[codes], bool)


def _key_measures(frame: pd.DataFrame, cohort: Cohort, layout: Layout) -> dict[str, Ints]:
    step = frame["step"].to_numpy(np.float64, na_value=np.nan)
    hours = frame["hours"].to_numpy(np.float64, na_value=np.nan)
    step_before, hours_before = layout.before(step), layout.before(hours)
    repeated = layout.later & (step == step_before)
    off = np.abs(hours - step * cohort.time_step_hours)
    broken: dict[str, Flags] = {
        flag("id_given", "patient_id"): blank(frame["patient_id"]),
        flag("id_given", "stay_id"): blank(frame["stay_id"]),
        "one_patient": _changes(frame["patient_id"], layout),
        "step_from_zero": ~layout.later & (step != 0),
        "step_unique": repeated,
        "step_contiguous": layout.later & (step != step_before + 1) & ~repeated,
        "hours_declared": ~(off <= _HOURS_TOLERANCE * cohort.time_step_hours),
        "hours_rising": layout.later & ~(hours > hours_before),
        "stay_length": layout.position >= cohort.max_steps,
        "site_constant": (
            _changes(frame["site"], layout) if "site" in frame else np.zeros(len(frame), bool)
        ),
    }
    return {name: rows.astype(np.int64) for name, rows in broken.items()}


def _changes(values: pd.Series, layout: Layout) -> Flags:
    codes = pd.factorize(values)[0]
    return np.asarray(codes != codes[layout.first][layout.number], bool)


def _end_measures(end: Ints, layout: Layout) -> dict[str, Ints]:
    given = end != 0
    repeated = layout.total(given)[layout.number] > 1
    return {
        "end": end,
        "end_present": (layout.last & ~given).astype(np.int64),
        "end_last": (given & ~layout.last).astype(np.int64),
        "end_once": (given & repeated).astype(np.int64),
    }


def _died_measures(died: pd.Series, end: Ints, layout: Layout) -> dict[str, Ints]:
    value = died.astype("boolean").to_numpy(np.float64, na_value=np.nan)
    on_last = value[layout.first + layout.length - 1][layout.number]
    survived_death = (end == END_CODES["death"]) & (value == 0)
    other_than_last = ~layout.last & ~np.isnan(value) & ~(value == on_last)
    open_end = np.isin(end, [END_CODES["censored"], END_CODES["horizon"]])  # the end is not seen
    unknown = layout.last & np.isnan(value) & ~open_end
    return {
        "died_agrees": (survived_death | other_than_last).astype(np.int64),
        "died_given": unknown.astype(np.int64),
    }


def _dose_measures(
    columns: dict[str, Any], cohort: Cohort, layout: Layout, end: Ints, usable: set[str]
) -> dict[str, Ints]:
    death = end == END_CODES["death"]
    deaths = np.cumsum(death) - death  # before this row, in the whole part
    after_death = deaths - deaths[layout.first][layout.number] > 0
    state_only = layout.last & (end == END_CODES["censored"])
    some = np.zeros(len(end), bool)
    given = np.zeros(len(end), bool)
    measures: dict[str, Ints] = {}
    for name, action in cohort.actions.items():
        if name not in usable:
            continue
        dose: Floats = columns[name]
        missing = np.isnan(dose)
        some |= dose > 0
        given |= ~missing
        measures[flag("dose_given", name)] = (missing & ~state_only).astype(np.int64)
        if action.max_change is not None:
            with np.errstate(invalid="ignore"):
                change = np.abs(dose - layout.before(dose))
            limit = action.max_change * (1 + 1e-9)
            measures[flag("max_change", name)] = (change > limit).astype(np.int64)
    measures["dose_after_death"] = (after_death & some).astype(np.int64)
    measures["dose_when_censored"] = (state_only & given).astype(np.int64)
    return measures


def _sum_measures(
    columns: dict[str, Any], cohort: Cohort, layout: Layout, usable: set[str]
) -> dict[str, Ints]:
    measures: dict[str, Ints] = {}
    for name, column in cohort.observations.items():
        dose_name = column.cumulative_of
        if dose_name is None or name not in usable or dose_name not in usable:
            continue
        charted: Floats = columns[name]
        dose = np.nan_to_num(columns[dose_name], nan=0.0, posinf=0.0, neginf=0.0)
        running = np.cumsum(dose) - dose
        earlier = running - running[layout.first][layout.number]
        bound = cohort.actions[dose_name].range[1]
        tolerance = _SUM_TOLERANCE * bound + 1e-6 * np.abs(earlier)
        with np.errstate(invalid="ignore"):
            fall = layout.before(charted) - charted
            measures[flag("cumulative_rising", name)] = (fall > tolerance).astype(np.int64)
            off = np.abs(charted - earlier)
            measures[flag("cumulative_sum", name)] = (off > tolerance).astype(np.int64)
    return measures
