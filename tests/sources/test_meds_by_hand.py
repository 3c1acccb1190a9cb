"""Three stays of the demo as somebody would work them out with a pencil, from the raw events.

Nothing of the source is used but when a stay was found septic: item numbers, units and rules are
written again here, with loops. No value of a patient stands here; which stays, is found by what
was done in them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

from tests.demo import DEMO, demo_events, needs_demo
from tests.sources.test_meds import _time_zeros, read

STEP, DAY = 240.0, 1_440.0
#: What 1 unit of each counts in ug/kg/min of norepinephrine (Goradia et al. 2020).
PRESSORS = {221906: 1.0, 221289: 1.0, 221662: 1 / 100, 221749: 1 / 10, 222315: 2.5 / 60}
DOPAMINE = 221662
HALF, THREE_PERCENT, ALBUMIN_25 = (225159, 225823), (225161,), (220862,)
WHOLE = (225158, 225828, 225825, 225827, 225941, 226089, 225944, 225797, 220864, 225174, 225795)
WHOLE = (*WHOLE, 225796)
FLUIDS = {
    **dict.fromkeys(WHOLE, 1.0),
    **dict.fromkeys(HALF, 0.5),
    **dict.fromkeys(THREE_PERCENT, 3.0),
    **dict.fromkeys(ALBUMIN_25, 5.0),
}
URINE = (226557, 226558, 226559, 226560, 226561, 226563, 226564, 226565, 226567, 226584, 227489)
IRRIGANT, VENTILATION = 227488, 225792

Charted = list[tuple[float, float]]


@dataclass(frozen=True)
class Bag:
    """Something that ran: minutes, its rate as started, how much came in."""

    start: float
    end: float
    rate: float
    amount: float

    def within(self, begin: float, end: float) -> float:
        """Minutes of it between two times."""
        return max(0.0, min(self.end, end) - max(self.start, begin))

    def share(self, begin: float, end: float) -> float:
        """How much of it came in between two times; of a bolus all, or nothing."""
        if self.end == self.start:
            return float(begin <= self.start < end)
        return self.within(begin, end) / (self.end - self.start)


class Chart:
    """The raw events of one patient."""

    def __init__(self, subject: int) -> None:
        seen = demo_events()
        own = seen[(seen["subject_id"] == subject) & seen["time"].notna()]
        minute = own["time"].astype("datetime64[us]").astype("int64") / 60e6
        self.of: dict[str, Charted] = {}
        for when, code, value in zip(minute, own["code"], own["numeric_value"], strict=True):
            if code.startswith(("LAB//", "SUBJECT_", "INFUSION_", "PROCEDURE//")):
                self.of.setdefault(code, []).append((when, value))

    def charted(self, items: tuple[int, ...], low: float, high: float, unit: float = 1) -> Charted:
        """Plausible values of laboratory, bedside and output items, by time."""
        found = []
        for item in items:
            for kind in ("LAB", "SUBJECT_FLUID_OUTPUT"):
                found += self.times(f"{kind}//{item}")
        plausible = [(when, value * unit) for when, value in found if low <= value * unit <= high]
        return sorted(plausible, key=lambda one: one[0])

    def bags(self, item: int, kind: str = "INFUSION") -> list[Bag] | None:
        """Each with its own end; None where a pencil could not tell which end is whose."""
        begun, ended = f"{kind}_START//{item}", f"{kind}_END//{item}"
        if kind == "PROCEDURE":
            begun, ended = f"{kind}//START//{item}", f"{kind}//END//{item}"
        starts, ends = self.times(begun), self.times(ended)
        if len(starts) != len(ends):
            return None
        found: list[Bag] = []
        for end, amount in ends:
            running = [one for one in starts if one[0] <= end]
            if len(running) > 1:
                running = [one for one in running if one[0] < end] or running
            if len(running) > 1:  # its rate came to its amount, or it had none
                exact = [one for one in running if off(one, end, amount) < 0.01]
                running = exact or [one for one in running if np.isnan(one[1])]
            if len(running) != 1:
                return None
            starts.remove(running[0])
            found.append(Bag(running[0][0], end, running[0][1], amount))
        return found

    def times(self, code: str) -> Charted:
        """When, and what was told."""
        codes = [seen for seen in self.of if seen == code or seen.startswith(code + "//")]
        return sorted((one for seen in codes for one in self.of[seen]), key=lambda one: one[0])

    def infusions(self) -> dict[int, list[Bag]] | None:
        """Of every drug and fluid."""
        found = {}
        for item in (*PRESSORS, *FLUIDS):
            bags = self.bags(item)
            if bags is None:
                return None
            found[item] = bags
        return found


def off(start: tuple[float, float], end: float, amount: float) -> float:
    """By what share an amount is another than an hourly rate comes to."""
    came = start[1] * (end - start[0]) / 60
    return abs(came - amount) / max(amount, 1e-9) if came >= 0 else np.inf


def last(charted: Charted, now: float, lookback: float) -> float | None:
    """The latest value, no older than that."""
    known = [value for minute, value in charted if now - lookback <= minute <= now]
    return known[-1] if known else None


def between(charted: Charted, begin: float, end: float) -> list[float]:
    return [value for minute, value in charted if begin < minute <= end]


def reached(value: float, limits: tuple[float, ...]) -> int:
    """One for each limit that it has come to."""
    return sum(value >= limit for limit in limits)


def points(value: float, limits: tuple[float, ...]) -> int:
    """One for each limit that it is below."""
    return sum(value < limit for limit in limits)


def sofa(chart: Chart, infusions: dict[int, list[Bag]], now: float, icu_in: float) -> int:
    """Of the worst of the day before."""
    then = now - DAY
    score = respiration(chart, then, now) + circulation(chart, infusions, then, now)
    platelets = between(chart.charted((51265,), 1, 1500), then, now)
    score += points(min(platelets), (150, 100, 50, 20)) if platelets else 0
    bilirubin = between(chart.charted((50885,), 0.1, 60), then, now)
    score += reached(max(bilirubin), (1.2, 2.0, 6.0, 12.0)) if bilirubin else 0
    parts = [
        chart.charted((item,), 1, top) for item, top in ((220739, 4), (223900, 5), (223901, 6))
    ]
    comas = []
    for minute in {minute for part in parts for minute, _ in part if then < minute <= now}:
        latest = [last(part, minute, 360) for part in parts]
        if None not in latest:
            comas.append(sum(value for value in latest if value is not None))
    score += points(min(comas), (15, 13, 10, 6)) if comas else 0
    blood = between(chart.charted((50912,), 0.1, 20), then, now)
    kidney = reached(max(blood), (1.2, 2.0, 3.5, 5.0)) if blood else 0
    if now - icu_in >= DAY:
        out = sum(between(chart.charted(URINE, 0, 5000), then, now))
        out -= sum(between(chart.charted((IRRIGANT,), 0, 5000), then, now))
        kidney = max(kidney, 4 if out < 200 else 3 if out < 500 else 0)
    return score + kidney


def respiration(chart: Chart, then: float, now: float) -> int:
    fraction = sorted(
        chart.charted((223835,), 0.2, 1, 0.01) + chart.charted((50816,), 0.2, 1, 0.01),
        key=lambda one: one[0],
    )
    ratios = []
    for minute, oxygen in chart.charted((50821,), 20, 700):
        share = last(fraction, minute, DAY)
        if then < minute <= now and share is not None:
            ratios.append(oxygen / share)
    breathing = chart.bags(VENTILATION, "PROCEDURE")
    assert breathing is not None
    breathed = any(one.within(then, now) > 0 for one in breathing)
    if not ratios:
        return 0
    worst = min(ratios)
    return points(worst, (400, 300)) + (points(worst, (200, 100)) if breathed else 0)


def circulation(chart: Chart, infusions: dict[int, list[Bag]], then: float, now: float) -> int:
    line = chart.charted((220052, 225312), 15, 200)
    cuff = [
        (minute, value)
        for minute, value in chart.charted((220181,), 15, 200)
        if last(line, minute, 60) is None
    ]
    pressure = between(line, then, now) + between(cuff, then, now)
    grades = [int(bool(pressure) and min(pressure) < 70)]
    for item, each in PRESSORS.items():
        for bag in infusions[item]:
            if bag.within(then, now) > 0 and bag.rate > 0:
                high = 15 if item == DOPAMINE else 0.1 / each
                low = 5 if item == DOPAMINE else 0
                grades.append(2 + (bag.rate > low) + (bag.rate > high))
    return max(grades)


@pytest.fixture(scope="module")
def chosen() -> list[tuple[pd.DataFrame, Chart, dict[int, list[Bag]], pd.Series]]:
    """Of stays whose infusions a pencil can follow: most vasopressor, most fluid, most urine."""
    found, _ = read(DEMO)
    zeros = _time_zeros()
    zeros["stay_id"] = zeros["subject"].astype("str") + "-" + zeros["number"].astype("str")
    of_stay = zeros.set_index("stay_id")
    followed = {}
    for subject in zeros["subject"].unique():
        chart = Chart(int(subject))
        infusions = chart.infusions()
        if infusions is not None and chart.bags(VENTILATION, "PROCEDURE") is not None:
            followed[str(subject)] = (chart, infusions)
    whole = found[found["patient_id"].isin([*followed])]
    whole = whole[whole.groupby("stay_id")["end"].transform("last") != "censored"]
    picked: list[str] = []
    for name in ("vasopressor", "iv_fluid", "urine"):
        most = whole[~whole["stay_id"].isin(picked)].groupby("stay_id")[name].sum()
        picked.append(str(most.idxmax()))
    return [
        (
            whole[whole["stay_id"] == stay].reset_index(drop=True),
            *followed[stay.split("-")[0]],
            of_stay.loc[stay],
        )
        for stay in picked
    ]


@needs_demo
def test_three_stays_are_as_worked_out_by_hand(
    chosen: list[tuple[pd.DataFrame, Chart, dict[int, list[Bag]], pd.Series]],
) -> None:
    given = 0
    for rows, chart, infusions, stay in chosen:
        zero, icu_in = float(stay["zero"]), float(stay["icu_in"])
        urine = chart.charted(URINE, 0, 5000)
        taken = chart.charted((IRRIGANT,), 0, 5000)
        for step, row in rows.iterrows():
            now = zero + int(str(step)) * STEP
            came = sum(
                tonicity * bag.amount * bag.share(now, now + STEP)
                for item, tonicity in FLUIDS.items()
                for bag in infusions[item]
            )
            assert row["iv_fluid"] == pytest.approx(came, abs=0.01), "fluid"
            changes = [now] + [
                bag.start
                for item in PRESSORS
                for bag in infusions[item]
                if now <= bag.start < now + STEP
            ]
            rates = [
                sum(
                    each * bag.rate
                    for item, each in PRESSORS.items()
                    for bag in infusions[item]
                    if bag.start <= moment < bag.end
                )
                for moment in changes
            ]
            assert row["vasopressor"] == pytest.approx(max(rates), abs=1e-5), "vasopressor"
            given += max(rates) > 0
            out = between(urine, now - STEP, now), between(taken, now - STEP, now)
            if any(out):
                assert row["urine"] == pytest.approx(sum(out[0]) - sum(out[1])), "urine"
            else:
                assert np.isnan(row["urine"]), "urine"
            assert row["sofa"] == sofa(chart, infusions, now, icu_in), "SOFA"
    assert len(chosen) == 3
    assert given > 5, "vasopressors were among what was looked at"
