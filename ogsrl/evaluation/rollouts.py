"""Policies followed in a model of patients: the same patients and the same luck for each.

Called by selection with a model of validation patients, and by the estimator `rollouts`. Common
random numbers, chances instead of drawn ends; what it says is as good as the model, and no better.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import torch

from ogsrl.dynamics.answers import Next
from ogsrl.evaluation.executed import Clinicians
from ogsrl.evaluation.fqe import first_decisions
from ogsrl.evaluation.quantities import COST, MORTALITY, REFUSAL, VALUE, primary
from ogsrl.policies.deployed import Deployed
from ogsrl.policies.outlook import outlook
from ogsrl.preparation.tensors import StayTensors


class Model(Protocol):
    """Dynamics that can take a step."""

    def step(self, states: torch.Tensor, doses: torch.Tensor, generator: torch.Generator) -> Next:
        """What follows each row."""
        ...


@dataclass(frozen=True)
class Expected:
    """What a policy is expected to do: what each patient's stays make of the mean (`by_patient`).

    Attributes:
        each: By quantity: (patients,) expectations over the model's luck.
        steps: (patients,) expected steps.
        deferred: (patients,) expected steps deferred.
        ever_deferred: (patients,) chance of any; as all these, below 0 for who has many stays.
    """

    each: Mapping[str, torch.Tensor]
    steps: torch.Tensor
    deferred: torch.Tensor
    ever_deferred: torch.Tensor

    def same(self, other: Expected) -> bool:
        """Whether it did the same to everybody, bit for bit: with shared luck, it is the same."""
        mine, theirs = ([*one.each.values(), one.steps, one.deferred] for one in (self, other))
        return all(map(torch.equal, mine, theirs))

    @property
    def steps_deferred(self) -> float:
        """Share of all steps."""
        return float(self.deferred.sum() / self.steps.sum())

    def mean(self, quantity: str) -> float:
        """Over patients."""
        return float(self.each[quantity].mean())

    def se(self, quantity: str, less: torch.Tensor | None = None) -> float:
        """Standard error over patients of the mean, or of its difference from `less`."""
        values = self.each[quantity] if less is None else self.each[quantity] - less
        return float(values.std() / len(values) ** 0.5)


@dataclass(frozen=True)
class Rollouts:
    """Where policies are followed: the same first decisions and the same luck for each.

    Attributes:
        model: Of patients.
        behaviour: Who acts where a policy defers.
        states: (stays, columns) first decisions.
        patient: (stays,) number of the patient, from 0.
        seed: Of everything drawn.
    """

    model: Model
    behaviour: Clinicians
    states: torch.Tensor
    patient: torch.Tensor
    seed: int

    @classmethod
    def of(
        cls,
        model: Model,
        behaviour: Clinicians,
        of: StayTensors,
        stays: int,
        generator: torch.Generator,
    ) -> Rollouts:
        """First decisions of so many stays, drawn."""
        first = first_decisions(of)
        kept = first[torch.randperm(len(first), generator=generator)[:stays]].sort().values
        number = torch.unique(of.patient[kept], return_inverse=True)[1]
        seed = int(torch.randint(2**31, (1,), generator=generator))
        return cls(model, behaviour, of.states[kept], number, seed)

    @torch.no_grad()
    def follow(self, deployed: Deployed, instead: Clinicians | None = None) -> Expected:
        """From first decisions to the horizon, each step weighted by the chance to get there.

        Nobody's stay ends by a draw, so that rows, and what is drawn for them, stay the same
        whatever the policy does.

        Args:
            deployed: What acts.
            instead: Who acts where it defers; none: the clinicians.
        """
        cohort = deployed.history.preparation.cohort
        luck, policy, theirs, others = (
            torch.Generator().manual_seed(self.seed + k) for k in range(4)
        )
        states, weight = self.states, torch.ones(len(self.states))
        total = {n: torch.zeros(len(weight)) for n in ("steps", "deferred", "ever", REFUSAL)}
        total |= {primary(cohort): torch.zeros(len(weight))}
        total |= {COST + name: torch.zeros(len(weight)) for name in cohort.constraints}
        before = torch.zeros(len(weight), dtype=torch.bool)
        for number in range(cohort.max_steps):
            decided = deployed.decide(states, policy)
            drawn = self.behaviour.sample(states, theirs)
            if instead is not None and bool(decided.deferred.any()):
                drawn[decided.deferred] = instead.sample(states[decided.deferred], others)
            given = torch.where(decided.deferred[:, None], drawn, decided.doses)
            following = self.model.step(states, given, luck)
            if following.unsafe is None and not cohort.constraints:
                following = replace(following, unsafe=states.new_zeros(len(states), 0))
            seen = outlook(states, following, deployed.history, number=number)
            total["steps"] += weight
            total["deferred"] += weight * decided.deferred
            total[REFUSAL] += weight * decided.deferred / cohort.max_steps
            total["ever"] += weight * (decided.deferred & ~before)
            if VALUE in total:
                total[VALUE] += weight * cohort.discount**number * seen.reward
            if MORTALITY in total:
                total[MORTALITY] += weight * seen.death
            for j, name in enumerate(cohort.constraints):
                total[COST + name] += weight * seen.costs[:, j]
            before |= decided.deferred
            weight, states = weight * seen.going, following.states
        made = {name: self._by_patient(values) for name, values in total.items()}
        steps, deferred, ever = (made.pop(name) for name in ("steps", "deferred", "ever"))
        return Expected(made, steps, deferred, ever)

    def _by_patient(self, values: torch.Tensor) -> torch.Tensor:
        return by_patient(values[None], self.patient)[0]


def by_patient(values: torch.Tensor, patient: torch.Tensor) -> torch.Tensor:
    """(fits, patients) of (fits, stays): what each patient's stays make of the mean over stays.

    Their mean is that over stays, and their scatter its error, patients being what is drawn; a mean
    of each patient's mean would count deaths too often, since only survivors come again.

    >>> by_patient(torch.tensor([[1.0, 2.0, 4.0]]), torch.tensor([0, 1, 1]))
    tensor([[1.4444, 3.2222]])
    """
    number = torch.unique(patient, return_inverse=True)[1]
    count = torch.bincount(number).to(values.dtype)
    mean = values.mean(1, keepdim=True)
    apart = torch.zeros(len(values), len(count), dtype=values.dtype)
    apart.index_add_(1, number, values - mean)
    return mean + apart / count.mean()
