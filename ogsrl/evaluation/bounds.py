"""Bounds of a mean over patients and cold fits of fitted Q evaluation.

Called by the estimator `fitted` and by selection, so that both mean the same by a standard error.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Bound:
    """An estimate between one-sided bounds, each at `level`."""

    estimate: float
    se: float
    low: float
    high: float
    level: float


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
    z = float(torch.special.ndtri(torch.tensor(level, dtype=torch.float64)))
    return Bound(mean, se, mean - z * se, mean + z * se, level)
