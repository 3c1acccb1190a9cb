"""Writes the draft: one line a column, each guess marked and why it was guessed.

Called by `ogsrl spec draft`. The text holds no patient's value: ranges are clinical knowledge, or
robust quantiles widened and rounded outward.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from ogsrl.spec.checks.use import MAX_GUARDIAN_COLUMNS
from ogsrl.spec.draft.clinical import (
    Known,
    Scale,
    find_column,
    find_dose,
    slug,
    split_unit,
)
from ogsrl.spec.draft.numbers import (
    Floats,
    dose_bound,
    grid,
    share_up,
    usual_count,
    usual_hours,
    wide_range,
)
from ogsrl.spec.draft.roles import YAML_WORDS, Column, Roles, guess_roles
from ogsrl.spec.grammar import format_number as number
from ogsrl.spec.model import Interval

_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9_/ ()^.-]*")
_AGE_CUTS = (50.0, 65.0, 80.0)


@dataclass
class _Guess:
    """What was guessed of one column, for the sections that come later."""

    line: str
    unsafe: float | None = None
    target: Interval | None = None
    unit: str = "1"
    harm: str = "none"
    range: Interval | None = None


@dataclass
class _Draft:
    frame: pd.DataFrame
    roles: Roles
    guesses: dict[str, _Guess] = field(default_factory=dict)


def draft(frame: pd.DataFrame, *, name: str, path: str, doses: Sequence[str] = ()) -> str:
    """A first cohort file for a table with a row a stay and step.

    Args:
        frame: The table, with its own column names.
        name: Name of the cohort and of the file to write, without `.yaml`.
        path: Where the table lies, as the file will say it.
        doses: Columns that are doses although their names do not say so.

    Returns:
        The text of a cohort file that reads without mistakes, each guess marked `# guess: ...`.
    """
    work = _Draft(frame, guess_roles(frame, doses))
    own = re.sub(r"^[^a-z]+", "", slug(name))[:40].rstrip("_") or "cohort"
    sections = [
        _head(work, own),
        _source(work, path),
        _columns(work, "static", work.roles.static),
        _columns(work, "observations", work.roles.observations),
        _doses(work),
        _outcome(work),
        _constraints(work),
        _hazards(work),
        _guardian(work),
        _subgroups(work),
    ]
    return "\n\n".join("\n".join(lines) for lines in sections if lines) + "\n"


def _text(text: str) -> str:
    """A text as YAML, quoted where YAML would read something else."""
    if _PLAIN.fullmatch(text) and text.lower() not in YAML_WORDS and text == text.strip():
        return text
    special = {'"': '\\"', "\\": "\\\\"}
    shown = (special.get(c, c) if c.isprintable() else f"\\U{ord(c):08x}" for c in text)
    return f'"{"".join(shown)}"'


def _pair(interval: Interval) -> str:
    return f"[{number(interval[0])}, {number(interval[1])}]"


def _comment(text: str) -> str:
    return " ".join(re.sub(r"[^\x20-\x7e]", "?", text).split())


def _head(work: _Draft, name: str) -> list[str]:
    hours, why = _step_hours(work)
    lengths = work.roles.stays.value_counts().to_numpy().astype(np.float64)
    if "step" not in work.roles.keys:
        lengths = _spans(work) / hours + 1
    steps = usual_count(float(np.quantile(lengths, 0.95)))
    return [
        "# A first cohort file. Read every line marked `guess`, correct it, and remove the mark;",
        "# then run `ogsrl spec check` on it. Ranges hold no patient's value. Is each charted",
        "# column known before the dose of its row? If not, add known_before_dose: false to it.",
        f"name: {name}  # this file must be called {name}.yaml",
        "version: 1",
        f"time_step_hours: {number(hours)}  # guess: {why}",
        f"max_steps: {steps}  # guess: most stays are no longer; later steps are left out",
        "discount: 0.99  # guess: usual",
    ]


def _step_hours(work: _Draft) -> tuple[float, str]:
    clock = _clock(work)
    if clock is None:
        return 4.0, "the table counts steps and does not say how long they are"
    ordered = pd.DataFrame({"stay": work.roles.stays, "hours": clock}).sort_values(
        ["stay", "hours"]
    )
    gaps = ordered.groupby("stay")["hours"].diff()
    gaps = gaps[gaps > 0]
    if gaps.empty:
        return 4.0, "the table does not say how long a step is"
    return usual_hours(float(gaps.median())), "the usual time between two rows of a stay"


def _clock(work: _Draft) -> pd.Series | None:
    keys = work.roles.keys
    if "hours" in keys:
        return work.frame[keys["hours"]].astype(np.float64)
    if "time" in keys:
        column = work.frame[keys["time"]]
        if pd.api.types.is_numeric_dtype(column):
            return column.astype(np.float64)
        moments = pd.to_datetime(column, errors="coerce", format="mixed", utc=True)
        return (moments - moments.min()).dt.total_seconds() / 3600
    return None


def _spans(work: _Draft) -> Floats:
    clock = _clock(work)
    if clock is None:
        return np.ones(1)
    grouped = clock.groupby(work.roles.stays.to_numpy())
    spans: Floats = (grouped.max() - grouped.min()).fillna(0.0).to_numpy(np.float64)
    return spans


def _source(work: _Draft, path: str) -> list[str]:
    keys = work.roles.keys
    renamed = {ours: theirs for ours, theirs in keys.items() if ours != theirs}
    renamed |= {c.name: c.foreign for c in work.roles.columns if c.name != c.foreign}
    lines = ["source:", "  kind: table", f"  path: {_text(path)}"]
    if renamed:
        lines.append("  columns:  # our name: the table's name")
        for ours, theirs in renamed.items():
            mark = "  # guess: by its name" if ours in keys else ""
            lines.append(f"    {ours}: {_text(theirs)}{mark}")
    for foreign, why in work.roles.left_out.items():
        lines.append(f"# left out: {_comment(foreign)}: it {_comment(why)}")
    return lines


def _columns(work: _Draft, section: str, columns: list[Column]) -> list[str]:
    if not columns:
        return []
    lines = [f"{section}:"]
    for column in columns:
        guess = _state(work, column, observed=section == "observations")
        work.guesses[column.name] = guess
        lines.append(f"  {column.name}: {guess.line}")
    return lines


def _state(work: _Draft, column: Column, *, observed: bool) -> _Guess:
    data = work.frame[column.foreign]
    missing = float(data.isna().mean())
    gaps = f"max_missing: {number(share_up(missing))}"
    if not observed and missing == 0:
        gaps = "missing: never"
    elif not observed and column.kind == "numeric":
        gaps = f"missing: median, {gaps}"
    known = find_column(column.name)
    label = (known.label if known else "") or column.name.replace("_", " ").capitalize()
    head = f"label: {_text(label)}"
    if column.kind == "binary":
        return _Guess(
            f'{{{head}, unit: "1", kind: binary, {gaps}}}  # guess: 0 and 1 only', range=(0, 1)
        )
    if column.kind == "categorical":
        levels = ", ".join(_text(level) for level in column.levels)
        line = f'{{{head}, unit: "1", kind: categorical, levels: [{levels}], {gaps}}}'
        return _Guess(f"{line}  # guess: text of few different values")
    values = data.dropna().to_numpy(np.float64)
    scale, why = _scale(known, column.name, values)
    parts = [head, f"unit: {_text(scale.unit)}", f"plausible: {_pair(scale.plausible)}"]
    if scale.normal is not None:
        parts.append(f"normal: {number(scale.normal)}")
    parts.append(gaps)
    transform = known.transform if known else "identity"
    if transform == "identity" and known is None and _skewed(values):
        transform = "sqrt"
    if transform == "log" and scale.plausible[0] <= 0:
        transform = "sqrt"
    if transform != "identity" and not (transform == "sqrt" and scale.plausible[0] < 0):
        parts.append(f"transform: {transform}")
    if observed and known is not None:
        if known.harm != "none":
            parts.append(f"harm: {known.harm}")
        if known.statistic == "sum":
            parts.append("statistic: sum, known_before_dose: false")
            why += "; summed over the bin, so known one step later"
    return _Guess(
        f"{{{', '.join(parts)}}}  # guess: {why}",
        unsafe=scale.unsafe if observed else None,
        target=scale.target if observed else None,
        unit=scale.unit,
        harm=known.harm if known is not None else "none",
        range=scale.plausible,
    )


def _scale(known: Known | None, name: str, values: Floats) -> tuple[Scale, str]:
    """Unit and range: from the name, then from which usual unit fits the data."""
    unit = split_unit(name)[1]
    if known is not None:
        fitting = [scale for scale in known.scales if _fits(scale, values)]
        said = [scale for scale in fitting if scale.unit == unit]
        if said:
            return said[0], "usual range; unit by the name"
        if fitting:
            best = min(fitting, key=lambda scale: _distance(scale, values))
            return best, "usual range; unit by the size of the values"
        shown = unit or "1"
        return Scale(shown, wide_range(values)), "range by the data, unusual for this column"
    why = "unit by the name, range by the data" if unit else "range by the data; write the unit"
    return Scale(unit or "1", wide_range(values)), why


def _fits(scale: Scale, values: Floats) -> bool:
    low, high = scale.plausible
    return bool(np.mean((values >= low) & (values <= high)) >= 0.98)


def _distance(scale: Scale, values: Floats) -> float:
    """How far the middle of the data is from normal, or from the middle of the range."""
    middle = scale.normal if scale.normal else sum(scale.plausible) / 2
    return float(abs(np.log(max(abs(float(np.median(values))), 1e-6) / max(abs(middle), 1e-6))))


def _skewed(values: Floats) -> bool:
    low, middle, high = np.quantile(values, [0.01, 0.5, 0.99])
    return bool(low >= 0 and high > 0 and high > 5 * max(middle, 1e-9))


def _doses(work: _Draft) -> list[str]:
    lines = ["actions:"]
    for column in work.roles.doses:
        known = find_dose(column.name)
        values = work.frame[column.foreign].dropna().to_numpy(np.float64)
        bound = dose_bound(values)
        unit = split_unit(column.name)[1] or (known.unit if known else "1")
        label = known.label if known and known.label != "Dose" else column.name.replace("_", " ")
        bare = split_unit(column.name)[0]
        if known and bare not in known.names:
            label = bare.replace("_", " ")
        lines += [
            f"  {column.name}:",
            f"    label: {_text(label[:1].upper() + label[1:])}",
            f"    unit: {_text(unit)}  # guess: {'by the name' if unit != '1' else 'write it'}",
            f"    bounds: [0, {number(bound)}]  # guess: above nearly all doses; what is safe?",
        ]
        if np.mean(values == 0) > 0.1 or not len(values):
            lines.append("    zero_inflated: true  # guess: often no dose is given")
        step = grid(values, bound)
        if step is not None:
            lines.append(f"    min_dose: {number(step)}  # guess: as the increment")
            lines.append(f"    increment: {number(step)}  # guess: nearly all doses are multiples")
        change = bound / 2 if step is None else step * np.ceil(bound / 2 / step)
        lines.append(f"    max_change: {number(float(change))}  # guess: half of the bounds")
        if _skewed(values[values > 0]) if (values > 0).any() else False:
            lines.append("    transform: sqrt  # guess: most doses are small")
        statistic = known.statistic if known else "sum"
        lines.append(f"    statistic: {statistic}  # guess: how doses within a step become one")
    return lines


def _outcome(work: _Draft) -> list[str]:
    if {"died", "end"} & work.roles.keys.keys():
        return [
            "outcome:",
            "  horizon: in hospital  # guess: until when do deaths count?",
            "  censoring: the stay ended before its outcome was known  # guess: say what it means",
            "",
            "reward:",
            "  terminal: {death: -1, discharge: 1, horizon: 1}  # guess: usual",
        ]
    name, guess = _goal(work)
    low, high = guess.target or guess.range or (0.0, 1.0)
    why = "steps inside the usual target range" if guess.target else "inside which range is good?"
    return [
        "reward:",
        f"  step: {name} >= {number(low)} and {name} <= {number(high)}  # guess: {why}",
    ]


def _goal(work: _Draft) -> tuple[str, _Guess]:
    """The observation that a reward without deaths is most likely about."""
    observed = [(column.name, work.guesses[column.name]) for column in work.roles.observations]
    ranked = sorted(observed, key=lambda item: (item[1].target is None, item[1].range is None))
    for name, guess in ranked:
        if guess.target is not None:
            return name, guess
        if guess.range is not None and guess.range != (0, 1):
            low, high = guess.range
            third = (high - low) / 3
            return name, _Guess("", range=(low + third, high - third))
    return ranked[0][0], _Guess("", range=(0.5, 0.5))


def _constraints(work: _Draft) -> list[str]:
    lines = []
    for column in work.roles.observations:
        guess = work.guesses[column.name]
        if guess.unsafe is not None and guess.range is not None and guess.unsafe > guess.range[0]:
            unit = "" if guess.unit == "1" else f" {guess.unit}"
            label = find_column(column.name)
            words = f"{label.label if label else column.name} below {number(guess.unsafe)}{unit}"
            lines += [
                f"  low_{column.name}:",
                f"    label: {_text(words)}",
                f"    expression: {column.name} < {number(guess.unsafe)}  # guess: usual threshold",
                "    limit: {relative: 0.9, margin: 0}  # guess: a tenth less than clinicians",
            ]
    if lines:
        return ["constraints:", *lines]
    return ["# constraints: none guessed; what must stay rare? e.g. `spo2 < 92`"]


def _hazards(work: _Draft) -> list[str]:
    return [
        "# hazards: none guessed; which dose must never be given in which state?",
        f"#   e.g. `{work.roles.observations[0].name} < ... and {work.roles.doses[0].name} > ...`",
    ]


def _guardian(work: _Draft) -> list[str]:
    roles = work.roles
    usable = [column for column in (*roles.static, *roles.observations)]
    ranked = sorted(usable, key=lambda column: _rank(work, column))
    chosen = {column.name for column in ranked[:MAX_GUARDIAN_COLUMNS]}
    names = ", ".join(column.name for column in usable if column.name in chosen)
    return ["guardian:", f"  columns: [{names}]  # guess: which tell patients apart?"]


def _rank(work: _Draft, column: Column) -> tuple[bool, bool]:
    known = find_column(column.name)
    return known is None, column.kind == "categorical"


def _subgroups(work: _Draft) -> list[str]:
    lines = []
    for column in work.roles.static:
        guess = work.guesses[column.name]
        known = find_column(column.name)
        cuts = [c for c in _AGE_CUTS if guess.range and guess.range[0] < c < guess.range[1]]
        if known is not None and known.label == "Age" and guess.unit == "years" and cuts:
            shown = ", ".join(number(cut) for cut in cuts)
            lines.append(
                f"  age: {{label: Age, column: {column.name}, cuts: [{shown}]}}  # guess: usual"
            )
        elif column.kind != "numeric" and re.search(
            r"(^|_)(sex|gender|female|male)(_|$)", column.name
        ):
            lines.append(f"  sex: {{label: Sex, column: {column.name}}}  # guess: by the name")
    if "site" in work.roles.keys:
        lines.append("  site: {label: Site, column: site}  # guess: by the name")
    return ["subgroups:", *dict.fromkeys(lines)] if lines else []
