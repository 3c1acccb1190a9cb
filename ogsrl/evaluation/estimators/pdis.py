r"""Per-decision importance sampling: mean_i sum_t g^t w_it r_it."""

from __future__ import annotations

from ogsrl.evaluation.estimators.base import Asked, Estimate, weighted
from ogsrl.evaluation.record import Record
from ogsrl.evaluation.terms import Terms


def terms(record: Record) -> Terms:
    """The mean of stays' sums."""
    return record.mean((record.weights * record.discounted).sum(1))


def estimate(record: Record, asked: Asked) -> Estimate:
    """Unbiased where b is known and gives all that the policy gives."""
    return weighted(record, asked, terms)
