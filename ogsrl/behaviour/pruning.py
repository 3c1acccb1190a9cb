"""Trees of crowds: every split that is kept has ten patients or more on both of its sides.

Called by boosted.py on all trees that it grows. It never keeps an end or a threshold of fewer.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ogsrl.behaviour.crowds import Codes
from ogsrl.behaviour.trees import Trees
from ogsrl.preparation.coverage import MIN_PATIENTS

Rows = npt.NDArray[np.float32]
#: Rows asked for their ends at once.
BLOCK = 4096


def of_crowds(trees: Trees, rows: Rows, patient: Codes) -> Trees:
    """The same trees without splits that have fewer than ten patients of `rows` on a side.

    From the root down, such a split sends all rows to the side of more patients, whose own splits
    then see them too. Of an end that got rows so, the value is the mean over all its rows of what
    they were given before. The rows are those that the trees grew on.
    """
    if not len(trees.value):
        return trees
    threshold = trees.threshold.clone()
    found = Trees(trees.feature.clone(), threshold, trees.value.clone(), trees.output, trees.base)
    ends = np.concatenate([found.ends(block).numpy() for block in _blocks(rows)])
    most = int(np.sort(np.bincount(patient))[-(MIN_PATIENTS - 1) :].sum())
    for i, end in enumerate(np.ascontiguousarray(ends.T)):
        feature, value = found.feature[i].numpy(), found.value[i].numpy()
        _prune(feature, threshold[i].numpy(), value, rows, patient, end, most)
    return found


def _prune(
    feature: npt.NDArray[np.int64],
    threshold: Rows,
    value: npt.NDArray[np.float64],
    rows: Rows,
    patient: Codes,
    end: npt.NDArray[Any],
    most: int,
) -> None:
    """Change one tree; `end` of each row with it. More than `most` rows are ten patients surely."""
    depth = len(value).bit_length() - 1
    before, size = end.copy(), np.bincount(end, minlength=len(value))
    for level in range(depth):
        first, below = 2**level - 1, depth - level - 1
        sides = size.reshape(2 ** (level + 1), -1).sum(1).reshape(-1, 2)
        small = np.isfinite(threshold[first : 2 * first + 1]) & (sides.min(1) <= most)
        for node in np.flatnonzero(small):
            of = [np.flatnonzero(end >> below == 2 * node + right) for right in (0, 1)]
            people = [len(np.unique(patient[side])) for side in of]
            if min(people) >= MIN_PATIENTS:
                continue
            kept = int(people[1] > people[0])
            feature[first + node], threshold[first + node] = 0, -np.inf if kept else np.inf
            moved, at = of[1 - kept], np.full(len(of[1 - kept]), 2 * node + kept)
            for deeper in range(level + 1, depth):
                split = 2**deeper - 1 + at
                at = 2 * at + (rows[moved, feature[split]] > threshold[split])
            end[moved] = at
            size = np.bincount(end, minlength=len(value))
    if np.array_equal(end, before):
        return
    given = np.bincount(end, value[before], minlength=len(value))
    value[:] = given / np.maximum(size, 1)


def _blocks(rows: Rows) -> tuple[torch.Tensor, ...]:
    return torch.split(torch.from_numpy(rows), BLOCK)
