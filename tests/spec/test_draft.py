"""Drafts: they read without mistakes, guess what can be known, and show no patient."""

import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ogsrl.errors import SpecError
from ogsrl.spec import parse_cohort
from ogsrl.spec.draft import draft
from ogsrl.spec.draft.numbers import round_out, wide_range


def diabetes(patients=40, steps=12, seed=1):
    """Admissions for glucose control: no deaths, other names, mmol/L."""
    rng = np.random.default_rng(seed)
    rows = patients * steps
    patient = np.repeat(np.arange(patients) + 70_417, steps)
    insulin = np.where(rng.random(rows) < 0.4, 0, rng.gamma(2, 3, rows).round())
    return pd.DataFrame(
        {
            "patient": patient,
            "admission": patient * 10 + 1,
            "hour": np.tile(np.arange(steps) * 6, patients),
            "glucose_mmol_l": rng.lognormal(2.2, 0.3, rows).round(2),
            "insulin_units": insulin,
            "carbs_g": np.where(rng.random(rows) < 0.5, 0, rng.gamma(4, 15, rows).round(1)),
            "weight": np.repeat(rng.normal(80, 14, patients).round(1), steps),
        }
    )


def intensive(patients=60, steps=9, seed=2):
    """Intensive care with deaths, times, spaces and capitals in names, text and outcomes."""
    rng = np.random.default_rng(seed)
    rows = patients * steps
    stay = np.repeat(np.arange(patients) + 300_123, steps)
    frame = pd.DataFrame(
        {
            "subject_id": stay // 2,
            "ICUSTAY_ID": stay,
            "charttime": pd.Timestamp("2150-03-04 08:15")
            + pd.to_timedelta(np.tile(np.arange(steps) * 4, patients), unit="h"),
            "Hospital": np.where(stay % 3 == 0, "north", "south"),
            "Heart Rate (bpm)": rng.normal(95, 15, rows).round(),
            "MAP": rng.normal(70, 12, rows).round(1),
            "SpO2": rng.normal(0.95, 0.02, rows).clip(0.6, 1).round(3),
            "Temp_F": rng.normal(99.4, 1.3, rows).round(1),
            "Creatinine umol/L": rng.lognormal(4.6, 0.6, rows).round(1),
            "nurse note": [f"note {i}" for i in range(rows)],
            "Sex": np.where(stay % 2 == 0, "F", "M"),
            "Age": np.repeat(rng.integers(20, 90, patients), steps),
            "marker 7": rng.gamma(0.3, 217.5, rows).round(3),
            "mechvent": rng.integers(0, 2, rows),
            "norepinephrine_mcg_kg_min": np.where(
                rng.random(rows) < 0.7, 0, rng.gamma(2, 0.05, rows)
            ),
            "iv_fluids_ml": rng.gamma(2, 150, rows).round(),
            "hospital_expire_flag": np.repeat(rng.integers(0, 2, patients), steps),
            "los_days": np.repeat(rng.gamma(2, 3, patients), steps),
            "empty": np.nan,
        }
    )
    frame.loc[rng.random(rows) < 0.35, "Creatinine umol/L"] = np.nan
    return frame


def drafted(frame, name="demo", **options):
    text = draft(frame, name=name, path="demo.csv", **options)
    return text, parse_cohort(text, f"{name}.yaml")


def test_a_diabetes_table_without_deaths_becomes_a_cohort():
    text, cohort = drafted(diabetes())
    assert cohort.source.columns == (
        {"patient_id": "patient", "stay_id": "admission", "hours": "hour"}
    )
    assert cohort.time_step_hours == 6
    assert cohort.max_steps == 12
    assert list(cohort.static) == ["weight"]
    assert list(cohort.observations) == ["glucose_mmol_l", "carbs_g"]
    assert cohort.observations["glucose_mmol_l"].unit == "mmol/L"
    assert not cohort.observations["carbs_g"].known_before_dose
    assert list(cohort.actions) == ["insulin_units"]
    assert cohort.actions["insulin_units"].zero_inflated
    assert cohort.actions["insulin_units"].increment == 1
    assert cohort.outcome is None
    assert cohort.reward.step == "glucose_mmol_l >= 3.9 and glucose_mmol_l <= 10"
    assert cohort.constraints["low_glucose_mmol_l"].expression == "glucose_mmol_l < 3.9"
    assert "TODO" not in text


def test_an_intensive_care_table_becomes_a_cohort():
    text, cohort = drafted(intensive())
    columns = cohort.source.columns
    assert columns["patient_id"] == "subject_id"
    assert columns["stay_id"] == "ICUSTAY_ID"
    assert columns["time"] == "charttime"
    assert columns["site"] == "Hospital"
    assert columns["died"] == "hospital_expire_flag"
    assert columns["heart_rate_bpm"] == "Heart Rate (bpm)"
    assert cohort.time_step_hours == 4
    assert cohort.observations["spo2"].unit == "fraction"
    assert cohort.observations["temp_f"].unit == "F"
    assert cohort.observations["creatinine_umol_l"].unit == "umol/L"
    assert 0.3 < cohort.observations["creatinine_umol_l"].max_missing <= 0.6
    assert cohort.observations["mechvent"].kind == "binary"
    assert cohort.static["sex"].levels == ("f", "m")
    assert set(cohort.actions) == {"norepinephrine_mcg_kg_min", "iv_fluids_ml"}
    assert cohort.actions["norepinephrine_mcg_kg_min"].statistic == "max"
    assert cohort.reward.terminal is not None
    assert {"low_map", "low_spo2"} <= set(cohort.constraints)
    assert set(cohort.subgroups) == {"sex", "age", "site"}
    for name in ("nurse note", "los_days", "empty"):
        assert f"# left out: {name}" in text
    assert "los_days" not in cohort.states


def test_every_guess_is_marked():
    text, _ = drafted(intensive())
    guessed = re.compile(
        r"^(time_step_hours|max_steps|discount|  (step|terminal|horizon|columns: \[))|plausible|"
        r"bounds|increment|min_dose|max_change|expression|limit|kind: (binary|categorical)|"
        r"_id: |cuts"
    )
    lines = [line for line in text.splitlines() if guessed.search(line) and line[0] != "#"]
    assert len(lines) > 20
    assert not [line for line in lines if "# guess: " not in line]


@pytest.mark.parametrize("make", [diabetes, intensive])
def test_no_value_and_no_identifier_of_a_patient_is_in_a_draft(make):
    frame = make()
    text, _ = drafted(frame)
    words = set(re.findall(r"[\w.:-]+", text))
    for name in frame.columns:
        shown = set(frame[name].dropna().astype("str"))
        if frame[name].nunique() > 12:
            # a number of two digits, or of clinical knowledge, may coincide
            found = {value for value in shown & words if len(value.strip("0.")) > 2}
            assert not found - {"98.6"}, name


@pytest.mark.parametrize("make", [diabetes, intensive])
def test_one_extreme_patient_does_not_change_a_draft(make):
    frame = make()
    frame = frame.astype({name: "float" for name in ("Age", "mechvent") if name in frame})
    before, _ = drafted(frame)
    numbers = frame.select_dtypes("number").columns.difference(
        ["patient", "admission", "hour", "subject_id", "ICUSTAY_ID", "hospital_expire_flag"]
    )
    changed = frame.copy()
    for name in numbers:
        if frame[name].nunique() > 2:
            largest = changed[name].idxmax()
            changed[name] = changed[name].astype("float")
            changed.loc[largest, name] *= 1.01
    statics = ["weight", "Age", "los_days"]
    changed[changed.columns.intersection(statics)] = frame[frame.columns.intersection(statics)]
    after, _ = drafted(changed)
    assert re.sub(r"increment.*|min_dose.*", "", after) == re.sub(
        r"increment.*|min_dose.*", "", before
    )


def test_a_value_in_an_unusual_unit_is_given_the_range_of_the_data():
    frame = diabetes().rename(columns={"weight": "sodium"})
    frame["sodium"] = np.random.default_rng(0).normal(3, 0.2, len(frame))
    text, cohort = drafted(frame)
    low, high = cohort.observations["sodium"].plausible
    assert low <= 2.4
    assert 3.6 <= high <= 10
    assert "unusual for this column" in text


def test_rare_levels_of_text_never_enter_a_draft():
    frame = intensive()
    frame["Sex"] = np.where(frame["ICUSTAY_ID"] == 300_123, "rare-marker", frame["Sex"])
    text, cohort = drafted(frame)
    assert "rare-marker" not in text
    assert "sex" not in cohort.states


def test_awkward_names_are_mapped_to_names_of_ours():
    frame = diabetes()
    awkward = {
        "weight": "and",
        "carbs_g": 'cost_of: meal, #1 "x"',
        "glucose_mmol_l": "Glukose é (mmol/L)",
    }
    frame = frame.rename(columns=awkward)
    frame["7 day mean"] = frame.groupby("patient").cumcount() * 1.5
    frame["and?"] = frame["7 day mean"] * 2
    frame["split"] = frame[""] = frame["7 day mean"] * 3
    text, cohort = drafted(frame)
    assert "# left out: split: it needs another name" in text
    foreign = set(cohort.source.columns.values())
    assert {*awkward.values(), "7 day mean", "and?"} <= foreign
    assert len(cohort.states) == 5


def test_a_dose_can_be_named():
    frame = diabetes().rename(columns={"insulin_units": "x1"})
    with pytest.raises(SpecError, match="--dose COLUMN"):
        drafted(frame)
    _, cohort = drafted(frame, doses=["x1"])
    assert list(cohort.actions) == ["x1"]
    with pytest.raises(SpecError, match="did you mean `x1`"):
        drafted(frame, doses=["x11"])


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        (["patient", "admission"], "a patient or a stay"),
        (["hour"], "looks like a time"),
        (["glucose_mmol_l", "carbs_g"], "no column changes"),
    ],
)
def test_a_table_that_lacks_something_says_what(columns, words):
    with pytest.raises(SpecError, match=words):
        drafted(diabetes().drop(columns=columns))


def test_a_table_without_rows_is_refused():
    with pytest.raises(SpecError, match="at least one row"):
        drafted(diabetes().iloc[:0])


NUMBERS = st.floats(-1e9, 1e9, allow_nan=False) | st.sampled_from([0.0, 1.0, float("nan")])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(st.text(max_size=15), st.lists(NUMBERS, min_size=6, max_size=6)),
        max_size=5,
        unique_by=lambda item: item[0],
    )
)
def test_a_draft_of_any_numbers_reads_without_mistakes(columns):
    fixed = {"stay": [1, 1, 1, 2, 2, 2], "step": [0, 1, 2] * 2, "hr": [60, 70, 80, 65, 75, 85]}
    frame = pd.DataFrame({**dict(columns), **fixed, "insulin": [0, 1.5, 2, 0, 0, 3]})
    drafted(frame, doses=["insulin"])


@settings(max_examples=200, deadline=None)
@given(st.floats(-1e12, 1e12))
def test_rounding_goes_outward(value):
    slack = 1e-6 * abs(value) + 1e-9
    assert round_out(value, up=False) <= value + slack
    assert round_out(value, up=True) >= value - slack


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50))
def test_a_guessed_range_rises_and_holds_the_middle_of_the_data(values):
    low, high = wide_range(np.array(values))
    assert low < high
    assert low <= np.median(values) <= high
