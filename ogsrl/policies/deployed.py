"""What really acts: a policy's proposal as an order, or `defer` at a hazard or outside the region.

The one such place: targets of training, selection, evaluation, truth and query all ask it. Where it
defers, the clinician acts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import torch

from ogsrl.constraints import Rule, hazard_rules
from ogsrl.guardian.protocol import Guardian
from ogsrl.policies.orders import Orders
from ogsrl.preparation.history import History

#: Rules that a guardian does not have.
HAZARD, NO_POLICY, NOT_A_NUMBER = "hazard:", "no_policy", "not_a_number"
NOT_CHARTED = "not_charted"


class Actor(Protocol):
    """Anything that proposes doses: scaled states in, scaled doses out; it need not be careful."""

    def propose(self, states: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """(rows, doses) in [-1, 1]; differentiable if the actor can learn."""
        ...


@dataclass(frozen=True)
class Decisions:
    """What was decided for each row.

    Attributes:
        doses: Scaled doses as ordered; of those deferred, what would have been (NaN: unreadable).
        score: The guardian's score of them; it has a gradient in the doses.
        deferred: Whether the clinician acts instead.
        hazard: Whether a hazard was the reason.
    """

    doses: torch.Tensor
    score: torch.Tensor
    deferred: torch.Tensor
    hazard: torch.Tensor


@dataclass(frozen=True)
class Deployed:
    """pi as it acts: orders, hazards, guardian.

    Attributes:
        actor: What proposes; None: `no policy`, which always defers.
        guardian: The region; None is for ablations alone.
        orders: How a proposal becomes a dose that can be given.
    """

    actor: Actor | None
    guardian: Guardian | None
    orders: Orders

    @classmethod
    def of(cls, actor: Actor | None, guardian: Guardian | None, history: History) -> Deployed:
        """An actor under a guardian, for states of this layout."""
        return cls(actor, guardian, Orders.of(history))

    @property
    def history(self) -> History:
        """The layout of states."""
        return self.orders.history

    @cached_property
    def _hazards(self) -> Mapping[str, Rule]:
        """Hazards whose columns the cohort has; of others nothing can be known."""
        preparation = self.history.preparation
        known = {*preparation.states, *preparation.doses}
        rules = hazard_rules(preparation.cohort)
        return {name: rule for name, rule in rules.items() if known.issuperset(rule.columns)}

    def decide(self, states: torch.Tensor, generator: torch.Generator) -> Decisions:
        """A verdict and doses for each row."""
        if self.actor is None:
            everyone = torch.ones(len(states), dtype=torch.bool)
            doses = states.new_full((len(states), len(self.orders.orders)), -1.0)
            return Decisions(doses, states.new_full((len(states),), torch.inf), everyone, ~everyone)
        return self.judge(states, self.actor.propose(states, generator))

    def judge(self, states: torch.Tensor, proposed: torch.Tensor) -> Decisions:
        """A verdict on proposals, and the doses that they become."""
        unreadable = ~(torch.isfinite(states).all(1) & torch.isfinite(proposed).all(1))
        if bool(unreadable.any()):  # also where it is a column that the guardian does not look at
            rows = unreadable[:, None]
            decided = self.judge(states.masked_fill(rows, 0.0), proposed.masked_fill(rows, 0.0))
            return Decisions(
                decided.doses.masked_fill(rows, torch.nan),
                decided.score.masked_fill(unreadable, torch.inf),
                decided.deferred | unreadable,
                decided.hazard & ~unreadable,
            )
        doses = self.orders.ordered(states, proposed)
        hazards, unknown = self._dangers(states, doses.detach())
        hazard = torch.zeros_like(unknown)
        for value in hazards.values():
            hazard |= value == 1
        if self.guardian is None:
            score = states.new_zeros(len(states))
            return Decisions(doses, score, hazard | unknown, hazard)
        score = self.guardian.score(states, doses)
        supported = self.guardian.accepts(score.detach())
        return Decisions(doses, score, hazard | unknown | ~supported, hazard)

    @torch.no_grad()
    def _dangers(
        self, states: torch.Tensor, doses: torch.Tensor
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Each hazard on each row, 1 where it is met; and where too little was ever charted.

        What fills a gap is a guess, and looks like anybody. So a hazard that hangs on a column
        that was never charted is NaN; and nothing may be said where more of `watched` is uncharted,
        or one of them for longer, than ten training patients tell of.
        """
        made = self.history.preparation
        uncharted = self.history.uncharted(states, made.watched)
        needed = {column for rule in self._hazards.values() for column in rule.columns}
        values = self.history.clinical(states, needed)
        for name, never in zip(made.watched, uncharted.T.cpu().numpy(), strict=True):
            if name in needed:
                values[name] = np.where(never, np.nan, values[name])
        for j, (name, order) in enumerate(self.orders.orders.items()):
            values[name] = order.scale.inverse(doses[:, j].cpu().numpy())
        hazards = {
            name: torch.from_numpy(rule.numpy(values)).to(states.device)
            for name, rule in self._hazards.items()
        }
        longest = states.new_tensor([made.longest_gaps.get(name, 0) for name in made.watched])
        unknown = uncharted.sum(1) > made.most_gaps
        unknown |= (self.history.gaps(states, made.watched) > longest).any(1)
        for value in hazards.values():
            unknown |= value.isnan()
        return hazards, unknown

    @torch.no_grad()
    def rules(self, states: torch.Tensor, decided: Decisions) -> list[str | None]:
        """Why each row was deferred; None where a dose was recommended."""
        if self.actor is None:
            return [NO_POLICY] * len(states)
        said: list[str | None] = [NOT_A_NUMBER] * len(states)
        readable = torch.isfinite(decided.doses).all(1).nonzero().squeeze(1)
        states, doses = states[readable], decided.doses[readable]
        found: list[str | None] = [None] * len(states)
        if self.guardian is not None:
            found = list(self.guardian.rules(states, doses))
        hazards, unknown = self._dangers(states, doses)
        for row in unknown.nonzero().squeeze(1).tolist():
            found[row] = NOT_CHARTED
        for name, value in hazards.items():
            for row in (value == 1).nonzero().squeeze(1).tolist():
                found[row] = HAZARD + name
        for row, rule in zip(readable.tolist(), found, strict=True):
            said[row] = rule
        return said
