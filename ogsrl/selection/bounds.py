"""Bounds of means over patients and cold fits, and which limits are surely kept.

Called by `select`, which takes the interval as an argument: another one fits in the same place.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch

from ogsrl.evaluation.bounds import Bound, normal_interval

Key = TypeVar("Key", bound=Hashable)


#: (networks, patients) values and a level -> the mean with one-sided bounds at that level.
Interval = Callable[[torch.Tensor, float], Bound]


def interval_of(*, resampled: bool, networks: int) -> Interval:
    """The normal interval, for fits of this kind."""
    return partial(normal_interval, resampled=resampled, networks=networks)


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
        tests: (networks, patients) values whose mean must not exceed a limit.
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
