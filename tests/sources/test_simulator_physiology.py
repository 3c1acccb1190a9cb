"""The simulated body and its chart: clinical signs, and the shape of the table."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ogsrl.sources.simulator import (
    COLUMNS,
    DOSE_BOUNDS,
    DOSE_INCREMENTS,
    MAX_STEPS,
    OBSERVATIONS,
    PLAUSIBLE,
    STATICS,
    SimulatorConfig,
    Ward,
    simulate,
    simulate_chunks,
)
from ogsrl.sources.simulator.charting import sofa_score
from ogsrl.sources.simulator.physiology import NOISES, advance, death_risk, late_death_risk

N = 3000


def dosed(n: int, fluid: float = 0.0, pressor: float = 0.0) -> dict[str, np.ndarray]:
    return {"iv_fluid": np.full(n, fluid), "vasopressor": np.full(n, pressor)}


@pytest.fixture
def ward() -> Ward:
    return Ward(N, seed=7)


def with_volume(ward: Ward, volume: float) -> Ward:
    ward.latent.volume = np.full(ward.n, volume)
    return ward


def after(ward: Ward, steps: int, fluid: float = 0.0, pressor: float = 0.0) -> Ward:
    """The latent body after some steps of the same dose, without noise and without deaths."""
    twin = ward.copy()
    quiet = {name: np.zeros(ward.n) for name in NOISES}
    for _ in range(steps):
        twin.latent = advance(twin.patients, twin.latent, dosed(ward.n, fluid, pressor), quiet)
    return twin


def test_fluid_raises_pressure_when_dry_and_hardly_when_wet(ward: Ward) -> None:
    dry, wet = with_volume(ward.copy(), -14.0), with_volume(ward.copy(), 10.0)
    gain = {
        name: (w.expected(dosed(N, 1000))["map"] - w.expected(dosed(N))["map"]).mean()
        for name, w in (("dry", dry), ("wet", wet))
    }
    assert gain["dry"] > 4.0
    assert gain["wet"] < 0.25 * gain["dry"]


def test_fluid_drowns_the_lungs_when_wet(ward: Ward) -> None:
    wet = with_volume(ward, 14.0)
    flooded, spared = after(wet, 6, fluid=1200), after(wet, 6)
    assert (flooded.latent.lung_water > spared.latent.lung_water + 1.5).all()
    assert (flooded.latent.pf < spared.latent.pf).all()
    assert flooded.latent.saturation.mean() < spared.latent.saturation.mean()
    dry = with_volume(ward, -14.0)
    more = after(dry, 1, fluid=500).latent.lung_water - after(dry, 1).latent.lung_water
    assert more.mean() < 0.2


def test_vasopressor_raises_pressure_with_saturation(ward: Ward) -> None:
    pressure = [ward.expected(dosed(N, 0, dose))["map"].mean() for dose in (0.0, 0.4, 0.8, 1.2)]
    first, second, third = np.diff(pressure)
    assert first > 1.5 * second > 0
    assert second > third > 0


def test_vasopressor_harms_kidneys_and_fingers_at_high_dose(ward: Ward) -> None:
    safe, high = after(ward, 4, 500, 0.3), after(ward, 4, 500, 1.2)
    assert (safe.latent.ischaemia == 0).all()
    assert (high.latent.ischaemia > 0.5).all()
    assert high.latent.kidney.mean() > safe.latent.kidney.mean() + 0.1
    assert high.latent.pressure.mean() > safe.latent.pressure.mean()


def test_hypotension_damages_organs_and_oliguria_follows_it(ward: Ward) -> None:
    shocked, held = ward.copy(), ward.copy()
    shocked.patients = held.patients.take(np.ones(N, dtype=bool))
    shocked.patients.base_map = held.patients.base_map - 20.0
    low, usual = after(shocked, 3, 400), after(held, 3, 400)
    assert (low.latent.damage >= usual.latent.damage).all()
    assert low.latent.damage.mean() > usual.latent.damage.mean() + 0.1
    assert (low.latent.kidney >= usual.latent.kidney).all()
    assert low.latent.urine.mean() < 0.6 * usual.latent.urine.mean()
    assert low.latent.lactate.mean() > usual.latent.lactate.mean()


def test_age_comorbidity_and_severity_kill(ward: Ward) -> None:
    dose = dosed(N, 400)
    for risk in (
        lambda w: death_risk(w.patients, w.latent, dose),
        lambda w: late_death_risk(w.patients, w.latent),
    ):
        usual = risk(ward)
        for trait, more in (("age", 20.0), ("comorbidity", 4.0), ("frailty", 1.0)):
            worse = ward.copy()
            worse.patients = ward.patients.take(np.ones(N, dtype=bool))
            setattr(worse.patients, trait, getattr(ward.patients, trait) + more)
            assert (risk(worse) > usual).all(), trait
        for organ in ("damage", "kidney", "ischaemia"):
            worse = ward.copy()
            setattr(worse.latent, organ, getattr(ward.latent, organ) + 0.3)
            assert (risk(worse) > usual).all(), organ
    sick = ward.patients.severity > 1.0
    risk_later = death_risk(ward.patients, after(ward, 6, 400).latent, dose)
    assert risk_later[sick].mean() > 1.5 * risk_later[~sick].mean()


def test_infection_resolves_under_antibiotics(ward: Ward) -> None:
    later = after(ward, 12, 400)
    assert (later.latent.infection < ward.latent.infection).all()
    assert later.latent.infection.mean() < 0.6 * ward.latent.infection.mean()
    assert later.latent.tone_loss.mean() < ward.latent.tone_loss.mean()


def test_the_same_seed_and_doses_give_the_same_chart_and_a_copy_disturbs_nothing() -> None:
    one, other = Ward(50, 3), Ward(50, 3)
    other.expected(dosed(50, 500))
    other.copy().step(dosed(50, 2000, 1.5))
    for _ in range(3):
        one.step(dosed(50, 300))
        other.step(dosed(50, 300))
        for name in one.charted:
            np.testing.assert_array_equal(one.charted[name], other.charted[name])


def test_luck_is_common_to_all_doses() -> None:
    treated, untreated = Ward(400, 3), Ward(400, 3)
    treated.step(dosed(400, 800, 0.2))
    untreated.step(dosed(400))
    for name in ("map", "temperature", "cvp", "gcs"):
        charted = [np.isnan(w.charted[name]) for w in (treated, untreated)]
        np.testing.assert_array_equal(*charted)
    np.testing.assert_array_equal(treated.latent.infection, untreated.latent.infection)


def test_expected_next_values_are_the_mean_of_what_happens() -> None:
    wards = Ward(400, 5)
    said = wards.expected(dosed(400, 500, 0.1), draws=200, seed=1)
    wards.step(dosed(400, 500, 0.1))
    for name in ("map", "pf_ratio", "cvp", "urine"):
        error = wards.measured[name] - said[name]
        assert abs(error.mean()) < 4.0 * error.std() / 20.0, name


def test_doses_out_of_bounds_or_missing_are_refused(ward: Ward) -> None:
    for bad in (dosed(N, 2500), dosed(N, 0, 2.0), dosed(N, -50), dosed(N, np.nan)):
        with pytest.raises(ValueError, match="every dose must be a number from"):
            ward.step(bad)


@pytest.mark.parametrize(
    ("column", "value", "points"),
    [
        *[("pf_ratio", v, p) for v, p in ((400, 0), (399, 1), (300, 1), (299, 2), (150, 3))],
        *[("pf_ratio", v, p) for v, p in ((200, 2), (100, 3), (99, 4))],
        *[("platelets", v, p) for v, p in ((150, 0), (149, 1), (99, 2), (49, 3), (19, 4))],
        *[("bilirubin", v, p) for v, p in ((1.1, 0), (1.2, 1), (1.95, 1), (2, 2), (6, 3))],
        *[("bilirubin", v, p) for v, p in ((5.95, 2), (11.95, 3), (12, 4))],
        *[("creatinine", v, p) for v, p in ((1.19, 0), (1.2, 1), (1.95, 1), (3.5, 3), (5, 4))],
        *[("gcs", v, p) for v, p in ((15, 0), (14, 1), (12, 2), (9, 3), (6, 3), (5, 4))],
        *[("map", v, p) for v, p in ((70, 0), (69, 1))],
    ],
)
def test_sofa_has_no_holes_at_its_boundaries(column: str, value: float, points: int) -> None:
    well = {"pf_ratio": 450, "ventilated": 1, "platelets": 200, "bilirubin": 0.5}
    well |= {"map": 80, "gcs": 15, "creatinine": 0.8, column: value}
    known = {name: np.array([float(v)]) for name, v in well.items()}
    assert sofa_score(known, np.zeros(1), np.array([1500.0]))[0] == points


def test_sofa_counts_vasopressor_and_a_day_of_urine() -> None:
    well = {"pf_ratio": 450, "ventilated": 0, "platelets": 200, "bilirubin": 0.5}
    well |= {"map": 80, "gcs": 15, "creatinine": 0.8}
    known = {name: np.full(4, float(v)) for name, v in well.items()}
    pressor, day = np.array([0.0, 0.1, 0.11, 0.0]), np.array([500.0, 1500.0, 1500.0, 199.0])
    np.testing.assert_array_equal(sofa_score(known, pressor, day), [0, 3, 4, 4])


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return simulate(3000, seed=11)


def test_the_table_has_its_columns_types_and_order(table: pd.DataFrame) -> None:
    assert tuple(table.columns) == COLUMNS
    assert table["step"].dtype == np.int32
    assert table["died"].dtype == "boolean"
    assert all(table[name].dtype == np.float64 for name in (*STATICS, *OBSERVATIONS, *DOSE_BOUNDS))
    assert (table["hours"] == 4.0 * table["step"]).all()
    order = table.sort_values(["stay_id", "step"]).index
    assert (order == table.index).all()
    step = table.groupby("stay_id").cumcount()
    assert (table["step"] == step).all()
    assert table["step"].max() == MAX_STEPS - 1


def test_every_charted_value_is_plausible_and_as_missing_as_in_practice(
    table: pd.DataFrame,
) -> None:
    for name, (lo, hi) in PLAUSIBLE.items():
        assert table[name].min() >= lo, name
        assert table[name].max() <= hi, name
        assert table[name].nunique() > 1, name
    missing = table.isna().mean()
    assert missing[["heart_rate", "sbp", "map", "spo2", "urine"]].between(0.005, 0.03).all()
    assert missing[["lactate", "pf_ratio", "creatinine", "platelets"]].between(0.3, 0.7).all()
    sick = table["sofa"] >= 8
    assert table["lactate"][sick].isna().mean() < table["lactate"][~sick].isna().mean() - 0.1


def test_doses_are_recorded_in_increments_zero_inflated_and_skewed(table: pd.DataFrame) -> None:
    for name, (lo, hi) in DOSE_BOUNDS.items():
        dose = table[name].dropna()
        assert dose.between(lo, hi).all()
        units = dose / DOSE_INCREMENTS[name]
        np.testing.assert_allclose(units, units.round(), atol=1e-9)
        assert dose.skew() > 0.5
    assert (table["vasopressor"] == 0).mean() > 0.5
    assert 0.03 < (table["iv_fluid"] == 0).mean() < 0.4
    running = table.groupby("stay_id")["iv_fluid"].cumsum() - table["iv_fluid"]
    counted = table["iv_fluid"].notna()
    assert (table["fluid_total"][counted] == running[counted]).all()


def test_every_stay_ends_once_and_on_its_last_row(table: pd.DataFrame) -> None:
    last = table.groupby("stay_id").tail(1)
    assert table["end"].notna().sum() == len(last) == last["end"].notna().sum()
    share = last["end"].value_counts(normalize=True)
    assert share.between([0.02] * 4, 0.6).all()
    assert set(share.index) == {"death", "discharge", "horizon", "censored"}
    lost = last["end"] == "censored"
    assert last.loc[lost, [*DOSE_BOUNDS, "died"]].isna().all(axis=None)
    assert table.drop(last.index)["died"].isna().all()
    assert last.loc[~lost, [*DOSE_BOUNDS, "died"]].notna().all(axis=None)
    assert last.loc[last["end"] == "death", "died"].all()
    survivors = last[last["end"].isin(["discharge", "horizon"])]
    assert 0.01 < survivors["died"].mean() < 0.15
    assert (last.loc[last["end"] == "horizon", "step"] == MAX_STEPS - 1).all()
    days = (last.loc[last["end"] == "discharge", "hours"] + 4) / 24
    assert 1.3 < days.quantile(0.05) < days.median() < days.quantile(0.95) <= 3.0


def test_a_patient_keeps_his_body_and_some_come_back(table: pd.DataFrame) -> None:
    assert (table.groupby("patient_id")[["female", "weight"]].nunique() == 1).all(axis=None)
    stays = table.groupby("patient_id")["stay_id"].nunique()
    assert 0.03 < (stays == 2).mean() < 0.07
    assert stays.max() == 2
    first = table.groupby("stay_id").tail(1).drop_duplicates("patient_id")
    returned = first[first["patient_id"].map(stays) == 2]
    assert not returned["died"].any()


def test_the_first_patients_do_not_depend_on_how_many_follow(table: pd.DataFrame) -> None:
    few = simulate(40, seed=11)
    same = table[table["patient_id"].isin(set(few["patient_id"]))].reset_index(drop=True)
    pd.testing.assert_frame_equal(few, same)


def test_chunks_add_up_to_the_table() -> None:
    parts = list(simulate_chunks(4200, seed=2))
    assert len(parts) == 2
    whole = simulate(4200, seed=2)
    pd.testing.assert_frame_equal(pd.concat(parts, ignore_index=True), whole)
    assert whole["stay_id"].is_monotonic_increasing
    assert not set(parts[0]["patient_id"]) & set(parts[1]["patient_id"])


@settings(max_examples=5, deadline=None)
@given(
    confounding=st.floats(0, 1),
    unsafe=st.floats(0, 0.5),
    censoring=st.floats(0, 0.3),
    sites=st.integers(1, 8),
    deadly=st.booleans(),
)
def test_any_setting_gives_a_lawful_table(
    confounding: float, unsafe: float, censoring: float, sites: int, deadly: bool
) -> None:
    config = SimulatorConfig(
        confounding=confounding,
        unsafe_share=unsafe,
        censoring=censoring,
        sites=tuple(f"site {i}" for i in range(sites)),
        variant="deadly" if deadly else "standard",
    )
    table = simulate(60, 1, config)
    assert set(table["site"]) <= set(config.sites)
    assert table.groupby("stay_id")["end"].count().eq(1).all()
    assert table["iv_fluid"].isna().sum() == (table["end"] == "censored").sum()
    if censoring == 0:
        assert table["iv_fluid"].notna().all()


@pytest.mark.parametrize("censoring", [0.0, 5e-324, 1e-300])
def test_censoring_too_rare_to_count_loses_nobody(censoring: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = simulate(60, 1, SimulatorConfig(censoring=censoring))
    pd.testing.assert_frame_equal(table, simulate(60, 1, SimulatorConfig(censoring=0.0)))
    assert not table["end"].eq("censored").any()


@pytest.mark.parametrize(
    "wrong",
    [
        {"confounding": 1.5},
        {"unsafe_share": -0.1},
        {"censoring": 0.9},
        {"sites": ()},
        {"sites": ("A", "A")},
        {"variant": "kind"},
        {"readmission": 2.0},
    ],
)
def test_a_setting_out_of_range_is_an_error_that_names_it(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SimulatorConfig(**wrong)  # type: ignore[arg-type]
