"""Selection: screen candidates, judge finalists, put forward the best feasible one or nobody.

Called by the stage select. Pure: policies and tensors in, a `Selection` out. It looks at validation
patients alone; every candidate that is not chosen gets its reason in words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from ogsrl.errors import ModelError
from ogsrl.evaluation.bounds import Interval, interval_of
from ogsrl.evaluation.executed import Clinicians
from ogsrl.evaluation.fqe import Fqe, Sampling, first_decisions, fit_fqe
from ogsrl.evaluation.pessimism import Worst
from ogsrl.evaluation.quantities import VALUE, primary
from ogsrl.evaluation.rollouts import Expected, Model, Rollouts
from ogsrl.policies.deployed import Deployed
from ogsrl.policies.limits import lived
from ogsrl.preparation.tensors import StayTensors
from ogsrl.selection.config import SelectParams
from ogsrl.selection.judge import CLINICIANS, Judged, Refusals, judge
from ogsrl.selection.reasons import (
    broken_in_screen,
    room_in_screen,
    why_chosen,
    why_not_feasible,
    why_not_finalist,
    why_outdone,
)
from ogsrl.spec import Cohort


@dataclass(frozen=True)
class Candidate:
    """A policy that may be put forward.

    Attributes:
        name: Its own among all candidates.
        algorithm: E.g. ogsrl.
        seed: Of its training.
        checkpoint: E.g. step_900.
        deployed: What it does.
    """

    name: str
    algorithm: str
    seed: int
    checkpoint: str
    deployed: Deployed


@dataclass(frozen=True)
class Verdict:
    """What came of a candidate; `judged` and `pessimistic` are None where it was no finalist.

    Attributes:
        pessimistic: The screening model again, with the worst supported dose where it defers.
    """

    candidate: Candidate
    screened: Expected
    looks_feasible: bool
    judged: Judged | None
    pessimistic: Expected | None
    chosen: bool
    reason: str


@dataclass(frozen=True)
class Selection:
    """Who is put forward, and why.

    Attributes:
        chosen: None: `no policy`.
        least: The finalist of the best bound of mortality or value, feasible or not.
        verdicts: Every candidate, in the order given.
        clinicians: The clinicians in the screening model.
        fqe: The fits behind the finalists' numbers.
    """

    chosen: Candidate | None
    least: Candidate
    verdicts: tuple[Verdict, ...]
    clinicians: Expected
    fqe: Fqe

    @property
    def status(self) -> str:
        """selected, or no_policy."""
        return "no_policy" if self.chosen is None else "selected"


@dataclass(frozen=True)
class Grounds:
    """What candidates are judged on.

    Attributes:
        validation: Whole stays of validation patients.
        behaviour: b, who acts where a policy defers.
        model: Dynamics of validation patients (`screen.second_model`).
        max_refusal: Largest share of steps that may be deferred.
    """

    validation: StayTensors
    behaviour: Clinicians
    model: Model
    max_refusal: float


def select(
    candidates: Sequence[Candidate],
    grounds: Grounds,
    params: SelectParams,
    generator: torch.Generator,
    *,
    progress: Callable[[str, int], None] | None = None,
    interval: Interval | None = None,
) -> Selection:
    """Choose among candidates.

    Args:
        candidates: At least one, each with a name of its own.
        grounds: What they are judged on.
        params: Of selection.
        generator: Everything is drawn with it.
        progress: Called with `candidates` or `steps`, and how many more of them are done.
        interval: How bounds are made; none: by the normal distribution.
    """
    validation, behaviour, max_refusal = grounds.validation, grounds.behaviour, grounds.max_refusal
    cohort = validation.history.preparation.cohort
    names = [one.name for one in candidates]
    if not names or len(set(names)) < len(names) or CLINICIANS in names:
        raise ModelError(
            f"select: {len(names)} candidates with {len(set(names))} names; give at least one, "
            f"each a name of its own other than {CLINICIANS!r}"
        )
    say = progress or (lambda _what, _more: None)
    nobody = Deployed.of(None, None, validation.history)
    screen = Rollouts.of(grounds.model, behaviour, validation, params.screen_stays, generator)
    clinicians = screen.follow(nobody)
    screened, broken, room = {}, {}, {}
    for one in candidates:
        screened[one.name] = screen.follow(one.deployed)
        asked = (screened[one.name], clinicians, cohort, max_refusal)
        broken[one.name], room[one.name] = broken_in_screen(*asked), room_in_screen(*asked)
        say("candidates", 1)
    same = _same(screened)  # a plain policy or a table comes to the same with every seed
    distinct = [one for one in candidates if one.name not in same]
    finalists = _finalists(distinct, screened, broken, room, cohort, params)
    fqe = fit_fqe(
        validation,
        {CLINICIANS: nobody, **{one.name: one.deployed for one in finalists}},
        behaviour,
        params.fqe,
        generator,
        lambda more: say("steps", more),
        sampling=Sampling(resample=params.bootstrap),
    )
    judged = judge(
        fqe,
        [one.name for one in finalists],
        cohort,
        Refusals(max_refusal, _lived(validation)),
        params.confidence,
        interval or interval_of(resampled=params.bootstrap, networks=params.fqe.networks),
    )
    pessimistic = {
        one.name: screen.follow(one.deployed, Worst(one.deployed, fqe, one.name, behaviour))
        for one in finalists
    }
    sign = -1 if primary(cohort) == VALUE else 1
    order = sorted(finalists, key=lambda one: sign * judged[one.name].worst(cohort))
    may_act = [one for one in order if _may_act(judged[one.name], broken[one.name], params)]
    chosen = may_act[0] if may_act else None

    def reason(one: Candidate) -> str:
        mine = judged.get(one.name)
        if one.name in same:
            return f"the same policy as {same[one.name]}"
        if mine is None:
            others = [screened[finalist.name] for finalist in finalists]
            return why_not_finalist(broken[one.name], screened[one.name], others, cohort)
        if chosen is None or one not in may_act:
            doubted = broken[one.name] if params.agree else ()
            return why_not_feasible(mine, doubted, cohort, params.no_worse)
        if one is not chosen:
            return why_outdone(mine, (chosen.name, judged[chosen.name]), cohort)
        return why_chosen(mine, len(may_act), cohort, one.algorithm == params.cloning)

    verdicts = tuple(
        Verdict(
            candidate=one,
            screened=screened[one.name],
            looks_feasible=not broken[one.name],
            judged=judged.get(one.name),
            pessimistic=pessimistic.get(one.name),
            chosen=one is chosen,
            reason=reason(one),
        )
        for one in candidates
    )
    return Selection(chosen, order[0], verdicts, clinicians, fqe)


def _lived(stays: StayTensors) -> float:
    steps = stays.history.preparation.cohort.max_steps
    return lived(int(stays.decision.sum()), len(first_decisions(stays)), steps)


def _same(screened: Mapping[str, Expected]) -> dict[str, str]:
    """Whose equal stands before them, and who that is; an equal must not take another's place."""
    found: dict[str, str] = {}
    names = list(screened)
    for i, name in enumerate(names):
        earlier = (n for n in names[:i] if n not in found)
        equal = next((n for n in earlier if screened[name].same(screened[n])), None)
        if equal is not None:
            found[name] = equal
    return found


def _finalists(
    candidates: Sequence[Candidate],
    screened: Mapping[str, Expected],
    broken: Mapping[str, Sequence[str]],
    room: Mapping[str, float],
    cohort: Cohort,
    params: SelectParams,
) -> list[Candidate]:
    """The best of those that look feasible, then of the others; the safest; the best clone.

    The safest, farthest inside the limits, takes the last place: where bounds are wide it is the
    one that may still be shown to keep them.
    """
    decisive = primary(cohort)
    sign = -1 if decisive == VALUE else 1

    def rank(one: Candidate) -> tuple[int, float]:
        return len(broken[one.name]), sign * screened[one.name].mean(decisive)

    ordered = sorted(candidates, key=rank)
    kept = ordered[: params.finalists]
    safest = max(ordered, key=lambda one: room[one.name])  # of equals the better
    if params.finalists > 1 and safest not in kept:
        kept[-1] = safest
    clones = [one for one in ordered if one.algorithm == params.cloning]
    if clones and not any(one.algorithm == params.cloning for one in kept):
        kept.append(clones[0])
    return kept


def _may_act(judged: Judged, broken: Sequence[str], params: SelectParams) -> bool:
    if params.agree and broken:
        return False
    return judged.feasible and not (params.no_worse and judged.gain.estimate < 0)
