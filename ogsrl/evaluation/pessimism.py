"""Who acts where a policy defers, at its worst: the supported dose that it is worst off with.

Called wherever a value stands, so that deferring is not taken for as safe as the clinicians are. It
asks `Deployed` which doses could be given, and the fitted Q of the policy what they come to.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ogsrl.evaluation.executed import Clinicians
from ogsrl.evaluation.fqe import Fqe
from ogsrl.evaluation.quantities import VALUE, primary
from ogsrl.policies.deployed import Deployed

#: Doses tried of each drug, and rows asked at a time.
GRID, BLOCK = 5, 1_024


@dataclass(frozen=True)
class Worst:
    """In place of the clinicians: of a grid of doses, the supported one of the worst value.

    Where no dose of the grid is supported, or the state cannot be read, the clinicians act.

    Attributes:
        deployed: The policy that defers; its guardian, hazards and orders say what is supported.
        fqe: Its fits; members are averaged.
        name: Its name there.
        clinicians: Who acts where nothing is supported.
    """

    deployed: Deployed
    fqe: Fqe
    name: str
    clinicians: Clinicians

    @torch.no_grad()
    def sample(self, states: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Doses given, one set a row."""
        drawn = self.clinicians.sample(states, generator)
        parts = zip(torch.split(states, BLOCK), torch.split(drawn, BLOCK), strict=True)
        return torch.cat([self._worst(*part) for part in parts])

    def _worst(self, states: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
        doses = drawn.shape[1]
        line = torch.linspace(-1.0, 1.0, GRID)
        grid = torch.cartesian_prod(*[line] * doses).reshape(-1, doses)
        asked = states.repeat_interleave(len(grid), 0)
        decided = self.deployed.judge(asked, grid.repeat(len(states), 1))
        given = decided.doses.nan_to_num(0.0)
        decisive = primary(self.deployed.history.preparation.cohort)
        worth = self.fqe.value(self.name, asked.nan_to_num(0.0), given)[decisive].mean(0)
        bad = -worth if decisive == VALUE else worth
        bad = bad.masked_fill(decided.deferred, -torch.inf).view(len(states), -1)
        most, place = bad.max(1)
        chosen = given.view(len(states), len(grid), doses)[torch.arange(len(states)), place]
        return torch.where(most[:, None] > -torch.inf, chosen, drawn)
