"""Hours of stays: nothing is known too early, no stay looks into another, days are whole."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ogsrl.sources.meds.hours import DAY, HOUR, Hours, of_stays

charted = st.lists(
    st.tuples(st.integers(0, 1), st.integers(-3_000, 4_000), st.integers(1, 9)), max_size=30
)
GRID = Hours(np.array([1_000.0, 90_000.0]), np.array([40, 3]), 30)


def told(events: list[tuple[int, int, int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    stay = np.array([one for one, _, _ in events], np.int64)
    minute = GRID.start[stay] + np.array([m for _, m, _ in events], np.float64)
    return stay, minute, np.array([value for _, _, value in events], np.float64)


@given(charted)
@settings(deadline=None)
def test_an_hour_knows_what_was_charted_up_to_it_and_a_day_back(
    events: list[tuple[int, int, int]],
) -> None:
    stay, minute, value = told(events)
    low, high = GRID.lowest(stay, minute, value), GRID.highest(stay, minute, value)
    total = GRID.sum_of_day(GRID.total(stay, minute, value))
    lowest, highest = GRID.lowest_of_day(low), GRID.highest_of_day(high)
    for row in range(GRID.rows):
        now, first = GRID.minute[row], GRID.start[GRID.stay[row]] - GRID.before * HOUR - HOUR
        own = (stay == GRID.stay[row]) & (minute <= now)
        hour = value[own & (minute > now - HOUR)]
        day = value[own & (minute > max(now - DAY * HOUR, first))]
        assert np.isnan(low[row]) if not len(hour) else low[row] == hour.min()
        assert np.isnan(lowest[row]) if not len(day) else lowest[row] == day.min()
        assert np.isnan(highest[row]) if not len(day) else highest[row] == day.max()
        assert np.isnan(total[row]) if GRID.hour[row] < DAY else total[row] == day.sum()


@given(
    st.lists(
        st.tuples(st.integers(0, 1), st.integers(-900, 2_000), st.integers(0, 900)), max_size=8
    )
)
@settings(deadline=None)
def test_what_runs_is_known_in_every_hour_that_it_touches(
    spans: list[tuple[int, int, int]],
) -> None:
    stay = np.array([one for one, _, _ in spans], np.int64)
    start = GRID.start[stay] + np.array([one for _, one, _ in spans], np.float64)
    end = start + [length for _, _, length in spans]
    rate = np.arange(1.0, len(spans) + 1)
    found = GRID.running(stay, start, end, rate)
    for row in range(GRID.rows):
        now = GRID.minute[row]
        on = (stay == GRID.stay[row]) & (start < now) & (end > now - HOUR)
        assert found[row] == rate[on].max(initial=0)


def test_an_event_is_of_every_stay_of_its_subject_that_looks_at_its_time() -> None:
    events = pd.DataFrame({"subject": [1, 1, 1, 2], "minute": [0.0, 10.0, 20.0, 10.0]})
    stays = pd.DataFrame({"subject": [1, 1, 2, 3]})
    start, end = np.array([-1.0, 0.0, 0.0, 0.0]), np.array([10.0, 20.0, 9.0, 9.0])
    found = of_stays(events, stays, start, end)
    assert sorted(zip(found["stay"], found["minute"], strict=True)) == [
        (0, 0.0), (0, 10.0), (1, 10.0), (1, 20.0)
    ]  # fmt: skip


def test_hours_are_counted_from_before_the_stay() -> None:
    assert GRID.hour[[0, 30, 69, 70, -1]].tolist() == [-30, 0, 39, -30, 2]
    assert GRID.minute[30] == 1_000
    assert GRID.rows == pytest.approx(103)
