"""Time zero: both criteria, in their windows, and never by what came later."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from ogsrl.sources.meds.hours import HOUR, Hours
from ogsrl.sources.meds.sepsis import suspicions, time_zero

HOURS = Hours(np.array([0.0]), np.array([200]), 96)


def acts(*hours: float) -> pd.DataFrame:
    return pd.DataFrame({"subject": 1, "minute": [hour * HOUR for hour in hours]})


def zero(score: dict[int, float], suspected: pd.DataFrame) -> float:
    """Hour of time zero; the score is told from each hour on until the next."""
    column = np.full(HOURS.rows, np.nan)
    for hour, value in sorted(score.items()):
        column[HOURS.hour >= hour] = value
    return float(time_zero(HOURS, column, suspected.assign(stay=0))[0] / HOUR)


@pytest.mark.parametrize(
    ("antibiotic", "culture", "suspected"),
    [
        (72, 0, (0, 72)),  # a culture, then an antibiotic within 72 hours
        (72.1, 0, None),
        (0, 24, (0, 24)),  # an antibiotic, then a culture within 24 hours
        (0, 24.1, None),
        (5, 5, (5, 5)),
    ],
)
def test_infection_is_suspected_when_both_acts_are_near(
    antibiotic: float, culture: float, suspected: tuple[float, float] | None
) -> None:
    found = suspicions(acts(antibiotic), acts(culture), "antibiotic_and_culture")
    told = [tuple(row) for row in (found[["at", "known"]] / HOUR).to_numpy()]
    assert told == ([] if suspected is None else [suspected])


def test_the_weaker_definition_needs_no_culture_and_the_stronger_one_does() -> None:
    assert len(suspicions(acts(3), acts(), "antibiotic_alone")) == 1
    assert suspicions(acts(3), acts(), "antibiotic_and_culture").empty


def test_time_zero_waits_for_the_later_of_the_two() -> None:
    known_late = suspicions(acts(30), acts(10), "antibiotic_and_culture")
    assert zero({0: 0, 5: 2}, known_late) == 30  # the culture's patient got an antibiotic then
    early = suspicions(acts(10), acts(), "antibiotic_alone")
    assert zero({0: 0, 20: 2}, early) == 20  # the rise came last
    assert zero({0: 0, 20: 1}, early) != zero({0: 0, 20: 2}, early)


def test_the_rise_is_on_the_lowest_of_two_days_before_and_within_a_day_after() -> None:
    suspected = suspicions(acts(60), acts(), "antibiotic_alone")
    assert np.isnan(zero({-96: 5, 0: 5}, suspected))  # chronic: 5 points all along
    assert zero({-96: 5, 0: 5, 70: 7}, suspected) == 70
    assert np.isnan(zero({-96: 3, 11: 5}, suspected))
    assert zero({-96: 3, 13: 5}, suspected) == 60  # low still two days before
    assert np.isnan(zero({-96: 3, 85: 5}, suspected))  # more than a day after


def test_who_is_not_known_is_taken_as_well() -> None:
    suspected = suspicions(acts(2), acts(), "antibiotic_alone")
    assert zero({0: 2}, suspected) == 2


def test_nothing_later_moves_it() -> None:
    some = suspicions(acts(10), acts(), "antibiotic_alone")
    more = suspicions(acts(10, 50, 90), acts(), "antibiotic_alone")
    assert zero({0: 0, 12: 2}, some) == zero({0: 0, 12: 2, 40: 9, 60: 1}, more) == 12


def test_only_hours_in_intensive_care_count() -> None:
    suspected = suspicions(acts(-20), acts(), "antibiotic_alone")
    assert zero({-30: 0, -15: 4}, suspected) == 0  # met on the ward: the first hour here
    assert np.isnan(zero({-96: 0, -15: 4}, suspicions(acts(-25), acts(), "antibiotic_alone")))
