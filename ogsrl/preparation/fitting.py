"""Fit how columns are filled and scaled on training patients, and apply it to any rows.

Called by the stage prepare (fit once, apply to every part) and later by query (states only).
Nothing here looks at a patient outside the training rows while it fits.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from ogsrl.constraints import attach_costs, attach_rewards, hazard_rules
from ogsrl.errors import PreparationError, SpecError
from ogsrl.preparation.config import PrepareParams
from ogsrl.preparation.coverage import MIN_PATIENTS, cells
from ogsrl.preparation.rows import Floats, TrainingRows
from ogsrl.preparation.transforms import _FORWARD, ColumnTransform, DoseTransform
from ogsrl.spec import Cohort, Static
from ogsrl.trajectories import Stays

FORMAT = 4
KEYS = ("patient_id", "stay_id", "step", "site", "end", "died")
Role = Literal["key", "state", "indicator", "dose", "given", "reward", "shaping", "cost"]


@dataclass(frozen=True)
class PreparedColumn:
    """A column of a prepared file: its role, and the cohort's name that it is made of."""

    name: str
    role: Role
    of: str


@dataclass(frozen=True)
class Preparation:
    """What was fitted on training patients; applied to every part and every query.

    A prepared file has, by role (see `columns`):
    - key: patient_id, stay_id, step, site, end, died, as in the table;
    - state: each static and observation under its own name, filled and scaled, float32;
    - indicator: `missing_<column>`, 1 where nothing was charted, for columns with training gaps;
    - dose: each dose under its own name, in [-1, 1], float32; NaN on a censored last row;
    - given: `given_<dose>`, the same dose in clinical units, float64;
    - reward: `reward`; shaping: `shaping`, if the cohort has one; cost: `cost_<constraint>`.

    Attributes:
        cohort: Whose file.
        states: How each state column is filled and scaled.
        doses: How each dose is scaled.
        history_steps: Earlier steps in a state.
        most_gaps: How many of `watched` ten training patients, or more, had uncharted at once.
        longest_gaps: By column of `watched`: for how many steps ten training patients, or more, had
            it not charted; where it never was, since before the stay began.
    """

    cohort: Cohort
    states: dict[str, ColumnTransform]
    doses: dict[str, DoseTransform]
    history_steps: int
    most_gaps: int = 0
    longest_gaps: Mapping[str, int] = field(default_factory=dict)

    @cached_property
    def columns(self) -> tuple[PreparedColumn, ...]:
        """The columns of a prepared file, in order, with their roles."""
        cohort = self.cohort
        shaping = ["shaping"] if cohort.reward.shaping is not None else []
        return (
            *(PreparedColumn(name, "key", name) for name in KEYS),
            *(PreparedColumn(name, "state", name) for name in self.states),
            *(PreparedColumn(f"missing_{n}", "indicator", n) for n in self.indicators),
            *(PreparedColumn(name, "dose", name) for name in self.doses),
            *(PreparedColumn(f"given_{name}", "given", name) for name in self.doses),
            PreparedColumn("reward", "reward", "reward"),
            *(PreparedColumn(name, "shaping", name) for name in shaping),
            *(PreparedColumn(f"cost_{name}", "cost", name) for name in cohort.constraints),
        )

    @cached_property
    def indicators(self) -> tuple[str, ...]:
        """State columns that have a `missing_<column>` beside them."""
        return tuple(name for name, column in self.states.items() if column.indicator)

    @cached_property
    def watched(self) -> tuple[str, ...]:
        """Columns with gaps, of those that the region or a hazard looks at."""
        return tuple(name for name in guarding(self.cohort) if name in self.indicators)

    def names(self, *roles: Role) -> list[str]:
        """Names of the prepared columns of these roles, in order."""
        return [column.name for column in self.columns if column.role in roles]

    @property
    def schema(self) -> pa.Schema:
        """Types of a prepared file."""
        keys = {"step": pa.int32(), "died": pa.bool_()}
        kinds: dict[Role, pa.DataType] = dict.fromkeys(
            ("state", "indicator", "dose"), pa.float32()
        ) | dict.fromkeys(("given", "reward", "shaping", "cost"), pa.float64())
        return pa.schema(
            [
                (c.name, keys.get(c.name, pa.string()) if c.role == "key" else kinds[c.role])
                for c in self.columns
            ]
        )

    def state_columns(self, frame: pd.DataFrame, stays: Stays | None = None) -> pd.DataFrame:
        """Scaled states and indicators of whole stays in clinical units; no dose is looked at."""
        stays = stays or Stays.of(frame["stay_id"])
        values = {name: _numeric(frame, name) for name in self.states}
        return pd.DataFrame(self.state_arrays(values, stays), index=frame.index)

    def state_arrays(
        self, values: Mapping[str, Floats], stays: Stays
    ) -> dict[str, npt.NDArray[np.float32]]:
        """The same of columns by name."""
        states, missing = {}, {}
        for name, column in self.states.items():
            known = column.checked(values[name])
            states[name] = column.forward(column.filled(known, stays))
            if column.indicator:
                missing[f"missing_{name}"] = np.isnan(known).astype(np.float32)
        return {**states, **missing}

    def apply(self, frame: pd.DataFrame) -> pd.DataFrame:
        """A part of whole stays, prepared: the columns of `columns`, row for row."""
        stays = Stays.of(frame["stay_id"])
        made = dict(self.state_columns(frame, stays).items())
        censored = (frame["end"] == "censored").fillna(False).to_numpy(bool)
        for name, dose in self.doses.items():
            given = dose.checked(_numeric(frame, name))
            gaps = int((np.isnan(given) & ~censored).sum())
            if gaps:
                raise PreparationError(
                    f"{name}: {gaps} decisions without a dose; chart 0 where none was given, and "
                    "validate the table first"
                )
            given = np.where(censored, np.nan, given)
            made[name] = pd.Series(dose.forward(given), index=frame.index)
            made[f"given_{name}"] = pd.Series(given, index=frame.index)
        paid = attach_costs(attach_rewards(frame, self.cohort), self.cohort)
        return pd.DataFrame(
            {c.name: made[c.name] if c.name in made else paid[c.name] for c in self.columns}
        )

    def clinical(self, prepared: pd.DataFrame) -> pd.DataFrame:
        """States and doses of prepared rows in clinical units again (gaps stay filled)."""
        states = {n: t.inverse(prepared[n].to_numpy()) for n, t in self.states.items()}
        doses = {n: t.inverse(prepared[n].to_numpy()) for n, t in self.doses.items()}
        return pd.DataFrame({**states, **doses}, index=prepared.index)

    @property
    def fingerprint(self) -> str:
        """What prepared numbers mean, for fitted models: transforms, and levels behind codes."""
        levels = json.dumps(
            [column.levels for column in self.cohort.states.values()]
            + [action.levels for action in self.cohort.actions.values()]
        )
        return hashlib.sha256((self.to_json() + levels).encode()).hexdigest()

    def to_json(self) -> str:
        """The fitted numbers as plain JSON; from_json gives bit for bit the same."""
        content = {
            "format": FORMAT,
            "cohort": self.cohort.name,
            "version": self.cohort.version,
            "history_steps": self.history_steps,
            "most_gaps": self.most_gaps,
            "longest_gaps": dict(self.longest_gaps),
            "states": [asdict(column) for column in self.states.values()],
            "doses": [asdict(dose) for dose in self.doses.values()],
        }
        return json.dumps(content, indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str, cohort: Cohort) -> Preparation:
        """Read what to_json wrote, for the same cohort."""
        try:
            content = json.loads(text)
            states = [
                ColumnTransform(**{**entry, "shares": tuple(entry["shares"])})
                for entry in content["states"]
            ]
            doses = [DoseTransform(**entry) for entry in content["doses"]]
            found = (content["format"], content["cohort"], content["version"])
            steps, gaps = int(content["history_steps"]), int(content["most_gaps"])
            longest = {str(name): int(gap) for name, gap in content["longest_gaps"].items()}
        except (ValueError, TypeError, KeyError, AttributeError):
            raise PreparationError(
                "transforms.json: not what prepare writes; run prepare again"
            ) from None
        names = [column.name for column in states], [dose.name for dose in doses]
        wanted = list(cohort.states), list(cohort.actions)
        if found != (FORMAT, cohort.name, cohort.version) or names != wanted:
            raise PreparationError(
                "transforms.json: written for another cohort, cohort version or format; "
                "run prepare again"
            )
        of_states, of_doses = {c.name: c for c in states}, {d.name: d for d in doses}
        return cls(cohort, of_states, of_doses, steps, gaps, longest)

    def save(self, directory: Path) -> None:
        """Write transforms.json."""
        (directory / "transforms.json").write_text(self.to_json(), encoding="utf-8")

    @classmethod
    def load(cls, directory: Path, cohort: Cohort) -> Preparation:
        """Read transforms.json."""
        return cls.from_json((directory / "transforms.json").read_text(encoding="utf-8"), cohort)


def fit(rows: TrainingRows, cohort: Cohort, params: PrepareParams) -> Preparation:
    """Fit fill values and scaling on training rows, a column at a time.

    >>> from ogsrl.constraints import _example
    >>> frame, cohort = _example()
    >>> frame["patient_id"], frame["fluid"] = frame["stay_id"], 250.0
    >>> rows = TrainingRows.of(frame, cohort)
    >>> preparation = fit(rows, cohort, PrepareParams())
    >>> frame[["hours", "site"]] = 0.0, "A"
    >>> preparation.apply(frame)[["stay_id", "spo2", "missing_spo2", "fluid", "given_fluid"]]
      stay_id      spo2  missing_spo2  fluid  given_fluid
    0       a  0.866025           0.0   -0.5        250.0
    1       a -1.154701           0.0   -0.5        250.0
    2       a -1.154701           1.0   -0.5        250.0
    3       b  0.866025           0.0   -0.5        250.0
    4       b  0.866025           0.0   -0.5        250.0
    5       c  0.866025           0.0   -0.5        250.0
    6       c -1.154701           0.0    NaN          NaN
    """
    states = {name: _fit_column(name, column, rows) for name, column in cohort.states.items()}
    doses = {
        name: DoseTransform(name, action.transform, *action.range)
        for name, action in cohort.actions.items()
    }
    steps = params.history_steps
    gaps, longest = _most_gaps(rows, cohort, steps), dict(_longest_gaps(rows, cohort, steps))
    preparation = Preparation(cohort, states, doses, steps, gaps, longest)
    names = [column.name for column in preparation.columns]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SpecError(
            f"{', '.join(twice)}: names that prepare gives to columns of its own; "
            "rename them in the cohort file"
        )
    return preparation


def _fit_column(name: str, column: Static, rows: TrainingRows) -> ColumnTransform:
    values = rows.numpy(name)
    low, high = column.range
    gaps = rows.missingness[name].missing > 0
    fitted = ColumnTransform(
        name=name,
        kind=column.kind,
        transform=column.transform if column.kind == "numeric" else "identity",
        center=0.5 if column.kind == "binary" else 0.0,
        scale=0.5 if column.kind == "binary" else 1.0,
        low=low,
        high=high,
        missing=column.missing,
        fill=None,
        indicator=gaps,
        constant=False,
        spread=1.0,
    )
    values = fitted.checked(values)
    fill = _fill(name, column, values)
    fitted = ColumnTransform(**{**asdict(fitted), "fill": fill})
    filled = fitted.filled(values, rows.stays)
    spread = float(filled.std())
    changes: dict[str, Any] = {
        "constant": bool(filled.min() == filled.max()),
        "shares": _shares(values, fitted, rows),
    }
    if column.kind == "numeric":
        moved = _FORWARD[fitted.transform](filled)
        if not np.isfinite(moved).all():
            raise PreparationError(
                f"{name}: {int((~np.isfinite(moved)).sum())} values have no "
                f"{fitted.transform}; choose another transform in the cohort file"
            )
        changes["center"] = float(moved.mean())
        if changes["constant"]:
            changes["center"] = float(moved[0])
        else:
            changes["scale"] = float(moved.std())
        changes["spread"] = spread
        if not np.isfinite([changes["center"], changes.get("scale", 1.0), spread]).all():
            raise PreparationError(
                f"{name}: values too large to be scaled; narrow its plausible range"
            )
    return ColumnTransform(**{**asdict(fitted), **changes})


def guarding(cohort: Cohort) -> tuple[str, ...]:
    """State columns that the region or a hazard looks at."""
    hazards = [name for rule in hazard_rules(cohort).values() for name in rule.columns]
    named = dict.fromkeys([*cohort.guardian.columns, *hazards])
    return tuple(name for name in named if name in cohort.states)


def _most_gaps(rows: TrainingRows, cohort: Cohort, history_steps: int) -> int:
    """The most watched columns that some patients had uncharted at once.

    Of the first step, when least is charted yet; of every row where a state knows no earlier one.
    """
    gaps = np.zeros(rows.stays.rows, np.int64)
    for name in guarding(cohort):
        gaps += np.isnan(rows.numpy(name))
    patient = np.repeat(rows.patient, rows.stays.length)
    if history_steps:
        gaps, patient = gaps[rows.stays.start], rows.patient
    return _of_ten(gaps, patient, rows.patients)


def _longest_gaps(
    rows: TrainingRows, cohort: Cohort, history_steps: int
) -> Iterator[tuple[str, int]]:
    """By watched column: the most steps that some patients went without it.

    Of rows alone where a state knows no earlier one: then a gap is as long as the present.
    """
    patient, step = np.repeat(rows.patient, rows.stays.length), rows.stays.step
    for name in guarding(cohort):
        missing = np.isnan(rows.numpy(name))
        if not missing.any():
            continue
        charted = rows.stays.carry(np.where(missing, np.nan, step))
        age = step - np.where(np.isnan(charted), -1, charted)
        gap = age if history_steps else missing
        yield name, _of_ten(gap.astype(np.int64), patient, rows.patients)


def _of_ten(gaps: npt.NDArray[np.int64], patient: npt.NDArray[np.int64], patients: int) -> int:
    """The most that ten patients had, or more."""
    most = np.zeros(patients, np.int64)
    np.maximum.at(most, patient, gaps)
    return int(np.sort(most)[-MIN_PATIENTS]) if patients >= MIN_PATIENTS else 0


def _shares(values: Floats, column: ColumnTransform, rows: TrainingRows) -> tuple[float, ...]:
    cell, size = column.cells(values), column.levels + 1
    patient = np.repeat(rows.patient, rows.stays.length)
    counted = cells(cell, patient, size, total_known=True).rows
    return tuple((counted / rows.stays.rows).tolist())


def _fill(name: str, column: Static, values: Floats) -> float | None:
    """What fills a gap that carrying does not: the median of training rows, or as declared."""
    if column.missing == "never":
        return None
    if column.missing == "normal" and column.normal is not None:
        return float(column.normal)
    known = values[~np.isnan(values)]
    if not len(known):
        if column.normal is None:
            raise PreparationError(
                f"{name}: never charted in the training rows; give it a `normal` value or take "
                "it out of the cohort file"
            )
        return float(column.normal)
    if column.kind == "numeric":
        return float(np.median(known))
    return float(np.bincount(known.astype(np.int64)).argmax())  # a median of codes means nothing


def _numeric(frame: pd.DataFrame, name: str) -> Floats:
    if name not in frame:
        raise PreparationError(f"{name}: the column is missing; the cohort file names it")
    values = frame[name].to_numpy(np.float64, na_value=np.nan)
    infinite = int(np.isinf(values).sum())
    if infinite:
        raise PreparationError(f"{name}: {infinite} infinite values; validate the table first")
    return values
