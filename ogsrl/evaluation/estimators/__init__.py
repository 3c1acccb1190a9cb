"""What a policy would come to, from what was logged: one module an estimator, one signature."""

from collections.abc import Mapping

from ogsrl.evaluation.estimators import clipped, cwpdis, dr, magic, pdis, wdr, wis
from ogsrl.evaluation.estimators.base import Asked, Estimate, Estimator

#: By name, as params.yaml and evaluation.parquet have them.
WEIGHTED: Mapping[str, Estimator] = {
    "pdis": pdis.estimate,
    "pdis_clipped": clipped.estimate,
    "wis": wis.estimate,
    "cwpdis": cwpdis.estimate,
    "dr": dr.estimate,
    "wdr": wdr.estimate,
    "magic": magic.estimate,
}
#: Those that ask for fitted values.
WITH_VALUES = ("dr", "wdr", "magic")

__all__ = ["WEIGHTED", "WITH_VALUES", "Asked", "Estimate", "Estimator"]
