"""Measures that leakage checks rest on: ranks, ratios of variance, held-out regressions.

Pure functions of arrays; nothing here knows what a column means.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
MIN_ROWS = 100
BINS = 100


def ranks(values: Floats) -> Floats:
    """Ranks from 0, ties sharing their mean.

    >>> ranks(np.array([3.0, 1.0, 3.0])).tolist()
    [1.5, 0.0, 1.5]
    """
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    first = np.cumsum(count) - count
    result: Floats = (first + (count - 1) / 2)[place]
    return result


def auroc(score: Floats, label: Floats) -> float:
    """Chance that a positive scores above a negative, whichever direction is larger.

    >>> auroc(np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 1.0, 0.0, 0.0]))
    1.0
    """
    known = ~(np.isnan(score) | np.isnan(label))
    positive = label[known] > 0
    many, few = int(positive.sum()), int((~positive).sum())
    if min(many, few) < 1:
        return np.nan
    above = ranks(score[known])[positive].sum() - many * (many - 1) / 2
    area = above / (many * few)
    return float(max(area, 1 - area))


def explained_by_bins(target: Floats, by: Floats) -> float:
    """Share of the variance of target's ranks between bins of `by`: 1 if it is a function of it.

    >>> dose = np.tile([0.0, 1.0, 2.0, 3.0], 50)
    >>> explained_by_bins(dose**2 - dose, dose)
    1.0
    """
    known = ~(np.isnan(target) | np.isnan(by))
    if known.sum() < MIN_ROWS:
        return np.nan
    rank = ranks(target[known])
    levels, place = np.unique(by[known], return_inverse=True)
    if len(levels) > BINS:
        place = (ranks(by[known]) * BINS / known.sum()).astype(np.int64)
    count = np.bincount(place)
    mean = np.bincount(place, weights=rank) / np.maximum(count, 1)
    total = float(((rank - rank.mean()) ** 2).sum())
    if total == 0:
        return np.nan
    within = float(((rank - mean[place]) ** 2).sum())
    # a bin of one row explains itself: count what bins cost
    freedom = len(rank) - int((count > 0).sum())
    return 1 - (within / freedom) / (total / (len(rank) - 1)) if freedom > 0 else np.nan


def residual(target: Floats, by: Floats, held_out: Flags) -> tuple[float, Floats]:
    """Squared error on held-out rows of a linear fit on the others, and its scaled weights."""
    center, scale = by[~held_out].mean(axis=0), by[~held_out].std(axis=0)
    scaled = (by - center) / np.where(scale > 0, scale, 1)
    fit = scaled[~held_out]
    level = target[~held_out].mean()
    ridge = 1e-9 * len(fit) * np.eye(fit.shape[1])
    weights = np.linalg.solve(fit.T @ fit + ridge, fit.T @ (target[~held_out] - level))
    error = target[held_out] - level - scaled[held_out] @ weights
    return float((error**2).sum()), weights


def gain(target: Floats, base: Floats, more: Floats, held_out: Flags) -> tuple[float, Floats]:
    """Share of held-out error that `more` takes away beyond `base`, and its weights."""
    if min(held_out.sum(), (~held_out).sum()) < MIN_ROWS or np.ptp(target) == 0:
        return np.nan, np.zeros(more.shape[1])
    before, _ = residual(target, base, held_out)
    after, weights = residual(target, np.column_stack([base, more]), held_out)
    return (1 - after / before if before > 0 else np.nan), weights[base.shape[1] :]
