"""Each finalist judged by fitted Q evaluation: limits, refusals, mortality.

Called by `select`. It says what is kept and what is not, in numbers; it chooses nobody.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from ogsrl.evaluation.bounds import Bound, Interval, Kept, holm
from ogsrl.evaluation.fqe import Fqe
from ogsrl.evaluation.limits import limit_tests
from ogsrl.evaluation.quantities import COST, REFUSAL, VALUE, primary
from ogsrl.evaluation.rollouts import by_patient
from ogsrl.spec import Cohort

#: The name under which the clinicians are evaluated beside the finalists.
CLINICIANS = "clinicians"


@dataclass(frozen=True)
class Refusals:
    """How many may be.

    Attributes:
        most: Largest share of steps that may be deferred.
        lived: Share of max_steps that stays last under clinicians: where they are short, one who
            always defers has but a small share of max_steps deferred.
    """

    most: float
    lived: float


@dataclass(frozen=True)
class Judged:
    """One policy.

    Attributes:
        primary: Bounds of mortality or value.
        gain: Bounds of how much better it is than the clinicians: deaths less, or value more.
        costs: Bounds of each constraint's cost, as a share of steps.
        clinicians: The clinicians' own estimate of each.
        limits: Whether each limit is kept: `relative:<constraint>` bounds the paired difference
            from what the clinicians' cost allows, `absolute:<constraint>` the cost itself.
        refusal: Bounds of the share deferred of the steps that stays last under clinicians, and
            whether its limit is kept.
    """

    primary: Bound
    gain: Bound
    costs: Mapping[str, Bound]
    clinicians: Mapping[str, float]
    limits: Mapping[str, Kept]
    refusal: Kept

    @property
    def feasible(self) -> bool:
        """Whether every limit is kept, surely."""
        return self.refusal.kept and all(kept.kept for kept in self.limits.values())

    def worst(self, cohort: Cohort) -> float:
        """What it may be at worst: the upper bound of mortality, or the lower bound of value."""
        return self.primary.low if primary(cohort) == VALUE else self.primary.high


def judge(
    fqe: Fqe,
    finalists: list[str],
    cohort: Cohort,
    refusals: Refusals,
    confidence: float,
    interval: Interval,
) -> dict[str, Judged]:
    """Judge finalists by name; the clinicians are evaluated in the same fits."""
    values = {
        name: {q: by_patient(value, fqe.patients) for q, value in of_policy.items()}
        for name, of_policy in fqe.first_values.items()
    }
    theirs, decisive = values[CLINICIANS], primary(cohort)
    tests = {
        (name, limit): (partial(interval, test.values), test.most)
        for name in finalists
        for limit, test in limit_tests(values[name], theirs, cohort).items()
    }
    kept = holm(tests, confidence)
    sign = 1 if decisive == VALUE else -1
    judged = {}
    for name in finalists:
        own = values[name]
        refusal = interval(own[REFUSAL] / refusals.lived, confidence)
        judged[name] = Judged(
            primary=interval(own[decisive], confidence),
            gain=interval(sign * (own[decisive] - theirs[decisive]), confidence),
            costs={c: interval(own[COST + c], confidence) for c in cohort.constraints},
            clinicians={q: float(value.mean()) for q, value in theirs.items() if q != REFUSAL},
            limits={limit: one for (who, limit), one in kept.items() if who == name},
            refusal=Kept(refusal, refusals.most, refusal.high <= refusals.most),
        )
    return judged
