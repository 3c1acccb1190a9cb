"""ICU-Sepsis as a source: its truth is the published one, and what it logs is drawn from it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ogsrl.errors import SourceError
from ogsrl.sources import SourceSettings, open_source
from ogsrl.sources.icu_sepsis import (
    COMBINATIONS,
    MAX_STEPS,
    STATES,
    IcuSepsisOptions,
    evaluated,
    ever,
    logged,
    occupancy,
    optimal,
    process,
)
from ogsrl.spec import Cohort, load_cohort

COHORT = load_cohort(Path(__file__).parents[2] / "data_contracts" / "icu_sepsis.yaml")
ANYTHING = np.full((STATES, COMBINATIONS), 1 / COMBINATIONS)


@pytest.fixture(scope="module")
def log() -> pd.DataFrame:
    return logged(process(), 3_000, seed=5)


def changed(**options: Any) -> Cohort:
    source = COHORT.source.model_copy(update={"options": options})
    return COHORT.model_copy(update={"source": source})


@pytest.mark.parametrize(
    ("policy", "survival", "steps"),
    [
        (process().clinicians, 0.7818, 9.24),
        (ANYTHING, 0.7801, 9.46),
        (optimal(process()), 0.8751, 10.99),
    ],
    ids=["clinicians", "random", "optimal"],
)
def test_exact_survival_is_the_published_one(policy: Any, survival: float, steps: float) -> None:
    exact = evaluated(process(), policy)
    assert exact.survival == pytest.approx(survival, abs=5e-5)
    assert exact.steps == pytest.approx(steps, abs=5e-3)
    assert process().begun @ exact.survival_from == pytest.approx(exact.survival)


def test_every_row_is_a_distribution_and_the_package_s_pairs_are_its_own() -> None:
    made = process()
    for chances in (made.follows.sum(2), made.clinicians.sum(1), made.begun.sum()):
        assert chances == pytest.approx(1)
    assert made.listed.sum() == 2_238
    assert made.given.mean() == pytest.approx(0.519, abs=5e-4)
    assert not (made.listed & ~made.given).any()
    listed = np.where(made.listed[..., None], made.follows, 0).sum(1)
    mean = listed / made.listed.sum(1)[:, None]
    others = ~made.listed
    assert np.abs(made.follows - mean[:, None])[others].max() < 1e-12


def test_in_the_deadly_variant_only_what_clinicians_never_give_kills() -> None:
    made, lethal = process(), process(deadly=True)
    assert (lethal.follows[~made.given, STATES] == 1).all()
    assert (lethal.follows[made.given] == made.follows[made.given]).all()
    clinicians = evaluated(lethal, made.clinicians).survival
    assert clinicians == pytest.approx(0.7818, abs=5e-5)
    assert evaluated(lethal, ANYTHING).survival < 0.06


def test_both_variants_log_the_same_stays() -> None:
    pd.testing.assert_frame_equal(
        logged(process(), 300, seed=3), logged(process(deadly=True), 300, seed=3)
    )


def test_logged_stays_die_as_often_and_last_as_long_as_the_truth_says(log: pd.DataFrame) -> None:
    exact = evaluated(process(), process().clinicians)
    died = (log["end"] == "death").sum() / 3_000
    assert died == pytest.approx(exact.mortality, abs=4 * (0.22 * 0.78 / 3_000) ** 0.5)
    assert len(log) / 3_000 == pytest.approx(exact.steps, rel=0.06)
    assert set(log["end"].dropna()) == {"death", "discharge"}
    assert log.groupby("stay_id")["end"].count().eq(1).all()


def test_clinicians_in_the_log_dose_as_the_package_s_do(log: pd.DataFrame) -> None:
    made = process()
    state, given = log["state"].astype(int), (5 * log["fluid"] + log["vasopressor"]).astype(int)
    seen = np.zeros((STATES, COMBINATIONS))
    np.add.at(seen, (state, given), 1)
    assert not seen[~made.given].any()
    expected = made.clinicians * seen.sum(1, keepdims=True)
    spread = np.sqrt(expected * (1 - made.clinicians))
    often = expected > 30
    assert (np.abs(seen - expected)[often] < 5 * spread[often]).all()
    # most get no vasopressor: the second dose runs fastest
    assert (log["vasopressor"] == 0).mean() > 0.8 > (log["fluid"] == 0).mean()


def test_the_first_stays_do_not_depend_on_how_many_follow() -> None:
    few, more = logged(process(), 40, seed=1), logged(process(), 5_000, seed=1)
    pd.testing.assert_frame_equal(few, more.iloc[: len(few)])
    assert not few.equals(logged(process(), 40, seed=2))


def test_a_stay_not_over_in_time_is_censored_whatever_would_have_come() -> None:
    table = logged(process(), 400, seed=2, max_steps=5)
    whole = logged(process(), 400, seed=2)
    last = table.groupby("stay_id").tail(1).set_index("stay_id")
    long = whole.groupby("stay_id")["step"].max() >= 4
    assert (last["end"] == "censored").eq(long).all()
    lost = last[last["end"] == "censored"]
    assert lost["fluid"].isna().all()
    assert lost["died"].isna().all()
    assert (lost["step"] == 4).all()


def test_hardly_any_stay_outlasts_the_horizon() -> None:
    made = process()
    for policy, share in ((made.clinicians, 2e-7), (optimal(made), 5e-6)):
        there = occupancy(made, policy, MAX_STEPS)
        assert there[-1].sum() < share
        assert there.sum(0) == pytest.approx(evaluated(made, policy).visits, abs=1e-3)


def test_who_ever_comes_to_a_state_is_counted_once(log: pd.DataFrame) -> None:
    made = process()
    where = np.arange(STATES) < 60
    came = log.groupby("stay_id")["state"].min().lt(60).mean()
    chance = ever(made, made.clinicians, where)
    assert came == pytest.approx(chance, abs=4 * (0.25 / 3_000) ** 0.5)
    assert ever(made, made.clinicians, where & False) == 0


def test_the_source_gives_the_cohort_s_table_in_parts() -> None:
    reading = open_source(COHORT, SourceSettings(patients=5_000, seed=7))
    parts = list(reading.parts)
    assert [part["stay_id"].nunique() for part in parts] == [4_096, 904]
    assert tuple(parts[0].columns) == COHORT.table_columns
    assert reading.attrition[-1]["patients"] == 5_000
    assert reading.provenance["options"] == {"deadly": False}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"deathly": True}, "unknown deathly; icu_sepsis knows deadly, patients"),
        ({"patients": 0}, "at least one"),
        ({"patients": "many"}, "whole number"),
        ({"deadly": 1}, "true or false"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, Any], said: str) -> None:
    with pytest.raises(SourceError, match=said):
        open_source(changed(**options), SourceSettings())


def test_other_columns_are_refused() -> None:
    state = COHORT.observations["state"].model_copy(update={"levels": ("0", "1")})
    other = COHORT.model_copy(update={"observations": {"state": state}})
    with pytest.raises(SourceError, match="state of 713, fluid of 5, vasopressor of 5"):
        open_source(other, SourceSettings())


def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    process.cache_clear()
    monkeypatch.setitem(sys.modules, "icu_sepsis", None)  # as if it were not there
    with pytest.raises(SourceError, match=r"pip install icu-sepsis==2\.0\.1"):
        open_source(COHORT, SourceSettings())
    process.cache_clear()


def test_options_default_to_the_published_process() -> None:
    assert IcuSepsisOptions.of(changed()) == IcuSepsisOptions(17_000, deadly=False)
