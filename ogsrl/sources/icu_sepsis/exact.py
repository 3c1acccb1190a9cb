"""What is true of any policy of ICU-Sepsis, by linear algebra: nothing is drawn.

Called by evaluation's truth, by tests of estimators and by benchmarks. Arrays in, numbers out; a
policy is a table of chances (states, combinations).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ogsrl.sources.icu_sepsis.published import COMBINATIONS, STATES, Floats, Process

#: Gains smaller than this are rounding.
_ROUNDING = 1e-12
_MOST_ROUNDS = 200


@dataclass(frozen=True)
class Exact:
    """A policy's truth. Stays have no horizon: everybody dies or leaves.

    Attributes:
        survival: Chance to leave alive.
        visits: (states,) decisions a stay in each state, on average.
        survival_from: (states,) chance to leave alive from there.
    """

    survival: float
    visits: Floats
    survival_from: Floats

    @property
    def mortality(self) -> float:
        """Chance to die."""
        return 1.0 - self.survival

    @property
    def steps(self) -> float:
        """Decisions a stay."""
        return float(self.visits.sum())


def evaluated(process: Process, policy: Floats) -> Exact:
    r"""Survival and visits of a policy.

        v = (I - M)^-1 p,   rho = d_0 (I - M)^-1,   M(s, s') = sum_a pi(a|s) P(s'|s, a)

    Args:
        process: What follows.
        policy: (states, combinations) chances of each combination.
    """
    follows = np.einsum("sa,sao->so", _checked(policy), process.follows)
    stays_on = np.eye(STATES) - follows[:, :STATES]
    from_here = np.linalg.solve(stays_on, follows[:, STATES + 1])
    visits = np.linalg.solve(stays_on.T, process.begun)
    return Exact(float(process.begun @ from_here), visits, from_here)


def occupancy(process: Process, policy: Floats, steps: int) -> Floats:
    """(steps, states) chance to decide in each state at each step; rows sum to less and less."""
    follows = np.einsum("sa,sao->so", _checked(policy), process.follows)[:, :STATES]
    there = [process.begun]
    for _ in range(steps - 1):
        there.append(there[-1] @ follows)
    return np.stack(there)


def ever(process: Process, policy: Floats, where: NDArray[np.bool_]) -> float:
    """Chance that a stay ever comes to one of these states."""
    if not where.any():
        return 0.0
    follows = np.einsum("sa,sao->so", _checked(policy), process.follows)[:, :STATES]
    outside = ~where
    leads = follows[np.ix_(outside, where)].sum(1)
    among = np.eye(int(outside.sum())) - follows[np.ix_(outside, outside)]
    chance = np.ones(STATES)
    chance[outside] = np.linalg.solve(among, leads)
    return float(process.begun @ chance)


def optimal(process: Process) -> Floats:
    """(states, combinations) the policy of greatest survival, by policy iteration."""
    cells = process.clinicians.argmax(1)
    place = np.arange(STATES)
    for _ in range(_MOST_ROUNDS):
        value = evaluated(process, _one_of(cells)).survival_from
        worth = process.follows[..., :STATES] @ value + process.follows[..., STATES + 1]
        better = worth.max(1) > worth[place, cells] + _ROUNDING
        if not better.any():
            break
        cells = np.where(better, worth.argmax(1), cells)
    return _one_of(cells)


def _one_of(cells: NDArray[np.int64]) -> Floats:
    table = np.zeros((STATES, COMBINATIONS))
    table[np.arange(STATES), cells] = 1.0
    return table


def _checked(policy: Floats) -> Floats:
    sums = policy.sum(1)
    if policy.shape != (STATES, COMBINATIONS) or policy.min() < 0 or np.abs(sums - 1).max() > 1e-6:
        raise ValueError(f"a policy is a table ({STATES}, {COMBINATIONS}) whose rows are chances")
    return policy
