"""What every estimator takes and gives, and who may vote.

Called by each estimator. An estimate always says how much of the logs it rests on, in words too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ogsrl.evaluation.intervals import Interval, Samples, bca
from ogsrl.evaluation.record import Record, Support
from ogsrl.evaluation.terms import Terms

#: A weighted estimator votes from this effective sample on, or this share of all patients,
LEAST_SAMPLE, LEAST_SHARE = 100, 0.1
#: and while no patient has more than this share of the weight.
LARGEST_WEIGHT = 0.05
#: What is said where no weight is left.
NOBODY = "no patient was ever given what it would give: the logs say nothing of it"
#: How far from 1 the mean weight may be before it is said.
FAR_FROM_ONE = 0.2


@dataclass(frozen=True)
class Estimate:
    """What an estimator says of a quantity.

    Attributes:
        estimate: The number; None where it refuses.
        low: Of the interval.
        high: Of the interval.
        level: Of the interval, two-sided.
        ess: Effective sample size in patients; None where there are no weights.
        max_weight: Largest share of the weight that one patient has; None likewise.
        patients: That it was asked of.
        steps: Logged decisions.
        votes: Whether the panel counts it.
        diagnosis: In words, what it rests on and what is wrong.
    """

    estimate: float | None
    low: float
    high: float
    level: float
    ess: float | None
    max_weight: float | None
    patients: int
    steps: int
    votes: bool
    diagnosis: str


@dataclass(frozen=True)
class Asked:
    """What is asked of an estimator, beside the record.

    Attributes:
        level: Of the interval, two-sided.
        samples: Of patients, for the interval.
        gain: Whether the difference from what was logged of the same patients is asked for.
    """

    level: float
    samples: Samples
    gain: bool = False

    def possible(self, record: Record) -> tuple[float, float]:
        """The least and the most that the answer can be."""
        span = record.high - record.low
        return (-span, span) if self.gain else (record.low, record.high)

    def terms(self, record: Record, own: Terms) -> Terms:
        """What is estimated, where `own` is of the policy alone."""
        return own.plus(logged(record), -1.0) if self.gain else own


#: A record and what is asked of it -> an estimate.
Estimator = Callable[[Record, Asked], Estimate]


def logged(record: Record) -> Terms:
    """The mean of what was logged."""
    return record.mean(record.returns)


def weighted(record: Record, asked: Asked, terms: Callable[[Record], Terms]) -> Estimate:
    """An estimate that is a sum of ratios over patients, with its interval, nuisances fixed."""
    support = Support.of(record)
    if not support.ess:
        return refusal(record, asked, support, NOBODY)
    made = asked.terms(record, terms(record))
    interval = bca(made, asked.level, asked.samples, record.high - record.low)
    return judged(record, asked, support, made.estimate, interval)


def judged(
    record: Record, asked: Asked, support: Support, estimate: float, interval: Interval
) -> Estimate:
    """An estimate with weights: whether it may vote, and why not."""
    low, high = asked.possible(record)
    kept = interval.within(low, high)
    wrong = doubts(support, record.patients)
    if not low <= estimate <= high:
        wrong.append("the estimate is impossible")
    return Estimate(
        estimate=estimate,
        low=kept.low,
        high=kept.high,
        level=asked.level,
        ess=support.ess,
        max_weight=support.max_weight,
        patients=record.patients,
        steps=int(record.inside.sum()),
        votes=not wrong,
        diagnosis="; ".join(wrong) or "enough patients were given what the policy would give",
    )


def doubts(support: Support, patients: int) -> list[str]:
    """Why the weights do not carry an estimate; empty where they do."""
    wrong = []
    needed = max(LEAST_SAMPLE, LEAST_SHARE * patients)
    if support.ess < needed:
        wrong.append(
            f"too few were given what it would give: worth {support.ess:.0f} patients, where "
            f"{LEAST_SAMPLE} and {LEAST_SHARE:.0%} of all are needed"
        )
    if support.max_weight > LARGEST_WEIGHT:
        wrong.append(f"one patient has {support.max_weight:.0%} of the weight")
    if abs(support.mean_weight - 1) > FAR_FROM_ONE:
        wrong.append(f"weights average {support.mean_weight:.2f}, not 1")
    return wrong


def refusal(record: Record, asked: Asked, support: Support | None, why: str) -> Estimate:
    """No estimate: anything is possible."""
    low, high = asked.possible(record)
    return Estimate(
        estimate=None,
        low=low,
        high=high,
        level=asked.level,
        ess=None if support is None else support.ess,
        max_weight=None if support is None else support.max_weight,
        patients=record.patients,
        steps=int(record.inside.sum()),
        votes=False,
        diagnosis=why,
    )
