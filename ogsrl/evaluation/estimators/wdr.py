r"""Weighted doubly robust: `dr` with weights normalised over patients at each step.

sum_t g^t [sum_i u_{i,t-1} v(s_it) + sum_i u_it (r_it - q(s_it, a_it))],  u_it = w_it / sum w_it
"""

from __future__ import annotations

from ogsrl.evaluation.estimators.base import Asked, Estimate, weighted
from ogsrl.evaluation.record import Record
from ogsrl.evaluation.terms import Terms


def values(record: Record) -> Terms:
    """A term a step: v(s_t) under the weights before it."""
    before = record.weights_before
    return Terms.weighted(record.by_patient(before * record.fitted.v), record.by_patient(before))


def surprises(record: Record) -> Terms:
    """A term a step: r_t - q(s_t, a_t) under the weights with it."""
    weights = record.weights
    gap = weights * (record.discounted - record.fitted.q)
    return Terms.weighted(record.by_patient(gap), record.by_patient(weights))


def terms(record: Record) -> Terms:
    """All of them."""
    return values(record).plus(surprises(record))


def estimate(record: Record, asked: Asked) -> Estimate:
    """Consistent where b or q is right."""
    return weighted(record, asked, terms)
