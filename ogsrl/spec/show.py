"""A cohort as a table that a clinician can read in a terminal.

Called by `ogsrl spec show`. It says what the file says and nothing else.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from itertools import pairwise

from ogsrl.spec.expressions import parse_expression
from ogsrl.spec.grammar import format_number as number
from ogsrl.spec.model import Action, Cohort, Observation, ProtocolRule, Static
from ogsrl.spec.words import expression_words, label, limit_words, reward_words, unit

_WIDTH = 100
#: Levels beyond so many are not all named.
MOST_NAMED = 12
_HARM = {"low": "low", "high": "high", "both": "low or high", "none": ""}
_MISSING = {
    "carry": "last known",
    "median": "median",
    "normal": "normal value",
    "never": "not allowed",
}


def show(cohort: Cohort) -> str:
    """What a cohort file says of patients, doses and rules, in words and units."""
    sections = [
        _head(cohort),
        _section("Known at the start", _columns(cohort, cohort.static)),
        _section("Charted at every step", _columns(cohort, cohort.observations)),
        _section("Doses", _doses(cohort.actions)),
        _section("What counts", [f"  {line}" for line in reward_words(cohort)]),
        _section("Bounded on average (constraints)", _constraints(cohort)),
        _section("Never recommended (hazards)", _hazards(cohort)),
        _section("Compared with (protocol)", _protocol(cohort)),
        _section("What the guardian looks at", _guardian(cohort)),
        _section("Reported apart (subgroups)", _subgroups(cohort)),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _head(cohort: Cohort) -> str:
    hours = cohort.time_step_hours
    source = cohort.source
    lines = [f"{cohort.name}, version {cohort.version}"]
    lines += textwrap.wrap(cohort.description, _WIDTH)
    lines.append("")
    where = f", {source.path}" if source.path else ""
    where += "".join(f", {key} {value}" for key, value in source.options.items())
    rows = [
        ("Source", f"{source.kind}{where}"),
        (
            "Steps",
            f"one decision every {number(hours)} h, at most {cohort.max_steps} "
            f"({number(hours * cohort.max_steps)} h)",
        ),
        ("Discount", f"{number(cohort.discount)} a step"),
    ]
    if cohort.outcome is not None:
        rows.append(("Deaths", f"counted {cohort.outcome.horizon}"))
        rows.append(("Censored", cohort.outcome.censoring))
    else:
        rows.append(("Deaths", "none in this cohort"))
    return "\n".join([*lines, *_table(rows)])


def _section(title: str, lines: Sequence[str]) -> str:
    return "\n".join([title, *lines]) if lines else ""


def _table(rows: Iterable[Sequence[str]], indent: str = "") -> list[str]:
    """Cells in columns as wide as they need to be; columns without any text are left out."""
    cells = [list(row) for row in rows]
    if not cells:
        return []
    widths = [max(len(row[at]) for row in cells) for at in range(len(cells[0]))]
    kept = [at for at, width in enumerate(widths) if any(row[at] for row in cells[1:]) or width]
    kept = [at for at in kept if any(row[at] for row in cells[1:]) or len(cells) == 1]
    return [
        (indent + "  ".join(row[at].ljust(widths[at]) for at in kept)).rstrip() for row in cells
    ]


def _interval(low: float, high: float) -> str:
    return f"{number(low)} to {number(high)}"


def _columns(cohort: Cohort, columns: dict[str, Static] | dict[str, Observation]) -> list[str]:
    if not columns:
        return []
    head = ("column", "", "unit", "range", "normal", "gap filled by", "may miss", "bad if", "")
    return _table([head, *(_column(cohort, name, item) for name, item in columns.items())], "  ")


def _column(cohort: Cohort, name: str, column: Static) -> tuple[str, ...]:
    observed = column if isinstance(column, Observation) else None
    values = "0 or 1" if column.kind == "binary" else ", ".join(column.levels)
    if len(column.levels) > MOST_NAMED:
        values = f"{column.levels[0]}, {column.levels[1]} ... {column.levels[-1]}"
    notes = []
    if observed is not None:
        if observed.cumulative_of is not None:
            notes.append(f"sum of {label(cohort, observed.cumulative_of)} so far")
        if not observed.known_before_dose:
            notes.append("known one step later")
        if observed.statistic != "last":
            notes.append(f"{observed.statistic} of a step")
    return (
        name,
        column.label,
        unit(column.unit),
        _interval(*column.range) if column.kind == "numeric" else values,
        number(column.normal) if column.normal is not None else "",
        _MISSING[column.missing],
        f"{100 * column.max_missing:.0f} %" if column.max_missing else "",
        _HARM[observed.harm] if observed is not None else "",
        "; ".join(notes),
    )


def _doses(actions: dict[str, Action]) -> list[str]:
    head = ("dose", "", "unit", "bounds", "at least", "in steps of", "change at most", "")
    return _table([head, *(_dose(name, dose) for name, dose in actions.items())], "  ")


def _dose(name: str, dose: Action) -> tuple[str, ...]:
    ordinal = dose.kind == "ordinal"
    return (
        name,
        dose.label,
        unit(dose.unit),
        ", ".join(dose.levels) if ordinal else _interval(*dose.range),
        number(dose.min_dose) if dose.min_dose else "",
        number(dose.increment) if dose.increment is not None else "",
        number(dose.max_change) if dose.max_change is not None else "",
        "; ".join(["often none"] * dose.zero_inflated + [f"{dose.statistic} of a step"]),
    )


def _constraints(cohort: Cohort) -> list[str]:
    lines = []
    for name, constraint in cohort.constraints.items():
        what = expression_words(cohort, constraint.parsed)
        once = " at any step" if constraint.kind == "ever" else ""
        lines.append(f"  {name}: {constraint.label or what}")
        lines += _wrapped(f"unsafe where {what}{once}")
        lines.append(f"    {limit_words(constraint.limit, constraint.kind)}")
    return lines


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent="    ", subsequent_indent="      ")


def _hazards(cohort: Cohort) -> list[str]:
    lines = []
    for name, hazard in cohort.hazards.items():
        what = expression_words(cohort, hazard.parsed)
        lines.append(f"  {name}: {hazard.label or what}")
        lines += _wrapped(f"where {what}")
        if hazard.reference:
            lines.append(f"    {hazard.reference}")
    return lines


def _protocol(cohort: Cohort) -> list[str]:
    protocol = cohort.protocol
    if protocol is None:
        return []
    lines = [f"  {text}" for text in (protocol.label, protocol.reference) if text]
    for name, rules in protocol.doses.items():
        lines.append(f"  {label(cohort, name)}:")
        for rule in rules:
            what = "otherwise" if len(rules) > 1 else "always"
            if rule.when is not None:
                what = f"where {expression_words(cohort, parse_expression(rule.when))}"
            lines += _wrapped(f"{what}: {_given(cohort.actions[name], rule)}")
    return lines


def _given(dose: Action, rule: ProtocolRule) -> str:
    if rule.dose is not None:
        named = dose.levels[int(rule.dose)] if dose.kind == "ordinal" else ""
        return named or f"{number(rule.dose)} {unit(dose.unit)}".strip()
    change = rule.change or 0.0
    if not change:
        return "as before"
    way = "more" if change > 0 else "less"
    levels = unit(dose.unit) if dose.kind != "ordinal" else "levels"
    return f"{number(abs(change))} {levels} {way} than before".replace("  ", " ")


def _guardian(cohort: Cohort) -> list[str]:
    names = [label(cohort, name) for name in (*cohort.guardian.columns, *cohort.actions)]
    return textwrap.wrap(", ".join(names), _WIDTH, initial_indent="  ", subsequent_indent="  ")


def _subgroups(cohort: Cohort) -> list[str]:
    rows = []
    for name, group in cohort.subgroups.items():
        column = cohort.states.get(group.column)
        cuts = [number(cut) for cut in group.cuts]
        bands = (
            [
                f"below {cuts[0]}",
                *(f"{low} to {high}" for low, high in pairwise(cuts)),
                f"{cuts[-1]} and above",
            ]
            if cuts
            else ["each value"]
        )
        text = f" {unit(column.unit)}" if column is not None and cuts and unit(column.unit) else ""
        rows.append((f"  {group.label or name}", ", ".join(bands) + text))
    return _table(rows)
