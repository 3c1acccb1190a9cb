"""How much of each constraint's cost is allowed: fixed from training patients before training.

Called by the training loop and by selection, so that both mean the same limit; it never looks at
other patients, and never at a policy.
"""

from __future__ import annotations

import torch

from ogsrl.errors import ModelError
from ogsrl.preparation.tensors import StayTensors
from ogsrl.spec import Limit


def limits(train: StayTensors) -> dict[str, float]:
    """The limit d of each constraint: relative x the logged share + margin, under any ceiling."""
    shares = logged_shares(train)
    entries = train.history.preparation.cohort.constraints
    return {name: limit_of(entries[name].limit, share) for name, share in shares.items()}


def limit_of(limit: Limit, share: float) -> float:
    """One limit, where the clinicians' share is this.

    >>> limit_of(Limit(relative=0.5, margin=0.01), 0.2)
    0.11
    >>> limit_of(Limit(relative=0.9, absolute=0.15), 0.2)
    0.15
    >>> limit_of(Limit(absolute=0.15), 0.2)
    0.15
    """
    allowed = [] if limit.absolute is None else [limit.absolute]
    if limit.relative is not None:
        allowed.append(limit.relative * share + limit.margin)
    if not allowed:
        raise ModelError("constraints: a limit is neither relative nor absolute; state one")
    return min(allowed)


def logged_shares(stays: StayTensors) -> dict[str, float]:
    r"""The clinicians' mean cost a stay of each constraint.

        V = sum_t S_t mean(c_t),  S_0 = 1,  S_t+1 = S_t (1 - share that ended with step t)

    A life table: means are over who has a decision at step t, so that a censored stay counts for
    as long as it is seen. Without censoring it is the mean over stays.
    """
    weight = stays.decision.double()
    steps = int(stays.step.max()) + 1 if len(stays.step) else 0
    step = stays.step.long()

    def by_step(values: torch.Tensor) -> torch.Tensor:
        return torch.zeros(steps, dtype=torch.float64).index_add_(0, step, weight * values)

    seen = by_step(torch.ones_like(weight)).clip(min=1e-12)
    ended = by_step(stays.terminal.double()) / seen
    there = torch.cat([torch.ones(1, dtype=torch.float64), (1 - ended).cumprod(0)])[:steps]
    return {
        name: float((there * by_step(stays.costs[:, j].double()) / seen).sum())
        for j, name in enumerate(stays.cost_names)
    }


def lived(decisions: int, stays: int, max_steps: int) -> float:
    """How much of the horizon clinicians' stays last: the largest share that can be deferred."""
    return decisions / max(stays, 1) / max_steps


def refusals_allowed(asked: float, lived: float) -> float:
    """d_g: the share of max_steps asked for, but at most twice that share of the steps lived.

    Of stays that are short beside the horizon even a policy that always defers has a small share
    of max_steps deferred.

    >>> refusals_allowed(0.04, 0.77)
    0.04
    >>> refusals_allowed(0.04, 0.1)
    0.008
    """
    return min(asked, 2 * asked * lived)
