"""The written-down b of the simulator's clinicians for one dose: their first vasopressor.

Called by the behaviour benchmark, which asks how much of a marginal clinician's doses they hardly
ever give. Computed, not sampled; tests hold it against doses drawn.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import ndtr

from ogsrl.sources.simulator import SimulatorConfig
from ogsrl.sources.simulator.clinicians import (
    PERSON_SD,
    RESIDUAL_SD,
    SITE_SD,
    needs,
    pressor_dose,
    remember,
)
from ogsrl.sources.simulator.config import DOSE_BOUNDS, DOSE_INCREMENTS

Floats = npt.NDArray[np.float64]
NAME: Final = "vasopressor"
UNIT: Final = DOSE_INCREMENTS[NAME]
LEVELS: Final = round(DOSE_BOUNDS[NAME][1] / UNIT) + 1
#: What clinicians weigh, of a first row.
SEEN: Final = ["map", "lactate", "urine", "cvp", "pf_ratio", "sofa", "weight", "step"]


def dose_shares(doses: pd.Series) -> Floats:
    """Share of each recorded vasopressor dose; doses never charted are left out."""
    levels = (doses.dropna() / UNIT).round().astype(int)
    return np.bincount(levels, minlength=LEVELS) / len(levels)


def mass_below(chances: Floats, shares: Floats, least: float) -> float:
    """Mass of these dose shares on doses whose chance is below `least`, mean over rows.

    >>> mass_below(np.array([[0.9, 0.1], [0.5, 0.5]]), np.array([0.2, 0.8]), 0.2)
    0.4
    """
    return float(((chances < least) @ shares).mean())


def first_pressor(rows: pd.DataFrame, config: SimulatorConfig) -> Floats:
    """(rows, recorded doses) chances of each dose at the first step, whoever is in charge.

    Urges are normal around the need, with the spread of sites, persons and residuals; blunders
    stop the vasopressor or, evenly from .5 to 1, surge it. Sites lie in truth on a ladder, whose
    ends are nearer than a normal's: doses far from the need are even rarer than told here.

    Args:
        rows: First rows of stays as `simulate` tells them.
        config: Of the same simulation, without confounding.
    """
    charted = {str(name): column.to_numpy(float) for name, column in rows[SEEN].items()}
    nothing = {name: np.zeros(len(rows)) for name in DOSE_BOUNDS}
    need = needs(remember({}, charted), charted, nothing)[NAME]
    spread = np.sqrt(SITE_SD[NAME] ** 2 + PERSON_SD[NAME] ** 2 + RESIDUAL_SD[NAME] ** 2)
    urges = np.linspace(0.0, 12.0, 120_001)
    walls = np.interp((np.arange(1, LEVELS) - 0.5) * UNIT, pressor_dose(urges), urges)
    above = ndtr((need[:, None] - walls) / spread)  # small chances are whole only from above
    ends = np.ones((len(rows), 1)), np.zeros((len(rows), 1))
    usual = -np.diff(np.concatenate([ends[0], above, ends[1]], 1), axis=1)
    stop, surge = np.zeros(LEVELS), np.zeros(LEVELS)
    stop[0] = 1.0
    low, high = round(0.5 / UNIT), round(1.0 / UNIT)
    surge[low : high + 1] = 1.0
    surge[[low, high]] = 0.5
    blunder = config.unsafe_share / 3
    return (1 - 2 * blunder) * usual + blunder * (stop + surge / surge.sum())
