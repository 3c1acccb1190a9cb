"""Ranges, grids and shares guessed from data, such that no patient's value can be read off them.

Used by drafts alone. Everything is rounded outward from robust quantiles; nothing here returns a
minimum, a maximum, or any value of the data.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from ogsrl.spec.model import Interval

Floats = npt.NDArray[np.float64]
_NICE_HOURS = (0.25, 0.5, 1, 2, 3, 4, 6, 8, 12, 24)
_NICE_COUNTS = (
    *(2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 18, 20, 24, 28, 30, 36, 40, 42, 48, 56, 60, 72, 80, 90),
    *(96, 100, 120, 144, 168, 200, 240, 288, 300, 336, 400, 480, 500, 600, 672, 720, 800, 1000),
)
_GRIDS = (100, 50, 25, 10, 5, 2, 1, 0.5, 0.25, 0.1, 0.05, 0.02, 0.01, 0.005, 0.001)


def round_out(value: float, *, up: bool) -> float:
    """To one significant digit, upwards or downwards.

    >>> round_out(187.3, up=True), round_out(187.3, up=False), round_out(-0.032, up=False)
    (200.0, 100.0, -0.04)
    """
    if abs(value) < 1e-12 or not math.isfinite(value):
        return 0.0
    power = 10.0 ** math.floor(math.log10(abs(value)))
    digit = math.ceil(value / power - 1e-9) if up else math.floor(value / power + 1e-9)
    return float(f"{digit * power:.6g}")


def wide_range(values: Floats) -> Interval:
    """A range around the middle 98 %, widened by its own width on both sides.

    >>> wide_range(np.linspace(3.1, 9.7, 500))
    (0.0, 20.0)
    """
    low, high = np.quantile(values, [0.01, 0.99])
    width = max(high - low, 0.1 * abs(high), 1e-6)
    least = 0.0 if low >= 0 and low - width <= 0 else round_out(low - width, up=False)
    return least, round_out(high + width, up=True)


def dose_bound(values: Floats) -> float:
    """A largest dose: the 99th percentile of given doses and half as much again, rounded up."""
    given = values[values > 0]
    if len(given) == 0:
        return 1.0
    return round_out(1.5 * float(np.quantile(given, 0.99)), up=True)


def grid(values: Floats, bound: float) -> float | None:
    """The coarsest usual increment that nearly all given doses are multiples of.

    >>> grid(np.array([0.0, 0.5, 1.5, 4.0]), 10.0)
    0.5
    """
    given = values[values > 0]
    for step in _GRIDS if len(given) else ():
        multiple = given / step
        if step * 5 <= bound and np.mean(np.abs(multiple - np.round(multiple)) < 1e-6) >= 0.99:
            return float(step)
    return None


def share_up(share: float) -> float:
    """A share of missing rows, rounded up to a tenth with room above."""
    return round(min(1.0, math.ceil(10 * share) / 10 + 0.1), 1)


def usual_hours(hours: float) -> float:
    """The usual length of a step nearest to this one."""
    return min(_NICE_HOURS, key=lambda nice: abs(math.log(nice / max(hours, 1e-3))))


def usual_count(count: float) -> int:
    """The next usual number of steps, from 2 to 1000."""
    return next((nice for nice in _NICE_COUNTS if nice >= count - 1e-9), 1000)
