"""What an unrecorded confounder could change of what is said of one policy.

Called by `ogsrl.evaluation.closer`. Two bounds that the panel's interval is widened by: of the
first dose of a stay alone, and of every dose; beside them how strong the recorded columns would be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ogsrl.evaluation.asking import Case
from ogsrl.evaluation.evaluate import Evaluation
from ogsrl.evaluation.fqe import first_decisions
from ogsrl.evaluation.panel import Panel, panel
from ogsrl.evaluation.quantities import VALUE, primary
from ogsrl.evaluation.robust import fit_robust
from ogsrl.evaluation.sensitivity import (
    FirstDose,
    Recorded,
    Tipping,
    Widening,
    recorded,
    tipping,
    widened,
)


@dataclass(frozen=True)
class Bounds:
    """A panel and what each Gamma does to it.

    Attributes:
        own: Of the policy.
        gain: Of its difference from the clinicians.
        widening: By Gamma, rising.
        low: The least that the quantity can be.
        high: The most.
    """

    own: Panel
    gain: Panel
    widening: Mapping[float, Widening]
    low: float
    high: float

    def at(self, gamma: float) -> tuple[Panel, Panel]:
        """The policy's and the gain's, widened alike: what clinicians come to was seen."""
        by, span = self.widening[gamma], self.high - self.low
        return widened(self.own, by, self.low, self.high), widened(self.gain, by, -span, span)


@dataclass(frozen=True)
class Confounding:
    """Sensitivity of one policy's primary quantity.

    Attributes:
        policy: Whose.
        sign: 1 where more is better, -1 where less is.
        first: The policy gives the first dose, clinicians all others.
        whole: The policy acts all the stay.
        tipping: Of the first dose: up to which Gamma its word is said.
        recorded: The strongest recorded columns, as if nobody had recorded them.
    """

    policy: str
    sign: int
    first: Bounds
    whole: Bounds
    tipping: Tipping
    recorded: Recorded

    def plain(self) -> dict[str, Any]:
        """`<policy>.sensitivity.<what>.<gamma key>.<field>`."""
        told: dict[str, Any] = {}
        for what, bounds in (("first_dose", self.first), ("whole_stay", self.whole)):
            for gamma in bounds.widening:
                at = f"{what}.{gamma_key(gamma)}"
                told |= {f"{at}.{k}": v for k, v in self._fields(bounds, gamma)}
        withstood, lost = self._tips()
        told |= {
            "first_dose.word": self.tipping.word,
            "first_dose.withstood_gamma": self.tipping.withstood,
            "first_dose.tipping_gamma": self.tipping.gamma,
            "whole_stay.withstood_gamma": withstood,
            "whole_stay.tipping_gamma": lost,
            "recorded.decisions": self.recorded.decisions,
        }
        for one in self.recorded.columns:
            told[f"recorded.{one.column}.gamma"] = one.gamma
            told[f"recorded.{one.column}.median"] = one.median
        return {f"{self.policy}.sensitivity.{name}": value for name, value in told.items()}

    def _fields(self, bounds: Bounds, gamma: float) -> Iterator[tuple[str, Any]]:
        own, gain = bounds.at(gamma)
        yield from (("lo", own.low), ("hi", own.high))
        yield from (("gain.lo", gain.low), ("gain.hi", gain.high))
        yield "gain.word", gain.word(self.sign)

    def _tips(self) -> tuple[float | None, float | None]:
        """Of those asked: the last Gamma at which the whole stay's word is said, the next one."""
        word = self.whole.gain.word(self.sign)
        if word == "cannot tell":
            return None, None
        withstood = 1.0
        for gamma in self.whole.widening:
            if self.whole.at(gamma)[1].word(self.sign) != word:
                return withstood, gamma
            withstood = gamma
        return withstood, None


def gamma_key(gamma: float) -> str:
    """A Gamma as part of a flat key, whose parts dots divide.

    >>> gamma_key(1.25)
    'gamma_1_25'
    """
    return "gamma_" + f"{gamma:g}".replace(".", "_")


def confounding(
    evaluation: Evaluation,
    policy: str,
    generator: torch.Generator,
    progress: Callable[[int], None] | None = None,
) -> Confounding:
    """Bounds of a policy that was evaluated.

    Args:
        evaluation: With it.
        policy: Its name.
        generator: Everything is drawn with it.
        progress: Called with 1 after each gradient step of the robust fit.
    """
    shared, grounds = evaluation.shared, evaluation.shared.grounds
    decisive = primary(grounds.test.history.preparation.cohort)
    sign = 1 if decisive == VALUE else -1
    gammas = sorted({1.0, *shared.params.gammas})
    first, dose = first_dose(evaluation, policy, gammas)
    columns = Recorded((), 0, "training patients are not here")
    if grounds.train is not None:
        columns = recorded(grounds.behaviour, grounds.train, grounds.test, generator)
    return Confounding(
        policy=policy,
        sign=sign,
        first=first,
        whole=whole_stay(evaluation, policy, gammas, generator, progress),
        tipping=tipping(dose.widening, first.gain, sign),
        recorded=columns,
    )


def first_dose(
    evaluation: Evaluation, policy: str, gammas: Sequence[float]
) -> tuple[Bounds, FirstDose]:
    """What the panel says of the policy's first dose, and what each Gamma does to it."""
    shared = evaluation.shared
    test = shared.grounds.test
    decisive = primary(test.history.preparation.cohort)
    one, level = shared.wanted[decisive], shared.params.confidence
    case = Case(shared, policy, shared.records(policy, shared.params.bandwidths[0]), None)
    own = panel(case.first_dose(decisive, gain=False), one.low, one.high, level)
    span = one.high - one.low
    gain = panel(case.first_dose(decisive, gain=True), -span, span, level)
    deferred = shared.executed[policy].deferred[:, first_decisions(test)]
    dose = FirstDose.of(case.first_values(decisive), deferred, one.low, one.high)
    widening = {gamma: dose.widening(gamma) for gamma in gammas}
    return Bounds(own, gain, widening, one.low, one.high), dose


def whole_stay(
    evaluation: Evaluation,
    policy: str,
    gammas: Sequence[float],
    generator: torch.Generator,
    progress: Callable[[int], None] | None = None,
) -> Bounds:
    """What the panel says of the policy, and what each Gamma at every step does to it."""
    shared = evaluation.shared
    test, behaviour, params = shared.grounds.test, shared.grounds.behaviour, shared.params.robust
    decisive = primary(test.history.preparation.cohort)
    deployed = next(one.deployed for one in evaluation.subjects if one.name == policy)
    robust = fit_robust(
        test, {policy: deployed}, behaviour, params, gammas, generator, (decisive,), progress
    )
    return Bounds(
        own=evaluation.own[policy][decisive].panel,
        gain=evaluation.gains[policy][decisive].panel,
        widening={gamma: robust.widening(policy, decisive, gamma) for gamma in gammas},
        low=shared.wanted[decisive].low,
        high=shared.wanted[decisive].high,
    )
