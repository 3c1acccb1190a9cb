"""A small process whose policies' values are known exactly, and logs of it, for every estimator.

Three conditions and two doses, up to five steps; each step may end with discharge or death. The
logged policy and another are known, so are q and v of the other.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ogsrl.evaluation.record import Record, Values

STEPS = 5
#: (conditions, doses, ends): chances of death, of discharge, and of each next condition.
DEATH = torch.tensor([[0.02, 0.05], [0.10, 0.04], [0.30, 0.15]], dtype=torch.float64)
DISCHARGE = torch.tensor([[0.30, 0.20], [0.10, 0.15], [0.02, 0.05]], dtype=torch.float64)
MOVES = torch.tensor(
    [
        [[0.8, 0.2, 0.0], [0.6, 0.3, 0.1]],
        [[0.2, 0.6, 0.2], [0.4, 0.5, 0.1]],
        [[0.0, 0.3, 0.7], [0.1, 0.5, 0.4]],
    ],
    dtype=torch.float64,
)
FIRST = torch.tensor([0.3, 0.4, 0.3], dtype=torch.float64)
#: Chance of the second dose in each condition.
LOGGED = torch.tensor([0.3, 0.4, 0.5], dtype=torch.float64)
OTHER = torch.tensor([0.2, 0.6, 0.7], dtype=torch.float64)


@dataclass(frozen=True)
class Truth:
    """Exact mortality of a policy: V by step and condition, Q by step, condition and dose."""

    v: torch.Tensor
    q: torch.Tensor

    @property
    def mortality(self) -> float:
        """At first conditions."""
        return float(FIRST @ self.v[0])


def solved(second: torch.Tensor) -> Truth:
    """By backward induction."""
    v = torch.zeros(STEPS + 1, 3, dtype=torch.float64)
    q = torch.zeros(STEPS, 3, 2, dtype=torch.float64)
    for step in range(STEPS - 1, -1, -1):
        goes_on = 1 - DEATH - DISCHARGE
        q[step] = DEATH + goes_on * (MOVES @ v[step + 1])
        v[step] = (1 - second) * q[step, :, 0] + second * q[step, :, 1]
    return Truth(v, q)


def logged(
    stays: int,
    generator: torch.Generator,
    policy: torch.Tensor = OTHER,
    wrong: float = 0.0,
    per_patient: int = 1,
) -> Record:
    """Stays under `LOGGED`, to be read for another policy.

    Args:
        stays: How many.
        generator: Draws them.
        policy: Chance of the second dose in each condition.
        wrong: How far the fitted q is off, twice as far at the second dose; v is its mean.
        per_patient: Stays of each patient.
    """
    uniform = torch.rand(stays, STEPS, 4, generator=generator, dtype=torch.float64)
    condition = torch.multinomial(FIRST, stays, replacement=True, generator=generator)
    going = torch.ones(stays, dtype=torch.bool)
    inside = torch.zeros(stays, STEPS, dtype=torch.bool)
    ratio = torch.ones(stays, STEPS, dtype=torch.float64)
    paid, q, v = (torch.zeros(stays, STEPS, dtype=torch.float64) for _ in range(3))
    truth = solved(policy)
    for step in range(STEPS):
        here = going.clone()
        second = uniform[:, step, 0] < LOGGED[condition]
        dose = second.long()
        chance = torch.where(second, policy[condition], 1 - policy[condition])
        given = torch.where(second, LOGGED[condition], 1 - LOGGED[condition])
        death = uniform[:, step, 1] < DEATH[condition, dose]
        rest = 1 - DEATH[condition, dose]
        leaves = uniform[:, step, 2] < DISCHARGE[condition, dose] / rest
        inside[:, step] = here
        ratio[here, step] = (chance / given)[here]
        paid[here, step] = death[here].double()
        q[here, step] = (truth.q[step, condition, dose] + wrong * (1 + dose))[here]
        v[here, step] = (truth.v[step, condition] + wrong * (1 + policy[condition]))[here]
        going = here & ~death & ~leaves
        moves = MOVES[condition, dose].cumsum(1)
        condition = (uniform[:, step, 3:] > moves).sum(1).clip(max=2)
    patient = torch.arange(stays) // per_patient
    return Record(patient, inside, ratio, paid, 1.0, 0.0, 1.0, Values(q, v))
