"""Monomials of what a guardian reads, their training mean, and the inverse Christoffel function.

Called by christoffel.py. Moments of two parts add, so a fit is one pass over shards and M can be
summed across machines. Nothing here keeps a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import combinations_with_replacement

import torch

from ogsrl.preparation.blocks import CACHED, blocks, side_by_side

#: Added to the correlation matrix of the monomials: conditions the factor and decides no verdict.
RIDGE = 1e-8
#: Rows of the triangular factor multiplied at once.
ROWS = 128


@dataclass(frozen=True)
class Basis:
    """All monomials up to a degree of standardised columns; those without a dose come first.

    So the leading block of M's Cholesky factor is that of the states alone, and one triangular
    product answers both q(s) and q(s,a). Of the columns of a group (one of two values, or
    the levels of one column) at most one is a factor, once: more says nothing new.

    Attributes:
        degree: Largest total degree.
        states: How many of the columns are states; the rest are doses.
        center: Mean of each column.
        scale: Deviation of each column.
        groups: Columns of which one enters at most once.

    >>> basis = Basis(2, 1, torch.zeros(2), torch.ones(2))
    >>> basis.monomials, basis.state_size
    (((), (0,), (0, 0), (1,), (0, 1), (1, 1)), 3)
    >>> basis(torch.tensor([[2.0, 3.0]])).T.tolist()
    [[1.0, 2.0, 4.0, 3.0, 6.0, 9.0]]
    """

    degree: int
    states: int
    center: torch.Tensor
    scale: torch.Tensor
    groups: tuple[frozenset[int], ...] = ()

    @cached_property
    def monomials(self) -> tuple[tuple[int, ...], ...]:
        """Each as the columns that it multiplies, rising."""
        every = [
            factors
            for degree in range(self.degree + 1)
            for factors in combinations_with_replacement(range(len(self.center)), degree)
            if all(sum(f in group for f in factors) <= 1 for group in self.groups)
        ]
        return tuple(sorted(every, key=lambda f: (self._doses(f), len(f))))

    def _doses(self, factors: tuple[int, ...]) -> bool:
        return any(column >= self.states for column in factors)

    def __len__(self) -> int:
        return len(self.monomials)

    @cached_property
    def state_size(self) -> int:
        """How many monomials hold no dose."""
        return sum(not self._doses(factors) for factors in self.monomials)

    @cached_property
    def _growth(self) -> tuple[tuple[torch.Tensor, torch.Tensor], ...]:
        """Blocks of monomials, each from earlier ones: (which earlier one, times which column)."""
        place = {factors: i for i, factors in enumerate(self.monomials)}
        blocks: list[list[tuple[int, ...]]] = []
        for factors in self.monomials[1:]:
            key = self._doses(factors), len(factors)
            if not blocks or (self._doses(blocks[-1][0]), len(blocks[-1][0])) != key:
                blocks.append([])
            blocks[-1].append(factors)
        return tuple(
            (torch.tensor([place[f[:-1]] for f in b]), torch.tensor([f[-1] for f in b]))
            for b in blocks
        )

    def scaled(self, z: torch.Tensor) -> torch.Tensor:
        """Columns with mean 0 and deviation 1."""
        return (z - self.center.to(z.dtype)) / self.scale.to(z.dtype)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """(monomials, rows): their values at each row of scaled columns."""
        x = x.T.contiguous()
        values = x.new_ones(1, x.shape[1])
        for earlier, column in self._growth:
            values = torch.cat([values, values[earlier] * x[column]])
        return values


@dataclass(frozen=True)
class Moments:
    """The sum of w e e^T over rows, with w = 1 / rows of the row's patient; parts add.

    >>> basis = Basis(1, 1, torch.zeros(1), torch.ones(1))
    >>> one = Moments.of(basis, torch.tensor([[0.0], [2.0]]), torch.tensor([0.5, 0.5]))
    >>> two = Moments.of(basis, torch.tensor([[3.0]]), torch.tensor([1.0]))
    >>> (one + two).mean.tolist()
    [[1.0, 2.0], [2.0, 5.5]]
    """

    total: torch.Tensor
    weight: float

    @classmethod
    def of(cls, basis: Basis, x: torch.Tensor, weight: torch.Tensor) -> Moments:
        """Of rows of scaled columns, in float64, a block at a time."""
        total = cls.nothing(basis).total
        for part, w in blocks(x, weight, size=CACHED):
            e = basis(part.double())
            total += (e * w.double()) @ e.T
        return cls(total, float(weight.double().sum()))

    @classmethod
    def nothing(cls, basis: Basis) -> Moments:
        """Of no row; what a sum begins with."""
        return cls(torch.zeros(len(basis), len(basis), dtype=torch.float64), 0.0)

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.total + other.total, self.weight + other.weight)

    @property
    def mean(self) -> torch.Tensor:
        """M: the mean with each patient weighing 1."""
        return self.total / self.weight

    def inverse_factor(self, ridge: float = RIDGE) -> torch.Tensor:
        """L^-1 with L L^T = M, ridge added to M's correlations: |L^-1 e|^2 = e^T M^-1 e."""
        mean = self.mean
        size = mean.diagonal().sqrt().clip(min=1e-3)  # what never differed from 0 is far out
        correlations = mean / size[:, None] / size
        correlations.diagonal().add_(ridge)
        lower = torch.linalg.cholesky(correlations)
        unit = torch.eye(len(mean), dtype=mean.dtype)
        inverse: torch.Tensor = torch.linalg.solve_triangular(lower, unit, upper=False)
        return inverse / size


@dataclass(frozen=True)
class Polynomial:
    """q(z) = e(z)^T M^-1 e(z), for the states alone and with the doses.

    Attributes:
        basis: The monomials e.
        factor: L^-1 with L L^T = M, lower triangular, float64.
    """

    basis: Basis
    factor: torch.Tensor

    @cached_property
    def _single(self) -> list[torch.Tensor]:
        return self._rows(torch.float32)

    def _rows(self, dtype: torch.dtype) -> list[torch.Tensor]:
        """Some rows of the factor at a time, without the zeros that end them all."""
        size, every = self.basis.state_size, len(self.basis)
        ends = [*range(ROWS, size, ROWS), size, *range(size + ROWS, every, ROWS), every]
        starts = [0, *ends[:-1]]
        pairs = zip(starts, ends, strict=True)
        return [self.factor[a:b, :b].to(dtype).contiguous() for a, b in pairs if b > a]

    def __call__(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """q(s) and q(s,a) of each row of scaled columns, in their precision."""
        e = self.basis(x)
        of_states = of_pairs = torch.zeros_like(e[0])
        for rows in self._single if x.dtype == torch.float32 else self._rows(x.dtype):
            of_pairs = of_pairs + (rows @ e[: rows.shape[1]]).square().sum(dim=0)
            if rows.shape[1] <= self.basis.state_size:
                of_states = of_pairs
        return of_states, of_pairs

    def in_blocks(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The same, a few rows at a time."""
        parts = side_by_side(lambda block: self(*block), blocks(x, size=CACHED))
        return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])
