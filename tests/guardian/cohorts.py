"""Small cohorts for tests of guardians: simulated patients, and planted rows of any layout."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from ogsrl.guardian.christoffel import ChristoffelGuardian
from ogsrl.guardian.columns import Layout
from ogsrl.guardian.config import GuardianParams
from ogsrl.guardian.protocol import Rows
from ogsrl.preparation import (
    DoseTransform,
    Preparation,
    PrepareParams,
    TrainingRows,
    assign_parts,
    fit,
)
from ogsrl.preparation.history import History
from ogsrl.preparation.tensors import StayTensors, stay_tensors
from ogsrl.preparation.transforms import ColumnTransform
from ogsrl.sources.simulator import SimulatorConfig, simulate
from ogsrl.spec import Cohort
from ogsrl.spec.reader import load_cohort

ROOT = Path(__file__).parents[2]


@cache
def simulated(
    patients: int = 900, seed: int = 11, variant: str = "standard"
) -> tuple[dict[str, StayTensors], dict[str, pd.DataFrame]]:
    """Train, calibration and validation stays of simulated patients, and their prepared rows."""
    cohort = load_cohort(ROOT / "data_contracts" / "sepsis.yaml")
    table = simulate(patients, seed, SimulatorConfig(variant=variant))  # type: ignore[arg-type]
    table = table[list(cohort.table_columns)]
    params = PrepareParams(split={"train": 0.5, "calibration": 0.25, "validation": 0.25, "test": 0})
    parts = assign_parts(table["patient_id"], params)
    frames = {
        part: table[parts == part].reset_index(drop=True)
        for part in ("train", "calibration", "validation")
    }
    preparation = fit(TrainingRows.of(frames["train"], cohort), cohort, params)
    prepared = {part: preparation.apply(frame) for part, frame in frames.items()}
    return {part: stay_tensors(p, preparation) for part, p in prepared.items()}, prepared


@cache
def guarded() -> ChristoffelGuardian:
    """The region of the smallest simulated cohort, calibrated."""
    parts = simulated()[0]
    fresh = Rows.of(parts["calibration"])
    made = ChristoffelGuardian.fit(
        [Rows.of(parts["train"])],
        Layout.of(parts["train"].history),
        GuardianParams(degree=1),
        torch.Generator().manual_seed(0),
    )
    return made.calibrate(fresh.states, fresh.doses, fresh.patient, 0.05)


def planted(
    columns: dict[str, dict[str, Any]], doses: dict[str, dict[str, Any]], **more: Any
) -> History:
    """A history of one step: columns and doses of any kind, scaled as they are."""
    cohort = Cohort.model_validate(
        {
            "name": "planted",
            "version": 1,
            "time_step_hours": 1,
            "max_steps": 20,
            "discount": 1,
            "source": {"kind": "table"},
            "observations": {name: {"unit": "1", **entry} for name, entry in columns.items()},
            "actions": {name: {"unit": "1", **entry} for name, entry in doses.items()},
            "reward": {"step": "1 > 0"},
            "guardian": {"columns": list(columns)},
            **more,
        }
    )
    states = {
        name: ColumnTransform(
            name=name,
            kind=entry.kind,
            transform="identity",
            center=0.5 if entry.kind == "binary" else 0.0,
            scale=0.5 if entry.kind == "binary" else 1.0,
            low=entry.range[0],
            high=entry.range[1],
            missing="never",
            fill=None,
            indicator=False,
            constant=False,
            spread=1.0,
        )
        for name, entry in cohort.states.items()
    }
    scaled = {n: DoseTransform(n, a.transform, *a.range) for n, a in cohort.actions.items()}
    return History(Preparation(cohort, states, scaled, 0), 0, False)


def numeric(columns: int, doses: int = 1) -> History:
    """Numeric columns x0, x1, ... and doses a0, a1, ... within [-1, 1]."""
    return planted(
        {f"x{i}": {"plausible": [-100, 100]} for i in range(columns)},
        {f"a{i}": {"bounds": [-1, 1]} for i in range(doses)},
    )


def rows(
    states: np.ndarray[Any, Any], doses: np.ndarray[Any, Any], patients: int | None = None
) -> Rows:
    """Rows of so many patients in turn; by default each row is of its own."""
    number = torch.arange(len(states)) % (patients or len(states))
    return Rows(
        torch.tensor(states, dtype=torch.float32),
        torch.tensor(doses, dtype=torch.float32),
        number,
        number.clone(),
    )


def layout(history: History) -> Layout:
    """What a guardian reads of it."""
    return Layout.of(history)
