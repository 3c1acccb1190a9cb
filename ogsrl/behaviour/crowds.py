"""Numbers of a crowd: what is kept of a column of doses rests on at least ten patients.

Called by what is saved or told: grids, boosted tables, counts. It never returns one patient's
value: a number was charted alike for ten patients, or is a mean over ten.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ogsrl.preparation.coverage import MIN_PATIENTS

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]


def shown(patients: int) -> int | None:
    """The number of patients, unless it is one to nine."""
    return patients if patients == 0 or patients >= MIN_PATIENTS else None


def crowds(values: Floats, patient: Codes, shares: Floats) -> Codes:
    """The crowd of each value: groups cut at about these shares of the values in rising order.

    A crowd ends at its share, or later where it holds fewer than ten patients by then or would
    part equal values. What is left at the end joins the last one. Fewer than ten patients are no
    crowd: -1.

    >>> values, patient = np.repeat([1.0, 2.0, 3.0, 4.0], 10), np.tile(np.arange(10), 4)
    >>> crowds(values, patient, np.array([0.2, 0.5])).tolist()[::10]
    [0, 1, 2, 2]
    >>> crowds(values, patient // 2, np.array([0.2, 0.5])).tolist()[::10]
    [-1, -1, -1, -1]
    """
    order = np.argsort(values, kind="stable")
    rising, before = values[order], _before(patient[order])
    walls = [0]
    for share in (*shares, 1.0):
        start, end = walls[-1], int(np.ceil(share * len(values)))
        if end <= start:
            continue
        newcomers = np.flatnonzero(before[start:] < start)
        if len(newcomers) < MIN_PATIENTS:
            break
        end = max(end, start + int(newcomers[MIN_PATIENTS - 1]) + 1)
        walls.append(int(np.searchsorted(rising, rising[end - 1], side="right")))
    found = np.full(len(values), -1)
    if len(walls) > 1:
        walls[-1] = len(values)
        found[order] = np.repeat(np.arange(len(walls) - 1), np.diff(walls))
    return found


def means(values: Floats, patient: Codes, crowd: Codes) -> Floats:
    """The mean of each crowd over its patients, one vote each however many values they have.

    >>> means(np.array([1.0, 3.0, 4.0, 9.0]), np.array([5, 5, 6, 6]), np.array([0, 0, 0, 1]))
    array([3., 9.])
    """
    people = int(patient.max(initial=0)) + 1
    pairs, of = np.unique(crowd * people + patient, return_inverse=True)
    votes = np.bincount(of, values) / np.bincount(of)
    voted = pairs // people
    return np.asarray(np.bincount(voted, votes) / np.bincount(voted))


def centres(values: Floats, patient: Codes, crowd: Codes) -> Floats:
    """The value most often charted in each crowd, of those charted for ten patients, or its mean.

    >>> values, patient = np.array([1.0] * 12 + [2.0] * 9 + [5.0] * 9), np.arange(30)
    >>> centres(values, patient, np.repeat([0, 1], [12, 18]))
    array([1. , 3.5])
    """
    people = int(patient.max(initial=0)) + 1
    levels, first, level, rows = np.unique(
        values, return_index=True, return_inverse=True, return_counts=True
    )
    charted = np.bincount(np.unique(level * people + patient) // people, minlength=len(levels))
    rising = np.argsort(rows, kind="stable")
    rising = rising[charted[rising] >= MIN_PATIENTS]
    found = means(values, patient, crowd)
    found[crowd[first[rising]]] = levels[rising]  # the last, so the commonest, stays
    return found


def _before(patient: Codes) -> Codes:
    """Where each patient was last seen before each place; -1 where never."""
    by_patient = np.argsort(patient, kind="stable")
    before = np.full(len(patient), -1)
    same = np.diff(patient[by_patient]) == 0
    before[by_patient[1:][same]] = by_patient[:-1][same]
    return before
