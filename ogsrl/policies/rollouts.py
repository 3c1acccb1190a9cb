"""Rollouts of a `Deployed` in the model, in bulk: rows for the critics, shares for the multipliers.

Called by training (and never by evaluation: the model that trained a policy flatters it). The
guardian is part of the environment: where it defers, a clinician's dose is drawn and not checked.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from ogsrl.behaviour.policy import Behaviour
from ogsrl.dynamics.ensemble import Dynamics
from ogsrl.policies.deployed import Decisions, Deployed
from ogsrl.policies.outlook import outlook, steps_of

DRAWS = 8


@dataclass(frozen=True)
class Rows:
    """Steps that the model took.

    Attributes:
        states: s.
        now: (rows, quantities) expected reward, costs, and refused / max_steps.
        going: Chance that the stay goes on.
        next_states: s'.
        refused: Whether the dose was a clinician's.
        disagreement: How far members were apart.
    """

    states: torch.Tensor
    now: torch.Tensor
    going: torch.Tensor
    next_states: torch.Tensor
    refused: torch.Tensor
    disagreement: torch.Tensor

    @classmethod
    def joined(cls, parts: list[Rows]) -> Rows:
        """Many as one."""
        names = cls.__dataclass_fields__
        return cls(**{n: torch.cat([getattr(part, n) for part in parts]) for n in names})


@dataclass(frozen=True)
class Shares:
    """What stays came to that were followed from their first decision.

    Attributes:
        totals: (quantities,) V at first decisions, means over stays, chances for ends.
        deaths: Mean chance of a death that counts.
        deferred: Share of steps deferred.
    """

    totals: torch.Tensor
    deaths: float
    deferred: float


@dataclass(frozen=True)
class World:
    """The model as an environment for one policy.

    Attributes:
        deployed: What acts.
        behaviour: b: who acts where it defers.
        dynamics: P^.
        offset: Taken off what any end pays, see `outlook`.
        stops: Whether a refusal ends the stay and counts as a death, instead of going on with a
            clinician's dose.
    """

    deployed: Deployed
    behaviour: Behaviour
    dynamics: Dynamics
    offset: float = 0.0
    stops: bool = False

    @torch.no_grad()
    def step(self, states: torch.Tensor, generator: torch.Generator) -> tuple[Rows, torch.Tensor]:
        """One step of every row, and the chance of a death in it."""
        return self._after(states, self.deployed.decide(states, generator), generator)

    @torch.no_grad()
    def act(
        self, states: torch.Tensor, proposed: torch.Tensor, generator: torch.Generator
    ) -> tuple[Rows, torch.Tensor]:
        """The same for doses that were proposed already."""
        return self._after(states, self.deployed.judge(states, proposed), generator)

    def _after(
        self, states: torch.Tensor, decided: Decisions, generator: torch.Generator
    ) -> tuple[Rows, torch.Tensor]:
        history = self.deployed.history
        most = history.preparation.cohort.max_steps
        drawn = self.behaviour.sample(states, generator)
        doses = torch.where(decided.deferred[:, None], drawn, decided.doses)
        following = self.dynamics.step(states, doses, generator, draws=DRAWS)
        if self.stops:
            dead = torch.ones_like(following.p_death)
            following = replace(
                following,
                p_death=torch.where(decided.deferred, dead, following.p_death),
                p_discharge=torch.where(decided.deferred, 0.0, following.p_discharge),
            )
        seen = outlook(states, following, history, self.offset)
        refused = decided.deferred.to(states.dtype)
        now = torch.cat([seen.reward[:, None], seen.costs, refused[:, None] / most], 1)
        apart = following.disagreement
        apart = torch.zeros_like(refused) if apart is None else apart
        rows = Rows(states, now, seen.going, following.states, refused, apart)
        return rows, seen.death

    def roll(self, states: torch.Tensor, horizon: int, generator: torch.Generator) -> Rows:
        """So many steps from each state, as if nobody's stay ended before the last step."""
        parts = []
        for _ in range(horizon):
            rows, _ = self.step(states, generator)
            parts.append(rows)
            states = rows.next_states[rows.going > 0]
            if not len(states):
                break
        return Rows.joined(parts)

    def follow(
        self, states: torch.Tensor, discounts: torch.Tensor, generator: torch.Generator
    ) -> tuple[Rows, Shares]:
        """From first decisions to the horizon, each step weighted by the chance to get there."""
        most = self.deployed.history.preparation.cohort.max_steps
        weight = torch.ones(len(states))
        totals = torch.zeros(len(discounts))
        deaths, refused, steps, parts = 0.0, 0.0, 0.0, []
        for k in range(most):
            rows, death = self.step(states, generator)
            parts.append(rows)
            totals += discounts**k * (weight[:, None] * rows.now).sum(0)
            deaths += float((weight * death).sum())
            refused += float((weight * rows.refused).sum())
            steps += float(weight.sum())
            on = rows.going > 0
            weight, states = (weight * rows.going)[on], rows.next_states[on]
            if not len(states) or not bool((steps_of(states, self.deployed.history) < most).all()):
                break
        people = len(parts[0].states)
        return Rows.joined(parts), Shares(totals / people, deaths / people, refused / steps)
