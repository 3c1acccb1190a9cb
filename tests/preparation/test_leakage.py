"""Each planted leak is found as what it is, and clean cohorts raise no alarm."""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np
import pandas as pd
import pytest

from ogsrl.errors import LeakageError
from ogsrl.preparation import PARTS, PrepareParams, TrainingRows, assign_parts
from ogsrl.preparation.leakage import KINDS, Finding, Parts, check_leakage, raise_on_leak
from ogsrl.preparation.leakage.measures import auroc, explained_by_bins, gain
from ogsrl.sources.simulator import simulate
from ogsrl.spec import Cohort


def check(
    frame: pd.DataFrame, cohort: Cohort, shifted: Collection[str] | None = ()
) -> dict[str, Finding]:
    findings = check_leakage(TrainingRows.of(frame, cohort), shifted)
    return {finding.check: finding for finding in findings}


def leaks(findings: dict[str, Finding]) -> dict[str, tuple[str, ...]]:
    return {name: f.columns for name, f in findings.items() if f.status == "leak"}


def within(frame: pd.DataFrame, name: str) -> pd.Series:
    return frame.groupby("stay_id", sort=False)[name]  # type: ignore[return-value] # a grouping of one column


@pytest.mark.parametrize("seed", range(5))
def test_a_clean_cohort_has_no_leak_and_every_kind_is_answered(seed: int, sepsis: Cohort) -> None:
    frame = simulate(1200, seed)
    part = assign_parts(frame["patient_id"], PrepareParams())
    parts = Parts(sepsis)
    for name in PARTS:
        parts.add(name, frame[part == name].reset_index(drop=True))
    train = frame[part == "train"].reset_index(drop=True)
    findings = check_leakage(TrainingRows.of(train, sepsis), [], parts)
    assert [f.check for f in findings if f.status in {"leak", "warning"}] == []
    assert tuple(dict.fromkeys(f.kind for f in findings)) == KINDS
    assert [f.check for f in findings if f.status == "not run"] == ["laboratory_times"]
    raise_on_leak(findings)


# --- construction


def test_a_column_made_of_the_rows_dose_is_found(train: pd.DataFrame, sepsis: Cohort) -> None:
    dose = np.sqrt(train["vasopressor"].fillna(0))
    found = leaks(check(train.assign(bilirubin=3 + 7 * dose), sepsis))
    assert found["state_from_dose"] == ("bilirubin", "vasopressor")


def test_a_column_made_of_the_outcome_is_found(train: pd.DataFrame, sepsis: Cohort) -> None:
    dead = within(train, "died").transform("last").astype("boolean").fillna(False)
    at_the_end = (train["end"].notna() & dead).astype(float)
    found = leaks(check(train.assign(ventilated=at_the_end), sepsis))
    assert found == {"state_from_outcome": ("ventilated",)}


# --- reconstruction


def test_a_running_total_that_includes_the_rows_dose_is_found(
    train: pd.DataFrame, sepsis: Cohort
) -> None:
    total = train["fluid_total"] + train["iv_fluid"].fillna(0)
    found = leaks(check(train.assign(fluid_total=total), sepsis))
    assert found["running_total"] == ("fluid_total", "iv_fluid")
    assert {"fluid_total", "iv_fluid"} <= set(found["dose_from_all_columns"])
    assert "state_from_dose" not in found


def test_a_balance_that_includes_the_rows_dose_is_rebuilt_from_several_columns(
    train: pd.DataFrame, sepsis: Cohort
) -> None:
    urine = train["urine"].fillna(0)
    grown = train["iv_fluid"].fillna(0) - urine
    balance = grown.groupby(train["stay_id"], sort=False).cumsum()
    found = leaks(check(train.assign(urine=urine, fluid_total=balance + 50_000), sepsis))
    assert "running_total" not in found  # the balance alone does not give it away
    assert {"fluid_total", "urine", "iv_fluid"} <= set(found["dose_from_all_columns"])


def test_the_same_rows_dose_as_a_column_is_found_both_ways(
    train: pd.DataFrame, sepsis: Cohort
) -> None:
    found = leaks(check(train.assign(cvp=train["iv_fluid"].fillna(0) / 100), sepsis))
    assert found["state_from_dose"] == found["dose_from_column"] == ("cvp", "iv_fluid")


def test_the_previous_dose_is_no_leak_however_long_doses_persist(
    train: pd.DataFrame, sepsis: Cohort
) -> None:
    held = within(train, "iv_fluid").transform(
        lambda dose: dose.to_numpy()[np.arange(len(dose)) // 4 * 4]
    )
    frame = train.assign(iv_fluid=held.where(train["iv_fluid"].notna()))
    before = within(frame, "iv_fluid").shift(1).fillna(0)
    total = before.groupby(frame["stay_id"], sort=False).cumsum()
    findings = check(frame.assign(cvp=before / 100, fluid_total=total), sepsis)
    assert leaks(findings) == {}


def test_columns_that_together_give_the_outcome_away_are_found(
    train: pd.DataFrame, sepsis: Cohort
) -> None:
    dead = within(train, "died").transform("last").astype("boolean").fillna(False).astype(float)
    noise = np.random.default_rng(0).normal(0, 3, len(train))
    findings = check(
        train.assign(sbp=120 + 10 * noise, platelets=200 + 10 * noise + 9 * dead), sepsis
    )
    assert set(leaks(findings)["outcome_from_all_columns"]) >= {"sbp", "platelets"}
    assert "outcome_at_first_step" not in leaks(findings)


# --- temporal overlap


def test_a_patient_and_a_stay_in_two_parts_are_found(train: pd.DataFrame, sepsis: Cohort) -> None:
    parts = Parts(sepsis)
    parts.add("train", train)
    parts.add("test", train[train["stay_id"] == train["stay_id"].iloc[0]])
    found = {f.check: f for f in parts.findings()}
    for check_name in ("patients_in_two_parts", "stays_in_two_parts", "copied_stays"):
        assert found[check_name].status == "leak"
        assert found[check_name].statistic == 1
    with pytest.raises(LeakageError, match="1 patients are in two parts") as caught:
        raise_on_leak(list(found.values()))
    assert train["patient_id"].iloc[0] not in str(caught.value)


def test_a_stay_copied_under_another_id_is_found(train: pd.DataFrame, sepsis: Cohort) -> None:
    half = train["stay_id"] < train["stay_id"].iloc[len(train) // 2]
    copy = train[half].assign(
        patient_id="Q" + train["patient_id"], stay_id="Q" + train["stay_id"], site="Z"
    )
    parts = Parts(sepsis)
    parts.add("train", train)
    parts.add("validation", copy.reset_index(drop=True))
    status = {f.check: (f.status, f.statistic) for f in parts.findings()}
    assert status["patients_in_two_parts"] == ("clean", 0)
    assert status["copied_stays"] == ("leak", train[half]["stay_id"].nunique())


def test_bins_that_overlap_are_found(train: pd.DataFrame, sepsis: Cohort) -> None:
    findings = check(train.assign(hours=train["hours"] / 2), sepsis)
    assert leaks(findings) == {"bins": ("hours",)}
    assert check(train.assign(hours=train["hours"] * 2), sepsis)["bins"].status == "warning"


def test_a_column_that_holds_anothers_next_value_is_found(
    train: pd.DataFrame, sepsis: Cohort
) -> None:
    findings = check(train.assign(sbp=within(train, "map").shift(-1)), sepsis)
    assert leaks(findings)["next_value"] == ("sbp", "map")


def test_a_column_filled_before_it_came_is_a_warning(train: pd.DataFrame, sepsis: Cohort) -> None:
    scarce = train["creatinine"].where(train["step"] % 9 == 0)
    filled = scarce.groupby(train["stay_id"], sort=False).bfill()
    found = check(train.assign(creatinine=filled), sepsis)["filled_before"]
    assert (found.status, found.columns) == ("warning", ("creatinine",))


def test_of_a_constraint_s_column_it_is_a_leak(train: pd.DataFrame, sepsis: Cohort) -> None:
    filled = train.groupby("stay_id")["spo2"].transform("first")
    found = check(train.assign(spo2=filled), sepsis)["filled_before"]
    assert (found.status, found.columns) == ("leak", ("spo2",))


# --- timing


def test_a_late_column_that_ingest_did_not_shift_is_found(
    train: pd.DataFrame, sepsis: Cohort
) -> None:
    observations = dict(sepsis.observations)
    observations["urine"] = observations["urine"].model_copy(update={"known_before_dose": False})
    late = sepsis.model_copy(update={"observations": observations})
    assert leaks(check(train, late, shifted=[])) == {"availability": ("urine",)}
    assert check(train, late, shifted=["urine"])["availability"].status == "clean"
    assert check(train, late, shifted=None)["availability"].status == "not run"


@pytest.mark.parametrize("name", ["map", "urine"])
def test_a_column_that_stands_a_row_too_early_is_found(
    name: str, train: pd.DataFrame, sepsis: Cohort
) -> None:
    findings = check(train.assign(**{name: within(train, name).shift(-1)}), sepsis)
    assert leaks(findings)["dose_answers_the_past"][0] == name


def test_a_column_that_follows_the_rows_dose_with_noise_is_found(
    train: pd.DataFrame, sepsis: Cohort
) -> None:
    noise = np.random.default_rng(0).normal(0, 120, len(train))
    charted = (800 + train["iv_fluid"].fillna(0) + noise) / 100
    found = leaks(check(train.assign(cvp=charted), sepsis))
    assert found == {"lead_of_the_dose": ("cvp", "iv_fluid")}


def test_a_column_that_knows_the_outcome_at_the_first_step_is_found(
    train: pd.DataFrame, sepsis: Cohort
) -> None:
    dead = within(train, "died").transform("last").astype("boolean").fillna(False).astype(float)
    noise = np.random.default_rng(0).normal(0, 0.3, len(train))
    found = leaks(check(train.assign(comorbidity=5 + dead + noise), sepsis))
    assert found["outcome_at_first_step"] == ("comorbidity",)


def test_a_column_charted_because_of_the_outcome_is_found(
    train: pd.DataFrame, sepsis: Cohort
) -> None:
    dead = within(train, "died").transform("last").astype("boolean").fillna(False)
    known = train["died"].groupby(train["stay_id"], sort=False).transform("last").notna()
    only_dead = train["wbc"].fillna(9).where(dead | ~known)
    found = leaks(check(train.assign(wbc=only_dead), sepsis))
    assert found == {"outcome_from_missingness": ("wbc",)}


# --- persistence


def test_a_dose_that_hardly_changes_is_a_warning_with_the_baseline_to_beat(
    train: pd.DataFrame, sepsis: Cohort
) -> None:
    same = within(train, "vasopressor").transform("first")
    findings = check_leakage(
        TrainingRows.of(train.assign(vasopressor=same.where(train["vasopressor"].notna())), sepsis),
        [],
    )
    found = {f.columns: f for f in findings if f.kind == "persistence"}
    assert found[("vasopressor",)].status == "warning"
    assert found[("iv_fluid",)].status == "clean"
    assert "baseline to beat" in found[("vasopressor",)].message


# --- what is not run, and messages


def test_what_cannot_be_run_is_named_with_the_reason(train: pd.DataFrame, sepsis: Cohort) -> None:
    few = train[train["stay_id"].isin(train["stay_id"].unique()[:3])]
    findings = check(few.reset_index(drop=True), sepsis)
    assert findings["dose_from_all_columns"].status == "not run"
    assert findings["outcome_at_first_step"].status == "not run"
    assert findings["patients_in_two_parts"].status == "not run"
    without = sepsis.model_copy(update={"outcome": None})
    assert check(train, without)["state_from_outcome"].message == "the cohort has no outcome"


def test_the_error_names_kind_and_columns_of_every_leak(
    train: pd.DataFrame, sepsis: Cohort
) -> None:
    findings = check_leakage(TrainingRows.of(train.assign(hours=0.0), sepsis), [])
    with pytest.raises(LeakageError, match=r"temporal_overlap \(bins\): hours"):
        raise_on_leak(findings)


# --- the measures


def test_auroc_is_that_of_all_pairs() -> None:
    rng = np.random.default_rng(0)
    score, label = rng.integers(0, 5, 60).astype(float), (rng.random(60) < 0.4).astype(float)
    above = score[label == 1][:, None] - score[label == 0][None, :]
    area = ((above > 0) + 0.5 * (above == 0)).mean()
    assert auroc(score, label) == pytest.approx(max(area, 1 - area))


@pytest.mark.parametrize(
    ("bend", "least", "most"),
    [(np.square, 0.99, 1.0), (np.zeros_like, -0.01, 0.05)],
)
def test_bins_explain_functions_and_not_noise(
    bend: Callable[[np.ndarray], np.ndarray], least: float, most: float
) -> None:
    rng = np.random.default_rng(0)
    x = rng.random(4000)
    found = explained_by_bins(bend(x) + 1e-4 * rng.normal(size=4000), x)
    assert least <= found <= most


def test_gain_is_what_is_explained_beyond_the_base() -> None:
    rng = np.random.default_rng(0)
    base, more, noise = rng.normal(size=(3, 6000, 1))
    held_out = np.arange(6000) % 2 == 1
    target = (base + more + noise)[:, 0]
    assert gain(target, base, more, held_out)[0] == pytest.approx(0.5, abs=0.03)
    assert abs(gain(target, base, noise * 0 + rng.normal(size=(6000, 1)), held_out)[0]) < 0.01
