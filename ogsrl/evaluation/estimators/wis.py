r"""Weighted importance sampling: sum_i w_iT G_i / sum_i w_iT."""

from __future__ import annotations

from ogsrl.evaluation.estimators.base import Asked, Estimate, weighted
from ogsrl.evaluation.record import Record
from ogsrl.evaluation.terms import Terms


def terms(record: Record) -> Terms:
    """Returns and last weights of each patient."""
    last = record.weights[:, -1]
    return Terms.weighted(record.by_patient(last * record.returns), record.by_patient(last))


def estimate(record: Record, asked: Asked) -> Estimate:
    """Consistent; inside what was logged."""
    return weighted(record, asked, terms)
