r"""Doubly robust: V_t = v(s_t) + rho_t (r_t + g V_{t+1} - q(s_t, a_t)), backwards; the mean of V_0.

Unrolled, sum_t g^t [w_{t-1} v(s_t) + w_t (r_t - q(s_t, a_t))].
"""

from __future__ import annotations

from ogsrl.evaluation.estimators.base import Asked, Estimate, weighted
from ogsrl.evaluation.record import Record
from ogsrl.evaluation.terms import Terms


def terms(record: Record) -> Terms:
    """The mean of stays' V_0."""
    fitted = record.fitted
    surprise = record.weights * (record.discounted - fitted.q)
    return record.mean((record.weights_before * fitted.v + surprise).sum(1))


def estimate(record: Record, asked: Asked) -> Estimate:
    """Unbiased where b is known, whatever q; consistent where q is right, whatever b."""
    return weighted(record, asked, terms)
