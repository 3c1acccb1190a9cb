"""The joint distribution of all doses of a decision, as a chain, and policies made from one.

Called by everything that asks for clinicians' doses: one interface for samples, modes, densities.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch

from ogsrl.behaviour.doses import DoseGrid, OneDose
from ogsrl.errors import ModelError

#: The distribution of dose j in each row, given the doses before it in the chain (rows, j).
Conditional = Callable[[int, torch.Tensor], OneDose]


@dataclass(frozen=True)
class DoseDistribution:
    """b(a|s) in each of many rows: b(a_1|s) b(a_2|s, a_1) and so on, in the cohort's order.

    Doses are in [-1, 1]. Densities are with respect to the log of each dose in clinical units
    where it lies between zero and the maximum, and to counting elsewhere; so the ratio of two
    policies' densities of the same doses is the importance weight.
    """

    grids: tuple[DoseGrid, ...]
    rows: int
    conditional: Conditional

    def given(self, doses: torch.Tensor) -> dict[str, OneDose]:
        """Each dose's distribution, given the doses before it as in `doses` (rows, doses)."""
        doses = self._checked(doses)
        return {g.name: self.conditional(j, doses[:, :j]) for j, g in enumerate(self.grids)}

    def log_prob(self, doses: torch.Tensor) -> torch.Tensor:
        """Log probability (density between) of the doses of each row; -inf where never given."""
        each = self.given(doses).values()
        return torch.stack([one.log_prob(doses[:, j]) for j, one in enumerate(each)]).sum(0)

    def parts(self, doses: torch.Tensor) -> dict[str, torch.Tensor]:
        """Probability of zero, between and maximum for each dose, given the doses before it."""
        return {name: one.parts() for name, one in self.given(doses).items()}

    def sample(self, generator: torch.Generator) -> torch.Tensor:
        """Doses drawn, one set a row."""
        return self._one_by_one(lambda one: one.sample(generator))

    def at(self, numbers: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
        """The doses of each row that numbers in [0, 1) stand for.

        Args:
            numbers: (rows, doses, 3).
            first: Log weights of the first dose, before which nothing comes: rows may share them.
        """
        places = iter(numbers.unbind(1))
        known = OneDose(self.grids[0], first)
        return self._one_by_one(lambda one: one.at(next(places)), known)

    def mode(self) -> torch.Tensor:
        """The likeliest part of each dose and its highest density there, dose after dose."""
        return self._one_by_one(OneDose.mode)

    def mean(self, generator: torch.Generator, draws: int = 16) -> torch.Tensor:
        """Mean scaled doses; exact for the first, later ones averaged over draws of earlier."""
        total = torch.zeros(self.rows, len(self.grids))
        for _ in range(draws if len(self.grids) > 1 else 1):
            means: list[torch.Tensor] = []

            def draw(one: OneDose, means: list[torch.Tensor] = means) -> torch.Tensor:
                means.append(one.mean())
                return one.sample(generator)

            self._one_by_one(draw)
            total += torch.stack(means, 1)
        return total / (draws if len(self.grids) > 1 else 1)

    def _one_by_one(
        self, choose: Callable[[OneDose], torch.Tensor], first: OneDose | None = None
    ) -> torch.Tensor:
        chosen = torch.zeros(self.rows, 0)
        for j in range(len(self.grids)):
            known = first if j == 0 else None
            dose = choose(known or self.conditional(j, chosen))
            chosen = torch.cat([chosen, dose[:, None]], 1)
        return chosen

    def _checked(self, doses: torch.Tensor) -> torch.Tensor:
        wanted = (self.rows, len(self.grids))
        if tuple(doses.shape) != wanted:
            names = ", ".join(grid.name for grid in self.grids)
            raise ModelError(
                f"doses: a tensor of {tuple(doses.shape)}, expected {wanted} for {names}"
            )
        return doses


class DosePolicy(Protocol):
    """Whatever gives a distribution of doses in each state."""

    def distribution(self, states: torch.Tensor) -> DoseDistribution:
        """The distribution of doses in each row of `states`."""


@dataclass(frozen=True)
class Tempered:
    """A policy whose weights are raised to a power: above 1 surer than it, below 1 less sure."""

    policy: DosePolicy
    power: float

    def distribution(self, states: torch.Tensor) -> DoseDistribution:
        """The tempered distribution of doses in each row."""
        plain = self.policy.distribution(states)

        def conditional(j: int, earlier: torch.Tensor) -> OneDose:
            return plain.conditional(j, earlier).tempered(self.power)

        return DoseDistribution(plain.grids, plain.rows, conditional)


@dataclass(frozen=True)
class Supported:
    """A policy kept to what another gives: components that the other gives too rarely are left out.

    pi(c) is proportional to p(c) where b(c) >= least p(c), and 0 elsewhere; where nothing is left
    it is b itself. So no component's weight pi/b exceeds 1 / (least x what is left of p).

    Attributes:
        policy: p, the policy to be kept.
        within: b.
        least: The least b(c) / p(c).
    """

    policy: DosePolicy
    within: DosePolicy
    least: float

    def distribution(self, states: torch.Tensor) -> DoseDistribution:
        """The policy's distribution of doses, kept to the other's support."""
        plain, known = self.policy.distribution(states), self.within.distribution(states)

        def conditional(j: int, earlier: torch.Tensor) -> OneDose:
            wanted = plain.conditional(j, earlier).log_weights
            given = known.conditional(j, earlier).log_weights
            kept = (given >= wanted + math.log(self.least)) & (wanted > -torch.inf)
            nothing = ~kept.any(1, keepdim=True)
            weights = torch.where(kept, wanted, -torch.inf)
            return OneDose(plain.grids[j], torch.where(nothing, given, weights).log_softmax(1))

        return DoseDistribution(plain.grids, plain.rows, conditional)


@dataclass(frozen=True)
class Marginal:
    """How clinicians dose when nothing of the patient is known: one distribution for all rows."""

    grids: tuple[DoseGrid, ...]
    log_weights: tuple[torch.Tensor, ...]

    def distribution(self, states: torch.Tensor) -> DoseDistribution:
        """The same distribution in each row."""
        rows = len(states)

        def conditional(j: int, earlier: torch.Tensor) -> OneDose:
            return OneDose(self.grids[j], self.log_weights[j].expand(rows, -1))

        return DoseDistribution(self.grids, rows, conditional)
