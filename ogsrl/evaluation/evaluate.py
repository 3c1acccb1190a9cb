"""Evaluation: policies measured on patients that nothing was fitted, tuned or selected on.

Called by the stage evaluate, by `ogsrl evaluate` and by benchmarks.coverage. Pure: policies, models
and tensors in, an `Evaluation` out. Every estimator is asked for the quantity and for the gain on
the clinicians; the panel says what may be said.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from ogsrl.errors import EstimateError
from ogsrl.evaluation.asking import CLINICIANS, Case, Grounds, Shared
from ogsrl.evaluation.config import EvaluateParams
from ogsrl.evaluation.estimators import Estimate
from ogsrl.evaluation.panel import Panel, panel
from ogsrl.policies.deployed import Deployed

__all__ = ["CLINICIANS", "Evaluation", "Grounds", "Subject", "evaluate", "work"]


@dataclass(frozen=True)
class Subject:
    """A policy that is measured.

    Attributes:
        name: Its own among all.
        deployed: What it does.
        algorithm: E.g. ogsrl; the clinicians have none.
        seed: Of its training.
        checkpoint: E.g. step_900.
    """

    name: str
    deployed: Deployed
    algorithm: str | None = None
    seed: int | None = None
    checkpoint: str | None = None


@dataclass(frozen=True)
class Answers:
    """What was said of one quantity of one policy, or of its gain: by each estimator, by all."""

    estimates: Mapping[str, Estimate]
    panel: Panel


@dataclass(frozen=True)
class Frontier:
    """An estimate of the primary quantity at one bandwidth."""

    policy: str
    estimator: str
    bandwidth: float
    estimate: Estimate


@dataclass(frozen=True)
class Evaluation:
    """All that was measured.

    Attributes:
        subjects: The clinicians first.
        own: By policy and quantity; of the clinicians no refusals.
        gains: The same, of differences from the clinicians; of nobody's refusals.
        frontier: By policy, estimator and bandwidth.
        shared: Fits, executed doses and the layout behind the numbers.
    """

    subjects: tuple[Subject, ...]
    own: Mapping[str, Mapping[str, Answers]]
    gains: Mapping[str, Mapping[str, Answers]]
    frontier: tuple[Frontier, ...]
    shared: Shared

    @property
    def logged(self) -> dict[str, float]:
        """By quantity: the mean over stays of what was logged, ends known."""
        return {name: float(self.shared.seen(name).mean()) for name in self.own[CLINICIANS]}


def evaluate(
    subjects: Sequence[Subject],
    grounds: Grounds,
    params: EvaluateParams,
    generator: torch.Generator,
    progress: Callable[[int], None] | None = None,
) -> Evaluation:
    """Measure policies, and the clinicians beside them.

    Args:
        subjects: Each with a name of its own.
        grounds: Patients and models.
        params: Of evaluation.
        generator: Everything is drawn with it.
        progress: Called with how many more of `work` is done.
    """
    names = [one.name for one in subjects]
    if CLINICIANS in names or len(set(names)) < len(names):
        raise EstimateError(
            f"evaluate: {len(names)} policies with {len(set(names))} names; give each one of its "
            f"own, other than {CLINICIANS!r}"
        )
    say = progress or (lambda _more: None)
    nobody = Deployed.of(None, None, grounds.test.history)
    everyone = (Subject(CLINICIANS, nobody), *subjects)
    policies = {one.name: one.deployed for one in everyone}
    shared = Shared.of(policies, grounds, params, generator, say)
    own, gains, frontier = {}, {}, []
    for one in everyone:
        case = Case.of(shared, one.name, one.deployed)
        own[one.name] = _answers(case, gain=False)
        if one.name != CLINICIANS:
            gains[one.name] = _answers(case, gain=True)
            frontier += [Frontier(one.name, *found) for found in case.frontier()]
        say(1)
    return Evaluation(everyone, own, gains, tuple(frontier), shared)


def work(policies: int, params: EvaluateParams) -> int:
    """How many steps `evaluate` tells of."""
    fits = (params.fqe, params.values)
    return policies + 1 + sum(one.start_steps + one.steps for one in fits)


def _answers(case: Case, *, gain: bool) -> dict[str, Answers]:
    made = {}
    for quantity in case.quantities(gain=gain):
        estimates = case.estimates(quantity, gain=gain)
        one = case.shared.wanted[quantity]
        low, high = (one.low - one.high, one.high - one.low) if gain else (one.low, one.high)
        said = panel(estimates, low, high, case.shared.params.confidence)
        made[quantity] = Answers(estimates, said)
    return made
