"""Steps of stays: the state before each dose, the doses given after it, and how the stay ended.

Called by the MEDS source. Row k stands at time zero plus k steps: it holds what was charted up to
then, and doses from then on until the next. A stay ends at death, at leaving intensive care or at
the horizon; where a dose cannot be known it is no longer followed (censored).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from ogsrl.sources.meds.hours import of_stays
from ogsrl.sources.meds.infusions import highest, volumes
from ogsrl.spec import Cohort

Doubles = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Steps:
    """Rows of stays, stay after stay.

    Attributes:
        zero: Minute of each stay's row 0.
        until: When each stay's last step ends at the latest.
        count: Rows of each stay.
        width: Minutes of a step.
    """

    zero: Doubles
    until: Doubles
    count: Places
    width: float

    @classmethod
    def of(cls, zero: Doubles, until: Doubles, cohort: Cohort) -> Steps:
        """As many as begin before the end, up to the longest stay's."""
        width = cohort.time_step_hours * 60
        begun = np.ceil((until - zero) / width).astype(np.int64)
        return cls(zero, until, np.minimum(begun, cohort.max_steps), width)

    @property
    def first(self) -> Places:
        """Place of each stay's row 0."""
        return np.cumsum(self.count) - self.count

    @property
    def rows(self) -> int:
        """In all."""
        return int(self.count.sum())

    @property
    def stay(self) -> Places:
        """Of each row, which stay it is of."""
        return np.repeat(np.arange(len(self.count)), self.count)

    @property
    def step(self) -> Places:
        """Of each row, its number in the stay."""
        return np.arange(self.rows) - self.first[self.stay]

    def place(self, stay: Places, step: Places) -> Places:
        """The row of a stay's step; -1 where it has none."""
        known = (step >= 0) & (step < self.count[stay])
        return np.where(known, self.first[stay] + step, -1)


def observed(
    steps: Steps,
    stays: pd.DataFrame,
    events: pd.DataFrame,
    statistic: str,
    lookback: float,
) -> Doubles:
    """A charted column: in each row the statistic of the step before; NaN where none was charted.

    Before row 0, where nothing was charted in one step, the last value of `lookback` minutes.
    """
    begin = steps.zero - max(lookback, steps.width)
    found = of_stays(events, stays, begin, steps.zero + (steps.count - 1) * steps.width)
    stay = found["stay"].to_numpy(np.int64)
    step = np.ceil((found["minute"].to_numpy() - steps.zero[stay]) / steps.width).astype(np.int64)
    found = found.assign(step=step).sort_values(["stay", "minute"], kind="stable")
    column = np.full(steps.rows, np.nan)
    if statistic != "sum":  # a sum is of its step alone
        early = found[found["step"] <= 0].groupby("stay", sort=True)["value"].last()
        column[steps.first[early.index.to_numpy()]] = early.to_numpy()
    found = found[found["step"] >= 0]
    each = found.groupby(["stay", "step"], sort=True)["value"].agg(statistic)
    index = each.index
    column[
        steps.place(
            index.get_level_values(0).to_numpy(np.int64),
            index.get_level_values(1).to_numpy(np.int64),
        )
    ] = each.to_numpy()
    return column


@dataclass(frozen=True)
class _Ran:
    """Infusions during stays: minutes since time zero, and values that count alike."""

    stay: Places
    start: Doubles
    end: Doubles
    value: Doubles

    @classmethod
    def of(
        cls, steps: Steps, stays: pd.DataFrame, given: pd.DataFrame, counts: Mapping[str, float]
    ) -> _Ran:
        found = _spans(steps, stays, given)
        stay = found["stay"].to_numpy(np.int64)
        minutes = found[["start", "end"]].to_numpy(np.float64) - steps.zero[stay][:, None]
        each = found["name"].map(counts).to_numpy(np.float64)
        start, end = minutes.T
        return cls(stay, start, end, found["value"].to_numpy(np.float64) * each)

    @property
    def known(self) -> Flags:
        """Whether it is told from when to when, and how much."""
        known: Flags = ~(np.isnan(self.value) | np.isnan(self.start) | np.isnan(self.end))
        return known

    def lost(self, steps: Steps) -> Flags:
        """Rows in whose step something began of which that is not so."""
        some = ~self.known
        begun = np.where(np.isnan(self.start), self.end, self.start)[some]
        step = np.maximum(np.floor(begun / steps.width), 0).astype(np.int64)
        place = steps.place(self.stay[some], step)
        found = np.zeros(steps.rows, bool)
        found[place[place >= 0]] = True
        return found


def fluid(
    steps: Steps, stays: pd.DataFrame, given: pd.DataFrame, tonicity: Mapping[str, float]
) -> tuple[Doubles, Flags]:
    """Isotonic mL in each row's step, and whether from then on it cannot be known."""
    ran = _Ran.of(steps, stays, given, tonicity)
    some = ran.known
    pieces, came = volumes(ran.start[some], ran.end[some], ran.value[some], steps.width)
    place = steps.place(ran.stay[some][pieces.span], pieces.step)
    inside = place >= 0
    column = np.bincount(place[inside], came[inside], steps.rows).astype(np.float64)
    return column, ran.lost(steps)


def pressor(
    steps: Steps, stays: pd.DataFrame, given: pd.DataFrame, equivalents: Mapping[str, float]
) -> tuple[Doubles, Flags]:
    """The highest norepinephrine equivalent in each row's step; the same of not knowing it."""
    ran = _Ran.of(steps, stays, given, equivalents)
    some, column = ran.known, np.zeros(steps.rows)
    if some.any():
        each = highest(ran.stay[some], ran.start[some], ran.end[some], ran.value[some], steps.width)
        place = steps.place(each["stay"].to_numpy(np.int64), each["step"].to_numpy(np.int64))
        column[place[place >= 0]] = each["rate"].to_numpy()[place >= 0]
    return column, ran.lost(steps)


def _spans(steps: Steps, stays: pd.DataFrame, given: pd.DataFrame) -> pd.DataFrame:
    """What of a subject's infusions ran during each stay's steps."""
    when = given["start"].fillna(given["end"])
    close = steps.zero + steps.count * steps.width
    found = of_stays(given.assign(minute=when), stays, np.full(len(stays), -np.inf), close)
    over = found["end"].fillna(np.inf).to_numpy() > steps.zero[found["stay"].to_numpy(np.int64)]
    running: pd.DataFrame = found.loc[over]
    return running
