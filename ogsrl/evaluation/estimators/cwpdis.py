r"""Consistent weighted per-decision importance sampling: sum_t g^t sum_i w_it r_it / sum_i w_it.

Stays that ended are in every denominator with their last weight: dropping them would give the
deaths among those still there, not among all.
"""

from __future__ import annotations

from ogsrl.evaluation.estimators.base import Asked, Estimate, weighted
from ogsrl.evaluation.record import Record
from ogsrl.evaluation.terms import Terms


def terms(record: Record) -> Terms:
    """What was paid and weights, step by step."""
    weights = record.weights
    return Terms.weighted(
        record.by_patient(weights * record.discounted), record.by_patient(weights)
    )


def estimate(record: Record, asked: Asked) -> Estimate:
    """Consistent, of less variance than `pdis`."""
    return weighted(record, asked, terms)
