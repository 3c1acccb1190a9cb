"""What cold fits of fitted Q evaluation say of patients that they were not fed.

The fits come from `ogsrl.evaluation.fqe`, with folds; here they become an estimate. No weights are
in it: it rests on the fits' being right, which they show by agreeing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from ogsrl.evaluation.estimators.base import Estimate
from ogsrl.evaluation.intervals import Interval

#: Fits whose means have a larger standard deviation than this do not vote.
LARGEST_SPREAD = 0.02


@dataclass(frozen=True)
class Fits:
    """Values of patients by several cold fits.

    Attributes:
        values: (fits, patients), each fit the mean of its networks.
        steps: Logged decisions of these patients.
        low: The least that the quantity can be.
        high: The most.
    """

    values: torch.Tensor
    steps: int
    low: float
    high: float


def estimate(fits: Fits, level: float, inflation: float) -> Estimate:
    r"""The mean, between bounds that know of patients and of fits.

        SE^2 = sd^2_patients / patients + (1 + 1 / k) var_fits,   interval mean -+ inflation z SE

    Args:
        fits: k of them, each fed a bootstrap sample of other folds' patients.
        level: Two-sided.
        inflation: What benchmarks.coverage found such intervals to be too narrow by.
    """
    values, span = fits.values.double(), fits.high - fits.low
    count, patients = values.shape
    means = values.mean(1)
    apart = float(means.std()) if count > 1 else math.inf
    people = float(values.mean(0).var()) / patients if patients > 1 else math.inf
    error = math.sqrt(people + (1 + 1 / count) * apart**2)
    z = float(torch.special.ndtri(torch.tensor((1 + level) / 2, dtype=torch.float64)))
    mean = float(means.mean())
    half = min(inflation * z * error, span) if span > 0 else 0.0
    interval = Interval(mean - half, mean + half).within(fits.low, fits.high)
    agree = apart <= LARGEST_SPREAD * (span if span > 0 else 1.0)
    said = f"cold fits differ by {apart:.4f} (standard deviation)"
    return Estimate(
        estimate=mean,
        low=interval.low,
        high=interval.high,
        level=level,
        ess=None,
        max_weight=None,
        patients=patients,
        steps=fits.steps,
        votes=agree,
        diagnosis=said if agree else said + f", more than {LARGEST_SPREAD} of the range",
    )
