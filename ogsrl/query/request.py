"""What a policy is asked: rows of stays in clinical units, checked and put in order.

Called by answer.py. All that is wrong is told at once, by column and count; a row's value or
identity never is.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ogsrl.constraints import constraint_rules, hazard_rules
from ogsrl.errors import QueryError
from ogsrl.preparation import Preparation
from ogsrl.preparation.fitting import guarding
from ogsrl.spec import Cohort
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
        names = Counter(name for name in frame.columns.tolist() if isinstance(name, str))
        twice = [name for name in columns(cohort) if names[name] > 1]
        if twice:
            raise QueryError(f"{', '.join(twice)}: given twice; name each column once")
        absent = [name for name in required(cohort) if not names[name]]
        if absent:
            raise QueryError(
                f"{', '.join(absent)}: the column is missing; it may hold gaps where the cohort "
                "file allows them, but the policy must be told of it"
            )
        if not len(frame):
            raise QueryError("no rows; send one row a step, from step 0 of each stay")
        wrong: list[str] = []
        sent = frame[STAY].tolist()
        stay = _stays(sent, wrong)
        made = _numbers(frame, cohort, wrong)
        _allowed(made, cohort, wrong)
        _as_in_training(made, preparation, wrong)
        _told(wrong)
        order = np.lexsort((made[STEP], stay))
        made = {name: values[order] for name, values in made.items()}
        start = np.flatnonzero(np.diff(stay[order], prepend=-1))
        stays = Stays(start, np.diff(start, append=len(order)))
        _whole(made.pop(STEP), stays, cohort, wrong)
        _told(wrong)
        _within_stays(made, stays, cohort, wrong)
        _told(wrong)
        return cls(made, stays, [sent[row] for row in order], order)


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


def _stays(sent: list[Any], wrong: list[str]) -> npt.NDArray[np.int64]:
    """A number for each stay; names may be text or whole numbers."""
    gone = int(pd.isna(pd.Series(sent, dtype=object)).sum())
    odd = sum(not isinstance(x, str | int | np.integer) or isinstance(x, bool) for x in sent)
    if gone:
        wrong.append(f"{STAY}: {gone} rows without a stay")
    if odd > gone:
        wrong.append(f"{STAY}: {odd - gone} rows whose stay is neither text nor a whole number")
    if odd:
        return np.zeros(len(sent), np.int64)
    names = [str(x) for x in sent]
    long = sum(len(name) > LONGEST for name in names)
    if long:
        wrong.append(f"{STAY}: {long} rows whose stay has a name longer than {LONGEST} letters")
    place = {name: i for i, name in enumerate(sorted(set(names)))}
    return np.array([place[name] for name in names], np.int64)


def _numbers(frame: pd.DataFrame, cohort: Cohort, wrong: list[str]) -> dict[str, Floats]:
    """Every column that is looked at; a gap is NaN, and so is all of one that was not sent.

    Columns of numbers are read at once, the others cell by cell: levels may be named, or told by
    their number.
    """
    levels = {STEP: (), **{name: column.levels for name, column in cohort.states.items()}}
    levels |= {name: action.levels for name, action in cohort.actions.items()}
    made = {name: np.full(len(frame), np.nan) for name in levels}
    kinds = dict(zip(frame.columns, frame.dtypes, strict=True))
    plain = [name for name in made if name in kinds and _is_plain(kinds[name])]
    if plain:
        place = {name: i for i, name in enumerate(frame.columns.tolist())}
        chosen = frame.iloc[:, [place[name] for name in plain]]  # by name, pandas takes a while
        matrix = chosen.to_numpy(np.float64, na_value=np.nan)
        made |= dict(zip(plain, np.array(matrix.T, order="C"), strict=True))  # never the sender's
    for name in [name for name in made if name in kinds and not _is_plain(kinds[name])]:
        codes = {level: float(i) for i, level in enumerate(levels[name])}
        read = [_number(x, codes) for x in frame[name].tolist()]
        odd = sum(x is None for x in read)
        if odd:
            what = "of no known level" if codes else "no numbers"
            wrong.append(f"{name}: {odd} values are {what}; send numbers, and null for a gap")
        made[name] = np.array([math.nan if x is None else x for x in read])
    for name, values in made.items():
        infinite = int(np.isinf(values).sum())
        if infinite:
            wrong.append(f"{name}: {infinite} values are infinite; send null for a gap")
            values[np.isinf(values)] = np.nan
    return made


def _is_plain(kind: Any) -> bool:
    """Whether a column holds real numbers."""
    real = pd.api.types.is_numeric_dtype(kind) and not pd.api.types.is_complex_dtype(kind)
    return bool(real or pd.api.types.is_bool_dtype(kind))


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


def _allowed(made: dict[str, Floats], cohort: Cohort, wrong: list[str]) -> None:
    """What each value must be: possible, a level if it is a level, and there if it must be."""
    states = {name: (*column.range, column.unit) for name, column in cohort.states.items()}
    doses = {name: (*action.range, action.unit) for name, action in cohort.actions.items()}
    for name, (low, high, unit) in {**states, **doses}.items():
        count = int(((made[name] < low) | (made[name] > high)).sum())
        if count:
            where = f"{count} values outside {low:g} to {high:g}"
            wrong.append(f"{name}: {where}; send it in {unit or 'its unit'}")
    for name, column in cohort.states.items():
        values = made[name]
        broken = 0 if column.kind == "numeric" else int((np.mod(values, 1) > 0).sum())
        if broken:
            wrong.append(f"{name}: {broken} values are of no known level")
        gaps = int(np.isnan(values).sum()) if column.missing == "never" else 0
        if gaps:
            wrong.append(f"{name}: {gaps} rows without it; it must be known in every row")


def _as_in_training(made: dict[str, Floats], preparation: Preparation, wrong: list[str]) -> None:
    """No gap in what guards where no training patient had one: nothing marks it in a state."""
    for name in guarding(preparation.cohort):
        gaps = int(np.isnan(made[name]).sum())
        known = preparation.cohort.states[name].missing == "never"  # told already
        if gaps and not known and name not in preparation.indicators:
            wrong.append(
                f"{name}: {gaps} gaps, and no patient that it learned from had one; chart it, or "
                "leave these stays to the clinician"
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
