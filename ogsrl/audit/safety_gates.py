"""Gates on harm: limits on physiology, hazards, jumps of doses.

Registered in `ogsrl.audit.audit`.
"""

from __future__ import annotations

from ogsrl.audit.evidence import Evidence
from ogsrl.audit.gate import Found, Gate


def _constraints(evidence: Evidence) -> Found:
    if not evidence.cohort.constraints:
        return Found("the cohort file has no constraint", idle=True)
    if not evidence.measured:
        return Found(evidence.few)
    told = evidence.under("selected.limits.")
    asked = _limits(evidence)
    missing = [name for name in asked if told.get(f"{name}.hi") is None]
    if missing:
        each = ", ".join(_limit_words(evidence, name) for name in missing)
        return Found(f"{len(missing)} of {len(asked)} limits were not judged: {each}")
    over = {name: told[f"{name}.hi"] - told[f"{name}.limit"] for name in asked}
    worst = max(sorted(over), key=lambda name: over[name])
    return Found(
        "; ".join(
            f"{_limit_words(evidence, name)}: {100 * told[f'{name}.estimate']:.1f} % of a stay's "
            f"steps, surely at most {100 * told[f'{name}.hi']:.1f} %, allowed "
            f"{100 * told[f'{name}.limit']:.1f} %"
            + (" (surely below the clinicians')" if told.get(f"{name}.surely_lower") else "")
            for name in sorted(over)
        ),
        compared=over[worst],
        estimate=told[f"{worst}.estimate"] - told[f"{worst}.limit"],
        low=told[f"{worst}.lo"] - told[f"{worst}.limit"],
        high=over[worst],
    )


def _limits(evidence: Evidence) -> list[str]:
    """All that the cohort file bounds, as evaluation.json names them."""
    return [
        f"{kind}:{name}"
        for name, one in evidence.cohort.constraints.items()
        for kind in ("relative", "absolute")
        if getattr(one.limit, kind) is not None
    ]


def _limit_words(evidence: Evidence, name: str) -> str:
    """What is bounded: a constraint, or how far it is above the share of the clinicians'."""
    kind, _, constraint = name.partition(":")
    known = evidence.cohort.constraints[constraint]
    shown = known.label or constraint
    return (
        f"{shown}, less {known.limit.relative:g} x the clinicians'" if kind == "relative" else shown
    )


def _calibration(evidence: Evidence) -> Found:
    if not evidence.cohort.constraints:
        return Found("the cohort file has no constraint", idle=True)
    told = evidence.dynamics.get("constraints") or {}
    errors = {}
    for name in evidence.cohort.constraints:
        curve = (told.get(name) or {}).get("curve")
        if curve:
            gaps = [abs(point["predicted"] - point["estimate"]) for point in curve]
            errors[name] = sum(gaps) / len(gaps)
    missing = [name for name in evidence.cohort.constraints if name not in errors]
    if missing:
        return Found(f"no predicted chance to be judged: {', '.join(missing)}")
    worst = max(errors.values())
    each = ", ".join(f"{name} {error:.4f}" for name, error in errors.items())
    return Found(f"mean error over tenths of the validation patients' steps: {each}", worst, worst)


def _hazards(evidence: Evidence) -> Found:
    hazards = evidence.cohort.hazards
    if not hazards:
        return Found("the cohort file has no hazard", idle=True)
    if not evidence.measured:
        return Found(evidence.few)
    dark, recommended, unknown = [], {}, []
    for name in hazards:
        told = evidence.under(f"selected.measures.hazards.{name}.")
        if not evidence.told(f"selected.measures.hazards.{name}.evaluable"):
            dark.append(name)
        elif told["never"] is None:
            unknown.append(name)
        elif not told["never"]:
            share = told["steps.policy.estimate"]
            recommended[name] = 1.0 if share is None else share
    judged = len(hazards) - len(dark) - len(unknown)
    said = f"{len(recommended)} of {judged} hazards are recommended in some test state"
    for what, names in (
        ("recommended", list(recommended)),
        ("not evaluable, for want of columns", dark),
        ("no dose was ever recommended", unknown),
    ):
        said += f"; {what}: {', '.join(names)}" if names else ""
    if unknown or not judged:
        return Found(said)
    return Found(said, max(recommended.values(), default=0.0))


def _jumps(evidence: Evidence) -> Found:
    if not evidence.measured:
        return Found(evidence.few)
    shares = {}
    for name, action in evidence.cohort.actions.items():
        if action.max_change is None:
            continue
        told = evidence.under(f"selected.measures.doses.{name}.jump.policy.")
        if told["estimate"] is None:
            return Found(f"{name}: too few recommended doses to judge")
        shares[name] = told["estimate"]
    if not shares:
        return Found("the cohort file has no largest change", idle=True)
    each = ", ".join(f"{name} {share:.2%}" for name, share in shares.items())
    return Found(f"steps with a larger change than allowed: {each}", max(shares.values()))


GATES = (
    Gate(
        "constraints",
        "Physiological limits are kept",
        "A policy that lowers mortality on paper by harming organs is not wanted.",
        "<=",
        _constraints,
    ),
    Gate(
        "calibration",
        "Predicted unsafe states happen as often as predicted",
        "Costs were trained on these chances: where they are wrong, the limits bind the wrong way.",
        "<=",
        _calibration,
    ),
    Gate(
        "hazards",
        "What must never be done is never recommended",
        "Some doses in some states are never right, whatever an average says.",
        "<=",
        _hazards,
    ),
    Gate(
        "dose_jumps",
        "Doses do not jump",
        "Nobody at the bedside follows a pump that swings.",
        "<=",
        _jumps,
    ),
)
