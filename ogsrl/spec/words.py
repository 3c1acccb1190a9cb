"""Expressions, limits and rewards in a clinician's words.

Used by `show` and by everything that explains a rule to a person. Never judges.
"""

from __future__ import annotations

from ogsrl.spec.expressions import Expression, parse_expression
from ogsrl.spec.grammar import Column, Compare, Node, Number, Unary, to_text
from ogsrl.spec.grammar import format_number as number
from ogsrl.spec.model import Action, Cohort, Limit, Static

_SIGNS = {
    "<": "below",
    "<=": "at most",
    ">": "above",
    ">=": "at least",
    "==": "is",
    "!=": "is not",
}


def label(cohort: Cohort, name: str) -> str:
    """A column's or dose's name as a clinician says it."""
    column = _column(cohort, name)
    return (column.label if column is not None else "") or name.replace("_", " ")


def unit(text: str) -> str:
    """A unit as it follows a number; nothing for a number without unit."""
    return "" if text.strip() == "1" else text.strip()


def expression_words(cohort: Cohort, expression: Expression) -> str:
    """An expression with labels, units and words for its signs.

    >>> spo2 = Static(unit="%", label="Oxygen saturation", plausible=(40, 100))
    >>> small = Cohort.model_construct(static={"spo2": spo2}, observations={}, actions={})
    >>> expression_words(small, parse_expression("spo2 < 92 and not fluid == 0"))
    'Oxygen saturation below 92 % and not fluid is 0'
    """

    def compare(node: Compare, left: str, right: str) -> str:
        follows = _unit_of(cohort, node.left, node.right)
        return f"{left} {_SIGNS[node.operator]} {right}{follows}"

    return to_text(expression.root, lambda name: label(cohort, name), compare)


def limit_words(limit: Limit, kind: str = "share") -> str:
    """A constraint's limit.

    >>> limit_words(Limit(relative=0.9, absolute=0.05))
    "at most 0.9 x the clinicians' share of steps, and at most 5 % of steps"
    """
    of = "steps" if kind == "share" else "stays"
    parts = []
    if limit.relative is not None:
        share = f"at most {number(limit.relative)} x the clinicians' share of {of}"
        if limit.margin:
            sign = "plus" if limit.margin > 0 else "minus"
            share += f" {sign} {number(round(100 * abs(limit.margin), 6))} %"
        parts.append(share)
    if limit.absolute is not None:
        parts.append(f"at most {number(round(100 * limit.absolute, 6))} % of {of}")
    return ", and ".join(parts)


def reward_words(cohort: Cohort) -> list[str]:
    """What is maximised, a line each."""
    reward, lines = cohort.reward, []
    if reward.terminal is not None:
        end = reward.terminal
        lines.append(
            f"at the end: death {number(end.death)}, discharge {number(end.discharge)}, "
            f"last step reached {number(end.horizon)}"
        )
    if reward.step is not None:
        expression = parse_expression(reward.step)
        value = "1 if " * expression.is_boolean + expression_words(cohort, expression)
        lines.append(f"each step: {value}")
    if reward.shaping is not None:
        words = expression_words(cohort, parse_expression(reward.shaping))
        lines.append(f"in training alone: {words}")
    return lines


def _column(cohort: Cohort, name: str) -> Static | Action | None:
    return cohort.states.get(name) or cohort.actions.get(name)


def _unit_of(cohort: Cohort, left: Node, right: Node) -> str:
    """The unit behind a comparison of one column with one number."""
    if not (isinstance(left, Column) and isinstance(right, Number | Unary)):
        return ""
    column = _column(cohort, left.name)
    text = unit(column.unit) if column is not None else ""
    return f" {text}" if text else ""
