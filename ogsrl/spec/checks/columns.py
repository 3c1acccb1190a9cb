"""Checks inside one column or dose: kind, range, transform, missing values and dose grid."""

from __future__ import annotations

from ogsrl.spec.checks.parts import Parts
from ogsrl.spec.grammar import format_number as number
from ogsrl.spec.mistakes import suggestion
from ogsrl.spec.model import Action, Interval, Observation, Static

_BLENDING = ("mean", "sum")
_TOLERANCE = 1e-9


def check_columns(parts: Parts) -> None:
    """Statics and observations."""
    for name, (section, column) in parts.columns.items():
        path = (section, name)
        _check_unit(parts, path, column.unit)
        _check_levels(parts, path, column.levels, wanted=column.kind == "categorical")
        if column.kind == "numeric":
            _check_range(parts, path, column)
        else:
            _check_codes(parts, path, column)
        _check_missing(parts, path, column)
        if isinstance(column, Observation) and column.cumulative_of is not None:
            _check_cumulative(parts, path, column)


def check_doses(parts: Parts) -> None:
    """Doses."""
    for name, dose in parts.actions.items():
        path = ("actions", name)
        _check_unit(parts, path, dose.unit)
        _check_levels(parts, path, dose.levels, wanted=dose.kind == "ordinal")
        if dose.kind == "ordinal":
            for key in ("bounds", "min_dose", "increment", "transform"):
                if parts.has(*path, key):
                    message = "an ordinal dose has levels alone; remove it"
                    parts.tree.add((*path, key), "ordinal_with_grid", message)
        elif dose.bounds is None and not parts.has(*path, "bounds"):
            message = "`bounds: [least, largest]` is missing; what may be given in a step?"
            parts.tree.add(path, "bounds_missing", message)
        elif dose.bounds and _rising(parts, (*path, "bounds"), dose.bounds):
            _check_grid(parts, path, dose, dose.bounds)


def _check_unit(parts: Parts, path: tuple[str, str], unit: str) -> None:
    if not unit.strip():
        message = 'the unit is empty; write it as it is charted, or "1" for none'
        parts.tree.add((*path, "unit"), "unit_empty", message)


def _check_levels(
    parts: Parts, path: tuple[str, str], levels: tuple[str, ...], *, wanted: bool
) -> None:
    where = (*path, "levels")
    if not wanted:
        if levels:
            allowed = "an ordinal dose" if path[0] == "actions" else "a categorical column"
            parts.tree.add(where, "levels_not_for", f"only {allowed} has levels; check `kind`")
        return
    if len(levels) < 2:
        message = f"needs at least two levels, found {len(levels)}; e.g. `levels: [none, some]`"
        parts.tree.add(where, "levels_missing", message)
    twice = sorted({level for level in levels if levels.count(level) > 1})
    if twice:
        message = f"a level stands more than once: {', '.join(twice)}"
        parts.tree.add(where, "levels_duplicate", message)
    if any(not level.strip() for level in levels):
        parts.tree.add(where, "level_empty", "a level has no name")


def _rising(parts: Parts, path: tuple[str, str, str], interval: Interval) -> bool:
    low, high = interval
    if low < high:
        return True
    message = f"[{number(low)}, {number(high)}] does not rise; write [lowest, highest]"
    parts.tree.add(path, "range_order", message)
    return False


def _check_range(parts: Parts, path: tuple[str, str], column: Static) -> None:
    if column.plausible is None and not parts.has(*path, "plausible"):
        message = (
            "`plausible: [lowest, highest]` is missing; what can a living patient's chart show?"
        )
        parts.tree.add(path, "plausible_missing", message)
    if column.plausible is None or not _rising(parts, (*path, "plausible"), column.plausible):
        return
    low, high = column.plausible
    least = {"log": "above 0", "log1p": "above -1", "sqrt": "at least 0"}
    broken = {"log": low <= 0, "log1p": low <= -1, "sqrt": low < 0}
    if broken.get(column.transform, False):
        parts.tree.add(
            (*path, "transform"),
            "transform_range",
            f"{column.transform} needs a lowest plausible value {least[column.transform]}, found "
            f"{number(low)}; change one of the two",
        )
    if column.normal is not None and not low <= column.normal <= high:
        parts.tree.add(
            (*path, "normal"),
            "normal_outside",
            f"{number(column.normal)} lies outside plausible [{number(low)}, {number(high)}]; "
            "is the unit right?",
        )


def _check_codes(parts: Parts, path: tuple[str, str], column: Static) -> None:
    if column.plausible is not None:
        message = f"a {column.kind} column has no range; remove it, or check `kind`"
        parts.tree.add((*path, "plausible"), "plausible_not_for", message)
    if column.transform != "identity":
        message = f"a {column.kind} column is not transformed; remove it, or check `kind`"
        parts.tree.add((*path, "transform"), "transform_not_for", message)
    codes = range(2 if column.kind == "binary" else len(column.levels))
    if column.normal is not None and column.normal not in codes:
        allowed = f"0 to {len(codes) - 1}" if codes else "the code of a level"
        message = f"found {number(column.normal)}, allowed: {allowed}"
        parts.tree.add((*path, "normal"), "normal_outside", message)
    if isinstance(column, Observation) and column.statistic in _BLENDING:
        message = f"the {column.statistic} of codes means nothing; use last, first, min or max"
        parts.tree.add((*path, "statistic"), "statistic_not_for", message)


def _check_missing(parts: Parts, path: tuple[str, str], column: Static) -> None:
    if column.missing == "normal" and not parts.has(*path, "normal"):
        message = "`missing: normal` needs `normal:`, a healthy person's value"
        parts.tree.add((*path, "missing"), "normal_missing", message)
    if column.missing == "never" and column.max_missing > 0:
        message = f"`missing: never` allows no gap, found {number(column.max_missing)}; write 0"
        parts.tree.add((*path, "max_missing"), "never_with_share", message)
    if column.missing == "median" and column.kind == "categorical":
        message = "the median of codes means nothing; use carry, normal or never"
        parts.tree.add((*path, "missing"), "median_not_for", message)


def _check_cumulative(parts: Parts, path: tuple[str, str], column: Observation) -> None:
    dose = column.cumulative_of or ""
    where = (*path, "cumulative_of")
    if dose not in parts.doses:
        message = f"`{dose}` is not a dose{suggestion(dose, parts.doses)}"
        parts.tree.add(where, "cumulative_unknown", message)
    elif (action := parts.actions.get(dose)) is not None and action.kind == "ordinal":
        message = f"`{dose}` is ordinal; levels do not add up"
        parts.tree.add(where, "cumulative_ordinal", message)
    same = [
        name
        for name, other in parts.observations.items()
        if other.cumulative_of == dose and name != path[1]
    ]
    if same and path[1] > min(same):
        message = f"`{min(same)}` is the sum of `{dose}` already; keep one"
        parts.tree.add(where, "cumulative_twice", message)
    if column.missing != "never":
        message = "a sum of earlier doses is always known; write `missing: never`"
        parts.tree.add((*path, "missing"), "cumulative_missing", message)
    if not column.known_before_dose:
        message = "a sum of earlier doses is known before the dose; remove it"
        parts.tree.add((*path, "known_before_dose"), "cumulative_unknown_yet", message)
    if column.kind != "numeric":
        message = f"a sum of doses is numeric, found {column.kind}"
        parts.tree.add((*path, "kind"), "cumulative_kind", message)
    elif column.plausible is not None and not column.plausible[0] <= 0 <= column.plausible[1]:
        message = "a sum of doses starts at 0, which is outside this range"
        parts.tree.add((*path, "plausible"), "cumulative_range", message)


def _check_grid(parts: Parts, path: tuple[str, str], dose: Action, bounds: Interval) -> None:
    low, high = bounds
    span = high - low

    def mistake(key: str, rule: str, message: str) -> None:
        parts.tree.add((*path, key), rule, message)

    if low < 0:
        mistake("bounds", "dose_negative", f"a dose cannot be below 0, found {number(low)}")
    if low > 0 and (dose.zero_inflated or dose.min_dose > 0):
        key = "zero_inflated" if dose.zero_inflated else "min_dose"
        mistake(key, "zero_not_allowed", f"no dose is common, but bounds start at {number(low)}")
    if dose.min_dose > high:
        message = f"{number(dose.min_dose)} is above the largest dose {number(high)}"
        mistake("min_dose", "min_dose_above", message)
    if dose.increment is not None and dose.increment > span:
        message = f"{number(dose.increment)} is more than the range of {number(span)}"
        mistake("increment", "increment_above", message)
    elif dose.increment is not None:
        multiple = dose.min_dose / dose.increment
        if abs(multiple - round(multiple)) > _TOLERANCE * max(1.0, multiple):
            message = (
                f"{number(dose.min_dose)} is not a multiple of the increment "
                f"{number(dose.increment)}; no such dose can be given"
            )
            mistake("min_dose", "min_dose_off_grid", message)
    least = min(dose.increment or 0, span)
    if dose.max_change is not None and dose.max_change < least:
        message = (
            f"{number(dose.max_change)} is less than the increment {number(least)}; "
            "the dose could never change"
        )
        mistake("max_change", "change_below_increment", message)
    elif dose.max_change is not None and dose.max_change < dose.min_dose <= high:
        message = (
            f"{number(dose.max_change)} is less than min_dose {number(dose.min_dose)}; "
            "the dose could never be started"
        )
        mistake("max_change", "change_below_min", message)
