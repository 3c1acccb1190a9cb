"""The typed, validated reading of a cohort's YAML, and the closed expression grammar."""

from ogsrl.spec.expressions import Comparison, Expression, ExpressionError, parse_expression
from ogsrl.spec.mistakes import CohortFileError, Mistake
from ogsrl.spec.model import (
    ENDS,
    KEYS,
    RESERVED,
    Action,
    Cohort,
    Constraint,
    Hazard,
    Limit,
    Observation,
    Protocol,
    Static,
)
from ogsrl.spec.reader import load_cohort, parse_cohort

__all__ = [
    "ENDS",
    "KEYS",
    "RESERVED",
    "Action",
    "Cohort",
    "CohortFileError",
    "Comparison",
    "Constraint",
    "Expression",
    "ExpressionError",
    "Hazard",
    "Limit",
    "Mistake",
    "Observation",
    "Protocol",
    "Static",
    "load_cohort",
    "parse_cohort",
    "parse_expression",
]
