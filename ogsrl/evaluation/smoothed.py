r"""How likely the logged doses are under a policy: its doses, each a little spread.

A policy that gives one dose has no density of doses; so what it executes strictly between zero and
the maximum is spread by a normal kernel of the log dose, cut at the bounds:

    k(x | c) = phi((x - c) / h) / (h (Phi((u - c) / h) - Phi((l - c) / h)))

Zero, the maximum and levels are met exactly or not at all. Where the policy defers the clinician
acts: the ratio is 1. Called by estimators' records; everything here is of whole rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ogsrl.behaviour.doses import BETWEEN, DoseGrid
from ogsrl.evaluation.executed import Executed

#: A density that is smaller is none.
LEAST_LOG = -80.0


@dataclass(frozen=True)
class Smoothing:
    """Kernels of all doses.

    Attributes:
        grids: Of the clinicians' policy: parts, bounds, logs.
        bandwidth: h, of the natural log of a dose.
    """

    grids: Sequence[DoseGrid]
    bandwidth: float

    def log_density(self, executed: torch.Tensor, logged: torch.Tensor) -> torch.Tensor:
        """(rows,) of logged doses under executed ones, (rows, doses); -inf where impossible."""
        total = torch.zeros(len(logged), dtype=torch.float64)
        for j, grid in enumerate(self.grids):
            total += self._one(grid, executed[:, j], logged[:, j])
        return total

    def drawn(self, executed: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Executed doses (rows, doses), those between spread."""
        made = executed.clone()
        for j, grid in enumerate(self.grids):
            row = self._between(grid, executed[:, j]).nonzero().squeeze(1)
            centre = grid.log(executed[row, j].double())
            low, high = (torch.special.ndtr(z) for z in self._ends(grid, centre))
            share = torch.rand(len(row), generator=generator, dtype=torch.float64)
            at = (low + share * (high - low)).clip(1e-12, 1 - 1e-12)
            logs = centre + self.bandwidth * torch.special.ndtri(at)
            made[row, j] = grid.scaled(logs).to(made.dtype)
        return made

    def _one(self, grid: DoseGrid, executed: torch.Tensor, logged: torch.Tensor) -> torch.Tensor:
        same = grid.part(executed) == grid.part(logged)
        log = torch.where(same, 0.0, -torch.inf).double()
        row = (same & self._between(grid, executed)).nonzero().squeeze(1)
        if len(row):
            centre, x = (grid.log(doses[row].double()) for doses in (executed, logged))
            low, high = (torch.special.ndtr(z) for z in self._ends(grid, centre))
            apart = (x - centre) / self.bandwidth
            normal = -apart.square() / 2 - math.log(self.bandwidth * math.sqrt(2 * math.pi))
            log[row] = normal - (high - low).log()
        return torch.where(log > LEAST_LOG, log, -torch.inf)

    def _between(self, grid: DoseGrid, doses: torch.Tensor) -> torch.Tensor:
        if grid.kind == "ordinal":
            return torch.zeros(len(doses), dtype=torch.bool)
        return grid.part(doses) == BETWEEN

    def _ends(self, grid: DoseGrid, centre: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        low, high = math.log(grid.least), math.log(grid.high)
        return (low - centre) / self.bandwidth, (high - centre) / self.bandwidth


@torch.no_grad()
def ratios(
    executed: Executed, logged: torch.Tensor, log_b: torch.Tensor, smoothing: Smoothing
) -> torch.Tensor:
    """(rows,) pi/b of the doses logged, the mean over the draws of what the policy does.

    Args:
        executed: Of these rows.
        logged: (rows, doses).
        log_b: (rows,) of the doses logged, under the clinicians' policy.
        smoothing: Of what is executed.
    """
    total = torch.zeros(len(logged), dtype=torch.float64)
    for doses, deferred in zip(executed.doses, executed.deferred, strict=True):
        log = smoothing.log_density(doses, logged) - log_b.double()
        # what clinicians did and b cannot say is no reason to believe it of the policy
        known = torch.where(torch.isfinite(log_b), log.exp(), 0.0)
        total += torch.where(deferred, 1.0, known)
    return total / len(executed.doses)
