"""Gates on data: what a policy was learned from and measured on.

Registered in `ogsrl.audit.audit`.
"""

from __future__ import annotations

from ogsrl.audit.evidence import Evidence
from ogsrl.audit.gate import Found, Gate


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
    return Found(f"{told}; {aside['share']:.1%} of stays in quarantine", float(count))


def _leakage(evidence: Evidence) -> Found:
    checks = evidence.dataset.get("leakage", [])
    leaks = sorted({one["check"] for one in checks if one["status"] == "leak"})
    unsure = sorted({one["check"] for one in checks if one["status"] == "warning"})
    idle = sorted({one["check"] for one in checks if one["status"] == "not run"})
    run = len(checks) - sum(one["status"] == "not run" for one in checks)
    told = f"{run} of {len(checks)} checks were run, {len(leaks)} found a leak"
    for what, names in (("leaks", leaks), ("to be looked at", unsure), ("not run", idle)):
        told += f"; {what}: {', '.join(names)}" if names else ""
    return Found(told, float(len(leaks)) if run else None)


def _outcomes(evidence: Evidence) -> Found:
    if not evidence.measured:
        return Found(evidence.few)
    groups = evidence.under("selected.groups.")
    told = [name.removesuffix(".untold") for name in groups if name.endswith(".untold")]
    known = [number for number in told if groups[f"{number}.untold"] is not None]
    if not known:
        return Found("deaths are not known, or no subgroup is large enough", 0.0)
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
    return Found(
        f"where {evidence.decisive} was predicted higher by 1, {told['estimate']:.2f} more was "
        f"seen ({told['lo']:.2f} to {told['hi']:.2f})",
        compared=told["lo"],
        estimate=told["estimate"],
        low=told["lo"],
        high=told["hi"],
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
        "Where outcomes belong to other patients, or to nobody, nothing can be learned from them.",
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
