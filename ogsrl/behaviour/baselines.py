"""What any model of clinicians must beat: the marginal, and the dose of the step before.

Called by fitting (the marginal is also the floor of calibrated weights) and by the report.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ogsrl.behaviour.decisions import Decisions
from ogsrl.behaviour.distribution import DoseDistribution, Marginal
from ogsrl.behaviour.doses import DoseGrid, OneDose
from ogsrl.preparation.coverage import MIN_PATIENTS

#: Decisions that each baseline's row borrows from the distribution above it.
BORROWED = 20.0
ROUNDS = 60


def fit_marginal(grids: Sequence[DoseGrid], decisions: Decisions) -> Marginal:
    """The distribution of each dose over all decisions; a part never seen has no weight.

    It is saved: of a component that one to nine patients had, its weight does not tell how often.
    """
    weights = [
        _marginal(grid, decisions.doses[:, j], decisions.patient) for j, grid in enumerate(grids)
    ]
    return Marginal(tuple(grids), tuple(w.log().float() for w in weights))


def _marginal(grid: DoseGrid, doses: torch.Tensor, patient: torch.Tensor) -> torch.Tensor:
    counts = torch.bincount(grid.part(doses), minlength=len(grid.part_names)).double()
    part = grid.part_of_component
    seen = (counts > 0).double()[part]
    even = seen / torch.bincount(part)[part]
    everyone = torch.zeros(len(doses), dtype=torch.long)
    place = grid.place(doses)
    size = int(patient.max()) + 1
    pairs = (place.component * size + patient[:, None])[place.height > 0]
    people = torch.bincount(torch.unique(pairs) // size, minlength=grid.components)
    told = people >= MIN_PATIENTS
    return _mixture(grid, doses, everyone, (even / even.sum())[None], told)[0]


def _mixture(
    grid: DoseGrid,
    doses: torch.Tensor,
    group: torch.Tensor,
    prior: torch.Tensor,
    told: torch.Tensor | None = None,
) -> torch.Tensor:
    """Component weights of each group that maximise likelihood, drawn to `prior` (groups, C).

    Expectation maximisation of L(w) = sum_i log sum_k w_gk h_k(a_i) + B sum_gk p_gk log w_gk.
    Components that are not `told` keep what they borrow.
    """
    place = grid.place(doses)
    size = len(prior)
    flat = (group[:, None] * grid.components + place.component).reshape(-1)
    height = place.height.double()
    weights = prior.clone()
    for _ in range(ROUNDS):
        shares = weights.reshape(-1)[flat].reshape(-1, 2) * height
        shares = shares / shares.sum(1, keepdim=True).clamp(min=1e-300)
        found = torch.zeros(size * grid.components, dtype=torch.float64)
        found = found.index_add(0, flat, shares.reshape(-1)).reshape(size, -1)
        if told is not None:
            found = found * told
            found = found * len(doses) / found.sum().clamp(min=1)
        weights = found + BORROWED * prior
        weights = weights / weights.sum(1, keepdim=True)
    return weights


@dataclass(frozen=True)
class Persistence:
    """How clinicians dose when only the same dose of the step before is known.

    One distribution for each place of the dose before on the grid (zero, maximum, nearest knot or
    level), and one for a stay's first step; each borrows from the marginal.
    """

    grids: tuple[DoseGrid, ...]
    log_weights: tuple[torch.Tensor, ...]

    @classmethod
    def fit(cls, marginal: Marginal, decisions: Decisions) -> Persistence:
        """Fitted on the decisions that the marginal was fitted on."""
        tables = []
        for j, grid in enumerate(marginal.grids):
            prior = marginal.log_weights[j].double().exp().expand(grid.components + 1, -1)
            group = _before(grid, decisions, j)
            tables.append(_mixture(grid, decisions.doses[:, j], group, prior).log().float())
        return cls(marginal.grids, tuple(tables))

    def distribution(self, decisions: Decisions) -> DoseDistribution:
        """The distribution of doses in each row; the state is not looked at."""

        def conditional(j: int, earlier: torch.Tensor) -> OneDose:
            grid = self.grids[j]
            return OneDose(grid, self.log_weights[j][_before(grid, decisions, j)])

        return DoseDistribution(self.grids, len(decisions), conditional)


def _before(grid: DoseGrid, decisions: Decisions, j: int) -> torch.Tensor:
    """The component nearest to the dose before; one more for the first step."""
    place = grid.place(decisions.last[:, j])
    nearest = place.component.gather(1, place.height.argmax(1, keepdim=True))[:, 0]
    return torch.where(decisions.step == 0, grid.components, nearest)
