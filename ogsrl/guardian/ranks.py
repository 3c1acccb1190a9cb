"""Where a value lies among training rows, as a rank from 0 to 1, and on above 1.

Called by christoffel.py to make answers of different kinds comparable. Interpolated, so that a
rank has a gradient; holds a few hundred means, each over at least ten patients, and no row's value.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch

from ogsrl.preparation.coverage import MIN_PATIENTS

#: Where rows are cut: a hundredth apart, finer towards the end that decides verdicts.
KNOTS: tuple[float, ...] = (
    *(i / 100 for i in range(90)),
    *(0.9 + i / 1000 for i in range(90)),
    *(0.99 + i / 10000 for i in range(101)),
)
#: Values are cut here, so that every rank stays below 1 + log(1 + 1e30) = 71.
LARGEST = 1e30


@dataclass(frozen=True)
class Ranks:
    """A rising table of values and their ranks.

    Rows in order of their value are cut at `KNOTS` into groups of at least ten patients each. A
    group's mean value x_k has the rank p_k, the share of weight up to its middle. Of the highest
    group, whose greatest value is one patient's, only how far it typically lies above the others
    is kept:

        x_n = x_(n-1) + 2 m,  p_n = 1,  log(1 + m / w) = mean of log(1 + (x - x_(n-1)) / w),

    with w = x_(n-1) less the median. Above x_n the rank goes on as 1 + log(1 + (x - x_n) / width),
    so that order and gradient stay.

    Attributes:
        values: Rising.
        shares: The rank of each.

    >>> ranks = Ranks.of(torch.arange(1.0, 1001.0), torch.ones(1000), torch.arange(1000))
    >>> [round(float(r), 3) for r in ranks(torch.tensor([0.0, 500.0, 950.0, 1000.0, 2000.0]))]
    [0.005, 0.5, 0.949, 0.996, 2.095]
    """

    values: torch.Tensor
    shares: torch.Tensor

    @classmethod
    def of(cls, values: torch.Tensor, weight: torch.Tensor, patient: torch.Tensor) -> Ranks:
        """From training values, by weight."""
        order = torch.argsort(values, stable=True)
        value = values[order].clip(-LARGEST, LARGEST).double()
        weight = weight.double()[order]
        below = torch.cumsum(weight, 0)
        knots = torch.tensor(KNOTS, dtype=torch.float64) * below[-1]
        cuts = torch.unique(torch.searchsorted(below - weight / 2, knots)).tolist()
        edges = torch.tensor(_edges(cuts, patient[order].numpy()))
        group = torch.repeat_interleave(torch.arange(len(edges) - 1), edges.diff())
        heavy = torch.bincount(group, weights=weight)
        mean = torch.bincount(group, weights=weight * value) / heavy
        mean = mean.clip(value[edges[:-1]], value[edges[1:] - 1])  # equal values stay as they are
        share = (torch.cumsum(heavy, 0) - heavy / 2) / below[-1]
        others = slice(0, max(len(mean) - 1, 1))
        kept, ranks = mean[others], share[others]
        above = (value[edges[-2] :] - kept[-1]).clip(min=0)
        width = _width(kept, ranks)
        logs = weight[edges[-2] :] * torch.log1p(above / width)
        typical = width * torch.expm1(logs.sum() / heavy[-1])
        end = kept[-1:] + 2 * typical
        return cls(torch.cat([kept, end]), torch.cat([ranks, torch.ones_like(end)]))

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        """The rank of each value."""
        return self._alone(values[None])[0]

    @cached_property
    def _alone(self) -> Tables:
        return Tables.of([self])

    @cached_property
    def width(self) -> float:
        """By how much a value must exceed the table to count as far out."""
        return _width(self.values, self.shares)


@dataclass(frozen=True)
class Tables:
    """Several tables asked at once: (tables, values) in one pass.

    Attributes:
        values: (tables, knots), each ended by its last value again to the length of the longest.
        shares: Alike.
        last: (tables, 1) the place of each table's last knot.
        width: (tables, 1).
    """

    values: torch.Tensor
    shares: torch.Tensor
    last: torch.Tensor
    width: torch.Tensor

    @classmethod
    def of(cls, tables: Sequence[Ranks]) -> Tables:
        """These, in order."""
        longest = max(len(table.values) for table in tables)

        def even(part: torch.Tensor) -> torch.Tensor:
            return torch.cat([part, part[-1:].expand(longest - len(part))])

        return cls(
            torch.stack([even(table.values) for table in tables]),
            torch.stack([even(table.shares) for table in tables]),
            torch.tensor([[len(table.values) - 1] for table in tables]),
            torch.tensor([[table.width] for table in tables], dtype=torch.float64),
        )

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        """The rank of each value in its row's table."""
        table, shares, width = self._single if values.dtype == torch.float32 else self._double
        values = values.clip(-LARGEST, LARGEST)
        found = torch.searchsorted(table, values.detach().contiguous(), right=True)
        above = found.clip(min=1).minimum(self.last)
        low, high = table.gather(1, above - 1), table.gather(1, above)
        way = ((values - low) / (high - low).clip(min=1e-30)).clip(0, 1)
        start = shares.gather(1, above - 1)
        inside = start + way * (shares.gather(1, above) - start)
        beyond = (values - table[:, -1:]).clip(min=0)
        return inside + torch.log1p(beyond / width)

    @cached_property
    def _double(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return self.values, self.shares, self.width

    @cached_property
    def _single(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return self.values.float(), self.shares.float(), self.width.float()


def _width(values: torch.Tensor, shares: torch.Tensor) -> float:
    """From the median to the last value."""
    median = int(torch.searchsorted(shares, 0.5).clip(max=len(shares) - 1))
    spread = float(values[-1] - values[median])
    return spread if spread > 0 else max(abs(float(values[-1])), 1.0)


def _edges(cuts: Iterable[int], patient: npt.NDArray[np.int64]) -> list[int]:
    """Where groups begin, and the end: at some of these cuts, with ten patients in each group."""
    edges = [len(patient)]
    for cut in sorted({0, *cuts}, reverse=True):  # from the end that decides verdicts
        if cut < edges[-1] and len(np.unique(patient[cut : edges[-1]])) >= MIN_PATIENTS:
            edges.append(cut)
    if edges[-1] > 0:  # the few that are left join the lowest group
        edges = [*(edges[:-1] or edges), 0]
    return edges[::-1]
