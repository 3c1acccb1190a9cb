"""Small worlds whose truth is known in closed form."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from ogsrl.preparation import Preparation, PrepareParams, TrainingRows, fit
from ogsrl.preparation.tensors import StayTensors, stay_tensors
from ogsrl.spec import Cohort

MAX_STEPS = 12
#: x' = KEPT x + PUSH dose + NOISE z
KEPT, PUSH, NOISE = 0.8, 0.6, 0.5
RISK, RISK_OF_X = -3.6, 0.9


def line_cohort(**changes: Any) -> Cohort:
    """One number that a dose pushes, one running sum, one flag; low is unsafe."""
    content: dict[str, Any] = {
        "name": "line",
        "version": 1,
        "time_step_hours": 4,
        "max_steps": MAX_STEPS,
        "discount": 1,
        "source": {"kind": "table"},
        "static": {"age": {"unit": "years", "plausible": [0, 120]}},
        "observations": {
            "x": {"unit": "u", "plausible": [-50, 50]},
            "lab": {"unit": "u", "plausible": [-50, 50]},
            "twin": {"unit": "u", "plausible": [-50, 50]},
            "still": {"unit": "u", "plausible": [0, 10]},
            "flag": {"unit": "1", "kind": "binary"},
            "total": {"unit": "mL", "plausible": [0, 40000], "cumulative_of": "fluid"},
        },
        "actions": {"fluid": {"unit": "mL", "bounds": [0, 500], "increment": 50}},
        "outcome": {"horizon": "in hospital", "censoring": "none"},
        "reward": {"terminal": {"death": -1, "discharge": 1, "horizon": 1}},
        "constraints": {
            "low": {"expression": "x < -1", "limit": {"relative": 0.9}},
            "flagged": {"expression": "flag > 0.5", "limit": {"relative": 0.9}},
            "low_or_full": {
                "expression": "lab < 0 or total > 1000",
                "limit": {"relative": 0.9},
            },
            "low_drawn": {"expression": "x < -1 and x > -40", "limit": {"relative": 0.9}},
        },
        "guardian": {"columns": ["x"]},
    }
    return Cohort.model_validate({**content, **changes})


def push(fluid: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """What a dose adds to x."""
    return PUSH * fluid / 100


def line_table(patients: int, seed: int) -> pd.DataFrame:
    """Stays of the line: deaths by x, half of the labs charted, always both or none."""
    rng = np.random.default_rng(seed)
    x, age = rng.normal(0, 1, patients), rng.uniform(20, 80, patients).round()
    alive, total = np.ones(patients, bool), np.zeros(patients)
    rows = []
    for step in range(MAX_STEPS):
        who = np.flatnonzero(alive)
        fluid = np.where(rng.random(patients) < 0.4, 0, 50 * rng.integers(0, 7, patients))
        gap = rng.random(patients) < 0.5
        death = rng.random(patients) < 1 / (1 + np.exp(-(RISK + RISK_OF_X * x)))
        leaves = ~death & (rng.random(patients) < 0.04)
        last = np.full(patients, step == MAX_STEPS - 1)
        end = np.select([death, leaves, last], ["death", "discharge", "horizon"], "")
        lab = np.round(x + rng.normal(0, 0.3, patients), 1)
        frame = {
            "patient_id": [f"P{i:05d}" for i in who],
            "stay_id": [f"S{i:05d}" for i in who],
            "step": step,
            "hours": 4.0 * step,
            "site": "A",
            "age": age[who],
            "x": x[who],
            "lab": np.where(gap, np.nan, lab)[who],
            "twin": np.where(gap, np.nan, lab + 1)[who],
            "still": 3.0,
            "flag": (x > 0).astype(float)[who],
            "total": total[who],
            "fluid": fluid[who].astype(float),
            "end": [e or None for e in end[who]],
            "died": pd.array([e == "death" if e else None for e in end[who]], "boolean"),
        }
        rows.append(pd.DataFrame(frame))
        total = total + fluid
        x = KEPT * x + push(fluid) - 0.5 + NOISE * rng.normal(0, 1, patients)
        alive = alive & ~death & ~leaves
    table = pd.concat(rows).sort_values(["stay_id", "step"], ignore_index=True)
    return table.astype({"end": "str"})


def prepare(
    table: pd.DataFrame, cohort: Cohort, history_steps: int = 1, fitted: Preparation | None = None
) -> StayTensors:
    """Prepared tensors; transforms fitted on the same rows unless given."""
    params = PrepareParams(history_steps=history_steps)
    fitted = fitted or fit(TrainingRows.of(table, cohort), cohort, params)
    return stay_tensors(fitted.apply(table), fitted)
