"""Infusions from their starts and ends: which end belongs to which start, and what ran when.

Called by the MEDS source with the events of whole subjects. An export without order ids does not
say which of several running bags has ended; what ran in tells: a start at 50 mL/h ends after two
hours with 100 mL. It never guesses a dose: what cannot be known is marked, and counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

Doubles = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]

#: An end fits a start where its amount is within this share of what the rate comes to: exports
#: round neither, and a flow that is only near may be of another bag.
FITS = 0.001
#: Stands for a start or an end that is not there.
NOBODY = -1
#: What ran together: subject, item, and the order where the export has one.
KEY = ("subject", "item", "order")


@dataclass(frozen=True)
class Counts:
    """How infusions were put together.

    Attributes:
        paired: Starts with an end.
        among_several: Of those, how many ended while others ran too.
        without_end: Starts that no end belongs to.
        without_start: Ends that no start belongs to.
    """

    paired: int = 0
    among_several: int = 0
    without_end: int = 0
    without_start: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.paired + other.paired,
            self.among_several + other.among_several,
            self.without_end + other.without_end,
            self.without_start + other.without_start,
        )


def pair(events: pd.DataFrame) -> tuple[pd.DataFrame, Counts]:
    """One row an infusion: when it ran, at which flow, how much came in.

    Ends come before starts of the same minute, since a change of rate is an end and a start. Of
    several open starts an end takes the one whose flow comes to its amount, else the one that has
    no flow (a bag that was let run), else the one whose flow comes nearest.

    Args:
        events: By time within `KEY` (a missing order is one order): `minute` (float), `ends`
            (whether), `flow` a minute as started (NaN: not told), `amount` that came in (of ends),
            in any unit that flow times minutes gives.

    Returns:
        `KEY`, `start` and `end` in minutes (NaN where missing), `flow`, `amount` (NaN without an
        end), `row_start` and `row_end`: places among the events, -1 where there is none.

    >>> bags = pd.DataFrame({
    ...     "subject": 1, "item": "saline", "order": None, "minute": [0.0, 30.0, 60.0, 150.0],
    ...     "ends": [False, False, True, True], "flow": [2.0, 4.0, np.nan, np.nan],
    ...     "amount": [np.nan, np.nan, 120.0, 480.0]})
    >>> pair(bags)[0][["start", "end", "flow", "amount"]].to_dict("list")
    {'start': [0.0, 30.0], 'end': [60.0, 150.0], 'flow': [2.0, 4.0], 'amount': [120.0, 480.0]}
    """
    events = events.assign(order=events["order"].astype("str"))
    codes = events.groupby(list(KEY), sort=False, dropna=False).ngroup().to_numpy()
    minute, ends = events["minute"].to_numpy(np.float64), events["ends"].to_numpy(bool)
    # a bag of no length ends after it starts
    order = np.lexsort((~ends, minute, codes))
    found = _Pairs(minute, ends, events["flow"].to_numpy(), events["amount"].to_numpy())
    for group in np.split(order, np.flatnonzero(np.diff(codes[order])) + 1):
        found.of(group)
    return found.frame(events), found.counts


class _Pairs:
    """Starts and ends of one group after the other."""

    def __init__(
        self, minute: Doubles, ends: npt.NDArray[np.bool_], flow: Doubles, amount: Doubles
    ) -> None:
        self.minute, self.ends, self.flow, self.amount = minute, ends, flow, amount
        self.start: list[int] = []
        self.end: list[int] = []
        self.counts = Counts()

    def of(self, group: Places) -> None:
        starts, ends = group[~self.ends[group]], group[self.ends[group]]
        if self._one_by_one(starts, ends):
            self._told(starts.tolist(), ends.tolist(), 0)
        else:
            self._together(group)

    def _one_by_one(self, starts: Places, ends: Places) -> bool:
        """Whether nothing ran beside another, so that order alone tells."""
        if len(starts) != len(ends):
            return False
        begun, ended = self.minute[starts], self.minute[ends]
        return bool((ended >= begun).all() and (begun[1:] >= ended[:-1]).all())

    def _together(self, group: Places) -> None:
        """Event by event; an end before any start waits for one of its own minute."""
        running: list[int] = []
        waiting: list[int] = []
        pairs: list[tuple[int, int]] = []
        chosen = 0
        for row in group.tolist():
            if self.ends[row]:
                if running:
                    chosen += len(running) > 1
                    pairs.append((running.pop(self._fitting(running, row)), row))
                else:
                    waiting.append(row)
            elif waiting and self.minute[waiting[-1]] == self.minute[row]:
                pairs.append((row, waiting.pop()))  # a bag of no length
            else:
                running.append(row)
        self._told([one for one, _ in pairs], [one for _, one in pairs], chosen)
        self._told(running, [NOBODY] * len(running), 0)
        self._told([NOBODY] * len(waiting), waiting, 0)

    def _fitting(self, running: Sequence[int], row: int) -> int:
        """Which of the open starts an end belongs to."""
        if len(running) == 1:
            return 0
        flow, amount = self.flow[running], self.amount[row]
        off = np.abs(flow * (self.minute[row] - self.minute[running]) - amount)
        best = int(np.argmin(np.nan_to_num(off, nan=np.inf)))
        untold = np.isnan(flow)
        if off[best] <= FITS * amount or not untold.any():
            return best
        return int(np.argmax(untold))  # the first of them

    def _told(self, starts: Sequence[int], ends: Sequence[int], chosen: int) -> None:
        self.start.extend(starts)
        self.end.extend(ends)
        open_, sudden = list(ends).count(NOBODY), list(starts).count(NOBODY)
        self.counts += Counts(len(starts) - open_ - sudden, chosen, open_, sudden)

    def frame(self, events: pd.DataFrame) -> pd.DataFrame:
        """One row an infusion, by key and time."""
        start, end = np.array(self.start, np.int64), np.array(self.end, np.int64)
        begun, over = start != NOBODY, end != NOBODY
        made = events[list(KEY)].iloc[np.where(begun, start, end)].reset_index(drop=True)
        made["start"] = np.where(begun, self.minute[start], np.nan)
        made["end"] = np.where(over, self.minute[end], np.nan)
        made["flow"] = np.where(begun, self.flow[start], np.nan)
        made["amount"] = np.where(over, self.amount[end], np.nan)
        made["row_start"], made["row_end"] = start, end
        made["known_from"] = made["start"].fillna(made["end"])
        made = made.sort_values(["subject", "item", "known_from"], kind="stable")
        return made.drop(columns="known_from").reset_index(drop=True)


@dataclass(frozen=True)
class Pieces:
    """Parts of spans, each within one step.

    Attributes:
        span: Which span each is of.
        step: Which step it lies in.
        minutes: How long it is; 0 of a span of no length.
    """

    span: Places
    step: Places
    minutes: Doubles


def cut(start: Doubles, end: Doubles, width: float) -> Pieces:
    """Spans cut at the borders of steps, [0, width), [width, 2 width), ...; before 0 too.

    >>> pieces = cut(np.array([30.0, 60.0]), np.array([150.0, 60.0]), 60.0)
    >>> pieces.span.tolist(), pieces.step.tolist(), pieces.minutes.tolist()
    ([0, 0, 0, 1], [0, 1, 2, 1], [30.0, 60.0, 30.0, 0.0])
    """
    first = np.floor(start / width).astype(np.int64)
    last = np.maximum(np.ceil(end / width).astype(np.int64) - 1, first)
    count = last - first + 1
    span = np.repeat(np.arange(len(start)), count)
    step = np.arange(len(span)) - np.repeat(np.cumsum(count) - count - first, count)
    begun = np.maximum(start[span], step * width)
    return Pieces(span, step, np.minimum(end[span], (step + 1) * width) - begun)


def volumes(start: Doubles, end: Doubles, amount: Doubles, width: float) -> tuple[Pieces, Doubles]:
    """What came in during each piece, evenly over its span; all of a span of no length at once.

    >>> pieces, came = volumes(np.array([30.0]), np.array([150.0]), np.array([240.0]), 60.0)
    >>> came.tolist()
    [60.0, 120.0, 60.0]
    """
    pieces = cut(start, end, width)
    length = (end - start)[pieces.span]
    share = np.divide(pieces.minutes, length, out=np.ones_like(length), where=length > 0)
    return pieces, amount[pieces.span] * share


def highest(
    stay: Places, start: Doubles, end: Doubles, rate: Doubles, width: float
) -> pd.DataFrame:
    """The highest rate of everything that ran together, by stay and step.

    >>> highest(np.array([0, 0]), np.array([0.0, 30.0]), np.array([90.0, 60.0]),
    ...         np.array([0.1, 0.2]), 60.0).round(6).to_dict("list")
    {'stay': [0, 0], 'step': [0, 1], 'rate': [0.3, 0.1]}
    """
    runs = end > start
    moments = pd.DataFrame(
        {
            "stay": np.concatenate([stay[runs], stay[runs]]),
            "minute": np.concatenate([start[runs], end[runs]]),
            "change": np.concatenate([rate[runs], -rate[runs]]),
        }
    )
    changes = moments.groupby(["stay", "minute"], sort=True)["change"].sum().reset_index()
    # what sums leave over is no dose
    changes["rate"] = changes.groupby("stay", sort=False)["change"].cumsum().round(9)
    same = (changes["stay"].shift(-1) == changes["stay"]).to_numpy()
    until = changes["minute"].shift(-1).to_numpy()
    spans = changes[same]
    pieces = cut(spans["minute"].to_numpy(np.float64), until[same].astype(np.float64), width)
    found = pd.DataFrame(
        {
            "stay": spans["stay"].to_numpy()[pieces.span],
            "step": pieces.step,
            "rate": spans["rate"].to_numpy()[pieces.span],
        }
    )
    return found.groupby(["stay", "step"], sort=True)["rate"].max().reset_index()
