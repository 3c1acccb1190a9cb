"""Shares that have a given mean: as close as they can be to other shares (exponential tilting).

Called by `told`. It knows nothing of tables or patients.
"""

from __future__ import annotations

import torch

_STEEPEST = 30.0
_PASSES = 20
_NARROWEST = 1e-9  # range of scores; within it all are the same


def tilted(weights: torch.Tensor, score: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
    r"""Shares in proportion to w_i exp(t s_i), with t such that their mean score is `mean`.

    t is sought in units of the range of those scores that have weight.

    Args:
        weights: (rows, n) not negative, some of each row positive.
        score: (n,) between 0 and 1.
        mean: (rows,) wanted; one out of reach is approached, and where it is nan none is wanted.

    >>> weights, score = torch.ones(2, 3), torch.tensor([0.0, 0.5, 1.0])
    >>> shares = tilted(weights, score, torch.tensor([0.5, 0.2]))
    >>> (shares * score).sum(1).round(decimals=4).tolist()
    [0.5, 0.2]
    """
    weights = weights.double()
    score = score.double().expand_as(weights)
    low = score.where(weights > 0, torch.inf).amin(1, keepdim=True)
    high = score.where(weights > 0, -torch.inf).amax(1, keepdim=True)
    span = (high - low).clip(min=_NARROWEST)
    score, mean = ((score - low) / span).clip(0, 1), (mean.double() - low[:, 0]) / span[:, 0]
    usual = (weights * score).sum(1) / weights.sum(1)
    mean = mean.where(~mean.isnan(), usual)
    log_weight = weights.log()
    steep = torch.zeros(len(weights), 1, dtype=torch.float64)
    for _ in range(_PASSES):
        shares = torch.softmax(log_weight + steep * score, dim=1)
        found = (shares * score).sum(1, keepdim=True)
        spread = (shares * (score - found).square()).sum(1, keepdim=True)
        move = (mean[:, None] - found) / spread.clip(min=1e-4)
        steep = (steep + move.clip(-5, 5)).clip(-_STEEPEST, _STEEPEST)
    return torch.softmax(log_weight + steep * score, dim=1)
