"""What the contract catches, what it leaves alone, and what becomes of the stays."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmarks._tables import random_table, wide_cohort
from ogsrl.contracts import Contract, RuleResult, Verdict
from ogsrl.errors import ContractError
from ogsrl.spec import Cohort

Break = Callable[[pd.DataFrame, pd.Index], None]


def _set(column: str, value: Any, at: int = 1) -> Break:
    def change(frame: pd.DataFrame, rows: pd.Index) -> None:
        frame.loc[rows[at], column] = value

    return change


def _add(column: str, value: float, at: int = 2) -> Break:
    def change(frame: pd.DataFrame, rows: pd.Index) -> None:
        frame.loc[rows[at:], column] += value

    return change


def _died_contradicts(frame: pd.DataFrame, rows: pd.Index) -> None:
    frame.loc[rows[-1], "end"] = "death"
    frame.loc[rows[-1], "died"] = False


def _dose_after_death(frame: pd.DataFrame, rows: pd.Index) -> None:
    frame.loc[rows[1], "end"] = "death"
    frame.loc[rows[2], "vasopressor"] = 0.1


BREAKS: dict[str, Break] = {
    "plausible_range:lactate": _set("lactate", -999.0),
    "finite:wbc": _set("wbc", np.inf),
    "finite:iv_fluid": _set("iv_fluid", -np.inf),
    "known_level:ventilated": _set("ventilated", 0.5),
    "value_given:age": _set("age", np.nan),
    "static_constant:weight": _add("weight", 3),
    "dose_given:vasopressor": _set("vasopressor", np.nan, 0),
    "dose_bounds:vasopressor": _set("vasopressor", 1.6),
    "dose_bounds:iv_fluid": _set("iv_fluid", -50.0),
    "dose_after_death:iv_fluid, vasopressor": _dose_after_death,
    "cumulative_rising:fluid_total": _set("fluid_total", 0.0, 5),
    "cumulative_sum:fluid_total": _add("fluid_total", 250.0, 3),
    "id_given:patient_id": _set("patient_id", "  "),
    "one_patient:patient_id": _set("patient_id", "another"),
    "site_constant:site": _set("site", "elsewhere"),
    "step_from_zero:step": _set("step", 1, 0),
    "step_unique:step": _set("step", 1, 2),
    "step_contiguous:step": _add("step", 1),
    "hours_declared:hours": _add("hours", 0.5),
    "hours_rising:hours": _set("hours", 0.0, 3),
    "end_known:end": _set("end", "cured", -1),
    "end_present:end": _set("end", None, -1),
    "end_last:end": _set("end", "horizon"),
    "end_once:end": _set("end", "discharge"),
    "died_agrees:died": _died_contradicts,
    "died_given:died": _set("died", pd.NA, -1),
}


def breakable(clean: pd.DataFrame) -> list[str]:
    """Stays of at least six rows that are given fluid early and are not censored."""
    grouped = clean.groupby("stay_id")
    fine = grouped.size() >= 6
    fine &= grouped["iv_fluid"].apply(lambda dose: dose.iloc[:5].sum() > 100)
    fine &= grouped["end"].last() != "censored"
    return list(fine.index[fine])


@pytest.fixture(scope="module")
def broken(cohort: Cohort, clean: pd.DataFrame) -> tuple[Verdict, dict[str, str]]:
    """Each rule broken in a stay of its own; the verdict, and which stay it was."""
    frame = clean.copy()
    stays = dict(zip(BREAKS, breakable(clean), strict=False))
    for rule, stay in stays.items():
        BREAKS[rule](frame, frame.index[frame["stay_id"] == stay])
    return Contract(cohort).check(frame, max_quarantine_share=0.2), stays


def failing(verdict: Verdict) -> dict[str, RuleResult]:
    return {result.key: result for result in verdict.failing}


def test_a_clean_cohort_raises_no_alarm_but_the_informational_one(clean_verdict: Verdict) -> None:
    assert {result.name for result in clean_verdict.failing} == {"max_change"}
    assert clean_verdict.passed
    assert clean_verdict.quarantine.empty
    clean_verdict.raise_if_failed()


def test_every_rule_of_a_clean_cohort_was_really_judged(clean_verdict: Verdict) -> None:
    assert all(result.checked > 0 for result in clean_verdict.results)
    rows = [result for result in clean_verdict.results if result.level == "rows"]
    assert {result.checked for result in rows} == {clean_verdict.rows}


@pytest.mark.parametrize("rule", BREAKS)
def test_a_stay_that_breaks_a_rule_is_quarantined_under_that_rule(
    rule: str, broken: tuple[Verdict, dict[str, str]]
) -> None:
    verdict, stays = broken
    put_aside = verdict.quarantine
    assert stays[rule] in set(put_aside.loc[put_aside["rule"] == rule, "stay_id"])
    message = failing(verdict)[rule].message
    assert message.startswith(f"{rule.split(':')[1]}: ")
    assert f" of {verdict.rows} rows (" in message


def test_only_the_broken_stays_are_put_aside(
    broken: tuple[Verdict, dict[str, str]], clean: pd.DataFrame
) -> None:
    verdict, stays = broken
    assert set(verdict.quarantine["stay_id"]) == set(stays.values())
    kept = verdict.keep(clean)
    assert set(clean["stay_id"]) - set(kept["stay_id"]) == set(stays.values())
    assert [r.key for r in verdict.failing if r.fails_cohort] == []


def test_too_many_stays_in_quarantine_fail_the_cohort(cohort: Cohort, clean: pd.DataFrame) -> None:
    frame = clean.copy()
    frame.loc[frame["stay_id"].isin(breakable(clean)[:30]), "spo2"] = 250.0
    verdict = Contract(cohort).check(frame, max_quarantine_share=0.05)
    assert {result.key for result in verdict.failing if result.fails_cohort} == {"quarantine_share"}
    with pytest.raises(ContractError, match=r"30 of .* stays in quarantine") as raised:
        verdict.raise_if_failed()
    assert "plausible_range:spo2" in str(raised.value)
    assert "quarantine_share" in str(raised.value)


def test_the_verdict_does_not_depend_on_how_the_table_was_cut(
    cohort: Cohort, clean: pd.DataFrame, clean_verdict: Verdict
) -> None:
    whose = pd.factorize(clean["stay_id"])[0]
    parts = [clean[(whose // 97) == piece] for piece in range(whose.max() // 97 + 1)]
    assert len(parts) > 3
    again = Contract(cohort).check(lambda: iter(parts))
    assert json.dumps(again.summary) == json.dumps(clean_verdict.summary)


def test_a_column_missing_and_one_of_another_type_are_named_and_nothing_raises(
    cohort: Cohort, clean: pd.DataFrame
) -> None:
    frame = clean.drop(columns="lactate").assign(wbc="many", mrn_of_patient=1.0)
    found = failing(Contract(cohort).check(frame))
    assert "no such column" in found["column_present:lactate"].message
    assert "needs numbers" in found["column_type:wbc"].message
    assert "column 34" in found["column_known:column 34"].message
    assert "mrn" not in str(found)


def test_without_usable_ids_the_contract_says_so_and_judges_nothing_else(
    cohort: Cohort, clean: pd.DataFrame
) -> None:
    verdict = Contract(cohort).check(clean.assign(stay_id=1))
    assert {r.key for r in verdict.failing} == {"column_type:stay_id"}
    assert not verdict.passed
    assert all(result.checked == 0 for result in verdict.results if result.level == "rows")


def test_a_table_without_rows_fails(cohort: Cohort, clean: pd.DataFrame) -> None:
    for parts in (clean.iloc[:0], []):
        verdict = Contract(cohort).check(parts)
        assert not verdict.passed
        assert set(failing(verdict)) == {"not_empty"}


def test_a_unit_swapped_at_one_site_is_found_though_every_value_is_plausible(
    cohort: Cohort, clean: pd.DataFrame
) -> None:
    frame = clean.copy()
    frame.loc[frame["site"] == "C", "urine"] /= 1000
    found = failing(Contract(cohort).check(frame))
    assert "plausible_range:urine" not in found
    sites = {key for key in found if key.startswith("site_median")}
    assert sites == {"site_median:urine:C"}
    assert "0.00097 times theirs" in found["site_median:urine:C"].message


def test_a_site_of_few_patients_is_never_named(cohort: Cohort, clean: pd.DataFrame) -> None:
    frame = clean.copy()
    few = frame["patient_id"].isin(frame["patient_id"].drop_duplicates()[:9])
    frame.loc[few, "site"] = "Tinytown"
    frame.loc[few, "urine"] /= 1000
    verdict = Contract(cohort).check(frame)
    assert "Tinytown" not in json.dumps(verdict.summary)


def test_a_stay_copied_under_another_id_keeps_its_first_copy(
    cohort: Cohort, clean: pd.DataFrame
) -> None:
    stay = breakable(clean)[3]
    copy = clean[clean["stay_id"] == stay].assign(stay_id="ZZZ", patient_id="ZZZ")
    verdict = Contract(cohort).check(pd.concat([clean, copy], ignore_index=True))
    assert verdict.quarantine["rule"].tolist() == ["stay_not_copied:stay_id"]
    assert verdict.quarantine["stay_id"].tolist() == ["ZZZ"]


def test_short_stays_that_are_equal_by_chance_are_not_copies(cohort: Cohort) -> None:
    few = Cohort.model_validate(
        {
            **wide_cohort(12).model_dump(),
            "observations": {"level": {"unit": "1", "plausible": [0, 9]}},
            "constraints": {},
            "guardian": {"columns": ["age", "level"]},
        }
    )
    frame = random_table(few, 60, 1)
    frame = frame.assign(level=1.0, fluid=0.0, pressor=0.0)
    verdict = Contract(few).check(frame)
    assert "stay_not_copied" not in {result.name for result in verdict.failing}


def test_a_patient_of_another_cohort_is_put_aside(cohort: Cohort, clean: pd.DataFrame) -> None:
    theirs = clean["patient_id"].iloc[:1]
    verdict = Contract(cohort).check(clean, others={"earlier": iter([theirs])})
    assert set(verdict.quarantine["rule"]) == {"patients_disjoint:patient_id"}
    ours = set(clean.loc[clean["patient_id"] == theirs.iloc[0], "stay_id"])
    assert set(verdict.quarantine["stay_id"]) == ours


def test_drift_is_a_warning_and_only_with_a_reference(cohort: Cohort, clean: pd.DataFrame) -> None:
    moved = clean.assign(temperature=clean["temperature"] + 1)
    verdict = Contract(cohort).check(moved, reference=[clean])
    assert {r.key for r in verdict.failing} - {"max_change:iv_fluid", "max_change:vasopressor"} == {
        "drift:temperature"
    }
    assert verdict.passed


def test_shuffled_rows_do_not_pass_as_short_stays(cohort: Cohort, clean: pd.DataFrame) -> None:
    verdict = Contract(cohort).check(clean.sample(frac=1, random_state=1))
    assert "stay_id_unique:stay_id" in failing(verdict)
    assert not verdict.passed


def test_a_cohort_without_outcome_sites_or_statics_is_judged(cohort: Cohort) -> None:
    bare = Cohort.model_validate(
        {
            "name": "glucose",
            "version": 1,
            "time_step_hours": 0.5,
            "max_steps": 40,
            "discount": 1,
            "source": {"kind": "table", "path": "x.csv"},
            "observations": {"glucose": {"unit": "mg/dL", "plausible": [10, 800]}},
            "actions": {"insulin": {"unit": "U", "kind": "ordinal", "levels": ["no", "some"]}},
            "reward": {"step": "glucose < 180"},
            "guardian": {"columns": ["glucose"]},
        }
    )
    frame = random_table(bare, 40, 1).drop(columns="died")
    frame["site"] = None
    verdict = Contract(bare).check(frame)
    assert verdict.passed
    assert not verdict.failing
    frame.loc[3, "insulin"] = 7.0
    assert set(failing(Contract(bare).check(frame))) == {"known_level:insulin"}
