"""Whole stays of a policy that draws its doses, followed in the model, and their advantages.

Called by the guarded CPO. Ends are chances, as everywhere in training, so that a stay has a weight
that falls; nothing of one stay enters another's advantage.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from ogsrl.policies.rollouts import Rows, World

#: Doses drawn for states.
Draw = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Episodes:
    """Steps of stays from their first decision on, one a row, step by step.

    Attributes:
        rows: What each step paid and cost, and how surely its stay goes on.
        proposed: Doses proposed, before they became orders.
        stay: Number of the stay.
        step: Number of its step.
        weight: Chance that the stay gets there.
        deaths: Mean chance of a death that counts.
        stays: Number of stays.
    """

    rows: Rows
    proposed: torch.Tensor
    stay: torch.Tensor
    step: torch.Tensor
    weight: torch.Tensor
    deaths: float
    stays: int

    @classmethod
    @torch.no_grad()
    def follow(
        cls, world: World, first: torch.Tensor, draw: Draw, generator: torch.Generator
    ) -> Episodes:
        """From these first decisions to the horizon."""
        most = world.deployed.history.preparation.cohort.max_steps
        states, stay = first, torch.arange(len(first))
        weight, deaths = torch.ones(len(first)), 0.0
        parts, told = [], []
        for k in range(most):
            proposed = draw(states)
            rows, death = world.act(states, proposed, generator)
            if k == most - 1:  # also where a state does not know its step
                rows = replace(rows, going=torch.zeros_like(rows.going))
            parts.append(rows)
            told.append((proposed, stay, torch.full_like(stay, k), weight))
            deaths += float((weight * death).sum())
            on = rows.going > 0
            weight, states, stay = (weight * rows.going)[on], rows.next_states[on], stay[on]
            if not len(states):
                break
        proposed, stay, step, weight = (torch.cat(column) for column in zip(*told, strict=True))
        count = len(first)
        return cls(Rows.joined(parts), proposed, stay, step, weight, deaths / count, count)

    def shares(self, discounts: torch.Tensor) -> torch.Tensor:
        """(rows, quantities) what a unit of each quantity in this row adds to V at the start."""
        return self.weight[:, None] * discounts ** self.step[:, None] / self.stays

    def totals(self, discounts: torch.Tensor) -> torch.Tensor:
        """(quantities,) V at first decisions."""
        return (self.shares(discounts) * self.rows.now).sum(0)

    @property
    def deferred(self) -> float:
        """Share of steps deferred."""
        return float((self.weight * self.rows.refused).sum() / self.weight.sum())

    def advantages(
        self, values: torch.Tensor, after: torch.Tensor, discounts: torch.Tensor, decay: float
    ) -> torch.Tensor:
        r"""Generalised advantages, (rows, quantities).

            delta_t = now_t + going_t gamma V(s_t+1) - V(s_t)
            A_t = delta_t + going_t gamma lambda A_t+1

        Args:
            values: (rows, quantities) V(s).
            after: The same of the next states.
            discounts: (quantities,) gamma.
            decay: lambda.
        """
        on = discounts * self.rows.going[:, None]
        found = self.rows.now + on * after - values
        ahead = torch.zeros(self.stays, found.shape[1])
        for k in range(int(self.step.max()), -1, -1):
            here = (self.step == k).nonzero().squeeze(1)
            found[here] += decay * on[here] * ahead[self.stay[here]]
            ahead[self.stay[here]] = found[here]
        return found
