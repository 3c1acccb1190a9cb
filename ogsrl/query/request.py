"""What a policy is asked: rows of stays in clinical units, checked and put in order.

Called by answer.py. All that is wrong is told at once, by column and count; a row's value or
identity never is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ogsrl.constraints import constraint_rules, hazard_rules
from ogsrl.errors import QueryError
from ogsrl.preparation import Preparation
from ogsrl.spec import Cohort, Static
from ogsrl.trajectories import Stays

Floats = npt.NDArray[np.float64]
STAY, STEP = "stay_id", "step"
#: Longer names of stays are refused.
LONGEST = 200


@dataclass(frozen=True)
class Request:
    """Rows in order.

    Attributes:
        values: Every state column and dose, float64, sorted by stay and step.
        stays: Where each stay lies in it.
        stay: Stay of each row as it was given, sorted.
        place: Where each row was when it came.
    """

    values: dict[str, Floats]
    stays: Stays
    stay: list[Any]
    place: npt.NDArray[np.int64]

    @classmethod
    def of(cls, frame: pd.DataFrame, preparation: Preparation) -> Request:
        """Read rows that somebody sent.

        Args:
            frame: `stay_id`, `step`, statics, observations, doses as given so far; in any order,
                other columns are not looked at.
            preparation: Of the model's cohort.
        """
        cohort = preparation.cohort
        if not isinstance(frame, pd.DataFrame):
            raise QueryError("no table of rows; send one row a step, from step 0 of each stay")
        needed = required(cohort)
        twice = sorted(frame.columns[frame.columns.duplicated()].intersection([*needed]))
        if twice:
            raise QueryError(f"{', '.join(twice)}: given twice; name each column once")
        absent = [name for name in needed if name not in frame.columns]
        if absent:
            raise QueryError(
                f"{', '.join(absent)}: the column is missing; it may hold gaps where the cohort "
                "file allows them, but the policy must be told of it"
            )
        if not len(frame):
            raise QueryError("no rows; send one row a step, from step 0 of each stay")
        wrong: list[str] = []
        stay = _stays(frame[STAY], wrong)
        step = _numbers(frame[STEP], STEP, (), wrong)
        _told(wrong)
        order = np.lexsort((step, stay))
        made: dict[str, Floats] = {}
        for name, column in cohort.states.items():
            sent = frame[name] if name in frame.columns else None
            made[name] = _column(name, column, sent, len(frame), wrong)[order]
        for name, action in cohort.actions.items():
            given = _numbers(frame[name], name, action.levels, wrong)[order]
            _outside(name, given, *action.range, action.unit, wrong)
            made[name] = given
        _told(wrong)
        stays = Stays.of(pd.Series(stay[order]))
        _whole(step[order], stays, cohort, wrong)
        _told(wrong)
        _within_stays(made, stays, cohort, wrong)
        _told(wrong)
        names = frame[STAY].to_numpy(object)[order].tolist()
        return cls(made, stays, names, order)


def required(cohort: Cohort) -> list[str]:
    """Columns that must be there: what must be known, what guards, and doses."""
    rules = (*hazard_rules(cohort).values(), *constraint_rules(cohort).values())
    guarding = {column for rule in rules for column in rule.columns} | {*cohort.guardian.columns}
    states = [
        name
        for name, column in cohort.states.items()
        if column.missing == "never" or name in guarding
    ]
    return [STAY, STEP, *states, *cohort.actions]


def columns(cohort: Cohort) -> list[str]:
    """All that is looked at, whether it must be there or may."""
    return list(dict.fromkeys([*required(cohort), *cohort.states]))


def example(cohort: Cohort) -> pd.DataFrame:
    """Two steps of nobody: every column at what the cohort file calls normal, or its middle."""
    row: dict[str, Any] = {}
    for name, column in cohort.states.items():
        low, high = column.range
        usual = (low + high) / 2 if column.normal is None else column.normal
        row[name] = usual if column.kind == "numeric" else low
    row |= {name: action.range[0] for name, action in cohort.actions.items()}
    return pd.DataFrame([{STAY: "nobody", STEP: step, **row} for step in range(2)])


def _told(wrong: list[str]) -> None:
    if wrong:
        raise QueryError("; ".join(wrong))


def _stays(column: pd.Series, wrong: list[str]) -> npt.NDArray[np.int64]:
    """A number for each stay; names may be text or whole numbers."""
    if not (pd.api.types.is_integer_dtype(column) or pd.api.types.is_string_dtype(column)):
        values = column.to_numpy(object)
        odd = sum(not isinstance(x, str | int | np.integer) or isinstance(x, bool) for x in values)
        if odd:
            wrong.append(f"{STAY}: {odd} rows whose stay is neither text nor a whole number")
            return np.zeros(len(column), np.int64)
    if column.isna().any():
        wrong.append(f"{STAY}: {int(column.isna().sum())} rows without a stay")
    text = column.astype(str)
    long = int((text.str.len() > LONGEST).sum())
    if long:
        wrong.append(f"{STAY}: {long} rows whose stay has a name longer than {LONGEST} letters")
        return np.zeros(len(column), np.int64)
    return np.asarray(pd.factorize(text, sort=True)[0], np.int64)


def _numbers(
    column: pd.Series, name: str, levels: tuple[str, ...], wrong: list[str]
) -> npt.NDArray[np.float64]:
    """A column's numbers; a gap is NaN. Levels may be named, or told by their number."""
    kind = column.dtype
    if pd.api.types.is_bool_dtype(kind) or (
        pd.api.types.is_numeric_dtype(kind) and not pd.api.types.is_complex_dtype(kind)
    ):
        values = np.array(column.to_numpy(np.float64, na_value=np.nan))
        odd = 0
    else:
        codes: dict[str, float] = {level: float(i) for i, level in enumerate(levels)}
        read = [_number(x, codes) for x in column.to_numpy(object)]
        odd = sum(x is None for x in read)
        values = np.array([math.nan if x is None else x for x in read], np.float64)
    if odd:
        what = "of no known level" if levels else "no numbers"
        wrong.append(f"{name}: {odd} values are {what}; send numbers, and null for a gap")
    infinite = int(np.isinf(values).sum())
    if infinite:
        wrong.append(f"{name}: {infinite} values are infinite; send null for a gap")
    return np.where(np.isinf(values), np.nan, values)


def _number(value: Any, codes: dict[str, float]) -> float | None:
    """One cell; None where it cannot be read."""
    if value is None or value is pd.NA:
        return math.nan
    if isinstance(value, str):
        return codes.get(value)
    if not isinstance(value, Real):
        return None
    try:
        return float(value)
    except (OverflowError, TypeError, ValueError):
        return None


def _column(
    name: str, column: Static, sent: pd.Series | None, rows: int, wrong: list[str]
) -> Floats:
    """A state column in clinical units; one that was not sent is all gaps."""
    if sent is None:
        return np.full(rows, np.nan)
    values = _numbers(sent, name, column.levels, wrong)
    _outside(name, values, *column.range, column.unit, wrong)
    if column.kind != "numeric":
        broken = int((np.mod(values, 1) > 0).sum())
        if broken:
            wrong.append(f"{name}: {broken} values are of no known level")
    gaps = int(np.isnan(values).sum())
    if gaps and column.missing == "never":
        wrong.append(f"{name}: {gaps} rows without it; it must be known in every row")
    return values


def _outside(
    name: str, values: Floats, low: float, high: float, unit: str, wrong: list[str]
) -> None:
    count = int(((values < low) | (values > high)).sum())
    if count:
        wrong.append(
            f"{name}: {count} values outside {low:g} to {high:g}; send it in {unit or 'its unit'}"
        )


def _whole(step: Floats, stays: Stays, cohort: Cohort, wrong: list[str]) -> None:
    """Every stay from step 0, each step once, no further than the cohort goes."""
    torn = int(np.unique(stays.stay[~(step == stays.step)]).size)
    if torn:
        wrong.append(
            f"{STEP}: {torn} stays do not have the steps 0, 1, 2 and so on, each once; send every "
            "row of a stay from its first"
        )
    late = int((stays.length > cohort.max_steps).sum())
    if late:
        wrong.append(
            f"{STEP}: {late} stays go beyond step {cohort.max_steps - 1}, the last that the policy "
            "was made for"
        )


def _within_stays(made: dict[str, Floats], stays: Stays, cohort: Cohort, wrong: list[str]) -> None:
    """What must be so of a stay: doses so far are known, statics do not change."""
    for name in cohort.actions:
        gaps = int((np.isnan(made[name]) & ~stays.last).sum())
        if gaps:
            wrong.append(
                f"{name}: {gaps} steps without a dose before a stay's last row; send what was "
                "given, 0 where nothing was"
            )
    for name in cohort.static:
        first = np.repeat(made[name][stays.start], stays.length)
        moved = ~((made[name] == first) | (np.isnan(made[name]) & np.isnan(first)))
        if moved.any():
            count = int(np.unique(stays.stay[moved]).size)
            wrong.append(f"{name}: changes within {count} stays; it is one value a stay")
