"""Shares of steps and stays refused, with intervals over patients; small cells stay hidden.

Called by the report of the guardian. A cell of fewer than ten patients never leaves this module,
nor one that could be found by subtraction.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from ogsrl.preparation.coverage import MIN_PATIENTS, cells
from ogsrl.preparation.groups import Grouping

LEVEL = 0.95
Flags = npt.NDArray[np.bool_]
Codes = npt.NDArray[np.int64]


def share(flags: Flags, patient: Codes) -> dict[str, Any] | None:
    """Mean over patients of each one's share of flags; None below ten patients.

    The interval is Student's over patients; where all patients agree, the exact one of as many
    trials.

    >>> found = share(np.repeat([True, False], [5, 15]), np.arange(20) // 2)
    >>> found["estimate"], found["patients"], found["rows"]
    (0.25, 10, 20)
    >>> share(np.ones(9, bool), np.arange(9)) is None
    True
    """
    people, number = np.unique(patient, return_inverse=True)
    n = len(people)
    if n < MIN_PATIENTS:
        return None
    each = np.bincount(number, weights=flags) / np.bincount(number)
    estimate, spread = float(each.mean()), float(each.std(ddof=1))
    if spread > 0:
        half = float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) * spread / np.sqrt(n)
        low, high = max(0.0, estimate - half), min(1.0, estimate + half)
    else:
        edge = ((1 - LEVEL) / 2) ** (1 / n)
        low = edge * estimate
        high = 1 - edge * (1 - estimate)
    return {
        "estimate": estimate,
        "lo": float(low),
        "hi": float(high),
        "level": LEVEL,
        "se": spread / float(np.sqrt(n)),
        "patients": n,
        "rows": len(flags),
    }


def group_shares(
    grouping: Grouping, flags: Flags, patient: Codes, rows: Flags
) -> list[dict[str, Any]]:
    """The share of each group among these rows; groups of few patients without a number."""
    code, flags, patient = grouping.code[rows], flags[rows], patient[rows]
    counted = cells(code, patient, len(grouping.groups), total_known=True)
    told = []
    for i, group in enumerate(grouping.groups):
        here = code == i
        if not here.any():
            continue
        found = None if i in counted.suppressed else share(flags[here], patient[here])
        told.append({"group": group, "share": found})
    return told
