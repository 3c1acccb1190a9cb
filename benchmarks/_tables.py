"""Random but plausible trajectory tables for any cohort file, for tests and benchmarks.

The values follow the cohort's ranges and nothing else: no physiology, no treatment effect.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from ogsrl.spec import Cohort


def wide_cohort(columns: int, *, name: str = "wide") -> Cohort:
    """A cohort whose table has `columns` columns in all."""
    statics = {"age": {"unit": "years", "plausible": [18, 110]}}
    fixed = 5 + len(statics) + 2 + 2  # keys, statics, doses, end and died
    observed: dict[str, Any] = {
        f"lab_{i:02d}": {"unit": "mg/dL", "plausible": [0.1, 100], "transform": "log"}
        for i in range(columns - fixed)
    }
    dose = {"unit": "mL", "bounds": [0, 1000], "zero_inflated": True, "transform": "sqrt"}
    return Cohort.model_validate(
        {
            "name": name,
            "version": 1,
            "time_step_hours": 4,
            "max_steps": 18,
            "discount": 0.99,
            "source": {"kind": "table", "path": "unused.parquet"},
            "static": statics,
            "observations": observed,
            "actions": {"fluid": dose, "pressor": dose},
            "outcome": {"horizon": "in hospital", "censoring": "transfer"},
            "reward": {"terminal": {"death": -1, "discharge": 1, "horizon": 1}},
            "constraints": {
                "low": {"expression": "lab_00 < 5", "limit": {"relative": 0.9}},
            },
            "guardian": {"columns": ["age", "lab_00", "lab_01"]},
            "subgroups": {"age": {"column": "age", "cuts": [65]}},
        }
    )


def random_table(cohort: Cohort, stays: int, seed: int, *, first: int = 0) -> pd.DataFrame:
    """Stays that keep every rule of the cohort's contract, sorted by stay and step."""
    rng = np.random.default_rng([seed, first])
    length = rng.integers(min(3, cohort.max_steps), cohort.max_steps + 1, stays)
    stay = np.repeat(np.arange(stays), length)
    rows = len(stay)
    step = np.arange(rows) - np.repeat(np.cumsum(length) - length, length)
    last = step == length[stay] - 1
    site = np.array(list("ABCD"))[rng.integers(0, 4, stays)]
    data: dict[str, Any] = {
        "patient_id": np.char.add("P", np.char.zfill((stay + first).astype(str), 8)),
        "stay_id": np.char.add("S", np.char.zfill((stay + first).astype(str), 8)),
        "step": step.astype(np.int32),
        "hours": step * cohort.time_step_hours,
        "site": site[stay],
    }
    doses: dict[str, Any] = {}
    for name, action in cohort.actions.items():
        low, high = action.range
        given = low + (high - low) * rng.beta(1, 4, rows)
        if action.increment:
            given = np.round(given / action.increment) * action.increment
        if action.kind == "ordinal":
            given = np.round(given)
        if action.zero_inflated:
            given = np.where(rng.random(rows) < 0.4, 0.0, given)
        doses[name] = np.where(given < action.min_dose, 0.0, given)
    for name, column in cohort.static.items():
        low, high = column.range
        value = low + (high - low) * rng.beta(4, 4, stays)
        data[name] = (value if column.kind == "numeric" else np.round(value))[stay]
    for name, column in cohort.observations.items():
        low, high = column.range
        walk = rng.normal(size=stays)[stay] + 0.5 * rng.normal(size=rows)
        share = 1 / (1 + np.exp(-0.7 * walk))
        value = low + (high - low) * share
        if column.transform == "log":
            value = np.exp(np.log(low) + (np.log(high) - np.log(low)) * share)
        if column.kind != "numeric":
            value = np.round(value)
        if column.max_missing > 0:
            value = np.where(rng.random(rows) < column.max_missing / 3, np.nan, value)
        if column.cumulative_of is not None:
            dose = doses[column.cumulative_of]
            before = np.cumsum(dose) - dose
            value = before - np.repeat(before[step == 0], length)
        data[name] = value
    ends = np.where(
        length == cohort.max_steps,
        "horizon",
        rng.choice(["death", "discharge", "censored"], p=[0.2, 0.75, 0.05], size=stays),
    )[stay]
    censored = last & (ends == "censored")
    for name, given in doses.items():
        data[name] = np.where(censored, np.nan, given)
    data["end"] = pd.Series(ends).where(last, None).astype("str")
    died = pd.Series(ends == "death").astype("boolean")
    data["died"] = died.mask(pd.Series(~last | censored))
    return pd.DataFrame(data)[list(cohort.table_columns)]
