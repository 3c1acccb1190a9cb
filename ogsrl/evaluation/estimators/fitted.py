"""What cold fits of fitted Q evaluation say of patients that they were not fed.

The fits come from `ogsrl.evaluation.fqe`, with folds; here they become an estimate. No weights are
in it: it rests on the fits' being right, which they show by agreeing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ogsrl.evaluation.bounds import normal_interval
from ogsrl.evaluation.estimators.base import Estimate
from ogsrl.evaluation.intervals import Interval

#: Fits whose means have a larger standard deviation than this share of the range do not vote.
LARGEST_SPREAD = 0.02


@dataclass(frozen=True)
class Fits:
    """Values of patients by several cold fits.

    Attributes:
        values: (fits x networks, patients), the networks of a fit together.
        networks: Of a fit.
        steps: Logged decisions of these patients.
        low: The least that the quantity can be.
        high: The most.
        gain: Whether these are differences, whose range is twice that of the quantity.
        doubt: Why they are not to be believed, however well they agree; None: nothing is known.
        missed: How far they are off where the truth was seen: they may be as far off here.
    """

    values: torch.Tensor
    networks: int
    steps: int
    low: float
    high: float
    gain: bool = False
    doubt: str | None = None
    missed: float = 0.0

    @property
    def span(self) -> float:
        """How far apart two values of the quantity can be."""
        return (self.high - self.low) / (2 if self.gain else 1)


def estimate(fits: Fits, level: float, inflation: float) -> Estimate:
    """The mean, between bounds that know of patients and of fits.

    Args:
        fits: Each fed its own bootstrap sample of the patients in other folds.
        level: Two-sided.
        inflation: What benchmarks.coverage found such intervals to be too narrow by.
    """
    span = fits.high - fits.low
    bound = normal_interval(fits.values, (1 + level) / 2, resampled=True, networks=fits.networks)
    half = min(inflation * (bound.high - bound.estimate) + fits.missed, span)
    interval = Interval(bound.estimate - half, bound.estimate + half).within(fits.low, fits.high)
    means = fits.values.double().mean(1).view(-1, fits.networks).mean(1)
    if len(means) > 1:
        apart = float(means.std())
        told = [f"cold fits differ by {apart:.4g} (standard deviation)"]
        agree = apart <= LARGEST_SPREAD * fits.span
        if not agree:
            told.append(f"more than {LARGEST_SPREAD} of the range")
    else:
        interval, agree = Interval(fits.low, fits.high), False
        told = ["one cold fit does not say how far it may be off"]
    possible = fits.low <= bound.estimate <= fits.high
    if not possible:
        told.append("the estimate is impossible")
    if fits.doubt is not None:
        told.append(fits.doubt)
    return Estimate(
        estimate=bound.estimate,
        low=interval.low,
        high=interval.high,
        level=level,
        ess=None,
        max_weight=None,
        patients=fits.values.shape[1],
        steps=fits.steps,
        votes=agree and possible and fits.doubt is None,
        diagnosis=", ".join(told),
    )
