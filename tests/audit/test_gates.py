"""Each gate binds: it passes where all is well, fails for its own reason, and never in silence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ogsrl.audit.audit import GATES, Audit, audit
from ogsrl.audit.config import AuditParams
from ogsrl.audit.evidence import Evidence
from ogsrl.errors import OgsrlError
from tests.audit.told import changed, clean, group, leakage

LEAK = {"leakage": leakage(bins="leak")}
BROKEN = {"rule": "range", "column": "map", "severity": "error", "passed": False}
GAIN = "selected.mortality.gain"
ACTIONS = clean().cohort.actions


def broken() -> Mapping[str, Evidence]:
    """What makes each gate fail, and only it."""
    before = clean()
    rules = {**before.validation, "errors": 1, "rules": [BROKEN]}
    alarms = {"alpha": 0.05, "steps": {"estimate": 0.07, "lo": 0.06, "hi": 0.08, "level": 0.95}}
    curve = {"curve": [{"predicted": 0.1, "estimate": 0.14}]}
    return {
        "contract": replace(before, validation=rules),
        "leakage": replace(before, dataset={**before.dataset, **LEAK}),
        "outcomes": changed(**group(1, "80 and above", 0.01, untold=True)),
        "signal": changed(**{"calibration.slope.lo": -0.01}),
        "test_uses": replace(before, uses=21),
        "false_alarms": replace(before, guardian={**before.guardian, "false_alarm": alarms}),
        "rows_in_model": replace(before, with_rows=["guardian: rows"]),
        "steps_deferred": changed(**{"selected.measures.deferred_steps.hi": 0.11}),
        "stays_deferred": changed(**{"selected.measures.deferred_stays.hi": 0.51}),
        "constraints": changed(**{"selected.limits.relative:hypoxia.hi": 0.001}),
        "calibration": replace(
            before, dynamics={"constraints": dict.fromkeys(before.cohort.constraints, curve)}
        ),
        "hazards": changed(
            **{
                "selected.measures.hazards.fluid_when_overloaded.never": 0.0,
                "selected.measures.hazards.fluid_when_overloaded.steps.policy.estimate": 1e-5,
            }
        ),
        "dose_jumps": changed(**{"selected.measures.doses.iv_fluid.jump.policy.estimate": 1e-4}),
        "better": changed(**{f"{GAIN}.lo": 0.01, f"{GAIN}.hi": 0.05, f"{GAIN}.word": "worse"}),
        "cloning": changed(**{"selected.than.cloning.lo": -0.011}),
        "subgroups": changed(**group(1, "80 and above", -0.05)),
        "seeds": changed(**{"ogsrl_seed_2.mortality.estimate": 0.19}),
        "confounding": clean(),
        "detectable": clean(),
    }


def judged(evidence: Evidence, params: AuditParams | None = None) -> Audit:
    return audit(evidence, params or AuditParams())


def test_where_all_is_well_every_gate_passes() -> None:
    found = judged(clean())
    assert found.verdict == "passed"
    assert found.of("passed") == tuple(name for name in GATES if name != "confounding")
    assert found.of("not asked") == ("confounding",)
    assert found.plain()["not_asked"] == ["confounding"]
    assert found.asked == len(GATES) - 1


@pytest.mark.parametrize("name", [n for n in GATES if n not in ("detectable", "confounding")])
def test_a_gate_fails_for_its_own_reason_alone(name: str) -> None:
    found = judged(broken()[name])
    assert found.of("failed") == (name,)
    assert found.verdict == "failed"


def test_better_by_a_claim_that_little_confounding_overturns_fails_where_more_is_asked() -> None:
    strict = AuditParams.model_validate({"confounding": {"limit": 1.1}})
    assert judged(clean(), strict).of("failed") == ("confounding",)  # 1.1 is where it was lost
    firm = changed(**{"selected.sensitivity.whole_stay.withstood_gamma": 1.1})
    assert judged(firm, strict).of("not asked") == ()
    assert judged(firm, strict).verdict == "passed"
    still = changed(**{f"{GAIN}.word": "cannot tell", f"{GAIN}.hi": 0.01})
    assert judged(still, strict).of("failed") == ("confounding",)  # nothing said withstands nothing


def test_who_cannot_be_told_from_clinicians_is_undecided_and_few_patients_are_said() -> None:
    unsure = changed(**{f"{GAIN}.word": "cannot tell", f"{GAIN}.hi": 0.01})
    assert judged(unsure).verdict == "undecided"
    assert judged(unsure).of("undecided") == ("better",)
    few = judged(changed(**{f"{GAIN}.smallest_effect": 0.2}))
    assert few.of("undecided") == ("detectable",)
    said = {one.gate.name: one.said for one in few.gates}
    assert said["detectable"].startswith("too few patients: ")
    nobody_votes = {f"{GAIN}.smallest_effect": None, f"{GAIN}.voters": 0}
    wide = {f"{GAIN}.lo": -1.0, f"{GAIN}.hi": 1.0, f"{GAIN}.word": "cannot tell"}
    assert judged(changed(**nobody_votes, **wide)).of("undecided") == ("better", "detectable")


def test_who_always_defers_fails() -> None:
    always = changed(
        **{
            "selected.measures.deferred_steps.hi": 1.0,
            "selected.measures.deferred_stays.hi": 1.0,
        }
    )
    nobody = replace(always, selection={"chosen": None})
    assert judged(always).verdict == "failed"
    assert {"steps_deferred", "stays_deferred", "better"} <= set(judged(nobody).of("failed"))


def test_what_was_not_measured_never_passes() -> None:
    before = clean()
    unmeasured = replace(
        before,
        dataset={"leakage": []},
        dynamics={"status": "too_few_patients"},
        guardian={**before.guardian, "status": "too_few_patients", "needed": 19},
        evaluation={"status": "too_few_patients", "needed": 10, "needed_of": "patients who died"},
        uses=0,
    )
    passed = set(judged(unmeasured).of("passed"))
    assert passed <= {"contract", "rows_in_model"}
    said = {one.gate.name: one.said for one in judged(unmeasured).gates}
    assert said["detectable"].startswith("too few patients: fewer than 10 patients who died")


def test_a_guardian_that_holds_rows_fails_by_its_kind() -> None:
    before = clean()
    kde = replace(before, guardian={**before.guardian, "kind": "kde"})
    assert judged(kde).of("failed") == ("rows_in_model",)


def test_hazards_that_cannot_be_judged_are_named() -> None:
    dark = changed(**{"selected.measures.hazards.fluid_when_overloaded.evaluable": 0.0})
    said = {one.gate.name: one.said for one in judged(dark).gates}
    assert "for want of columns: fluid_when_overloaded" in said["hazards"]


def test_a_loosened_limit_shows_and_a_stricter_one_does_not() -> None:
    def loosened(**limits: Any) -> list[str]:
        params = AuditParams.model_validate({n: {"limit": x} for n, x in limits.items()})
        found: list[str] = judged(clean(), params).plain()["loosened"]
        return found

    assert loosened(steps_deferred=0.2, cloning=-0.05) == ["steps_deferred", "cloning"]
    assert loosened(steps_deferred=0.05, cloning=0.0) == []


def test_a_report_of_another_version_is_told() -> None:
    before = clean()
    old = {k: v for k, v in before.evaluation.items() if not k.endswith("smallest_effect")}
    with pytest.raises(OgsrlError, match="run evaluate again"):
        judged(replace(before, evaluation=old))


def test_what_confounding_overturns_is_said_as_lost_and_not_as_withstood() -> None:
    said = judged(clean()).said("confounding")
    assert "`better` is said only where nothing is hidden, no longer at Gamma 1.1" in said
    assert "first dose `better` still at Gamma 1.04, no longer at Gamma 1.05" in said
    at = "selected.sensitivity.whole_stay"
    sure = changed(**{f"{at}.withstood_gamma": 3.0, f"{at}.tipping_gamma": None})
    assert "still at Gamma 3, the largest asked" in judged(sure).said("confounding")


def test_a_limit_that_nobody_can_fail_is_no_pass_and_saves_nobody() -> None:
    params = AuditParams.model_validate({"steps_deferred": {"limit": 1.0}})
    assert "steps_deferred" in judged(clean(), params).of("not asked")
    nobody = replace(clean(), selection={"chosen": None})
    assert {"steps_deferred", "confounding"} <= set(judged(nobody, params).of("failed"))


def test_gates_about_what_the_cohort_file_has_not_are_not_asked() -> None:
    before = clean()
    still = {name: one.model_copy(update={"max_change": None}) for name, one in ACTIONS.items()}
    bare = {"subgroups": {}, "constraints": {}, "hazards": {}, "actions": still}
    found = judged(replace(before, cohort=before.cohort.model_copy(update=bare)))
    assert set(found.of("not asked")) == {
        "outcomes", "constraints", "calibration", "hazards", "dose_jumps", "subgroups",
        "confounding",
    }  # fmt: skip
    assert found.verdict == "passed"
    assert len(found.of("passed")) == found.asked
    deathless = replace(before, cohort=before.cohort.model_copy(update={"outcome": None}))
    assert GATES["outcomes"].measure(deathless).idle


def test_hazards_of_which_none_can_be_judged_fail_by_name() -> None:
    at = "selected.measures.hazards"
    dark = {f"{at}.{name}.evaluable": 0.0 for name in clean().cohort.hazards}
    found = judged(changed(**dark))
    assert found.of("failed") == ("hazards",)
    assert all(name in found.said("hazards") for name in clean().cohort.hazards)


@pytest.mark.parametrize(
    ("checks", "named"),
    [
        (leakage(outcome_from_all_columns="not run"), "not run: outcome_from_all_columns"),
        (leakage(dose_answers_the_past="not run"), "not run: dose_answers_the_past"),
        (leakage()[2:3], "not run: construction, persistence, reconstruction, timing"),
        ([{**one, "status": "warning"} for one in leakage()], "none is clean"),
    ],
)
def test_a_check_of_leakage_that_was_not_run_is_no_clean_one(
    checks: list[dict[str, Any]], named: str
) -> None:
    found = judged(replace(clean(), dataset={**clean().dataset, "leakage": checks}))
    assert found.of("failed") == ("leakage",)
    assert named in found.said("leakage")


def test_a_check_of_leakage_may_rest_where_the_cohort_has_no_such_column() -> None:
    resting = leakage(outcome_from_all_columns="not run")
    deathless = clean().cohort.model_copy(update={"outcome": None})
    told = replace(clean(), cohort=deathless, dataset={"leakage": resting})
    found = GATES["leakage"].measure(told)
    assert found.compared == 0
    assert "4 of 6 checks were run" in found.said


def test_a_limit_of_the_cohort_file_that_was_not_judged_fails() -> None:
    lost = "selected.limits.relative:oliguria"
    without = {k: v for k, v in clean().evaluation.items() if not k.startswith(lost)}
    for evidence in (replace(clean(), evaluation=without), changed(**{f"{lost}.hi": None})):
        found = judged(evidence)
        assert found.of("failed") == ("constraints",)
        assert "1 of 2 limits were not judged: Urine below 0.5 mL/kg/h" in found.said("constraints")


def test_a_subgroup_whose_bound_is_exactly_none_is_not_surely_worse_off() -> None:
    edge = judged(changed(**group(1, "80 and above", -0.03, adjusted_hi=0.0, harmed=True)))
    assert edge.verdict == "passed"
    assert "0 surely worse off; looking worse off: Age 80 and above" in edge.said("subgroups")
    beyond = judged(changed(**group(1, "80 and above", -0.03, adjusted_hi=-1e-9)))
    assert beyond.of("failed") == ("subgroups",)
    assert "1 surely worse off: Age 80 and above" in beyond.said("subgroups")


def test_subgroups_of_too_few_patients_are_named_and_not_passed() -> None:
    few = {"patients": None, "effective": None, "lo": None, "hi": None, "adjusted_hi": None}
    hidden = group(1, "80 and above", 0.0, **few, harmed=None, untold=None)
    hidden["selected.groups.1.estimate"] = None
    some = judged(changed(**hidden))
    assert some.verdict == "passed"
    assert "of too few patients: Age 80 and above" in some.said("subgroups")
    first = {key.replace("groups.1", "groups.0"): value for key, value in hidden.items()}
    assert set(judged(changed(**hidden, **first)).of("failed")) == {"outcomes", "subgroups"}


@pytest.mark.parametrize(
    ("low", "middle", "high", "said"),
    [
        (0.03, 0.04, 0.045, "surely kept"),
        (0.051, 0.054, 0.057, "not shown to be broken"),  # a threshold that luck set low
        (0.054, 0.057, 0.060, "surely more"),
        (0.046, 0.0497, 0.053, "not shown to be broken"),
        (0.04, 0.3, 0.6, "too few validation patients to tell"),
        (0.06, 0.07, 0.08, "surely more"),
        (0.010, 0.013, 0.016, "the region is wider than was asked for"),  # calibrated elsewhere
        (0.010, 0.020, 0.030, "surely kept"),
    ],
)
def test_no_more_is_said_of_the_promise_than_its_interval_bears(
    low: float, middle: float, high: float, said: str
) -> None:
    steps = {"estimate": middle, "lo": low, "hi": high, "level": 0.95}
    alarms = {"alpha": 0.05, "steps": steps}
    found = judged(replace(clean(), guardian={**clean().guardian, "false_alarm": alarms}))
    assert said in found.said("false_alarms")
    failed = "surely more" in said or "wider" in said
    assert ("false_alarms" in found.of("failed")) == failed


def test_a_guardian_as_promised_fails_as_rarely_as_its_interval_says() -> None:
    """Thresholds of many calibrations, each judged on fresh patients: who set it varies too."""
    rng, patients, failed = np.random.default_rng(0), 400, 0
    for _ in range(300):
        who = rng.beta(0.5, 9.5, (2, patients))  # how unusual each patient is
        who = who + 0.05 - who[0].mean()  # the threshold makes the calibration share what it is
        share, spread = who[1].mean(), who[1].std()
        half = 1.96 * spread / patients**0.5
        steps = {"estimate": share, "lo": share - half, "hi": share + half, "level": 0.95}
        calibration = {"patients": patients, "share": 0.05, "spread": who[0].std()}
        told = {"alpha": 0.05, "steps": steps}
        guardian = {**clean().guardian, "false_alarm": told, "calibration": calibration}
        failed += "false_alarms" in judged(replace(clean(), guardian=guardian)).of("failed")
    assert failed / 300 < 0.05


@pytest.mark.parametrize(("area", "failed"), [(0.95, False), (0.52, False), (0.515, True)])
def test_outcomes_must_hang_on_patients_where_stays_end_too(area: float, failed: bool) -> None:
    before = clean()
    dynamics = {**before.dynamics, "ends_apart": {"estimate": area, "se": 0.01}}
    found = judged(replace(before, dynamics=dynamics))
    assert ("signal" in found.of("failed")) == failed
    assert f"an AUROC of {area:.2f}" in found.said("signal")


def test_few_stays_in_quarantine_are_not_counted() -> None:
    aside = {**clean().validation, "quarantine": {"stays": 1, "share": 0.005}}
    said = judged(replace(clean(), validation=aside)).said("contract")
    assert "fewer than 10 stays in quarantine" in said
    assert "0.5%" not in said


def test_a_guardian_that_promises_nothing_is_not_asked_and_an_uncounted_one_fails() -> None:
    before = clean()
    steps = before.guardian["false_alarm"]["steps"]

    def found(alpha: float | None, steps: dict[str, Any]) -> Audit:
        alarms = {"alpha": alpha, "steps": steps}
        return judged(replace(before, guardian={**before.guardian, "false_alarm": alarms}))

    silent = found(None, steps)
    assert "false_alarms" in silent.of("not asked")
    assert "promises nothing; 5.0% (4.6% to 5.3%)" in silent.said("false_alarms")
    hidden = dict.fromkeys(("estimate", "lo", "hi", "level"))
    assert found(0.05, hidden).of("failed") == ("false_alarms",)
