"""A guardian by counting: a pair is supported if it was seen in enough stays of enough patients.

For cohorts with one categorical state and ordinal doses. Called as every guardian is. It holds
counts alone, and none of fewer stays, or of fewer patients, than support needs.
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
from ogsrl.guardian.cells import distinct_patients
from ogsrl.guardian.columns import Layout
from ogsrl.guardian.config import GuardianParams
from ogsrl.guardian.conformal import Threshold, shares_above
from ogsrl.guardian.protocol import Cases, Guardian, LogDensity, Shards
from ogsrl.guardian.survey import check_varied, identical, too_few
from ogsrl.preparation.coverage import MIN_PATIENTS

#: Counts that overlap are told in whole numbers of these.
TOLD_IN = 10
#: Pairs that a table may hold; more are no longer counted but compared.
MOST_PAIRS = 1_000_000


@dataclass(frozen=True)
class Counts(Guardian):
    """Score = -log(1 + n(s, a)), n the stays in which the pair was seen; 0 where below the least.

    Supported: n(s, a) >= min_stays, and these stays are of at least ten patients. With a reach,
    n(s, a) counts who were given in s a dose within so many levels of a, over all doses together,
    in whole tens: counts that overlap must not tell apart who is in one of them alone. However many
    they are, `own` patients must have been given a itself: what nobody was given may kill.
    Calibration measures what this refuses; it sets nothing, and nothing is promised.

    Attributes:
        counts: (levels, combinations of doses) stays, by the levels of the cohort file; 0 of a pair
            that is not supported.
        min_stays: Stays that support needs.
        reach: Levels by which a counted dose may differ.
    """

    kind: ClassVar[str] = "counts"
    holds_rows: ClassVar[bool] = False
    promises: ClassVar[bool] = False

    counts: torch.Tensor
    min_stays: int
    reach: int = 0

    @classmethod
    def fit(
        cls,
        batches: Shards,
        layout: Layout,
        params: GuardianParams,
        generator: torch.Generator,
        log_density: LogDensity | None = None,
    ) -> Self:
        """Count stays and patients a pair, a shard of whole patients at a time."""
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
        if not sum(map(len, batches)):
            raise SupportError("train: no decision; a guardian needs training rows")
        (levels,), combinations = layout.levels, math.prod(map(len, layout.dose_grids))
        if levels * combinations > MOST_PAIRS:
            raise SupportError(
                f"guardian.kind counts: {levels} levels x {combinations} combinations of doses; "
                "it needs ordinal doses, take another kind"
            )
        none = torch.zeros(levels, combinations)
        empty = cls(layout, None, None, none, params.min_stays, params.reach)
        size = levels * combinations
        stays, patients, own = torch.zeros(3, size, dtype=torch.int64)
        for shard in batches:
            if shard.stay is None:
                raise SupportError("train: rows without their stay; `counts` counts stays")
            if not len(shard):
                continue
            pair = empty._pair(layout.read(shard.states, shard.doses))
            unknown = int((pair < 0).sum())
            if unknown:
                raise SupportError(
                    f"train: {unknown} decisions whose {layout.columns[0]} or dose is no level of "
                    "the cohort file; prepare them again"
                )
            near, row = empty._near(pair)
            stays += distinct_patients(near, shard.stay[row], size)
            patients += distinct_patients(near, shard.patient[row], size)
            own += distinct_patients(pair, shard.patient, size)
        short = too_few(batches, MIN_PATIENTS)
        if short is not None:
            return replace(empty, shortage=short)
        check_varied(identical(batches, layout))
        # no small cell leaves the training data, and no one person is support
        stays[(stays < params.min_stays) | (patients < MIN_PATIENTS) | (own < params.own)] = 0
        if params.reach:
            told = (stays // TOLD_IN * TOLD_IN).clip(min=params.min_stays)
            stays = torch.where(stays > 0, told, 0)
        return replace(empty, counts=stays.float().reshape(levels, combinations))

    def ranks(self, cases: Cases) -> dict[str, torch.Tensor]:
        """-log(1 + stays); 0, the largest, where a pair was not seen often enough."""
        seen = self.counts.flatten()[self._pair(cases.z).clip(min=0)]
        return {"count": -torch.log1p(seen)}

    def beyond(self, z: torch.Tensor) -> torch.Tensor:
        """1 for a level or a dose of which no pair is supported, 0 for all others."""
        pair = self._pair(z)
        some = self.supported_doses().reshape(len(self.counts), *map(len, self.layout.dose_grids))
        seen = torch.ones_like(some)
        for axis in range(some.ndim):
            others = [i for i in range(some.ndim) if i != axis]
            seen &= some.sum(dim=others, keepdim=True) > 0
        return ((pair < 0) | ~seen.flatten()[pair.clip(min=0)]).to(z.dtype)

    def seen_values(self) -> dict[int, torch.Tensor]:
        """Levels of the state, and of each dose, by the cohort file."""
        grids = enumerate(self.layout.dose_grids, start=1)
        levels = torch.arange(len(self.counts), dtype=torch.float32)
        return {0: levels, **{i: torch.tensor(grid) for i, grid in grids}}

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
        """(levels, combinations) whether each pair was seen in enough stays and patients."""
        return self.counts >= self.min_stays

    def dose_grid(self) -> torch.Tensor:
        """(combinations, doses) scaled doses, in the order of the columns of `counts`."""
        return torch.tensor(list(itertools.product(*self.layout.dose_grids)))

    def _near(self, pair: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Every pair within reach of a row's own, and the row; each once."""
        counts = [len(grid) for grid in self.layout.dose_grids]
        given = torch.stack(torch.unravel_index(pair, (len(self.counts), *counts)), 1)
        found, rows = [], torch.arange(len(pair))
        steps = range(-self.reach, self.reach + 1)
        for moved in itertools.product(steps, repeat=len(counts)):
            if sum(map(abs, moved)) > self.reach:
                continue
            there = given + torch.tensor([0, *moved])
            inside = ((there[:, 1:] >= 0) & (there[:, 1:] < torch.tensor(counts))).all(1)
            number = there[:, 0]
            for j, count in enumerate(counts, start=1):
                number = number * count + there[:, j]
            found.append((number[inside], rows[inside]))
        return torch.cat([near for near, _ in found]), torch.cat([row for _, row in found])

    def _pair(self, z: torch.Tensor) -> torch.Tensor:
        """Number of each row's pair; -1 where its level or a dose is not in the cohort file."""
        level = z[:, 0]
        known = (level >= 0) & (level < len(self.counts)) & (level == level.round())
        pair = level.long()
        for column, grid in zip(z[:, 1:].T, self.layout.dose_grids, strict=True):
            values = torch.tensor(grid, dtype=z.dtype)
            place = torch.searchsorted(values, column.contiguous() - 1e-4).clip(max=len(grid) - 1)
            known &= (values[place] - column).abs() <= 1e-4
            pair = pair * len(grid) + place
        return torch.where(known, pair, torch.full_like(pair, -1))

    def parts(self) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
        """What `save` writes: counts of at least `min_stays` stays and ten patients."""
        config = {"min_stays": self.min_stays, "reach": self.reach}
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
        (levels,), combinations = layout.levels, math.prod(map(len, layout.dose_grids))
        counts = torch.from_numpy(arrays["counts"].copy()).reshape(levels, combinations)
        return cls(layout, None, None, counts, int(config["min_stays"]), int(config["reach"]))
