"""What the region looks like: which doses are supported for patients of typical severity.

Called by the report. A typical patient is made of medians over many patients: nobody's own row.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from ogsrl.guardian.departures import Seen, administrable
from ogsrl.guardian.protocol import Guardian, Rows
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
    state = _middle(band, history)
    usual = torch.quantile(band.doses.double(), 0.5, dim=0).float()
    grids = [torch.tensor(axis["scaled"], dtype=torch.float32) for axis in axes]
    mesh = torch.stack(torch.meshgrid(*grids, indexing="ij"), dim=-1).reshape(-1, len(grids))
    doses = usual.repeat(len(mesh), 1)
    doses[:, : len(grids)] = mesh
    inside = guardian.supported(state.repeat(len(mesh), 1), doses)
    # the median state as a clinician reads it
    made = history.preparation.states
    shown = {
        n: float(made[n].inverse(np.array([float(state[history.names.index(n)])]))[0])
        for n in guardian.layout.columns
        if n in made
    }
    return {
        "name": name,
        "patients": len(torch.unique(band.patient)),
        "state": shown,
        "supported": inside.reshape([len(grid) for grid in grids]).int().tolist(),
        "share_supported": float(inside.double().mean()),
    }


def _middle(band: Rows, history: History) -> torch.Tensor:
    """The median of every column; of levels, the most common."""
    state = band.states.median(dim=0).values.clone()
    for place, entry in enumerate(history.columns):
        made = history.preparation.states.get(entry.of)
        if made is not None and made.kind != "numeric":
            state[place] = band.states[:, place].mode().values
    return state


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
