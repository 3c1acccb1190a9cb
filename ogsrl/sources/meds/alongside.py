"""What was done beside the doses: machines that ran, drugs that were given; and care for comfort.

Called by the MEDS source. Each is seen in a row only as far as it was known at the row's time.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from ogsrl.sources.meds.hours import DAY, HOUR, of_stays
from ogsrl.sources.meds.icu import Chunk
from ogsrl.sources.meds.infusions import pair
from ogsrl.sources.meds.steps import Steps

Doubles = npt.NDArray[np.float64]
#: Minutes that no stay lasts.
FAR = 1e6
#: Columns of what runs, by the moments that begin and end it.
MACHINES: Final = {"ventilated": "ventilation", "replacement": "replacement"}
#: Columns of what was given or ordered in the day before.
DRUGS: Final = {"antibiotics": "antibiotic", "steroids": "steroid"}


def open_ended(spans: pd.DataFrame) -> pd.DataFrame:
    """What was not told to end goes on: that it never will be told is not known at the time."""
    return spans.assign(end=spans["end"].fillna(spans["start"] + FAR))


def ran(chunk: Chunk, machine: str) -> pd.DataFrame:
    """When a machine ran for a subject: `subject`, `start`, `end`, `value` 1."""
    events = pd.concat(
        [
            chunk.of("moment", f"{machine}_start").assign(ends=False),
            chunk.of("moment", f"{machine}_end").assign(ends=True),
        ]
    ).sort_values(["subject", "minute"], kind="stable")
    events = events.assign(item=machine, flow=np.nan, amount=np.nan)
    found, _ = pair(events.reset_index(drop=True))
    begun = found[["subject", "start", "end"]].dropna(subset=["start"])
    return open_ended(begun).assign(value=1.0)


def lately(chunk: Chunk, drug: str) -> pd.DataFrame:
    """A drug as if it ran for a day from each time that it was given or ordered."""
    events = chunk.of("moment", drug).dropna(subset=["minute"])
    start = events["minute"]
    return events[["subject"]].assign(start=start, end=start + DAY * HOUR, value=1.0)


def active(steps: Steps, stays: pd.DataFrame, spans: pd.DataFrame) -> Doubles:
    """1 in rows at whose time one of the spans ran."""
    lasts = np.full(len(stays), np.inf)
    found = of_stays(spans.assign(minute=spans["start"]), stays, -lasts, lasts)
    stay = found["stay"].to_numpy(np.int64)
    begun = (found["start"].to_numpy() - steps.zero[stay]) / steps.width
    over = (found["end"].to_numpy() - steps.zero[stay]) / steps.width
    first = np.maximum(np.ceil(begun), 0).astype(np.int64)
    last = np.minimum(np.ceil(over) - 1, steps.count[stay] - 1).astype(np.int64)
    length = np.maximum(last - first + 1, 0)
    span = np.repeat(np.arange(len(stay)), length)
    turn = np.arange(len(span)) - np.repeat(np.cumsum(length) - length, length)
    column = np.zeros(steps.rows)
    column[steps.first[stay[span]] + first[span] + turn] = 1.0
    return column


def comfort(chunk: Chunk, stays: pd.DataFrame, earlier: float) -> Doubles:
    """Minute from which each stay's patient was treated for comfort alone; NaN: never told.

    Args:
        chunk: Of the stays' subjects.
        stays: With `icu_in` and `icu_out`.
        earlier: Minutes before the admission of which it still counts.
    """
    events = chunk.of("moment", "comfort_care").dropna(subset=["minute"])
    begin, end = (stays[name].to_numpy(np.float64) for name in ("icu_in", "icu_out"))
    first = of_stays(events, stays, begin - earlier, end).groupby("stay")["minute"].min()
    return first.reindex(np.arange(len(stays))).to_numpy(np.float64)
