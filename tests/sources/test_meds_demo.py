"""What came of the demo's real patients is what is known of such patients, and nothing is lost."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tests.demo import DEMO, needs_demo
from tests.sources.test_meds import _time_zeros, read
from tests.sources.test_meds_by_hand import FLUIDS, IRRIGANT, STEP, URINE, Bag, Chart, between

#: Medians over steps of septic patients in intensive care, as papers on MIMIC and others tell them.
MEDIANS = {
    "age": (55, 75),
    "weight": (65, 95),
    "heart_rate": (80, 100),
    "sbp": (100, 130),
    "map": (70, 85),
    "resp_rate": (16, 24),
    "temperature": (36.5, 37.5),
    "spo2": (94, 99),
    "fio2": (0.35, 0.6),
    "gcs": (8, 15),
    "pf_ratio": (150, 350),
    "lactate": (1.2, 3),
    "ph": (7.32, 7.45),
    "creatinine": (0.7, 2),
    "bun": (15, 45),
    "bilirubin": (0.4, 2.5),
    "platelets": (100, 260),
    "wbc": (8, 16),
    "cvp": (6, 15),
    "urine": (120, 450),
    "sofa": (4, 10),
}


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return read(DEMO)[0]


@pytest.fixture(scope="module")
def zeros() -> pd.DataFrame:
    found = _time_zeros()
    names = found["subject"].astype("str") + "-" + found["number"].astype("str")
    return found.assign(stay_id=names).set_index("stay_id")


@needs_demo
@pytest.mark.parametrize("name", MEDIANS)
def test_half_of_the_steps_are_as_published(table: pd.DataFrame, name: str) -> None:
    low, high = MEDIANS[name]
    assert low <= table[name].median() <= high


@needs_demo
def test_it_is_a_ward_of_septic_patients(table: pd.DataFrame) -> None:
    last = table.groupby("stay_id").last()
    assert 0.1 < last["died"].astype("boolean").mean() < 0.35
    some = table.groupby("stay_id")["vasopressor"].max() > 0
    assert 0.3 < some.mean() < 0.7
    low, usual = table["map"] < 65, table["map"].between(70, 90)
    given = table["vasopressor"] > 0
    assert given[low].mean() > given[usual].mean()
    ill, well = table["sofa"] >= 12, table["sofa"] <= 5
    assert given[ill].mean() > 2 * given[well].mean()
    assert table.loc[given, "vasopressor"].quantile(0.99) < 4
    first = table[table["step"] == 0]
    assert (first["sofa"] >= 2).all(), "Sepsis-3 asks for two points"
    died = last["died"].astype("boolean").fillna(False)
    assert last.loc[died, "sofa"].median() > last.loc[~died, "sofa"].median()
    ordered = table["map"] <= table["sbp"]
    assert ordered[table[["map", "sbp"]].notna().all(axis=1)].mean() > 0.98


@needs_demo
def test_urine_sums_to_what_was_charted(table: pd.DataFrame, zeros: pd.DataFrame) -> None:
    seen = 0.0
    for stay_id, rows in table.groupby("stay_id"):
        stay = zeros.loc[str(stay_id)]
        chart, zero = Chart(int(stay["subject"])), float(stay["zero"])
        end = zero + (len(rows) - 1) * STEP
        out = sum(between(chart.charted(URINE, 0, 5000), zero - STEP, end))
        out -= sum(between(chart.charted((IRRIGANT,), 0, 5000), zero - STEP, end))
        assert rows["urine"].sum() == pytest.approx(out)
        seen += out
    assert seen > 100_000


@needs_demo
def test_what_was_infused_is_neither_more_nor_less(
    table: pd.DataFrame, zeros: pd.DataFrame
) -> None:
    whole = table[table.groupby("stay_id")["end"].transform("last") != "censored"]
    bags: dict[int, dict[int, list[Bag]] | None] = {}
    compared, seen = 0, 0.0
    for stay_id, rows in whole.groupby("stay_id"):
        stay = zeros.loc[str(stay_id)]
        subject = int(stay["subject"])
        if subject not in bags:
            bags[subject] = Chart(subject).infusions()
        if (infusions := bags[subject]) is None:
            continue
        zero = float(stay["zero"])
        came = sum(
            tonicity * bag.amount * bag.share(zero, zero + len(rows) * STEP)
            for item, tonicity in FLUIDS.items()
            for bag in infusions[item]
        )
        assert rows["iv_fluid"].sum() == pytest.approx(came, rel=0.01, abs=1)
        compared, seen = compared + 1, seen + came
    assert compared > 40, "of most patients"
    assert seen > 100_000
    assert np.isfinite(seen)
