"""A guardian by counting: a pair is supported if it was seen in enough stays.

For cohorts with one categorical state and ordinal doses. Called as every guardian is. It holds
counts alone, and none of fewer stays than support needs.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch

from ogsrl.errors import SupportError
from ogsrl.guardian.columns import Layout
from ogsrl.guardian.config import GuardianParams
from ogsrl.guardian.conformal import Threshold, shares_above
from ogsrl.guardian.protocol import Cases, Guardian, LogDensity, Shards
from ogsrl.guardian.survey import check_varied, identical
from ogsrl.preparation.coverage import MIN_PATIENTS

#: Pairs that a table may hold; more are no longer counted but compared.
MOST_PAIRS = 1_000_000


@dataclass(frozen=True)
class Counts(Guardian):
    """Score = -log(1 + n(s, a)), n the stays in which the pair was seen; 0 where below the least.

    Supported: n(s, a) >= min_stays. Calibration measures what this refuses; it sets nothing, and
    nothing is promised.

    Attributes:
        counts: (levels, combinations of doses) stays.
        grids: The scaled levels of each dose.
        min_stays: Stays that support needs.
    """

    kind: ClassVar[str] = "counts"
    holds_rows: ClassVar[bool] = False
    promises: ClassVar[bool] = False

    counts: torch.Tensor
    grids: tuple[tuple[float, ...], ...]
    min_stays: int

    @classmethod
    def fit(
        cls,
        batches: Shards,
        layout: Layout,
        params: GuardianParams,
        generator: torch.Generator,
        log_density: LogDensity | None = None,
    ) -> Self:
        """Count stays a pair; the doses' levels are those of training rows."""
        if layout.kinds != ("categorical",):
            raise SupportError(
                f"guardian.kind counts: {len(layout.columns)} columns "
                f"({', '.join(sorted(set(layout.kinds)))}); it needs exactly one categorical "
                "column, take another kind"
            )
        if set(layout.dose_kinds) != {"ordinal"}:
            raise SupportError(
                f"guardian.kind counts: doses of kind {', '.join(sorted(set(layout.dose_kinds)))}; "
                "it needs ordinal doses, take another kind"
            )
        rows = [layout.read(shard.states, shard.doses) for shard in batches]
        if not sum(map(len, rows)):
            raise SupportError("train: no decision; a guardian needs training rows")
        check_varied(identical(batches, layout))
        grids = tuple(
            tuple(torch.unique(torch.cat([part[:, i] for part in rows])).tolist())
            for i in range(1, len(layout.names))
        )
        combinations = math.prod(map(len, grids))
        levels = int(max(float(part[:, 0].max()) for part in rows if len(part))) + 1
        if levels * combinations > MOST_PAIRS:
            raise SupportError(
                f"guardian.kind counts: {levels} levels x {combinations} combinations of doses; "
                "it needs ordinal doses, take another kind"
            )
        empty = cls(layout, None, None, torch.zeros(levels, combinations), grids, params.min_stays)
        counts = torch.zeros(levels * combinations, dtype=torch.float64)
        for shard, z in zip(batches, rows, strict=True):
            if shard.stay is None:
                raise SupportError("train: rows without their stay; `counts` counts stays")
            pair = empty._pair(z)
            seen = torch.unique(torch.stack([shard.stay, pair]), dim=1)[1]
            counts += torch.bincount(seen, minlength=len(counts)).double()
        counts[counts < params.min_stays] = 0  # no small cell leaves the training data
        return replace(empty, counts=counts.float().reshape(levels, combinations))

    def ranks(self, cases: Cases) -> dict[str, torch.Tensor]:
        """-log(1 + stays); 0, the largest, where a pair was not seen often enough."""
        seen = self.counts.flatten()[self._pair(cases.z).clip(min=0)]
        return {"count": -torch.log1p(seen)}

    def beyond(self, z: torch.Tensor) -> torch.Tensor:
        """1 for a level or a dose that no training row had, 0 for all others."""
        return (self._pair(z.nan_to_num(-1, -1, -1)) < 0).to(z.dtype)

    def seen_values(self) -> dict[int, torch.Tensor]:
        """Levels of the state, and of each dose."""
        levels = torch.arange(len(self.counts), dtype=torch.float32)
        return {0: levels, **{i + 1: torch.tensor(grid) for i, grid in enumerate(self.grids)}}

    def calibrate(
        self, states: torch.Tensor, doses: torch.Tensor, patient: torch.Tensor, alpha: float
    ) -> Self:
        """The rule stands; calibration patients say how often it refuses what clinicians do."""
        patients = len(torch.unique(patient))
        if patients < MIN_PATIENTS:
            return replace(self, threshold=Threshold.too_few(None, patients, MIN_PATIENTS))
        value = -math.log1p(self.min_stays)
        value = float(np.nextafter(np.float32(value), np.float32(0)))  # rounding refuses nobody
        shares = shares_above(self.score(states, doses), patient, value)
        share, spread = float(shares.mean()), float(shares.std())
        made = Threshold(None, value, "ready", patients, MIN_PATIENTS, share, spread)
        return replace(self, threshold=made)

    def supported_doses(self) -> torch.Tensor:
        """(levels, combinations) whether each pair was seen in enough stays."""
        return self.counts >= self.min_stays

    def dose_grid(self) -> torch.Tensor:
        """(combinations, doses) scaled doses, in the order of the columns of `counts`."""
        return torch.tensor(list(itertools.product(*self.grids)))

    def _pair(self, z: torch.Tensor) -> torch.Tensor:
        """Number of each row's pair; -1 where its level or a dose was never seen."""
        level = z[:, 0]
        known = (level >= 0) & (level < len(self.counts)) & (level == level.round())
        pair = level.long()
        for column, grid in zip(z[:, 1:].T, self.grids, strict=True):
            values = torch.tensor(grid, dtype=z.dtype)
            place = torch.searchsorted(values, column.contiguous() - 1e-4).clip(max=len(grid) - 1)
            known &= (values[place] - column).abs() <= 1e-4
            pair = pair * len(grid) + place
        return torch.where(known, pair, torch.full_like(pair, -1))

    def parts(self) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
        """What `save` writes: counts of at least `min_stays` stays."""
        config = {"grids": [list(grid) for grid in self.grids], "min_stays": self.min_stays}
        return config, {"counts": np.asarray(self.counts)}

    @classmethod
    def from_parts(
        cls,
        config: Mapping[str, Any],
        arrays: Mapping[str, npt.NDArray[Any]],
        layout: Layout,
        log_density: LogDensity | None,
    ) -> Self:
        """As `parts` gave it."""
        grids = tuple(tuple(map(float, grid)) for grid in config["grids"])
        counts = torch.from_numpy(arrays["counts"].copy())
        return cls(layout, None, None, counts, grids, int(config["min_stays"]))
