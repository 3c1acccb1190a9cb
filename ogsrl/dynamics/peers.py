"""What the ensemble is measured against: a linear model, and the paper's nearest neighbour.

Called by the report and the benchmark. Fitted on training patients only, by column name; never
saved, since the neighbour holds rows of patients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ogsrl.dynamics.chart import running_sums
from ogsrl.dynamics.layout import Layout
from ogsrl.dynamics.outcomes import Outcomes
from ogsrl.preparation.blocks import side_by_side
from ogsrl.preparation.tensors import StayTensors

RIDGE = 1e-5  # per row; chosen before any comparison, hundreds of rows a coefficient need none
_BLOCK = 1024


def ridge_fit(
    inputs: torch.Tensor, targets: torch.Tensor, known: torch.Tensor, ridge: float = RIDGE
) -> torch.Tensor:
    """Least squares of each column on its own known rows: slopes, then the intercept, (inputs + 1).

    >>> x = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    >>> known = torch.tensor([[True], [True], [True], [False]])
    >>> ridge_fit(x, 2 * x + 1, known, 0.0).round(decimals=3).T
    tensor([[2., 1.]])
    """
    extended = torch.cat([inputs, torch.ones(len(inputs), 1)], dim=1)
    slopes = torch.zeros(extended.shape[1], targets.shape[1])
    patterns, pattern = torch.unique(known.T, dim=0, return_inverse=True)
    for i, own in enumerate(patterns):  # columns known on the same rows share a factorisation
        columns = (pattern == i).nonzero().squeeze(1)
        rows = extended[own]
        moment = (rows.T @ rows).double()
        penalty = torch.full((len(moment),), ridge * len(rows), dtype=torch.float64)
        penalty[-1] = 0
        penalty += 1e-9 * moment.diagonal().mean().clip(min=1e-9)
        right = (rows.T @ targets[own][:, columns]).double()
        slopes[:, columns] = torch.linalg.solve(moment + torch.diag(penalty), right).float()
    return slopes


def ridge_predict(slopes: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
    """Values of the linear model."""
    return inputs @ slopes[:-1] + slopes[-1]


@dataclass(frozen=True)
class NeighbourDynamics:
    """The transition of the most similar training rows: what the OGSRL paper rolls out.

    The next row of a state and dose is the mean of what followed the `neighbours` rows that are
    nearest in scaled current columns and doses, among training patients alone; columns are
    named, rows are never re-indexed, and doses lie in the cohort's order.

    Attributes:
        layout: Roles of the columns.
        keys: Current columns and doses of training rows.
        following: Scaled next values of the layout's numeric columns.
        known: Whether each was charted.
        died: Whether the patient died in that step.
        patient: Number of the patient among the stays that it was built from.
        neighbours: How many are averaged; the paper takes one.
    """

    layout: Layout
    keys: torch.Tensor
    following: torch.Tensor
    known: torch.Tensor
    died: torch.Tensor
    patient: torch.Tensor
    neighbours: int = 1

    @classmethod
    def of(cls, layout: Layout, train: Outcomes, neighbours: int = 1) -> NeighbourDynamics:
        """Keep the training rows that have a next row, or ended in death."""
        rows = train.take((train.follows | train.ends[:, 0]).nonzero().squeeze(1))
        return cls(
            layout=layout,
            keys=_keys(layout, rows.states, rows.doses),
            following=rows.numeric,
            known=rows.charted,
            died=rows.ends[:, 0],
            patient=rows.patient,
            neighbours=neighbours,
        )

    def nearest(self, states: torch.Tensor, doses: torch.Tensor) -> torch.Tensor:
        """Rows of the nearest, nearest first: (rows, neighbours)."""
        size = self.keys.square().sum(1)

        def of(keys: torch.Tensor) -> torch.Tensor:
            distance = torch.addmm(size, keys, self.keys.T, alpha=-2)
            return distance.topk(self.neighbours, dim=1, largest=False).indices

        keys = _keys(self.layout, states, doses)
        return torch.cat(side_by_side(of, torch.split(keys, _BLOCK)))

    def mean(self, states: torch.Tensor, doses: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Scaled next numeric values and chance of death; what nobody charted stays as it is."""
        row = self.nearest(states, doses)
        known = self.known[row]
        total = (self.following[row] * known).sum(1) / known.sum(1).clip(min=1)
        now = states[:, [self.layout.current[name] for name in self.layout.numeric]]
        return torch.where(known.any(1), total, now), self.died[row].float().mean(1)


def _keys(layout: Layout, states: torch.Tensor, doses: torch.Tensor) -> torch.Tensor:
    return torch.cat([states[:, : len(layout.current)], doses], dim=1)


@dataclass(frozen=True)
class Horizon:
    """Pairs of a decision and the row `steps` later, with the doses given between."""

    steps: int
    start: torch.Tensor  # row in the stays' tensors
    inputs: torch.Tensor  # of the decision, and the later doses
    targets: torch.Tensor  # scaled numeric values
    known: torch.Tensor


def horizon(stays: StayTensors, layout: Layout, steps: int, starts: torch.Tensor) -> Horizon:
    """The pairs whose start is among `starts` (rows) and whose stay lasts that long."""
    end = starts + steps
    inside = end < len(stays.stay)
    inside = inside & (stays.stay[end.clip(max=len(stays.stay) - 1)] == stays.stay[starts])
    start = starts[inside]
    later = [stays.doses[start + i] for i in range(1, steps)]
    states = stays.states[start + steps]
    known = torch.ones((len(start), len(layout.numeric)), dtype=torch.bool)
    for i, name in enumerate(layout.numeric):
        if name in layout.indicator:
            known[:, i] = states[:, layout.indicator[name]] < 0.5
    return Horizon(
        steps=steps,
        start=start,
        inputs=torch.cat([layout.inputs(stays.states[start], stays.doses[start]), *later], dim=1),
        targets=states[:, [layout.current[name] for name in layout.numeric]],
        known=known,
    )


@dataclass(frozen=True)
class LinearDynamics:
    """A linear model of the next row, rolled out on its own means.

    Attributes:
        layout: Roles of the columns.
        slopes: One step ahead, from state and dose.
        direct: Per horizon, from the first state and all doses given until then.
    """

    layout: Layout
    slopes: torch.Tensor
    direct: dict[int, torch.Tensor]

    @classmethod
    def of(cls, stays: StayTensors, layout: Layout, horizons: Sequence[int]) -> LinearDynamics:
        """Fit all on whole stays of training patients."""
        decisions = stays.decision.nonzero().squeeze(1)
        direct = {}
        for steps in sorted({1, *horizons}):
            pairs = horizon(stays, layout, steps, decisions)
            direct[steps] = ridge_fit(pairs.inputs, pairs.targets, pairs.known)
        return cls(layout, direct[1], direct)

    def ahead(
        self, states: torch.Tensor, doses: torch.Tensor, horizons: Sequence[int]
    ) -> dict[int, torch.Tensor]:
        """Scaled numeric values after each number of steps, under these doses."""
        layout, found, now = self.layout, {}, states
        numeric = [layout.current[name] for name in layout.numeric]
        for step in range(max(horizons)):
            dose = doses[:, step]
            observed = now[:, : len(layout.current)].clone()
            observed[:, numeric] = ridge_predict(self.slopes, layout.inputs(now, dose))
            for name, values in running_sums(layout, now, dose).items():
                observed[:, layout.current[name]] = values
            if step + 1 in horizons:
                found[step + 1] = observed[:, numeric]
            now = layout.history.advance(now, dose, observed)
        return found
