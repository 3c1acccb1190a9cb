"""The SOFA score from its six parts (Vincent et al. 1996, Intensive Care Med 22:707).

Called by the MEDS source hour by hour, by that of the AI-Clinician's table row by row. Every
boundary belongs to exactly one score; a part of which nothing is known counts 0, as Sepsis-3 has
it, and is told as unknown.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]

PARTS = ("respiration", "coagulation", "liver", "circulation", "consciousness", "kidney")
#: What parts are made of; of the last 24 hours the worst, urine as their sum.
READ = (
    *("pf_ratio", "ventilated", "platelets", "bilirubin", "map", "dopamine", "pressors"),
    *("gcs", "creatinine", "urine_day"),
)


def sofa(worst: Mapping[str, Doubles]) -> dict[str, Doubles]:
    """Each part's score, NaN where nothing is known of it.

    Args:
        worst: By name of `READ`: PaO2/FiO2 (mmHg), whether ventilated, platelets (10^9/L),
            bilirubin (mg/dL), mean pressure (mmHg), dopamine (ug/kg/min), other vasopressors
            (norepinephrine equivalents, ug/kg/min), Glasgow coma scale, creatinine (mg/dL), urine
            (mL a day; NaN before a whole day was measured).

    >>> known = {"platelets": [90.0], "map": [65.0], "pressors": [0.05], "creatinine": [5.0]}
    >>> rows = {name: np.array(known.get(name, [np.nan])) for name in READ}
    >>> parts = sofa(rows)
    >>> parts["coagulation"].item(), parts["liver"].item(), total(parts).item()
    (2.0, nan, 9.0)
    """
    ratio, breathed = worst["pf_ratio"], worst["ventilated"] > 0
    respiration = _below(ratio, (400, 300))
    helped = breathed & (ratio < 200)
    respiration = np.where(helped, np.where(ratio < 100, 4.0, 3.0), respiration)
    pressors, dopamine = worst["pressors"], worst["dopamine"]
    circulation = np.fmax(_below(worst["map"], (70,)), np.where(dopamine > 0, 2.0, np.nan))
    circulation = np.fmax(circulation, np.where((dopamine > 5) | (pressors > 0), 3.0, np.nan))
    circulation = np.fmax(circulation, np.where((dopamine > 15) | (pressors > 0.1), 4.0, np.nan))
    urine = worst["urine_day"]
    dry = np.where(np.isnan(urine), np.nan, np.where(urine < 200, 4.0, 3.0 * (urine < 500)))
    return {
        "respiration": respiration,
        "coagulation": _below(worst["platelets"], (150, 100, 50, 20)),
        "liver": _from(worst["bilirubin"], (1.2, 2.0, 6.0, 12.0)),
        "circulation": circulation,
        "consciousness": _below(worst["gcs"], (15, 13, 10, 6)),
        "kidney": np.fmax(_from(worst["creatinine"], (1.2, 2.0, 3.5, 5.0)), dry),
    }


def total(parts: Mapping[str, Doubles]) -> Doubles:
    """The sum; unknown parts count 0, and a patient of whom nothing is known has none."""
    each = np.stack([parts[name] for name in PARTS])
    known = ~np.isnan(each).all(axis=0)
    return np.where(known, np.nansum(each, axis=0), np.nan)


def _below(value: Doubles, limits: tuple[float, ...]) -> Doubles:
    """One point for each limit that the value is below."""
    return np.where(np.isnan(value), np.nan, sum((value < limit) * 1.0 for limit in limits))


def _from(value: Doubles, limits: tuple[float, ...]) -> Doubles:
    """One point for each limit that the value has reached."""
    return np.where(np.isnan(value), np.nan, sum((value >= limit) * 1.0 for limit in limits))
