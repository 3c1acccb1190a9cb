"""The paper's guardian: a kernel density of pairs, exact, in blocks that stay in the cache.

A peer of the default guardian, fitted by the report and the benchmark. It holds rows of patients,
so it is never registered and never acts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch

from ogsrl.errors import SupportError
from ogsrl.guardian.columns import Layout
from ogsrl.guardian.config import GuardianParams
from ogsrl.guardian.protocol import Cases, Guardian, LogDensity, Shards
from ogsrl.guardian.shortage import Shortage
from ogsrl.guardian.survey import check_varied, identical, too_few
from ogsrl.preparation.coverage import MIN_PATIENTS

#: Queries and training rows multiplied at once: 4 MiB of kernels, which the cores' caches hold.
QUERIES, TRAINING = 256, 4096
#: A sum of kernels below this is summed again as logarithms, so that far cases keep their order.
FAINT = 1e-30


@dataclass(frozen=True)
class KernelDensity(Guardian):
    """Score = -log f(z), f(z) = mean_i N(z; x_i, sigma^2 I), columns scaled to [-1, 1].

    OGSRL (arXiv 2505.16242) with sigma = .535; the constant of N is left out. A training row's
    own kernel is left out of `training_scores`, which the released code forgets.

    Attributes:
        rows: (rows, columns + doses) training rows as read, unscaled.
        low: Least training value of each column.
        high: Largest.
        bandwidth: sigma.
    """

    kind: ClassVar[str] = "kde"
    holds_rows: ClassVar[bool] = True

    rows: torch.Tensor
    low: torch.Tensor
    high: torch.Tensor
    bandwidth: float

    @classmethod
    def fit(
        cls,
        batches: Shards,
        layout: Layout,
        params: GuardianParams,
        generator: torch.Generator,
        log_density: LogDensity | None = None,
    ) -> Self:
        """Keep the training rows; nothing is random and log b(a|s) is not used."""
        rows = training_rows(batches, layout)
        short = too_few(batches, MIN_PATIENTS)
        if short is not None:
            return cls.refusing(layout, short, params)
        check_varied(identical(batches, layout))
        return cls(
            layout=layout,
            threshold=None,
            shortage=None,
            rows=rows,
            low=rows.amin(dim=0),
            high=rows.amax(dim=0),
            bandwidth=params.bandwidth,
        )

    @classmethod
    def refusing(cls, layout: Layout, shortage: Shortage, params: GuardianParams) -> Self:
        """One that refuses everything, for want of patients; nothing of any patient is in it."""
        rows, none = torch.zeros(0, len(layout.names)), torch.zeros(len(layout.names))
        return cls(layout, None, shortage, rows, none, none.clone(), params.bandwidth)

    def ranks(self, cases: Cases) -> dict[str, torch.Tensor]:
        """-log density of each pair, larger is further out."""
        return {"density": math.log(len(self.rows)) - self._log_sum(cases.z)}

    def training_scores(self) -> torch.Tensor:
        """Scores of the training rows with each one's own kernel left out."""
        if len(self.rows) < 2:
            raise SupportError("train: one row; leaving it out leaves nothing to compare with")
        queries, norm = self._prepared(self.rows)
        first = range(0, len(self.rows), QUERIES)
        pairs = zip(first, torch.split(queries, QUERIES), torch.split(norm, QUERIES), strict=True)
        sums = torch.cat([self._far(block, offset, own=i) for i, block, offset in pairs])
        return math.log(len(self.rows) - 1) - sums

    def scaled(self, z: torch.Tensor) -> torch.Tensor:
        """Columns in [-1, 1] where training rows lie; a constant column is its difference."""
        width = torch.where(self.high > self.low, self.high - self.low, torch.ones_like(self.low))
        return 2 * (z - self.low) / width - 1

    @cached_property
    def _blocks(self) -> tuple[torch.Tensor, ...]:
        """Training rows, transposed: [x / sigma, -|x|^2 / 2 sigma^2] a column, block by block."""
        x = self.scaled(self.rows) / self.bandwidth
        columns = torch.cat([x, -x.square().sum(dim=1, keepdim=True) / 2], dim=1).T
        return tuple(block.contiguous() for block in torch.split(columns, TRAINING, dim=1))

    def _prepared(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """[z / sigma, 1] and -|z|^2 / 2 sigma^2, of which products with `_blocks` are exponents."""
        x = self.scaled(z) / self.bandwidth
        queries = torch.cat([x, torch.ones_like(x[:, :1])], dim=1)
        return queries, -x.square().sum(dim=1, keepdim=True) / 2

    def _log_sum(self, z: torch.Tensor) -> torch.Tensor:
        """Logarithm of sum_i exp(-|z - x_i|^2 / 2 sigma^2)."""
        queries, norm = self._prepared(z)
        pairs = zip(torch.split(queries, QUERIES), torch.split(norm, QUERIES), strict=True)
        if z.requires_grad and torch.is_grad_enabled():
            return torch.cat([z.new_zeros(0), *(self._far(*pair) for pair in pairs)])
        sums = torch.cat([z.new_zeros(0), *(self._near(*pair) for pair in pairs)])
        result = sums.log()
        for row in torch.split((~(sums > FAINT)).nonzero().squeeze(1), QUERIES):
            result[row] = self._far(queries[row], norm[row])
        return result

    def _near(self, queries: torch.Tensor, norm: torch.Tensor) -> torch.Tensor:
        total = queries.new_zeros(len(queries))
        for block in self._blocks:
            total += torch.addmm(norm, queries, block).exp_().sum(dim=1)
        return total

    def _far(
        self, queries: torch.Tensor, norm: torch.Tensor, own: int | None = None
    ) -> torch.Tensor:
        """The same as logarithms; `own`: query i is training row own + i, to be left out."""
        sums = []
        for first, block in zip(range(0, len(self.rows), TRAINING), self._blocks, strict=True):
            exponent = torch.addmm(norm, queries, block)
            if own is not None:
                exponent.diagonal(own - first).fill_(-torch.inf)
            sums.append(exponent.logsumexp(dim=1))
        return torch.stack(sums).logsumexp(dim=0)

    def parts(self) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
        """What `save` writes; rows of patients among it, so keep the directory private."""
        arrays = {"rows": self.rows, "low": self.low, "high": self.high}
        return {"bandwidth": self.bandwidth}, {n: np.asarray(a) for n, a in arrays.items()}

    @classmethod
    def from_parts(
        cls,
        config: Mapping[str, Any],
        arrays: Mapping[str, npt.NDArray[Any]],
        layout: Layout,
        log_density: LogDensity | None,
    ) -> Self:
        """As `parts` gave it."""
        rows, low, high = (torch.from_numpy(arrays[n].copy()) for n in ("rows", "low", "high"))
        return cls(
            layout=layout,
            threshold=None,
            shortage=None,
            rows=rows,
            low=low,
            high=high,
            bandwidth=float(config["bandwidth"]),
        )


def training_rows(batches: Shards, layout: Layout) -> torch.Tensor:
    """What a row-holding guardian keeps: all training rows as read, none of them unreadable."""
    read = [layout.read(shard.states, shard.doses) for shard in batches]
    rows = torch.cat(read) if read else torch.zeros(0, len(layout.names))
    if not len(rows):
        raise SupportError("train: no decision; a guardian needs training rows")
    gaps = (~torch.isfinite(rows)).any(dim=0)
    if bool(gaps.any()):
        named = [name for name, gap in zip(layout.names, gaps.tolist(), strict=True) if gap]
        raise SupportError(
            f"{', '.join(named)}: training rows that are not numbers; prepare the cohort again"
        )
    return rows
