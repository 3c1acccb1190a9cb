"""Why a candidate was chosen or lost, in words with numbers.

Called by `select`. Means over patients alone, never anything of one of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ogsrl.evaluation.quantities import COST, VALUE, primary
from ogsrl.evaluation.rollouts import Expected
from ogsrl.selection.judge import Judged
from ogsrl.spec import Cohort


def broken_in_screen(
    own: Expected, clinicians: Expected, cohort: Cohort, max_refusal: float
) -> list[str]:
    """What a candidate seems to break in the screening model; nothing: it looks feasible."""
    return [
        f"{what} {mean:.4f} over {allowed:.4f}"
        for what, mean, allowed in _limits(own, clinicians, cohort, max_refusal)
        if mean > allowed
    ]


def room_in_screen(
    own: Expected, clinicians: Expected, cohort: Cohort, max_refusal: float
) -> float:
    """How far inside its nearest limit it is there, as a share of that; below 0: it breaks it."""
    return min(
        (allowed - mean) / max(allowed, 1e-9)
        for _, mean, allowed in _limits(own, clinicians, cohort, max_refusal)
    )


def _limits(
    own: Expected, clinicians: Expected, cohort: Cohort, max_refusal: float
) -> Iterator[tuple[str, float, float]]:
    """Each limit: what it is of, what the candidate comes to, and what is allowed."""
    for name, constraint in cohort.constraints.items():
        mean, limit = own.mean(COST + name), constraint.limit
        if limit.relative is not None:
            yield name, mean, limit.relative * clinicians.mean(COST + name) + limit.margin
        if limit.absolute is not None:
            yield name, mean, limit.absolute
    yield "steps deferred", own.steps_deferred, max_refusal


def why_not_finalist(
    broken: Sequence[str], own: Expected, finalists: Sequence[Expected], cohort: Cohort
) -> str:
    """Lost in the screening model."""
    if broken:
        return "no finalist: in the screening model " + "; ".join(broken)
    decisive = primary(cohort)
    sign, mean = -1 if decisive == VALUE else 1, own.mean(decisive)
    better = sum(sign * one.mean(decisive) < sign * mean for one in finalists)
    said = (
        f"no finalist: {better} others were of better {decisive} than its {mean:.4f} in the "
        "screening model"
    )
    if better < len(finalists):
        said += "; places are kept for the one farthest inside the limits, and for cloning"
    return said


def why_not_feasible(judged: Judged, doubted: Sequence[str], cohort: Cohort, no_worse: bool) -> str:
    """Lost on validation patients, or in the screening model alone."""
    said = [
        f"{_measured(limit, cohort)} may be {kept.bound.high:.4f}, allowed {kept.limit:.4f} "
        f"(estimate {kept.bound.estimate:.4f}, SE {kept.bound.se:.4f})"
        for limit, kept in judged.limits.items()
        if not kept.kept
    ]
    refusal = judged.refusal
    if not refusal.kept:
        said.append(
            f"steps deferred may be {refusal.bound.high:.4f}, allowed "
            f"{refusal.limit:.4f} (estimate {refusal.bound.estimate:.4f})"
        )
    if said:
        return "not feasible: " + "; ".join(said)
    if doubted:
        return (
            "not feasible: fitted Q evaluation finds every limit kept, the screening model does "
            "not: " + "; ".join(doubted)
        )
    assert no_worse  # the only other reason
    decisive = primary(cohort)
    return (
        f"no better than the clinicians: {decisive} {judged.primary.estimate:.4f}, theirs "
        f"{judged.clinicians[decisive]:.4f}"
    )


def why_outdone(judged: Judged, winner: tuple[str, Judged], cohort: Cohort) -> str:
    """Feasible, but another has a better bound."""
    name, best = winner
    return (
        f"feasible, but its {_bound(cohort)} {judged.worst(cohort):.4f} is no better than "
        f"{best.worst(cohort):.4f} of {name}"
    )


def why_chosen(judged: Judged, feasible: int, cohort: Cohort, cloned: bool) -> str:
    """Put forward."""
    said = (
        f"chosen: the best {_bound(cohort)}, {judged.worst(cohort):.4f}, of {feasible} that may act"
    )
    return said + ("; it does what clinicians usually do (behaviour cloning)" if cloned else "")


def _measured(limit: str, cohort: Cohort) -> str:
    kind, _, name = limit.partition(":")
    if kind == "absolute":
        return f"{name}: its cost"
    return f"{name}: its cost less {cohort.constraints[name].limit.relative} x the clinicians'"


def _bound(cohort: Cohort) -> str:
    decisive = primary(cohort)
    return f"{'upper' if decisive == 'mortality' else 'lower'} bound of {decisive}"
