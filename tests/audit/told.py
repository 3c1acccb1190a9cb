"""Reports in which every gate passes, to be changed by tests."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from ogsrl.audit.evidence import Evidence
from ogsrl.spec import Cohort, load_cohort

REPOSITORY = Path(__file__).resolve().parents[2]


@cache
def sepsis() -> Cohort:
    return load_cohort(REPOSITORY / "data_contracts" / "sepsis.yaml")


def measure(middle: float | None, low: float | None, high: float | None) -> dict[str, Any]:
    return {"estimate": middle, "lo": low, "hi": high}


def flat(prefix: str, fields: dict[str, Any]) -> dict[str, Any]:
    return {f"{prefix}.{name}": value for name, value in fields.items()}


def group(number: int, name: str, estimate: float, **more: Any) -> dict[str, Any]:
    told = {
        "grouping": "age",
        "label": "Age",
        "group": name,
        "patients": 800,
        "effective": 120.0,
        **measure(estimate, estimate - 0.02, estimate + 0.02),
        "level": 0.95,
        "adjusted_hi": estimate + 0.03,
        "harmed": estimate + 0.03 < 0,
        "untold": False,
    }
    return flat(f"selected.groups.{number}", told | more)


def evaluation() -> dict[str, Any]:
    told: dict[str, Any] = {"status": "evaluated"}
    told |= flat("selected.mortality", measure(0.16, 0.14, 0.18))
    gain = measure(-0.03, -0.05, -0.01) | {"word": "better", "smallest_effect": 0.03, "voters": 1}
    told |= flat("selected.mortality.gain", gain)
    told["ogsrl_seed_1.mortality.estimate"] = 0.165
    told["ogsrl_seed_2.mortality.estimate"] = 0.155
    told |= flat("selected.than.cloning", measure(0.025, 0.005, 0.045))
    for limit in ("relative:hypoxia", "relative:oliguria"):
        told |= flat(f"selected.limits.{limit}", measure(-0.03, -0.05, -0.01) | {"limit": 0.0})
    told |= flat("selected.measures.deferred_steps", measure(0.04, 0.038, 0.043))
    told |= flat("selected.measures.deferred_stays", measure(0.31, 0.30, 0.33))
    for hazard in sepsis().hazards:
        told |= flat(f"selected.measures.hazards.{hazard}", {"evaluable": 1.0, "never": 1.0})
        told |= flat(f"selected.measures.hazards.{hazard}.steps.policy", measure(0.0, 0.0, 0.001))
    for dose in sepsis().actions:
        for who in ("policy", "clinicians"):
            told |= flat(f"selected.measures.doses.{dose}.mean.{who}", measure(0.5, 0.4, 0.6))
        told |= flat(f"selected.measures.doses.{dose}.jump.policy", measure(0.0, 0.0, 0.001))
    told |= flat("calibration.slope", measure(0.99, 0.89, 1.08))
    told |= group(0, "below 50", 0.02) | group(1, "80 and above", 0.01)
    told |= {
        "selected.sensitivity.whole_stay.withstood_gamma": 1.0,
        "selected.sensitivity.whole_stay.tipping_gamma": 1.1,
        "selected.sensitivity.whole_stay.gamma_1_1.gain.word": "cannot tell",
        "selected.sensitivity.first_dose.withstood_gamma": 1.04,
        "selected.sensitivity.first_dose.tipping_gamma": 1.05,
        "selected.sensitivity.first_dose.word": "better",
        "selected.sensitivity.recorded.map.gamma": 3.4,
    }
    return told


def leakage(**others: str) -> list[dict[str, Any]]:
    """A check of each kind, all clean but those named."""
    checks = {
        "state_from_dose": "construction",
        "outcome_from_all_columns": "reconstruction",
        "bins": "temporal_overlap",
        "dose_answers_the_past": "timing",
        "laboratory_times": "timing",
        "dose_before": "persistence",
    }
    told = dict.fromkeys(checks, "clean") | {"laboratory_times": "not run"} | others
    return [{"kind": kind, "check": one, "status": told[one]} for one, kind in checks.items()]


def estimate(policy: str, quantity: str, estimator: str, diagnosis: str) -> dict[str, Any]:
    told = {"policy": policy, "quantity": quantity, "estimator": estimator}
    told |= measure(0.16, 0.14, 0.18) | {"level": 0.95, "ess": None, "truth": 0.15}
    return {**told, "diagnosis": diagnosis}


def clean() -> Evidence:
    """Nothing is wrong."""
    steps = {"estimate": 0.0497, "lo": 0.0463, "hi": 0.0531, "level": 0.95, "patients": 3000}
    curve = [{"predicted": 0.1, "estimate": 0.105, "se": 0.01}]
    return Evidence(
        cohort=sepsis(),
        ingest={"source": {"kind": "simulator"}, "table": {"sha256": "ab" * 32}},
        validation={
            "passed": True,
            "errors": 0,
            "rules": [],
            "quarantine": {"stays": 0, "share": 0.0},
        },
        dataset={
            "leakage": leakage(),
            "attrition": [{"step": "simulated", "patients": 20_000, "stays": 21_010}],
            "parts": {
                "train": {"patients": 9_970, "stays": 10_458, "rows": 145_519},
                "test": {"patients": 4_018, "stays": 4_238, "rows": 59_020},
            },
        },
        behaviour={"status": "fitted"},
        dynamics={
            "status": "fitted",
            "constraints": {name: {"curve": curve} for name in sepsis().constraints},
        },
        guardian={
            "kind": "christoffel",
            "status": "ready",
            "alpha": 0.05,
            "members": {"christoffel": {"holds_rows": False}, "kde": {"holds_rows": True}},
            "calibration": {"patients": 3000, "share": 0.049, "spread": 0.096},
            "false_alarm": {"alpha": 0.05, "steps": steps},
        },
        train={"ogsrl": {"seeds": {str(seed): {"status": "done"} for seed in range(3)}}},
        selection={"chosen": {"algorithm": "ogsrl", "seed": 0, "checkpoint": "step_1800"}},
        evaluation=evaluation(),
        estimates=[
            estimate("selected", "mortality", "fqe", "votes: cold fits agree"),
            estimate("selected", "mortality", "wis", "no vote: too few"),
            estimate("selected", "mortality", "panel", "fqe voted"),
        ],
        coverage={"coverage_fqe": 0.95},
        uses=4,
        with_rows=[],
    )


def changed(**entries: Any) -> Evidence:
    """Some entries of evaluation.json are others."""
    before = clean()
    return replace(before, evaluation={**before.evaluation, **entries})
