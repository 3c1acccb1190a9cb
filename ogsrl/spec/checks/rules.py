"""Checks of what is rewarded, bounded, forbidden and usual: reward to protocol."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ogsrl.spec.checks.parts import Parts
from ogsrl.spec.expressions import Expression, ExpressionError, parse_expression
from ogsrl.spec.grammar import Column, Number, Unary
from ogsrl.spec.grammar import format_number as number
from ogsrl.spec.mistakes import Path, suggestion
from ogsrl.spec.model import Interval, Limit, Protocol, ProtocolRule

#: A dose this near to a whole number of increments is one.
NEAR = 1e-6
_MIRRORED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}


def check_rules(parts: Parts) -> None:
    """Reward, constraints, checks, hazards and protocol."""
    _check_reward(parts)
    for name in parts.declared("constraints"):
        path = ("constraints", name)
        expression = _check_expression(parts, (*path, "expression"), boolean=True)
        if expression and not expression.columns & set(parts.declared("observations")):
            known = [column for column in parts.static if column in expression.columns]
            if expression.columns == set(known) and known:
                message = "static columns never change within a stay; no dose could help"
                parts.tree.add((*path, "expression"), "constraint_static", message)
        if name in parts.constraints:
            _check_limit(parts, (*path, "limit"), parts.constraints[name].limit)
    for name in parts.declared("checks"):
        _check_expression(parts, ("checks", name, "expression"), boolean=True, doses=True)
    for name in parts.declared("hazards"):
        where = ("hazards", name, "expression")
        hazard = _check_expression(parts, where, boolean=True, doses=True)
        if hazard and hazard.columns and parts.doses and not hazard.columns & set(parts.doses):
            names = suggestion("", parts.doses)
            parts.tree.add(where, "hazard_without_dose", f"a hazard must name a dose{names}")
    if parts.protocol is not None:
        _check_protocol(parts, parts.protocol)


def _check_protocol(parts: Parts, protocol: Protocol) -> None:
    """Every dose has lines, every line one dose or change, and one of them always holds."""
    tree, told = parts.tree, ("protocol", "doses")
    for name in sorted(set(protocol.doses) - set(parts.doses)):
        message = f"`{name}` is no dose of this cohort{suggestion(name, parts.doses)}"
        tree.add((*told, name), "protocol_dose", message)
    absent = [name for name in parts.doses if name not in protocol.doses]
    if absent:
        message = f"nothing is said of {', '.join(absent)}; a protocol gives every dose"
        tree.add(told, "protocol_absent", message)
    for name, lines in protocol.doses.items():
        if not lines:
            tree.add((*told, name), "protocol_empty", "needs at least one line, found none")
        for i, line in enumerate(lines):
            path, last = (*told, name, i), i == len(lines) - 1
            if (line.dose is None) == (line.change is None):
                tree.add(path, "protocol_line", "write `dose` or `change`, one of the two")
            if line.when is not None:
                _check_expression(parts, (*path, "when"), boolean=True, about="chooses the dose")
            if last and line.when is not None:
                message = "the last line needs no `when`: who gets what if no line holds?"
                tree.add((*path, "when"), "protocol_open", message)
            if not last and line.when is None:
                tree.add(path, "protocol_dead", "always holds; the lines after it never count")
            _check_given(parts, path, name, line)


def _check_given(parts: Parts, path: Path, name: str, line: ProtocolRule) -> None:
    """A dose, or a change, that can be ordered as it stands."""
    action, tree = parts.actions.get(name), parts.tree
    low, high = _range(parts, name) or (-math.inf, math.inf)
    if action is None or not low <= high:
        return
    dose, change = line.dose, line.change
    if dose is not None and not low <= dose <= high:
        message = f"{number(dose)} is not inside the bounds [{number(low)}, {number(high)}]"
        tree.add((*path, "dose"), "protocol_bounds", message)
        return
    if change is not None and abs(change) > high - low:
        message = f"{number(change)} is more than from one bound to the other"
        tree.add((*path, "change"), "protocol_bounds", message)
    if dose is not None and 0 < dose < action.min_dose:
        message = f"{number(dose)} is below min_dose {number(action.min_dose)}: it would be 0"
        tree.add((*path, "dose"), "protocol_order", message)
    step = 1.0 if action.kind == "ordinal" else action.increment
    for key, value in (("dose", dose), ("change", change)):
        if value is not None and step and abs(value / step - round(value / step)) > NEAR:
            what = "a whole level" if action.kind == "ordinal" else f"a multiple of {number(step)}"
            message = f"{number(value)} is not {what}; it would be rounded"
            tree.add((*path, key), "protocol_order", message)


def _check_expression(
    parts: Parts,
    path: Path,
    *,
    boolean: bool = False,
    doses: bool = False,
    about: str = "is about the next row's state, where no dose is known yet",
) -> Expression | None:
    """Note the mistakes of one expression; it is returned if it could be parsed."""
    tree, text = parts.tree, parts.tree.at(path)
    if not isinstance(text, str):
        return None
    try:
        expression = parse_expression(text)
    except ExpressionError as error:
        tree.add(path, "expression", f"{error}, in `{_short(text)}`")
        return None
    known = [*parts.states, *parts.doses]
    for name in sorted(expression.columns - set(known)):
        allowed = known if doses else parts.states
        tree.add(path, "expression_column", f"unknown column `{name}`{suggestion(name, allowed)}")
    given = sorted(expression.columns & set(parts.doses) - set(parts.states))
    if given and not doses:
        message = f"{about}; remove {given[0]}"
        tree.add(path, "expression_dose", message)
    if not expression.columns:
        tree.add(path, "expression_constant", f"`{_short(text)}` names no column")
    if boolean and not expression.is_boolean:
        message = f"`{_short(text)}` is a number; compare it, e.g. `spo2 < 92`"
        tree.add(path, "expression_number", message)
    _check_numbers(parts, path, expression)
    return expression


def _check_numbers(parts: Parts, path: Path, expression: Expression) -> None:
    """A column compared with a number that it can never pass: usually another unit."""
    for comparison in expression.comparisons:
        left, sign, right = comparison.left.root, comparison.operator, comparison.right.root
        if isinstance(right, Column):
            left, right, sign = right, left, _MIRRORED.get(sign, sign)
        against = right.operand if isinstance(right, Unary) else right
        if not (isinstance(left, Column) and isinstance(against, Number)):
            continue
        value = -against.value if isinstance(right, Unary) else against.value
        interval = _range(parts, left.name)
        if interval is None or interval[0] >= interval[1]:
            continue
        low, high = interval
        inside = low <= value <= high and not (
            (value == low and sign in ("<", ">=")) or (value == high and sign in (">", "<="))
        )
        if not inside:
            message = (
                f"`{left.name} {sign} {number(value)}` is always the same, since {left.name} "
                f"lies in [{number(low)}, {number(high)}]; is the unit right?"
            )
            parts.tree.add(path, "number_outside", message)


def _range(parts: Parts, name: str) -> Interval | None:
    if name in parts.actions:
        dose = parts.actions[name]
        if dose.kind == "continuous" and dose.bounds is None:
            return None
        low, high = dose.range
        return (0.0 if dose.zero_inflated else low), high
    if name in parts.columns:
        column = parts.columns[name][1]
        return column.range if column.kind != "numeric" or column.plausible is not None else None
    return None


def _check_limit(parts: Parts, path: Path, limit: Limit) -> None:
    if limit.relative is None and limit.absolute is None:
        message = "needs `relative`, `absolute` or both, e.g. `{relative: 0.9, margin: 0}`"
        parts.tree.add(path, "limit_empty", message)
    if limit.relative is None and limit.margin != 0:
        message = "a margin is added to relative x the clinicians' share; `relative` is missing"
        parts.tree.add((*path, "margin"), "margin_alone", message)
    if limit.relative is not None and limit.margin <= -limit.relative:
        message = "relative x the clinicians' share + margin is below 0 whatever the share is"
        parts.tree.add((*path, "margin"), "limit_negative", message)
    if limit.margin >= 1:
        message = f"a share of steps is at most 1, found a margin of {number(limit.margin)}"
        parts.tree.add((*path, "margin"), "margin_large", message)


def _check_reward(parts: Parts) -> None:
    for key in ("step", "shaping"):
        _check_expression(parts, ("reward", key))
    reward = parts.reward
    if reward is None:
        return
    if not (parts.has("reward", "terminal") or parts.has("reward", "step")):
        message = "needs `terminal`, `step` or both: what is to be gained?"
        parts.tree.add(("reward",), "reward_empty", message)
    if reward.terminal is not None:
        path: Sequence[str] = ("reward", "terminal")
        if not parts.has("outcome"):
            message = "a reward at the end needs `outcome:`, which says what an end means"
            parts.tree.add(tuple(path), "terminal_without_outcome", message)
        if reward.terminal.death >= min(reward.terminal.discharge, reward.terminal.horizon):
            message = "death is rewarded no less than an end alive; it must be the least"
            parts.tree.add((*path, "death"), "terminal_order", message)


def _short(text: str) -> str:
    plain = " ".join(text.split())
    return plain if len(plain) <= 60 else plain[:57] + "..."
