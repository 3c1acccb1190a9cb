"""Intervals of estimates over patients: the bias-corrected bootstrap, and empirical Bernstein.

Called by estimators. Whoever asks says the range that the quantity can have: an interval never
leaves it, and where all patients say the same, it is as wide as their number allows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from ogsrl.evaluation.terms import Terms

#: Numbers of a block of samples of patients, and the most that are kept for the next estimate.
BLOCK, KEPT = 8_000_000, 100_000_000


@dataclass(frozen=True)
class Interval:
    """Two-sided."""

    low: float
    high: float

    def within(self, low: float, high: float) -> Interval:
        """What of it is possible."""
        return Interval(min(max(self.low, low), high), max(min(self.high, high), low))

    def holds(self, value: float) -> bool:
        """Whether the value is in it."""
        return self.low <= value <= self.high


class Samples:
    """Bootstrap samples of patients, the same for every estimate that is asked with them.

    Estimates whose errors are shared then have intervals whose errors are shared.
    """

    def __init__(self, count: int, generator: torch.Generator) -> None:
        self.count = count
        self._seed = int(torch.randint(2**31, (1,), generator=generator))
        self._kept: dict[int, torch.Tensor] = {}

    def of(self, patients: int) -> Iterator[torch.Tensor]:
        """(samples, patients) how often each patient is drawn, in blocks of samples."""
        size = max(1, BLOCK // patients)
        if patients * self.count <= KEPT and patients not in self._kept:
            self._kept = {patients: torch.cat(list(self._drawn(patients, size)))}
        blocks = self._kept.get(patients)
        for block in self._drawn(patients, size) if blocks is None else torch.split(blocks, size):
            yield block.double()

    def _drawn(self, patients: int, size: int) -> Iterator[torch.Tensor]:
        generator = torch.Generator().manual_seed(self._seed)
        for start in range(0, self.count, size):
            rows = min(size, self.count - start)
            drawn = torch.randint(patients, (rows, patients), generator=generator)
            counts = torch.zeros(rows, patients, dtype=torch.int16)
            yield counts.scatter_add_(1, drawn, torch.ones_like(counts))


def bca(terms: Terms, level: float, samples: Samples, span: float) -> Interval:
    r"""Bias-corrected and accelerated bootstrap over patients (Efron 1987).

        ends = quantiles at Phi(z0 + (z0 +- z) / (1 - a (z0 +- z))),
        z0 = Phi^-1(share of samples below the estimate),
        a = sum (m - x_i)^3 / (6 (sum (m - x_i)^2)^1.5),   x_i the estimate without patient i

    Args:
        terms: What is estimated.
        level: E.g. .95.
        samples: Of patients.
        span: How far apart two values of the quantity can be.
    """
    estimate, n = terms.estimate, len(terms)
    found = torch.cat([terms.sampled(counts) for counts in samples.of(n)])
    if float(found.max() - found.min()) <= 1e-12 * max(span, 1e-300):
        # nobody differs: what so many patients leave open ("rule of three")
        open_ = span * min(1.0, math.log(2 / (1 - level)) / n)
        return Interval(estimate - open_, estimate + open_)
    below = float((found < estimate).double().mean() + (found == estimate).double().mean() / 2)
    bias = _quantile(min(max(below, 1 / (2 * samples.count)), 1 - 1 / (2 * samples.count)))
    apart = terms.without_each()
    apart = apart.mean() - apart
    apart = apart / apart.abs().max().clip(min=1e-300)  # their skewness alone is asked for
    spread = float(apart.square().sum())
    skew = float(apart.pow(3).sum()) / (6 * spread**1.5) if spread > 0 else 0.0
    ends = []
    for share in ((1 - level) / 2, (1 + level) / 2):
        moved = bias + _quantile(share)
        ends.append(_normal(bias + moved / max(1 - skew * moved, 1e-3)))
    at = torch.tensor(ends, dtype=torch.float64)
    low, high = torch.quantile(found, at).tolist()
    return Interval(low, high)


def bernstein(values: torch.Tensor, largest: float, level: float) -> float:
    r"""A bound that the mean of values in [0, largest] is above, one-sided (Maurer, Pontil 2009).

        mean - sqrt(2 var log(2/d) / n) - 7 largest log(2/d) / (3 (n - 1)),   d = 1 - level

    `largest` must be known before the values are seen.

    >>> import torch
    >>> round(bernstein(torch.ones(1000), 1.0, 0.95), 4)
    0.9914
    """
    n, exact = len(values), values.double()
    if n < 2:
        return 0.0
    logs = math.log(2 / (1 - level))
    half = math.sqrt(2 * float(exact.var()) * logs / n) + 7 * largest * logs / (3 * (n - 1))
    return max(float(exact.mean()) - half, 0.0)


def _quantile(share: float) -> float:
    return float(torch.special.ndtri(torch.tensor(share, dtype=torch.float64)))


def _normal(z: float) -> float:
    return float(torch.special.ndtr(torch.tensor(z, dtype=torch.float64)))
