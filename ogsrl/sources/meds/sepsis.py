"""Sepsis-3 as it could be known at the time: suspected infection, and a rise of the SOFA score.

Called by the MEDS source. Time zero is the first hour in intensive care at which both were met
from what had been charted and ordered by then; a later rise, or a later culture, is never looked at
(Singer et al. 2016, JAMA 315:801; Seymour et al. 2016, JAMA 315:762).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from ogsrl.sources.meds.hours import HOUR, Hours

Doubles = npt.NDArray[np.float64]
Infection = Literal["antibiotic_and_culture", "antibiotic_alone"]

#: Hours: a culture, then an antibiotic within so many; or an antibiotic, then a culture.
THEN_ANTIBIOTIC, THEN_CULTURE = 72, 24
#: Hours around a suspicion in which the score must rise, and by how much.
EARLIER, LATER, RISE = 48, 24, 2


def suspicions(
    antibiotics: pd.DataFrame, cultures: pd.DataFrame, definition: Infection
) -> pd.DataFrame:
    """When infection was suspected, by subject: `at`, the earlier act, and `known`, the later.

    >>> acts = lambda *minutes: pd.DataFrame({"subject": 1, "minute": [60.0 * m for m in minutes]})
    >>> found = suspicions(acts(0, 100), acts(10, 40, 190), "antibiotic_and_culture")
    >>> (found[["at", "known"]] / 60).to_numpy().tolist()
    [[0.0, 10.0], [40.0, 100.0]]

    Args:
        antibiotics: `subject`, `minute`.
        cultures: The same.
        definition: The weaker one takes every antibiotic for a suspicion.
    """
    given = antibiotics[["subject", "minute"]].dropna().drop_duplicates()
    if definition == "antibiotic_alone":
        return given.assign(at=given["minute"], known=given["minute"]).drop(columns="minute")
    both = given.merge(cultures[["subject", "minute"]].dropna(), on="subject", suffixes=("", "_c"))
    gap = (both["minute"] - both["minute_c"]) / HOUR  # above 0: the culture came first
    both = both[(gap >= -THEN_CULTURE) & (gap <= THEN_ANTIBIOTIC)]
    each = both[["minute", "minute_c"]]
    found = both[["subject"]].assign(at=each.min(axis=1), known=each.max(axis=1))
    # of one first act, what was known first
    return found.sort_values(["subject", "at", "known"]).drop_duplicates(["subject", "at"])


def time_zero(hours: Hours, score: Doubles, suspected: pd.DataFrame) -> Doubles:
    """Minute of each stay's time zero; NaN where sepsis never was.

    The score's rise is on its lowest since two days before the suspicion; where nothing is known of
    a patient it is taken as 0, as Sepsis-3 takes whoever is not known to be ill.

    Args:
        hours: Of stays.
        score: SOFA by row of `hours`, of what was charted by then.
        suspected: `stay`, `at`, `known`.
    """
    found = np.full(len(hours.start), np.inf)
    stay = suspected["stay"].to_numpy(np.int64)
    at, known = suspected["at"].to_numpy(np.float64), suspected["known"].to_numpy(np.float64)
    begun = np.ceil((at - hours.start[stay]) / HOUR - EARLIER).astype(np.int64)
    hour = begun[:, None] + np.arange(EARLIER + LATER + 1)
    within = (hour >= -hours.before) & (hour < hours.count[stay][:, None])
    row = hours.first[stay][:, None] + np.where(within, hour, 0) + hours.before
    value = np.where(within, np.nan_to_num(score[row]), np.inf)
    rise = value - np.minimum.accumulate(value, axis=1) >= RISE
    minute = hours.start[stay][:, None] + hour * HOUR
    met = within & rise & (hour >= 0) & (minute >= known[:, None])
    met &= minute <= at[:, None] + LATER * HOUR
    first = np.where(met, minute, np.inf).min(axis=1, initial=np.inf)
    np.minimum.at(found, stay, first)
    return np.where(np.isinf(found), np.nan, found)
