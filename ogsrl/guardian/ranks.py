"""Where a value lies among training rows, as a rank from 0 to 1, and on above 1.

Called by christoffel.py to make answers of different kinds comparable. Interpolated, so that a
rank has a gradient; holds a few hundred quantiles and no row.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch

#: Where quantiles are kept: a hundredth apart, finer towards the end that decides verdicts.
KNOTS: tuple[float, ...] = (
    *(i / 100 for i in range(90)),
    *(0.9 + i / 1000 for i in range(90)),
    *(0.99 + i / 10000 for i in range(101)),
)
MEDIAN = KNOTS.index(0.5)
#: Values are cut here, so that every rank stays below 1 + log(1 + 1e30) = 71.
LARGEST = 1e30


@dataclass(frozen=True)
class Ranks:
    """A rising table of quantiles.

    Above the greatest training value x_n the rank goes on as 1 + log(1 + (x - x_n) / width), so
    that order and gradient stay.

    Attributes:
        quantiles: One a knot, rising.

    >>> ranks = Ranks.of(torch.arange(1.0, 1001.0), torch.ones(1000))
    >>> [round(float(r), 3) for r in ranks(torch.tensor([0.0, 500.0, 950.0, 1000.0, 2000.0]))]
    [0.0, 0.499, 0.949, 1.0, 2.1]
    """

    quantiles: torch.Tensor

    @classmethod
    def of(cls, values: torch.Tensor, weight: torch.Tensor) -> Ranks:
        """From training values, by weight."""
        order = torch.argsort(values, stable=True)
        below = torch.cumsum(weight.double()[order], 0)
        knots = torch.tensor(KNOTS, dtype=torch.float64) * below[-1]
        place = torch.searchsorted(below - 1e-9 * below[-1], knots).clip(max=len(values) - 1)
        return cls(values[order][place].clip(-LARGEST, LARGEST).double())

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        """The rank of each value."""
        table, knots = self._single if values.dtype == torch.float32 else self._double
        values = values.clip(-LARGEST, LARGEST)
        above = torch.searchsorted(table, values.detach(), right=True).clip(1, len(table) - 1)
        low, high = table[above - 1], table[above]
        share = ((values - low) / (high - low).clip(min=1e-30)).clip(0, 1)
        inside = knots[above - 1] + share * (knots[above] - knots[above - 1])
        beyond = (values - table[-1]).clip(min=0)
        return inside + torch.log1p(beyond / self.width)

    @cached_property
    def _double(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self.quantiles, torch.tensor(KNOTS, dtype=torch.float64)

    @cached_property
    def _single(self) -> tuple[torch.Tensor, torch.Tensor]:
        table, knots = self._double
        return table.float(), knots.float()

    @cached_property
    def width(self) -> float:
        """By how much a value must exceed all of training to count as far out."""
        spread = float(self.quantiles[-1] - self.quantiles[MEDIAN])
        return spread if spread > 0 else max(abs(float(self.quantiles[-1])), 1.0)
