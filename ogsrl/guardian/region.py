"""What the region looks like: which doses are supported for patients of typical severity.

Called by the report. A typical patient is made of means over many patients, told to two digits, and
of levels that at least ten of them have: nobody's own value, and nobody's row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ogsrl.guardian.cells import distinct_patients
from ogsrl.guardian.departures import Seen, administrable
from ogsrl.guardian.protocol import Guardian, Rows
from ogsrl.guardian.survey import row_weights
from ogsrl.preparation.coverage import MIN_PATIENTS
from ogsrl.preparation.history import History

GRID = 33
#: Shares of the patients between which a typical patient is made, by how sick they are.
BANDS: Mapping[str, tuple[float, float]] = {
    "least sick tenth": (0.0, 0.1),
    "typical": (0.45, 0.55),
    "sickest tenth": (0.9, 1.0),
}


def region(guardian: Guardian, rows: Rows, history: History, train: Rows) -> dict[str, Any] | None:
    """The supported doses of each typical patient on a grid of the first two doses.

    Other doses are as the patient's median. None if no column says how sick a patient is, or the
    patients are too few.
    """
    seen = Seen.of(train, history)
    if not seen.directions:
        return None
    harm = seen.harm(rows).numpy()
    doses = list(history.preparation.doses)[:2]
    axes = [_axis(history, name) for name in doses]
    patients = []
    for name, (low, high) in BANDS.items():
        ends = np.quantile(harm, [low, high])
        here = torch.from_numpy((harm >= ends[0]) & (harm <= ends[1]))
        band = rows.take(here.nonzero().squeeze(1))
        if len(torch.unique(band.patient)) < MIN_PATIENTS:
            continue
        patients.append(_typical(guardian, band, history, axes, name))
    return {"axes": axes, "patients": patients} if patients else None


def _typical(
    guardian: Guardian, band: Rows, history: History, axes: list[dict[str, Any]], name: str
) -> dict[str, Any]:
    state = _middle(band, history, guardian.layout.columns)
    usual = torch.quantile(band.doses.double(), 0.5, dim=0).float()
    grids = [torch.tensor(axis["scaled"], dtype=torch.float32) for axis in axes]
    mesh = torch.stack(torch.meshgrid(*grids, indexing="ij"), dim=-1).reshape(-1, len(grids))
    doses = usual.repeat(len(mesh), 1)
    doses[:, : len(grids)] = mesh
    inside = guardian.supported(state.repeat(len(mesh), 1), doses)
    return {
        "name": name,
        "patients": len(torch.unique(band.patient)),
        "state": _shown(state, band, history, guardian.layout.columns),
        "supported": inside.reshape([len(grid) for grid in grids]).int().tolist(),
        "share_supported": float(inside.double().mean()),
    }


def _middle(band: Rows, history: History, columns: Sequence[str]) -> torch.Tensor:
    """The mean of guarded columns, each patient weighing 1; of levels, the most patients'.

    What no guardian reads, and nobody is shown, is the median.
    """
    state = band.states.median(dim=0).values.clone()
    weight = row_weights(band.patient)[0]
    mean = (weight @ band.states.double() / weight.sum()).float()
    for place, entry in enumerate(history.columns):
        made = history.preparation.states.get(entry.of)
        if made is not None and made.kind != "numeric":
            state[place] = _common(band.states[:, place], band.patient)[0]
        elif history.names[place] in columns:
            state[place] = mean[place]
    return state


def _common(column: torch.Tensor, patient: torch.Tensor) -> tuple[float, int]:
    """The value that most patients have, and how many do."""
    values, code = torch.unique(column, return_inverse=True)
    patients = distinct_patients(code, patient, len(values))
    return float(values[patients.argmax()]), int(patients.max())


def _shown(
    state: torch.Tensor, band: Rows, history: History, columns: Sequence[str]
) -> dict[str, float]:
    """The state as a clinician reads it, to two digits; no level of fewer than ten patients."""
    shown = {}
    for name in columns:
        made, place = history.preparation.states[name], history.names.index(name)
        value = float(made.inverse(np.array([float(state[place])]))[0])
        if made.kind == "numeric":
            shown[name] = float(f"{value:.2g}")
        elif _common(band.states[:, place], band.patient)[1] >= MIN_PATIENTS:
            shown[name] = value
    return shown


def _axis(history: History, name: str) -> dict[str, Any]:
    """A dose's grid: evenly on the learner's scale, at doses that can be given."""
    made, action = history.preparation.doses[name], history.preparation.cohort.actions[name]
    place = list(history.preparation.doses).index(name)
    scaled = torch.full((GRID, len(history.preparation.doses)), -1.0)
    scaled[:, place] = torch.linspace(-1, 1, GRID)
    given = torch.unique(administrable(history, scaled)[:, place])
    return {
        "dose": name,
        "label": action.label or name,
        "unit": action.unit,
        "levels": list(action.levels),
        "scaled": [float(value) for value in given],
        "values": [float(value) for value in made.inverse(given.numpy())],
    }
