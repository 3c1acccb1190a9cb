"""Calibration of a dose's weights on calibration patients: one small object a dose.

Called by fitting; applied to every answer of the policy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ogsrl.behaviour.doses import DoseGrid, OneDose, Place
from ogsrl.errors import ModelError

#: The marginal's share is kept within these.
LEAST_SHARE, MOST_SHARE = 1e-3, 0.5
#: Weight of each squared parameter, in decisions: a few patients do not bend what is calibrated.
RIDGE = 10.0
NEVER = -300.0


@dataclass(frozen=True)
class Calibration:
    r"""log w = log((1 - e) w'(c) + e m(c)), m the marginal, w'(c) = P'(part of c) P'(c | part).

    P'(part) = softmax(t P + b) of the model's log P, and P'(c | part) = softmax(u log P(c | part)).
    Fitted by the likelihood of calibration decisions. The share e of the marginal bounds how
    surprised the policy can be, so no importance weight exceeds 1/e for a policy like the marginal.

    Attributes:
        grid: The dose's grid.
        log_marginal: The dose's marginal; what has no weight in it has none here.
        slope: t, for parts.
        shift: b, one a part.
        within: u, for components of a part.
        share: e.
    """

    grid: DoseGrid
    log_marginal: torch.Tensor
    slope: float = 1.0
    shift: tuple[float, ...] = ()
    within: float = 1.0
    share: float = LEAST_SHARE

    def apply(self, log_weights: torch.Tensor) -> OneDose:
        """The calibrated distribution of the dose in each row."""
        shift = torch.tensor(self.shift or (0.0,) * len(self.grid.part_names))
        numbers = [torch.tensor(x) for x in (self.slope, self.within, self.share)]
        made = _calibrated(
            self.grid, log_weights, self.log_marginal, (numbers[0], shift, numbers[1], numbers[2])
        )
        return OneDose(self.grid, made)

    def config(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "slope": self.slope,
            "shift": list(self.shift),
            "within": self.within,
            "share": self.share,
        }

    @classmethod
    def from_config(
        cls, grid: DoseGrid, log_marginal: torch.Tensor, config: Mapping[str, Any]
    ) -> Calibration:
        """Back from `config`."""
        return cls(grid, log_marginal, **{**config, "shift": tuple(config["shift"])})


def fit_calibration(
    grid: DoseGrid, log_weights: torch.Tensor, doses: torch.Tensor, log_marginal: torch.Tensor
) -> Calibration:
    """Fit on calibration decisions: the model's log weights, and the doses given."""
    place = grid.place(doses)
    # a part that training never saw has no likelihood to offer, whatever the calibration
    known = ((log_weights.gather(1, place.component) > -torch.inf) & (place.height > 0)).any(1)
    logs = log_weights[known].double()
    place = Place(place.component[known], place.height[known].double())
    marginal = log_marginal.double()
    free = torch.zeros(3 + len(grid.part_names), dtype=torch.float64, requires_grad=True)
    optimiser: torch.optim.Optimizer = torch.optim.LBFGS(
        [free], max_iter=60, tolerance_grad=1e-6, line_search_fn="strong_wolfe"
    )

    def numbers() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        share = LEAST_SHARE + (MOST_SHARE - LEAST_SHARE) * torch.sigmoid(free[2] - 4)
        return free[0].exp(), free[3:], free[1].exp(), share

    def loss() -> float:
        optimiser.zero_grad()
        weights = _calibrated(grid, logs, marginal, numbers()).gather(1, place.component)
        density = (weights.exp() * place.height).sum(1)
        total = -density.clamp(min=1e-300).log().sum() + RIDGE * (free**2).sum()
        total = total / max(len(logs), 1)
        torch.autograd.backward(total)
        return float(total.detach())

    if len(logs):
        optimiser.step(loss)
    slope, shift, within, share = (x.detach() for x in numbers())
    if not bool(torch.isfinite(free).all()):
        raise ModelError(
            f"{grid.name}: its calibration did not converge on {len(logs)} decisions; check the "
            "calibration patients' doses in dataset.json"
        )
    return Calibration(
        grid,
        log_marginal,
        float(slope),
        tuple(float(x) for x in shift),
        float(within),
        float(share),
    )


def _calibrated(
    grid: DoseGrid,
    logs: torch.Tensor,
    log_marginal: torch.Tensor,
    numbers: tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor],
) -> torch.Tensor:
    slope, shift, within, share = numbers
    part = grid.part_of_component
    parts = len(grid.part_names)
    # what has no weight gets none at the end; in between, infinities would spoil slopes
    floored, floor = logs.clamp(min=-60.0), log_marginal.clamp(min=NEVER)
    if grid.kind == "continuous":
        middle = floored[:, 2:]
        inner = (within * middle.log_softmax(1)).log_softmax(1)
        totals = torch.stack([floored[:, 0], middle.logsumexp(1), floored[:, 1]], 1)
        each = torch.cat([torch.zeros_like(floored[:, :2]), inner], 1)
    else:
        totals, each = floored, torch.zeros_like(floored)
    possible = logs.new_zeros(parts).index_add(0, part, log_marginal.exp()) > 0
    outer = torch.where(possible, slope * totals + shift, NEVER).log_softmax(1)
    made = outer[:, part] + each
    mixed = torch.logaddexp((1 - share).log() + made, share.log() + floor)
    return torch.where(log_marginal > -torch.inf, mixed, -torch.inf)
