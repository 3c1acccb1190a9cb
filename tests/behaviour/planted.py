"""A cohort whose clinicians' policy is known in closed form: what fitting must find again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch

from ogsrl.preparation import Preparation, PrepareParams, TrainingRows, fit
from ogsrl.preparation.tensors import StayTensors, stay_tensors
from ogsrl.spec import Cohort

STEPS = 6
SPREAD = 0.4
LOW, HIGH = np.log(20.0), np.log(400.0)


def cohort(**changes: Any) -> Cohort:
    doses = {
        "fluid": {
            "unit": "mL",
            "bounds": [0, 400],
            "zero_inflated": True,
            "min_dose": 20,
            "transform": "sqrt",
        },
        "care": {"unit": "1", "kind": "ordinal", "levels": ["ward", "step-down", "intensive"]},
    }
    content = {
        "name": "planted",
        "version": 1,
        "time_step_hours": 4,
        "max_steps": STEPS,
        "discount": 1,
        "source": {"kind": "table"},
        "observations": {
            "severity": {"unit": "points", "plausible": [-10, 10]},
            "unit_kind": {"unit": "1", "kind": "categorical", "levels": ["a", "b", "c"]},
            "still": {"unit": "1", "plausible": [0, 10]},
        },
        "actions": doses,
        "reward": {"step": "severity > 0"},
        "guardian": {"columns": ["severity"]},
    }
    return Cohort.model_validate({**content, **changes})


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def _parts(x: np.ndarray, kind: np.ndarray) -> np.ndarray:
    """P(zero), P(between), P(maximum) of the fluid."""
    zero = _sigmoid(-1.0 - 1.2 * x)
    top = (1 - zero) * _sigmoid(-2.5 + 1.0 * (kind == 2))
    return np.stack([zero, 1 - zero - top, top], 1)


def _middle(x: np.ndarray) -> np.ndarray:
    return np.log(90.0) + 0.5 * x


def _care(x: np.ndarray, zero: np.ndarray) -> np.ndarray:
    """P(level) of care, which depends on whether fluid was given."""
    scores = np.stack([np.zeros_like(x), 0.5 * x, 1.0 * x - 1.5 * zero], 1)
    shares = np.exp(scores)
    return shares / shares.sum(1, keepdims=True)


def table(patients: int, seed: int) -> pd.DataFrame:
    """Stays of STEPS decisions by the planted clinicians."""
    rng = np.random.default_rng(seed)
    stay = np.repeat(np.arange(patients), STEPS)
    rows = len(stay)
    step = np.tile(np.arange(STEPS), patients)
    x = 0.8 * rng.standard_normal(patients)[stay] + 0.6 * rng.standard_normal(rows)
    kind = rng.integers(0, 3, patients)[stay]
    parts = _parts(x, kind)
    part = (rng.random(rows)[:, None] > parts.cumsum(1)).sum(1).clip(max=2)
    logs = np.full(rows, np.nan)
    while np.isnan(logs).any():  # a normal kept to its range
        drawn = _middle(x) + SPREAD * rng.standard_normal(rows)
        kept = np.isnan(logs) & (drawn > LOW) & (drawn < HIGH)
        logs[kept] = drawn[kept]
    fluid = np.where(part == 0, 0.0, np.where(part == 2, 400.0, np.exp(logs)))
    care = _care(x, (part == 0).astype(float))
    level = (rng.random(rows)[:, None] > care.cumsum(1)).sum(1).clip(max=2)
    ids = np.char.zfill(stay.astype(str), 6)
    return pd.DataFrame(
        {
            "patient_id": np.char.add("P", ids),
            "stay_id": np.char.add("S", ids),
            "step": step.astype(np.int32),
            "hours": step * 4.0,
            "site": "A",
            "severity": x,
            "unit_kind": kind.astype(float),
            "still": 5.0,
            "fluid": fluid,
            "care": level.astype(float),
            "end": pd.Series(np.where(step == STEPS - 1, "horizon", None)).astype("str"),
            "died": pd.Series(np.full(rows, None, object)).astype("boolean"),
        }
    )


def truth(frame: pd.DataFrame) -> np.ndarray:
    """True log probability of each row's doses: masses, levels, density of the log dose."""
    x, kind = frame["severity"].to_numpy(), frame["unit_kind"].to_numpy()
    fluid, level = frame["fluid"].to_numpy(), frame["care"].to_numpy().astype(int)
    part = np.where(fluid == 0, 0, np.where(fluid == 400, 2, 1))
    logs = np.log(np.where(part == 1, fluid, 100.0))
    middle = _middle(x)

    def normal(z: np.ndarray) -> np.ndarray:
        return torch.special.ndtr(torch.from_numpy((z - middle) / SPREAD)).numpy()

    inside = normal(np.full_like(x, HIGH)) - normal(np.full_like(x, LOW))
    density = -0.5 * ((logs - middle) / SPREAD) ** 2 - np.log(SPREAD * np.sqrt(2 * np.pi) * inside)
    rows = np.arange(len(x))
    of_fluid = np.log(_parts(x, kind)[rows, part]) + np.where(part == 1, density, 0.0)
    return of_fluid + np.log(_care(x, (part == 0).astype(float))[rows, level])


def preparation(frame: pd.DataFrame, history_steps: int = 1, **changes: Any) -> Preparation:
    """Fitted on these rows."""
    params = PrepareParams(history_steps=history_steps)
    return fit(TrainingRows.of(frame, cohort(**changes)), cohort(**changes), params)


def tensors(frame: pd.DataFrame, prepared_by: Preparation) -> StayTensors:
    return stay_tensors(prepared_by.apply(frame), prepared_by)
