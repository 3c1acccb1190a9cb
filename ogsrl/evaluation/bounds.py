"""Bounds of a mean over patients and cold fits of fitted Q evaluation.

Called by the estimator `fitted`, by selection and for the audit: all mean the same by a standard
error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
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

    def wider(self, times: float) -> Bound:
        """Around the same estimate.

        >>> Bound(0.25, 0.125, 0.0, 0.5, 0.95).wider(2.0)
        Bound(estimate=0.25, se=0.25, low=-0.25, high=0.75, level=0.95)
        """
        mean = self.estimate
        low, high = mean - times * (mean - self.low), mean + times * (self.high - mean)
        return replace(self, se=times * self.se, low=low, high=high)

    def less_sure(self, missed: float) -> Bound:
        """Where an estimate also misses the truth by this much, as a standard deviation.

        >>> Bound(0.25, 0.3, -0.25, 0.75, 0.95).less_sure(0.4).se
        0.5
        """
        return _around(self.estimate, math.hypot(self.se, missed), self.level)


def normal_interval(
    values: torch.Tensor, level: float, *, resampled: bool = False, networks: int = 1
) -> Bound:
    r"""The mean, z standard errors either way.

        SE^2 = sd^2_patients / patients + var_fits

    sd_patients is of the fits' mean value. A fit is the mean of m networks; v is the variance of
    the k fits' means. Fits that differ by their seeds alone err less on average: var_fits = v / k.
    Fits on bootstrap samples of patients differ as cohorts would, by s^2, and by w / m, w the
    variance within a fit. Their mean errs by s^2 for the cohort that they share, by s^2 / k for the
    samples drawn from it, and by w / (m k):

        var_fits = max((1 + 1 / k) v - w / m, v / k)   (w = 0 where m = 1).

    Five fits tell v but roughly, and z does not allow for it: measured where the truth is known,
    such a bound at .95 holds in about .9 (tests/evaluation/test_bounds.py).

    Args:
        values: (fits x networks, patients), the networks of a fit together.
        level: E.g. .95: one-sided.
        resampled: Whether each fit had its own bootstrap sample.
        networks: m.

    >>> round(normal_interval(torch.tensor([[0.1, 0.3], [0.1, 0.3]]), 0.975).se, 6)
    0.1
    """
    exact, patients = values.double(), values.shape[1]
    means = exact.mean(1).view(-1, networks)
    fits = len(means)
    people = float(exact.mean(0).var()) / patients if patients > 1 else math.inf
    apart = float(means.mean(1).var()) if fits > 1 else 0.0
    within = float(means.var(1).mean()) if networks > 1 else 0.0
    by_seed = apart / fits
    if resampled:
        apart = max((1 + 1 / fits) * apart - within / networks, by_seed)
    se = math.sqrt(people + (apart if resampled else by_seed))
    mean = float(exact.mean())
    return _around(mean, se, level)


def _around(mean: float, se: float, level: float) -> Bound:
    z = float(torch.special.ndtri(torch.tensor(level, dtype=torch.float64)))
    return Bound(mean, se, mean - z * se, mean + z * se, level)


#: (networks, patients) values and a level -> the mean with one-sided bounds at that level.
Interval = Callable[[torch.Tensor, float], Bound]
#: The same of values that are known already.
Asked = Callable[[float], Bound]


def interval_of(*, resampled: bool, networks: int) -> Interval:
    """The normal interval, for fits of this kind."""
    return partial(normal_interval, resampled=resampled, networks=networks)


@dataclass(frozen=True)
class Kept:
    """Whether a limit is surely kept: whether the upper bound is within it."""

    bound: Bound
    limit: float
    kept: bool


def holm(tests: Mapping[Key, tuple[Asked, float]], confidence: float) -> dict[Key, Kept]:
    """Which of many limits are kept, all such claims together right with this confidence.

    Step-down: with k limits not yet shown to be kept, each is asked at 1 - (1 - confidence) / k;
    whenever some are shown, the rest are asked again, less strictly.

    Args:
        tests: The bound, by its level, of a mean that must not exceed a limit; and the limit.
        confidence: Of all together.
    """
    found: dict[Key, Kept] = {}
    left = list(tests)
    while left:
        level = 1 - (1 - confidence) / len(left)
        asked = {key: tests[key][0](level) for key in left}
        shown = [key for key in left if asked[key].high <= tests[key][1]]
        settled = shown or left
        for key in settled:
            found[key] = Kept(asked[key], tests[key][1], key in shown)
        left = [key for key in left if key not in found]
    return {key: found[key] for key in tests}
