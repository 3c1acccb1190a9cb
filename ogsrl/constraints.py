"""Physiological costs, hazards and rewards: one definition for logged tables and for models.

Called by preparation on tables in clinical units, and by dynamics, policies and audit on arrays
and tensors. Never reads files, never imputes beyond carrying, never looks at another stay.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from ogsrl.errors import PreparationError
from ogsrl.spec import Cohort, Expression, parse_expression
from ogsrl.trajectories import Stays

if TYPE_CHECKING:
    import torch

Floats = npt.NDArray[np.float64]
SOURCES = ("no next row", "measured", "carried", "unknown")
Values = TypeVar("Values", bound=Any)  # a numpy array or a torch tensor


def step_cost(
    kind: Literal["share", "ever"],
    unsafe: Values,
    death: Values,
    step: Values,
    max_steps: int,
    spent: Values | float = 0.0,
) -> Values:
    """What one step costs; arrays and tensors alike, and truths or probabilities alike.

    `share`: an unsafe step costs 1/max_steps, and a death at step t all the steps that are left,
    so that dying never buys safety. `ever`: the first violation or death costs 1.

    Args:
        kind: The constraint's kind.
        unsafe: Whether the next row is unsafe; 0 where the stay ends.
        death: Whether the patient dies in this step.
        step: The step's number, from 0.
        max_steps: Steps of the longest stay.
        spent: For `ever`: whether the cost was already paid in this stay.

    >>> step_cost("share", np.array([1.0, 0.0]), np.array([0.0, 1.0]), np.array([0, 1]), 4)
    array([0.25, 0.75])
    """
    cost: Values
    if kind == "share":
        cost = death * ((max_steps - step) / max_steps) + (1 - death) * unsafe / max_steps
    else:
        cost = (1 - spent) * (death + (1 - death) * unsafe)
    return cost


@dataclass(frozen=True)
class Rule:
    """A named expression over columns: a constraint or a hazard."""

    name: str
    label: str
    expression: Expression

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns that the rule needs, in alphabetical order."""
        return tuple(sorted(self.expression.columns))

    def numpy(self, values: Mapping[str, Floats]) -> Floats:
        """1 where the rule is met, 0 where not, NaN where that cannot be known."""
        return np.broadcast_to(self.expression.numpy(values), _length(values)).copy()

    def torch(self, values: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The same, on tensors."""
        return self.expression.torch(values)


@dataclass(frozen=True)
class ConstraintRule(Rule):
    """A compiled constraint; true where a row is unsafe."""

    kind: Literal["share", "ever"]


def constraint_rules(cohort: Cohort) -> dict[str, ConstraintRule]:
    """The cohort's constraints, compiled, by name."""
    return {
        name: ConstraintRule(
            name, entry.label or name, parse_expression(entry.expression), entry.kind
        )
        for name, entry in cohort.constraints.items()
    }


def hazard_rules(cohort: Cohort) -> dict[str, Rule]:
    """The cohort's hazards, compiled, by name."""
    return {
        name: Rule(name, entry.label or name, parse_expression(entry.expression))
        for name, entry in cohort.hazards.items()
    }


@dataclass(frozen=True)
class HazardValues:
    """A hazard on every row: 1, 0 or NaN for unknown; none of it where columns are missing."""

    name: str
    values: Floats | None
    missing: tuple[str, ...]

    @property
    def evaluable(self) -> bool:
        """Whether the table has all the columns that the rule needs."""
        return self.values is not None


def hazards(frame: pd.DataFrame, cohort: Cohort) -> dict[str, HazardValues]:
    """Each hazard on the rows of a table in clinical units (state and dose of the same row).

    A hazard that needs a column which the table lacks is `not evaluable`: its values are None.
    """
    result = {}
    for name, rule in hazard_rules(cohort).items():
        missing = tuple(column for column in rule.columns if column not in frame)
        values = None if missing else rule.numpy(_floats(frame, rule.columns))
        result[name] = HazardValues(name, values, missing)
    return result


@dataclass(frozen=True)
class CostCounts:
    """On how many transitions a constraint's next row was measured, carried or unknown.

    `measured`: all columns that decided were charted on the next row; `carried`: at least one was
    the last known value; `unknown`: never known so far, so the step costs nothing.
    """

    measured: int = 0
    carried: int = 0
    unknown: int = 0

    def __add__(self, other: CostCounts) -> CostCounts:
        return CostCounts(
            self.measured + other.measured,
            self.carried + other.carried,
            self.unknown + other.unknown,
        )


def attach_costs(frame: pd.DataFrame, cohort: Cohort) -> pd.DataFrame:
    """Add `cost_<name>` for each constraint: the constraint on the stay's next row.

    A missing value carries the last known one. A death's step costs what `step_cost` says; a
    discharge's or horizon's last step has no next row and costs 0; a censored stay's last row is
    no step and costs NaN.

    >>> from ogsrl.constraints import _example
    >>> frame, cohort = _example()
    >>> attach_costs(frame, cohort)[["stay_id", "step", "spo2", "end", "cost_hypoxia"]]
      stay_id  step  spo2        end  cost_hypoxia
    0       a     0  95.0        NaN          0.25
    1       a     1  90.0        NaN          0.25
    2       a     2   NaN  discharge          0.00
    3       b     0  95.0        NaN          0.00
    4       b     1  95.0      death          0.75
    5       c     0  95.0        NaN          0.25
    6       c     1  90.0   censored           NaN
    """
    stays = _stays(frame, cohort)
    death, censored = _ends(frame, "death"), _ends(frame, "censored")
    costs = {}
    for name, rule in constraint_rules(cohort).items():
        unsafe = np.nan_to_num(_on_next_row(frame, rule.expression, stays)[0])
        spent: Floats | float = 0.0
        if rule.kind == "ever":
            met = np.maximum(unsafe, death)
            before = np.cumsum(met) - met
            spent = (before > np.repeat(before[stays.start], stays.length)).astype(np.float64)
        cost = step_cost(
            rule.kind, unsafe, death.astype(np.float64), stays.step, cohort.max_steps, spent
        )
        costs[f"cost_{name}"] = np.where(censored, np.nan, cost)
    return frame.assign(**costs)


def cost_sources(frame: pd.DataFrame, cohort: Cohort) -> dict[str, npt.NDArray[np.int64]]:
    """What each row's cost rests on, per constraint: places in SOURCES."""
    stays = _stays(frame, cohort)
    return {
        name: _sources(*_on_next_row(frame, rule.expression, stays), stays)
        for name, rule in constraint_rules(cohort).items()
    }


def cost_counts(frame: pd.DataFrame, cohort: Cohort) -> dict[str, CostCounts]:
    """Count, for each constraint, transitions whose next row was measured, carried or unknown."""
    found = cost_sources(frame, cohort).items()
    return {
        name: CostCounts(*np.bincount(place, minlength=4)[1:].tolist()) for name, place in found
    }


@dataclass(frozen=True)
class RewardCounts:
    """What rewards rest on: later deaths, outcomes not charted, steps that were not evaluable."""

    later_deaths: int = 0
    assumed_alive: int = 0
    unknown_steps: int = 0

    def __add__(self, other: RewardCounts) -> RewardCounts:
        return RewardCounts(
            self.later_deaths + other.later_deaths,
            self.assumed_alive + other.assumed_alive,
            self.unknown_steps + other.unknown_steps,
        )


def attach_rewards(frame: pd.DataFrame, cohort: Cohort) -> pd.DataFrame:
    """Add `reward`, and `shaping` where the cohort has one; NaN on a censored last row.

    The terminal reward is the end's; a death after discharge or horizon (`died`) counts as a
    death. The step expression is evaluated on the next row as constraints are, and is 0 where it
    is unknown or the stay ends. Shaping stays apart, so that no result can contain it.

    >>> from ogsrl.constraints import _example
    >>> frame, cohort = _example()
    >>> attach_rewards(frame, cohort)[["stay_id", "end", "died", "reward"]]
      stay_id        end  died  reward
    0       a        NaN  <NA>     0.0
    1       a        NaN  <NA>     0.0
    2       a  discharge  True    -1.0
    3       b        NaN  <NA>     0.0
    4       b      death  True    -1.0
    5       c        NaN  <NA>     0.0
    6       c   censored  <NA>     NaN
    """
    stays = _stays(frame, cohort)
    censored = _ends(frame, "censored")
    reward = np.zeros(len(frame))
    if cohort.reward.terminal is not None:
        late = _died_later(frame)
        for end, value in cohort.reward.terminal.model_dump().items():
            reward[_ends(frame, end)] = value
        reward[late] = cohort.reward.terminal.death
    added = {"reward": reward}
    if cohort.reward.step is not None:
        expression = parse_expression(cohort.reward.step)
        added["reward"] = reward + np.nan_to_num(_on_next_row(frame, expression, stays)[0])
    if cohort.reward.shaping is not None:
        expression = parse_expression(cohort.reward.shaping)
        added["shaping"] = np.nan_to_num(_on_next_row(frame, expression, stays)[0])
    return frame.assign(
        **{name: np.where(censored, np.nan, values) for name, values in added.items()}
    )


def reward_counts(frame: pd.DataFrame, cohort: Cohort) -> RewardCounts:
    """Count what the rewards rest on; see RewardCounts."""
    stays = _stays(frame, cohort)
    alive = _ends(frame, "discharge") | _ends(frame, "horizon")
    unknown = 0
    if cohort.reward.step is not None:
        expression = parse_expression(cohort.reward.step)
        found = _on_next_row(frame, expression, stays)
        unknown = int((_sources(*found, stays) == SOURCES.index("unknown")).sum())
    assumed = alive & frame["died"].isna().to_numpy(bool) if cohort.outcome else alive & False
    return RewardCounts(int(_died_later(frame).sum()), int(assumed.sum()), unknown)


def _on_next_row(
    frame: pd.DataFrame, expression: Expression, stays: Stays
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """The expression on each row's next row, and whether that row had all columns charted.

    A missing value is the last known one. NaN on a stay's last row.
    """
    columns = sorted(expression.columns)
    charted = np.ones(len(frame), bool)
    values = {}
    for name, raw in _floats(frame, columns).items():
        charted &= ~np.isnan(raw)
        values[name] = stays.next(stays.carry(raw))
    result = np.broadcast_to(expression.numpy(values), len(frame)).astype(np.float64)
    result[stays.last] = np.nan
    return result, stays.next(charted.astype(np.float64), 0.0) > 0


def _sources(values: Floats, charted: npt.NDArray[np.bool_], stays: Stays) -> npt.NDArray[np.int64]:
    known = ~np.isnan(values)
    return np.select([stays.last, known & charted, known], [0, 1, 2], 3)


def _stays(frame: pd.DataFrame, cohort: Cohort) -> Stays:
    """The table's stays, if their steps run from 0 without a gap and not beyond the horizon."""
    stays = Stays.of(frame["stay_id"])
    wrong = int((frame["step"].to_numpy() != stays.step).sum())
    if wrong:
        raise PreparationError(
            f"step: {wrong} rows do not follow the row before; validate the table first"
        )
    beyond = int(((stays.step >= cohort.max_steps) & ~_ends(frame, "censored")).sum())
    if beyond:
        raise PreparationError(
            f"step: {beyond} decisions lie beyond max_steps = {cohort.max_steps}; "
            "raise max_steps in the cohort file or end the stays there"
        )
    return stays


def _floats(frame: pd.DataFrame, columns: tuple[str, ...] | list[str]) -> dict[str, Floats]:
    absent = [name for name in columns if name not in frame]
    if absent:
        raise PreparationError(
            f"{', '.join(absent)}: needed by an expression but not in the table; "
            "add the column to the source or take the expression out of the cohort file"
        )
    return {name: frame[name].to_numpy(np.float64, na_value=np.nan) for name in columns}


def _ends(frame: pd.DataFrame, end: str) -> npt.NDArray[np.bool_]:
    return (frame["end"] == end).fillna(False).to_numpy(bool)


def _died_later(frame: pd.DataFrame) -> npt.NDArray[np.bool_]:
    died = frame["died"].astype("boolean").fillna(False).to_numpy(bool)
    return died & (_ends(frame, "discharge") | _ends(frame, "horizon"))


def _length(values: Mapping[str, Floats]) -> int:
    return len(next(iter(values.values()))) if values else 1


def _example() -> tuple[pd.DataFrame, Cohort]:
    """Three stays and a cohort of four steps, for the examples above."""
    frame = pd.DataFrame(
        {
            "stay_id": list("aaabbcc"),
            "step": [0, 1, 2, 0, 1, 0, 1],
            "spo2": [95, 90, np.nan, 95, 95, 95, 90],
            "end": [None, None, "discharge", None, "death", None, "censored"],
            "died": pd.array([None, None, True, None, True, None, None], "boolean"),
        }
    )
    cohort = Cohort.model_validate(
        {
            "name": "example",
            "version": 1,
            "time_step_hours": 4,
            "max_steps": 4,
            "discount": 1,
            "source": {"kind": "table"},
            "observations": {"spo2": {"unit": "%", "plausible": [40, 100]}},
            "actions": {"fluid": {"unit": "mL", "bounds": [0, 1000]}},
            "outcome": {"horizon": "in hospital", "censoring": "transfer"},
            "reward": {"terminal": {"death": -1, "discharge": 1, "horizon": 1}},
            "constraints": {"hypoxia": {"expression": "spo2 < 92", "limit": {"relative": 0.9}}},
            "guardian": {"columns": ["spo2"]},
        }
    )
    return frame.astype({"end": "str"}), cohort
