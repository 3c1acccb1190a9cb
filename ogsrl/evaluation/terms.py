r"""Sums of ratios of sums over patients: the one form that all weighted estimators have.

    estimate = sum_k (sum_i N_ik) / (sum_i D_ik)

Called by the estimators, and by intervals: samples of patients, and the sample without each one,
cost a matrix product. It knows nothing of policies.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ogsrl.errors import EstimateError


@dataclass(frozen=True)
class Terms:
    """Numerators and denominators of each patient, (patients, terms), in double precision.

    >>> import torch
    >>> mean = Terms.weighted(torch.tensor([1.0, 3.0, 8.0]), torch.ones(3))
    >>> mean.estimate
    4.0
    >>> mean.without_each().tolist()
    [5.5, 4.5, 2.0]
    """

    numerators: torch.Tensor
    denominators: torch.Tensor

    @classmethod
    def weighted(cls, values: torch.Tensor, weights: torch.Tensor) -> Terms:
        """The weighted mean over patients, of each column; all columns added up.

        Raises:
            EstimateError: Nobody has any weight in some column.
        """
        n, d = values.double(), weights.double()
        n, d = (x[:, None] if x.ndim == 1 else x for x in (n, d))
        if bool((d.sum(0) <= 0).any()):
            raise EstimateError("estimators: nobody has any weight at some step; refuse before")
        return cls(n, d)

    def plus(self, other: Terms, times: float = 1.0) -> Terms:
        """Both sums added up, the other one so many times."""
        return Terms(
            torch.cat([self.numerators, times * other.numerators], 1),
            torch.cat([self.denominators, other.denominators], 1),
        )

    def times(self, factor: float | torch.Tensor) -> Terms:
        """The sum so many times, or each ratio so many times."""
        return Terms(factor * self.numerators, self.denominators)

    def __len__(self) -> int:
        return len(self.numerators)

    @property
    def estimate(self) -> float:
        """The sum of ratios."""
        return float(self.ratios.sum())

    def sampled(self, counts: torch.Tensor) -> torch.Tensor:
        """(samples,) the estimate where each patient counts so often, (samples, patients).

        Where nobody with weight was drawn, a term is what it is in the whole sample.
        """
        n, d = counts @ self.numerators, counts @ self.denominators
        whole = self.ratios.expand_as(n)
        return torch.where(d > 0, n / d, whole).sum(1)

    def without_each(self) -> torch.Tensor:
        """(patients,) the estimate without each patient."""
        n = self.numerators.sum(0) - self.numerators
        d = self.denominators.sum(0) - self.denominators
        whole = self.ratios.expand_as(n)
        return torch.where(d > 0, n / d, whole).sum(1)

    @property
    def ratios(self) -> torch.Tensor:
        """(terms,) what the estimate is the sum of."""
        return self.numerators.sum(0) / self.denominators.sum(0)

    def influence(self) -> torch.Tensor:
        """(patients,) what each adds to the estimate's error, to first order; they add up to 0."""
        return self.influences().sum(1)

    def influences(self) -> torch.Tensor:
        """(patients, terms) the same of each ratio."""
        return (self.numerators - self.ratios * self.denominators) / self.denominators.sum(0)
