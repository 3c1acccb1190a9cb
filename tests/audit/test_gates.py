"""Each gate binds: it passes where all is well, fails for its own reason, and never in silence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from ogsrl.audit.audit import GATES, Audit, audit
from ogsrl.audit.config import AuditParams
from ogsrl.audit.evidence import Evidence
from ogsrl.errors import OgsrlError
from tests.audit.told import changed, clean, group

LEAK = {"leakage": [{"check": "bins", "status": "leak"}]}
BROKEN = {"rule": "range", "column": "map", "severity": "error", "passed": False}
GAIN = "selected.mortality.gain"


def broken() -> Mapping[str, Evidence]:
    """What makes each gate fail, and only it."""
    before = clean()
    rules = {**before.validation, "errors": 1, "rules": [BROKEN]}
    alarms = {"alpha": 0.05, "steps": {"estimate": 0.07, "lo": 0.06, "hi": 0.08}}
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
    assert judged(clean()).verdict == "passed"
    assert judged(clean()).of("passed") == tuple(GATES)


@pytest.mark.parametrize("name", [n for n in GATES if n not in ("detectable", "confounding")])
def test_a_gate_fails_for_its_own_reason_alone(name: str) -> None:
    found = judged(broken()[name])
    assert found.of("failed") == (name,)
    assert found.verdict == "failed"


def test_better_by_a_claim_that_little_confounding_overturns_fails_where_more_is_asked() -> None:
    strict = AuditParams.model_validate({"confounding": {"limit": 1.25}})
    assert judged(clean(), strict).of("failed") == ("confounding",)
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
