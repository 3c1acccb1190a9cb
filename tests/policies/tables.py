"""Logged stays of a cohort of one code and ordinal doses, for tests of tables."""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd

from ogsrl.preparation import PrepareParams, TrainingRows, fit
from ogsrl.preparation.tensors import StayTensors, stay_tensors
from tests.dynamics.worlds import line_cohort


@cache
def table_frames(patients: int = 1_500, history_steps: int = 0) -> tuple[StayTensors, pd.DataFrame]:
    """Ill patients get well with the drug, which clinicians give to half of them."""
    rng, rows = np.random.default_rng(4), []
    for i in range(patients):
        ill = rng.random() < 0.6
        for step in range(6):
            drug, fluid = rng.random() < 0.5, rng.random() < (0.01 if ill else 0.5)
            dies = rng.random() < (0.15 if ill else 0.01)
            end = "death" if dies else "horizon" if step == 5 else None
            rows.append((f"P{i}", f"S{i:05d}", step, 4.0 * step, "A", float(ill), drug, fluid, end))
            if end:
                break
            ill = rng.random() < ((0.3 if drug else 0.9) if ill else 0.2)
    names = ["patient_id", "stay_id", "step", "hours", "site", "state", "drug", "fluid", "end"]
    table = pd.DataFrame(rows, columns=names).astype({"end": "str", "drug": float, "fluid": float})
    died = [None if not isinstance(end, str) else end == "death" for end in table["end"]]
    cohort = line_cohort(
        name="table",
        max_steps=6,
        static={},
        observations={"state": {"unit": "1", "kind": "categorical", "levels": ["well", "ill"]}},
        actions={
            "drug": {"unit": "1", "kind": "ordinal", "levels": ["no", "yes"]},
            "fluid": {"unit": "1", "kind": "ordinal", "levels": ["no", "yes"]},
        },
        constraints={"ill": {"expression": "state > 0.5", "limit": {"relative": 0.9}}},
        guardian={"columns": ["state"]},
    )
    table = table.assign(died=pd.array(died, "boolean"))
    params = PrepareParams(history_steps=history_steps)
    preparation = fit(TrainingRows.of(table, cohort), cohort, params)
    prepared = preparation.apply(table)
    return stay_tensors(prepared, preparation), prepared
