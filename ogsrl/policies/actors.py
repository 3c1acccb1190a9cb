"""Actors that only propose: trained networks, and the plain policies that they are compared with.

Called through `Deployed`, which alone decides whether a proposal is given. None of them learns
here, and none remembers anything between calls.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from ogsrl.behaviour.distribution import Marginal
from ogsrl.behaviour.policy import Behaviour
from ogsrl.errors import ModelError
from ogsrl.policies.codes import DoseLevels, StateCodes
from ogsrl.policies.networks import Perceptrons
from ogsrl.policies.orders import Orders
from ogsrl.preparation.history import History
from ogsrl.spec import Protocol, parse_expression

#: Rows answered at a time, so that what a row needs stays near the processor.
BLOCK = 4_096


@dataclass(frozen=True)
class NetworkActor:
    """pi(s) = tanh(f(s)), f the first of these networks.

    Attributes:
        networks: They may go on being trained: this actor follows.
        codes: How codes of a state go in; None: states go in as they are.
    """

    networks: Perceptrons
    codes: StateCodes | None = None

    @torch.no_grad()
    def propose(self, states: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Doses in [-1, 1]; nothing is drawn."""
        del generator
        return torch.cat([answer[0].tanh() for answer in _answers(self, states)])


@dataclass(frozen=True)
class LevelsActor:
    """pi(s) = the doses of argmax_k f_k(s) over the combinations of ordinal levels.

    With a `flexibility`, a second network g says how usual a combination is, and only those with
    g_k(s) > flexibility x max g(s), as probabilities, are chosen from (BCQ).

    Attributes:
        networks: f, and g where there is a flexibility; one output a combination.
        levels: The combinations.
        codes: How codes of a state go in; None: states go in as they are.
        flexibility: The least share of the likeliest combination's probability.
    """

    networks: Perceptrons
    levels: DoseLevels
    codes: StateCodes | None = None
    flexibility: float | None = None

    @torch.no_grad()
    def propose(self, states: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Doses in [-1, 1], each a level; nothing is drawn."""
        del generator
        best = [self._best(answers) for answers in _answers(self, states)]
        return self.levels.levels[torch.cat(best)]

    def _best(self, answers: torch.Tensor) -> torch.Tensor:
        worth = answers[0]
        if self.flexibility is not None:
            usual = answers[1].log_softmax(1)
            share = usual - usual.amax(1, keepdim=True)
            worth = worth.masked_fill(share <= math.log(self.flexibility), -torch.inf)
        return worth.argmax(1)


@dataclass(frozen=True)
class TableActor:
    """A combination of ordinal levels for each code of the one categorical state.

    Attributes:
        cells: (codes,) the combination's number.
        levels: The combinations.
    """

    cells: torch.Tensor
    levels: DoseLevels

    @torch.no_grad()
    def propose(self, states: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Doses in [-1, 1], each a level; NaN for what is no code."""
        del generator
        code = states[:, 0].nan_to_num(-1.0)
        known = (code >= 0) & (code < len(self.cells)) & (code == code.round())
        doses = self.levels.levels[self.cells[torch.where(known, code, 0.0).long()]]
        return doses.to(states.dtype).masked_fill(~known[:, None], torch.nan)


@dataclass(frozen=True)
class ConstantActor:
    """The same scaled doses for everybody, in the cohort's order."""

    doses: tuple[float, ...]

    @classmethod
    def zero(cls, history: History) -> ConstantActor:
        """No dose of anything, or the least that the bounds allow."""
        return cls._at(history, 0.0)

    @classmethod
    def maximum(cls, history: History) -> ConstantActor:
        """The largest dose of everything."""
        return cls._at(history, math.inf)

    @classmethod
    def _at(cls, history: History, dose: float) -> ConstantActor:
        scales = history.preparation.doses.values()
        given = [(scale, np.clip(np.array([dose]), scale.low, scale.high)) for scale in scales]
        return cls(tuple(float(scale.forward(there)[0]) for scale, there in given))

    def propose(self, states: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """The same doses in each row."""
        del generator
        return states.new_tensor(self.doses).repeat(len(states), 1)


@dataclass(frozen=True)
class MarginalActor:
    """Draws from how training clinicians dosed, whatever the state."""

    marginal: Marginal

    def propose(self, states: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Doses drawn, one set a row."""
        return self.marginal.distribution(states).sample(generator)


@dataclass(frozen=True)
class DenoisedActor:
    """Clinicians without their variation: the likeliest doses of b(a|s)."""

    behaviour: Behaviour

    def __post_init__(self) -> None:
        """Refuse a behaviour that was never fitted, before anything is asked of it."""
        _ = self.behaviour.known

    @torch.no_grad()
    def propose(self, states: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """The mode in each row; NaN where the state cannot be read."""
        del generator
        unreadable = ~torch.isfinite(states).all(1, keepdim=True)
        doses = self.behaviour.mode(states.masked_fill(unreadable, 0.0))
        return doses.masked_fill(unreadable, torch.nan)


@dataclass(frozen=True)
class ProtocolActor:
    """A written protocol: of each dose the first line that holds.

    It sees a state as everybody here does: a column that is not charted holds what filled it, the
    last known value, the training median or the normal one, as its `missing` says.

    Attributes:
        orders: The doses, and where states remember the last ones.
        protocol: Its lines.
    """

    orders: Orders
    protocol: Protocol

    @classmethod
    def of(cls, history: History, protocol: Protocol | None) -> ProtocolActor:
        """The protocol of a cohort, if it names one that its states can follow."""
        if protocol is None:
            raise ModelError(
                "protocol: the cohort file names none; add `protocol:`, or take the entry out of "
                "train.algorithms"
            )
        changed = [n for n, lines in protocol.doses.items() if any(x.dose is None for x in lines)]
        if changed and not history.steps:
            raise ModelError(
                f"protocol.doses.{changed[0]}: `change` needs the dose last given, which states do "
                "not hold; set prepare.history_steps to 1 or more, or write `dose`"
            )
        return cls(Orders.of(history), protocol)

    @torch.no_grad()
    def propose(self, states: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Doses in each row; NaN where the state cannot be read."""
        del generator
        history, last = self.orders.history, self.orders.last_given(states).double().cpu().numpy()
        unreadable = ~torch.isfinite(states).all(1, keepdim=True)
        proposed = []
        for j, (name, order) in enumerate(self.orders.orders.items()):
            dose, waiting = np.zeros(len(states)), np.ones(len(states), bool)
            for line in self.protocol.doses[name]:
                holds = waiting
                if line.when is not None:
                    rule = parse_expression(line.when)
                    known = history.clinical(states, rule.columns)
                    holds = waiting & (np.broadcast_to(rule.numpy(known), len(states)) == 1)
                given = line.dose if line.dose is not None else last[:, j] + (line.change or 0.0)
                dose, waiting = np.where(holds, given, dose), waiting & ~holds
            inside = np.clip(dose, *order.action.range)
            proposed.append(torch.from_numpy(order.scale.forward(inside)))
        return torch.stack(proposed, 1).to(states).masked_fill(unreadable, torch.nan)


def check_fits(actor: NetworkActor | LevelsActor, history: History) -> None:
    """Raise unless the networks take states of this layout and answer for its doses."""
    shape = actor.networks.shape
    width = actor.codes.width if actor.codes else len(history.columns)
    if isinstance(actor, LevelsActor):
        needed, wanted = 2 if actor.flexibility is not None else 1, len(actor.levels)
    else:
        needed, wanted = 1, len(history.preparation.doses)
    if (shape.inputs, shape.outputs) != (width, wanted) or shape.networks < needed:
        raise ModelError(
            f"policy: {shape.networks} networks of {shape.inputs} inputs and {shape.outputs} "
            f"outputs; this cohort needs {needed} of {width} and {wanted}: train it again"
        )


def check_table(actor: TableActor, history: History) -> None:
    """Raise unless the table is one of this layout's codes and levels."""
    (codes,) = StateCodes.of(history).levels.values() or (0,)
    cells = actor.cells
    fits = cells.shape == (codes,) and len(history.columns) == 1
    if not fits or bool(((cells < 0) | (cells >= len(actor.levels))).any()):
        raise ModelError(
            f"policy: a table of {len(cells)} codes; this cohort has {codes} codes and "
            f"{len(actor.levels)} combinations of doses: train it again"
        )


def _answers(actor: NetworkActor | LevelsActor, states: torch.Tensor) -> list[torch.Tensor]:
    codes = actor.codes
    parts = torch.split(states, BLOCK)
    return [actor.networks.answer(codes.inputs(part) if codes else part) for part in parts]
