"""Hours of stays: what was charted, and what ran, on one grid; and the worst of the last day.

Called by the MEDS source to score stays hour by hour. Hour h of a stay is the moment h hours after
its admission; it knows what was charted up to it and nothing later.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd

Doubles = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]

#: Minutes of an hour; hours of a day, which scores look back on.
HOUR, DAY = 60.0, 24


@dataclass(frozen=True)
class Hours:
    """A grid of hours, stay after stay, each from `before` hours before its start.

    Attributes:
        start: Minute of each stay's hour 0.
        count: Hours of each stay from 0 on, the last within the stay.
        before: Hours before 0; at least a day, which the first of them look back on.
    """

    start: Doubles
    count: Places
    before: int

    @cached_property
    def first(self) -> Places:
        """Row of each stay's earliest hour."""
        size = self.count + self.before
        return np.cumsum(size) - size

    @property
    def rows(self) -> int:
        """Hours in all."""
        return int((self.count + self.before).sum())

    @cached_property
    def stay(self) -> Places:
        """Of each row, which stay it is of."""
        return np.repeat(np.arange(len(self.start)), self.count + self.before)

    @cached_property
    def hour(self) -> Places:
        """Of each row, its hour; below 0 before the stay."""
        return np.arange(self.rows) - self.first[self.stay] - self.before

    @cached_property
    def minute(self) -> Doubles:
        """Of each row, when it is."""
        return self.start[self.stay] + self.hour * HOUR

    def row(self, stay: Places, minute: Doubles) -> Places:
        """The first hour that knows of something charted then; -1 off the grid."""
        hour = np.ceil((minute - self.start[stay]) / HOUR).astype(np.int64)
        known = (hour >= -self.before) & (hour < self.count[stay])
        return np.where(known, self.first[stay] + hour + self.before, -1)

    def lowest(self, stay: Places, minute: Doubles, value: Doubles) -> Doubles:
        """The lowest value charted in the hour before each; NaN where none was.

        >>> hours = Hours(np.array([0.0]), np.array([2]), DAY)
        >>> hours.lowest(np.zeros(2, int), np.array([10.0, 60.0]), np.array([3.0, 2.0]))[-2:]
        array([nan,  2.])
        """
        found = np.full(self.rows, np.inf)
        row = self.row(stay, minute)
        kept = (row >= 0) & ~np.isnan(value)
        np.minimum.at(found, row[kept], value[kept])
        return np.where(np.isinf(found), np.nan, found)

    def highest(self, stay: Places, minute: Doubles, value: Doubles) -> Doubles:
        """The highest."""
        return -self.lowest(stay, minute, -value)

    def total(self, stay: Places, minute: Doubles, value: Doubles) -> Doubles:
        """The sum; 0 where nothing was charted."""
        row = self.row(stay, minute)
        kept = (row >= 0) & ~np.isnan(value)
        return np.bincount(row[kept], value[kept], self.rows).astype(np.float64)

    def running(self, stay: Places, start: Doubles, end: Doubles, rate: Doubles) -> Doubles:
        """The highest rate in the hour before each of what ran then, one at a time; 0: nothing."""
        found = np.zeros(self.rows)
        first = np.floor((start - self.start[stay]) / HOUR).astype(np.int64) + 1
        last = np.ceil((end - self.start[stay]) / HOUR).astype(np.int64)
        first, last = np.maximum(first, -self.before), np.minimum(last, self.count[stay] - 1)
        length = np.maximum(last - first + 1, 0)
        span = np.repeat(np.arange(len(stay)), length)
        turn = np.arange(len(span)) - np.repeat(np.cumsum(length) - length, length)
        row = self.first[stay[span]] + first[span] + turn + self.before
        np.maximum.at(found, row, rate[span])
        return found

    def lowest_of_day(self, values: Doubles) -> Doubles:
        """The lowest of the last 24 hours; in a stay's first 23 of the grid, of fewer."""
        reached, span = values.copy(), 1
        place = self.hour + self.before
        while span < DAY:  # 1, 2, 4, 8, 16, 24 hours
            step = min(span, DAY - span)
            back = np.full(len(values), np.nan)
            some = np.flatnonzero(place >= step)
            back[some] = reached[some - step]
            reached, span = np.fmin(reached, back), span + step
        return reached

    def highest_of_day(self, values: Doubles) -> Doubles:
        """The highest."""
        return -self.lowest_of_day(-values)

    def sum_of_day(self, values: Doubles) -> Doubles:
        """The sum of the last 24 hours; NaN in a stay's first 24, of which not all was measured."""
        so_far = np.cumsum(values)
        back = np.maximum(np.arange(self.rows) - DAY, 0)
        return np.where(self.hour >= DAY, so_far - so_far[back], np.nan)


def of_stays(
    events: pd.DataFrame, stays: pd.DataFrame, start: Doubles, end: Doubles
) -> pd.DataFrame:
    """Events of each stay's subject between two times, with `stay`: its place among the stays.

    One event may be of several stays of the subject.

    Args:
        events: By subject and time.
        stays: With `subject`.
        start: Of each stay; what is charted after it counts.
        end: Of each stay; what is charted then counts.
    """
    window = pd.DataFrame(
        {
            "subject": stays["subject"].to_numpy(),
            "stay": np.arange(len(stays)),
            "after": start,
            "up_to": end,
        }
    )
    found = events.merge(window, on="subject", how="inner", sort=False)
    inside = (found["minute"] > found["after"]) & (found["minute"] <= found["up_to"])
    return found.loc[inside, [*events.columns, "stay"]]
