"""Infusions: which end belongs to which start, volumes and rates by step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ogsrl.sources.meds.infusions import Counts, cut, highest, pair, volumes
from tests.demo import demo_events, needs_demo

WIDTH = 240.0


def events(bags: list[dict[str, Any]], order: bool = False) -> pd.DataFrame:
    """Starts and ends of whole infusions, by time as an export has them."""
    rows = []
    for number, bag in enumerate(bags):
        known = {"subject": bag.get("subject", 1), "item": bag.get("item", "saline")}
        known["order"] = str(number) if order else None
        rows.append({**known, "minute": bag["start"], "ends": False, "flow": bag["flow"]})
        amount = bag.get("amount", bag["flow"] * (bag["end"] - bag["start"]))
        rows.append({**known, "minute": bag["end"], "ends": True, "amount": amount})
    frame = pd.DataFrame(rows).reindex(columns=[*rows[0], "amount"])
    return frame.sort_values(["subject", "minute"], kind="stable").reset_index(drop=True)


def whole(found: pd.DataFrame) -> set[tuple[float, ...]]:
    return {*found[["start", "end", "flow", "amount"]].itertuples(index=False, name=None)}


def test_a_change_of_rate_is_an_end_and_a_start_of_the_same_minute() -> None:
    bags = [
        {"start": 0.0, "end": 60.0, "flow": 1.0},
        {"start": 60.0, "end": 200.0, "flow": 3.0},
        {"start": 200.0, "end": 230.0, "flow": 2.0},
    ]
    found, counts = pair(events(bags))
    assert whole(found) == {
        (b["start"], b["end"], b["flow"], b["flow"] * (b["end"] - b["start"])) for b in bags
    }
    assert counts == Counts(paired=3)


@pytest.mark.parametrize("order", [True, False])
def test_a_bag_that_ran_while_others_came_and_went_gets_its_own_end(order: bool) -> None:
    bags = [
        {"start": 0.0, "end": 600.0, "flow": 1.0},
        {"start": 60.0, "end": 90.0, "flow": 5.0},
        {"start": 70.0, "end": 71.0, "flow": np.nan, "amount": 250.0},
        {"start": 100.0, "end": 160.0, "flow": 2.5},
    ]
    found, counts = pair(events(bags, order))
    assert found["start"].tolist() == [0.0, 60.0, 70.0, 100.0]
    assert found["end"].tolist() == [600.0, 90.0, 71.0, 160.0]
    assert counts == Counts(paired=4, among_several=0 if order else 3)


def test_a_slow_bag_that_nearly_came_to_a_boluss_amount_keeps_its_own_end() -> None:
    bags = [
        {"start": 0.0, "end": 3_000.0, "flow": 1 / 6},
        {"start": 600.0, "end": 601.0, "flow": np.nan, "amount": 100.0},
        {"start": 610.0, "end": 611.0, "flow": np.nan, "amount": 100.0},
    ]
    found, _ = pair(events(bags))
    assert found["end"].tolist() == [3_000.0, 601.0, 611.0]
    assert found["amount"].tolist() == pytest.approx([500.0, 100.0, 100.0])


def test_where_rates_were_rounded_the_nearest_counts() -> None:
    bags = [
        {"start": 0.0, "end": 500.0, "flow": 1.0, "amount": 504.0},
        {"start": 10.0, "end": 300.0, "flow": 4.0, "amount": 1_150.0},
    ]
    found, _ = pair(events(bags))
    assert found["end"].tolist() == [500.0, 300.0]


def test_what_has_no_end_or_no_start_is_told_and_counted() -> None:
    made = events(
        [{"start": 10.0, "end": 50.0, "flow": 1.0}, {"start": 60.0, "end": 90.0, "flow": 2.0}]
    )
    found, counts = pair(made.drop(index=[3]))
    assert found["end"].isna().tolist() == [False, True]
    assert counts == Counts(paired=1, without_end=1)
    found, counts = pair(made.drop(index=[0]))
    assert found["start"].isna().tolist() == [True, False]
    assert found["amount"].tolist() == [40.0, 60.0]
    assert counts == Counts(paired=1, without_start=1)


def test_a_bolus_of_no_length_is_an_infusion_too() -> None:
    found, counts = pair(events([{"start": 30.0, "end": 30.0, "flow": np.nan, "amount": 500.0}]))
    assert found[["start", "end", "amount"]].to_numpy().tolist() == [[30.0, 30.0, 500.0]]
    assert counts == Counts(paired=1)


def test_subjects_items_and_orders_are_never_mixed() -> None:
    bags = [
        {"start": 0.0, "end": 50.0, "flow": 1.0, "subject": subject, "item": item}
        for subject in (1, 2)
        for item in ("saline", "ringer")
    ]
    made = events(bags)
    found, counts = pair(made[~((made["subject"] == 1) & made["ends"])])
    assert counts == Counts(paired=2, without_end=2)
    assert found.loc[found["subject"] == 1, "end"].isna().all()
    assert set(found["item"]) == {"saline", "ringer"}


numbers = st.floats(0.5, 20.0)
bag = st.fixed_dictionaries(
    {"start": st.integers(0, 2_000).map(float), "length": st.integers(1, 900), "flow": numbers}
)


@given(st.lists(bag, min_size=1, max_size=12))
@settings(max_examples=60, deadline=None)
def test_volume_is_conserved_by_step_and_in_all_however_bags_overlap(
    made: list[dict[str, Any]],
) -> None:
    bags = [{**one, "end": one["start"] + one["length"]} for one in made]
    found, counts = pair(events(bags))
    assert counts.paired == len(bags)
    start, end, amount = (found[name].to_numpy() for name in ("start", "end", "amount"))
    pieces, came = volumes(start, end, amount, WIDTH)
    truth = sum(one["flow"] * one["length"] for one in bags)
    assert came.sum() == pytest.approx(truth)
    assert pieces.minutes.sum() == pytest.approx((end - start).sum())
    assert (came >= 0).all()


@given(st.lists(bag, min_size=1, max_size=12))
@settings(max_examples=60, deadline=None)
def test_the_highest_rate_is_the_highest_of_any_minute(made: list[dict[str, Any]]) -> None:
    start = np.array([one["start"] for one in made])
    end = start + [one["length"] for one in made]
    rate = np.array([one["flow"] for one in made])
    found = highest(np.zeros(len(made), np.int64), start, end, rate, WIDTH)
    minutes = np.arange(int(end.max()))
    total = ((start[:, None] <= minutes) & (minutes < end[:, None])).T @ rate
    by_step = pd.Series(total).groupby(minutes // int(WIDTH)).max()
    for step, value in found.set_index("step")["rate"].items():
        assert value == pytest.approx(by_step[step], abs=1e-6)
    assert set(by_step[by_step > 0].index) <= set(found["step"])


def test_nothing_is_left_over_where_everything_has_ended() -> None:
    stay, start = np.zeros(3, np.int64), np.array([0.0, 10.0, 500.0])
    found = highest(stay, start, np.array([30.0, 40.0, 510.0]), np.array([0.1, 0.2, 0.3]), WIDTH)
    assert found["rate"].tolist() == [0.3, 0.0, 0.3]


def test_spans_before_time_zero_lie_in_steps_below_zero() -> None:
    pieces = cut(np.array([-300.0]), np.array([10.0]), WIDTH)
    assert pieces.step.tolist() == [-2, -1, 0]
    assert pieces.minutes.tolist() == [60.0, 240.0, 10.0]


@needs_demo
@pytest.mark.parametrize("item", [225158, 225828, 226089, 220864, 225823])
def test_in_the_demo_every_bag_with_a_rate_comes_to_its_amount(item: int) -> None:
    seen = demo_events()
    code = seen["code"]
    some = seen[code.isin([f"INFUSION_START//{item}", f"INFUSION_END//{item}"])]
    ends = some["code"].str.startswith("INFUSION_END")
    made = pd.DataFrame(
        {
            "subject": some["subject_id"],
            "item": str(item),
            "order": None,
            "minute": some["time"].astype("datetime64[s]").astype("int64") / 60,
            "ends": ends,
            "flow": some["numeric_value"].where(~ends) / 60,
            "amount": some["numeric_value"].where(ends),
        }
    )
    found, counts = pair(made)
    assert counts.without_end == counts.without_start == 0
    assert found["amount"].sum() == pytest.approx(made["amount"].sum())
    known = found[found["flow"].notna()]
    came = known["flow"] * (known["end"] - known["start"])
    assert (came - known["amount"]).abs().max() <= 0.02 * known["amount"].max()
    assert ((came - known["amount"]).abs() <= 0.02 * known["amount"] + 0.5).all()
