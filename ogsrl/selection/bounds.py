"""Bounds of means over patients and cold fits, and which limits are surely kept.

Called by `select`, which takes the interval as an argument: another one fits in the same place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Bound:
    """An estimate between one-sided bounds, each at `level`."""

    estimate: float
    se: float
    low: float
    high: float
    level: float


#: (fits, patients) values and a level -> the mean with one-sided bounds at that level.
Interval = Callable[[torch.Tensor, float], Bound]


def normal_interval(values: torch.Tensor, level: float, *, resampled: bool = False) -> Bound:
    r"""The mean, z standard errors either way.

        SE^2 = sd^2_patients / patients + sd^2_fits / k

    sd_patients is of the fits' mean value, sd_fits of the patients' mean value. Fits that differ by
    their seeds alone err less on average: k = fits. Fits on bootstrap samples of patients tell how
    far another cohort's would be, which no number of them averages away: k = 1.

    Args:
        values: (fits, patients).
        level: E.g. .95: one-sided.
        resampled: Whether each fit had its own bootstrap sample.

    >>> round(normal_interval(torch.tensor([[0.1, 0.3], [0.1, 0.3]]), 0.975).se, 6)
    0.1
    """
    fits, patients = values.shape
    exact = values.double()
    people = float(exact.mean(0).var()) / patients if patients > 1 else math.inf
    apart = float(exact.mean(1).var()) if fits > 1 else 0.0
    se = math.sqrt(people + apart / (1 if resampled else fits))
    mean = float(exact.mean())
    z = float(torch.special.ndtri(torch.tensor(level, dtype=torch.float64)))
    return Bound(mean, se, mean - z * se, mean + z * se, level)


def interval_of(*, resampled: bool) -> Interval:
    """The normal interval, for fits of this kind."""
    return partial(normal_interval, resampled=resampled)


@dataclass(frozen=True)
class Kept:
    """Whether a limit is surely kept: whether the upper bound is within it."""

    bound: Bound
    limit: float
    kept: bool


def holm(
    tests: Mapping[Key, tuple[torch.Tensor, float]], confidence: float, interval: Interval
) -> dict[Key, Kept]:
    """Which of many limits are kept, all such claims together right with this confidence.

    Step-down: with k limits not yet shown to be kept, each is asked at 1 - (1 - confidence) / k;
    whenever some are shown, the rest are asked again, less strictly.

    Args:
        tests: (fits, patients) values whose mean must not exceed a limit.
        confidence: Of all together.
        interval: How bounds are made.
    """
    found: dict[Key, Kept] = {}
    left = list(tests)
    while left:
        level = 1 - (1 - confidence) / len(left)
        asked = {key: interval(tests[key][0], level) for key in left}
        shown = [key for key in left if asked[key].high <= tests[key][1]]
        settled = shown or left
        for key in settled:
            found[key] = Kept(asked[key], tests[key][1], key in shown)
        left = [key for key in left if key not in found]
    return {key: found[key] for key in tests}
