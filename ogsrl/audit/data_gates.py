"""Gates on data: what a policy was learned from and measured on.

Registered in `ogsrl.audit.audit`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import NormalDist

from ogsrl.audit.evidence import Evidence
from ogsrl.audit.gate import Found, Gate
from ogsrl.evaluation.quantities import tells_deaths
from ogsrl.preparation.coverage import MIN_PATIENTS
from ogsrl.preparation.leakage import KINDS
from ogsrl.preparation.leakage.overlap import MIN_NUMERIC
from ogsrl.spec import Cohort

#: The AUROC of whoever guesses.
CHANCE = 0.5


def _no_outcome(cohort: Cohort) -> bool:
    return cohort.outcome is None


def _few_numeric(cohort: Cohort) -> bool:
    return sum(one.kind == "numeric" for one in cohort.observations.values()) < MIN_NUMERIC


#: Checks of leakage that may rest, and of which cohorts; all others must be run.
MAY_REST: Mapping[str, Callable[[Cohort], bool]] = {
    "laboratory_times": lambda _: True,  # no table shows them
    "filled_before": lambda _: True,  # rests alone only where no column has levels enough
    "copied_stays": _few_numeric,
    "next_value": lambda cohort: len(cohort.observations) < 2,
    "state_from_outcome": _no_outcome,
    "outcome_from_all_columns": _no_outcome,
    "outcome_at_first_step": _no_outcome,
    "outcome_from_missingness": _no_outcome,
}


def _contract(evidence: Evidence) -> Found:
    broken = [rule for rule in evidence.validation["rules"] if rule["severity"] == "error"]
    broken = [rule for rule in broken if not rule["passed"]]
    count = int(evidence.validation["errors"])
    named = sorted({f"{rule['rule']}:{rule['column']}" for rule in broken})
    aside = evidence.validation["quarantine"]
    told = f"{count} rules of severity error are broken" + (
        f" ({', '.join(named)})" if count else ""
    )
    if not evidence.validation["passed"]:
        return Found(f"{told}; validation did not pass")
    stays = aside["stays"]
    share = f"{aside['share']:.1%} of" if stays >= MIN_PATIENTS else f"fewer than {MIN_PATIENTS}"
    return Found(f"{told}; {share if stays else 'no'} stays in quarantine", float(count))


def _leakage(evidence: Evidence) -> Found:
    checks = evidence.dataset.get("leakage", [])
    leaks = sorted({one["check"] for one in checks if one["status"] == "leak"})
    unsure = sorted({one["check"] for one in checks if one["status"] == "warning"})
    resting = {one["check"] for one in checks if one["status"] == "not run"}
    excused = {name for name in resting if MAY_REST.get(name, _never)(evidence.cohort)}
    missing = resting - excused | set(KINDS) - {one["kind"] for one in checks}
    run = len(checks) - sum(one["status"] == "not run" for one in checks)
    told = f"{run} of {len(checks)} checks were run, {len(leaks)} found a leak"
    for what, names in (
        ("leaks", leaks),
        ("to be looked at", unsure),
        ("not run", sorted(missing)),
        ("cannot be run on such a table", sorted(excused)),
    ):
        told += f"; {what}: {', '.join(names)}" if names else ""
    if missing:
        return Found(told)
    if not leaks and not any(one["status"] == "clean" for one in checks):
        return Found(f"{told}; none is clean")
    return Found(told, float(len(leaks)))


def _never(_: Cohort) -> bool:
    return False


def _outcomes(evidence: Evidence) -> Found:
    if not tells_deaths(evidence.cohort):
        return Found("the cohort file tells of no deaths", idle=True)
    if not evidence.cohort.subgroups:
        return Found("the cohort file names no subgroup", idle=True)
    if not evidence.measured:
        return Found(evidence.few)
    groups = evidence.under("selected.groups.")
    told = [name.removesuffix(".untold") for name in groups if name.endswith(".untold")]
    known = [number for number in told if groups[f"{number}.untold"] is not None]
    if not known:
        return Found("every subgroup is of too few patients")
    dark = [number for number in known if groups[f"{number}.untold"]]
    named = "; ".join(f"{groups[f'{n}.label']} {groups[f'{n}.group']}" for n in dark)
    said = f"{len(dark)} of {len(known)} subgroups have surely less than a quarter of all deaths"
    return Found(said + (f": {named}" if dark else ""), float(len(dark)))


def _signal(evidence: Evidence) -> Found:
    if not evidence.measured:
        return Found(evidence.few)
    told = evidence.under("calibration.slope.")
    if told.get("estimate") is None:
        return Found("what was predicted of the clinicians' patients could not be judged")
    said = (
        f"where {evidence.decisive} was predicted higher by 1, {told['estimate']:.2f} more was "
        f"seen ({told['lo']:.2f} to {told['hi']:.2f})"
    )
    found = [told]
    area = evidence.dynamics.get("ends_apart")
    if area is not None:
        half = NormalDist().inv_cdf(0.975) * area["se"]
        low, high = area["estimate"] - half, min(area["estimate"] + half, 1.0)
        said += (
            f"; death is told from discharge, where a stay ends, with an AUROC of "
            f"{area['estimate']:.2f} ({low:.2f} to {high:.2f})"
        )
        beyond = area["estimate"] - CHANCE, low - CHANCE, high - CHANCE
        found.append(dict(zip(("estimate", "lo", "hi"), beyond, strict=True)))
    weaker = min(found, key=lambda one: one["lo"])
    return Found(
        said,
        compared=weaker["lo"],
        estimate=weaker["estimate"],
        low=weaker["lo"],
        high=weaker["hi"],
    )


def _test_uses(evidence: Evidence) -> Found:
    told = f"{evidence.uses} policies were ever measured on these test patients"
    return Found(told, float(evidence.uses) if evidence.uses else None)


GATES = (
    Gate(
        "contract",
        "The data are what the cohort file says",
        "A policy learned from columns in wrong units or ranges recommends wrong doses.",
        "<=",
        _contract,
    ),
    Gate(
        "leakage",
        "Nothing is known too early",
        "A column that holds the dose or the outcome makes any policy look good on paper.",
        "<=",
        _leakage,
    ),
    Gate(
        "outcomes",
        "Deaths are told of every group",
        "Where deaths are not reported any treatment looks harmless.",
        "<=",
        _outcomes,
    ),
    Gate(
        "signal",
        "Outcomes hang on what was recorded",
        "Where outcomes belong to other patients, or to nobody, nothing can be learned from them. "
        "How long a stay lasts may tell of its end even then; whether it ends in death does not.",
        ">",
        _signal,
    ),
    Gate(
        "test_uses",
        "Test patients were not worn out",
        "Whoever tries many policies on the same test patients finds a good one by luck.",
        "<=",
        _test_uses,
    ),
)
