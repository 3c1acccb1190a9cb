"""Checks of a cohort file that need more than one key: each notes mistakes, none raises."""

from ogsrl.spec.checks.columns import check_columns, check_doses
from ogsrl.spec.checks.names import check_names
from ogsrl.spec.checks.parts import Parts, read_parts
from ogsrl.spec.checks.rules import check_rules
from ogsrl.spec.checks.use import check_use

__all__ = ["Parts", "check_all", "read_parts"]


def check_all(parts: Parts, file_name: str) -> None:
    """Note every mistake between sections in the file's tree."""
    check_names(parts, file_name)
    check_columns(parts)
    check_doses(parts)
    check_rules(parts)
    check_use(parts)
