"""A guardian by distance: how far away the k-th nearest training pair lies.

A peer of the default guardian, fitted by the report and the benchmark. It holds rows of patients,
so it is never registered and never acts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch

from ogsrl.guardian.columns import Layout
from ogsrl.guardian.config import GuardianParams
from ogsrl.guardian.kde import training_rows
from ogsrl.guardian.protocol import Cases, Guardian, LogDensity, Shards
from ogsrl.guardian.shortage import Shortage
from ogsrl.guardian.survey import check_varied, identical, too_few
from ogsrl.preparation.coverage import MIN_PATIENTS

QUERIES, TRAINING = 256, 4096


@dataclass(frozen=True)
class Neighbours(Guardian):
    """Score = |z - x_(k)|, the distance to the k-th nearest of the training rows, scaled.

    Every column and dose has deviation 1 over training rows; a constant one is left as it is.

    Attributes:
        rows: (rows, columns + doses) training rows, scaled.
        scale: Training deviation of each column.
        neighbours: k.
    """

    kind: ClassVar[str] = "neighbours"
    holds_rows: ClassVar[bool] = True

    rows: torch.Tensor
    scale: torch.Tensor
    neighbours: int

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
        short = too_few(batches, max(MIN_PATIENTS, params.neighbours))
        if short is not None:
            return cls.refusing(layout, short, params)
        check_varied(identical(batches, layout))
        spread = rows.double().std(dim=0, correction=0).to(rows.dtype)
        constant = rows.amin(dim=0) == rows.amax(dim=0)
        scale = torch.where(constant, torch.ones_like(spread), spread)
        return cls(
            layout=layout,
            threshold=None,
            shortage=None,
            rows=rows / scale,
            scale=scale,
            neighbours=params.neighbours,
        )

    @classmethod
    def refusing(cls, layout: Layout, shortage: Shortage, params: GuardianParams) -> Self:
        """One that refuses everything, for want of patients; nothing of any patient is in it."""
        rows, scale = torch.zeros(0, len(layout.names)), torch.ones(len(layout.names))
        return cls(layout, None, shortage, rows, scale, params.neighbours)

    def ranks(self, cases: Cases) -> dict[str, torch.Tensor]:
        """Distance to the k-th nearest training row."""
        z = cases.z / self.scale
        return {
            "distance": torch.cat([z.new_zeros(0), *map(self._distance, torch.split(z, QUERIES))])
        }

    @cached_property
    def _blocks(self) -> tuple[tuple[torch.Tensor, torch.Tensor], ...]:
        half = self.rows.square().sum(dim=1) / 2
        return tuple(
            (rows.T.contiguous(), norm)
            for rows, norm in zip(
                torch.split(self.rows, TRAINING), torch.split(half, TRAINING), strict=True
            )
        )

    def _distance(self, z: torch.Tensor) -> torch.Tensor:
        """Find the nearest rows by z.x - |x|^2 / 2, then measure to the k-th without rounding."""
        near = z.new_full((len(z), self.neighbours), -torch.inf)
        which = torch.zeros(near.shape, dtype=torch.int64)
        with torch.no_grad():
            for i, (rows, norm) in enumerate(self._blocks):
                close = torch.addmm(-norm, z, rows)
                best = close.topk(min(self.neighbours, close.shape[1]), dim=1)
                values = torch.cat([near, best.values], dim=1)
                places = torch.cat([which, best.indices + i * TRAINING], dim=1)
                near, kept = values.topk(self.neighbours, dim=1)
                which = places.gather(1, kept)
        away = (z[:, None, :] - self.rows[which]).square().sum(dim=2)
        return away.amax(dim=1).sqrt()

    def parts(self) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
        """What `save` writes; rows of patients among it, so keep the directory private."""
        return (
            {"neighbours": self.neighbours},
            {"rows": np.asarray(self.rows), "scale": np.asarray(self.scale)},
        )

    @classmethod
    def from_parts(
        cls,
        config: Mapping[str, Any],
        arrays: Mapping[str, npt.NDArray[Any]],
        layout: Layout,
        log_density: LogDensity | None,
    ) -> Self:
        """As `parts` gave it."""
        return cls(
            layout=layout,
            threshold=None,
            shortage=None,
            rows=torch.from_numpy(arrays["rows"].copy()),
            scale=torch.from_numpy(arrays["scale"].copy()),
            neighbours=int(config["neighbours"]),
        )
