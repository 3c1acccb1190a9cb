"""What fitted Q evaluation is made of: parameters, inputs and outputs, logged decisions.

Called by `ogsrl.evaluation.fqe` alone, which trains.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from ogsrl.evaluation.executed import Executed
from ogsrl.evaluation.quantities import REFUSAL, Quantity, to_go
from ogsrl.policies.codes import StateCodes
from ogsrl.preparation.tensors import StayTensors

#: The least chance or share that a fit begins with; the least deviations of a dose and of a share.
LEAST, LEAST_DEVIATION, LEAST_APART = 1e-3, 0.05, 0.02


class Seen(NamedTuple):
    """Rows as networks take them.

    Attributes:
        numbers: (..., rows, columns) numbers of the state, then doses.
        codes: (..., rows, codes); None where the cohort has none.
    """

    numbers: torch.Tensor
    codes: torch.Tensor | None

    def each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Seen:
        """Both changed alike."""
        return Seen(change(self.numbers), None if self.codes is None else change(self.codes))


@dataclass(frozen=True)
class Inputs:
    """What networks see: the state, and how far each dose is from what is usual there.

    Doses follow the state: seen as they are, what a dose does is lost among what the state says of
    it, and all that is unusual looks worse than it is (docs/decisions/0023). So they go in less
    what a linear function of the state says of them, and wide enough for their part to be learned.

    Attributes:
        codes: How codes of a state go in.
        usual: (inputs and 1, doses) that function.
        width: What the rest of each dose is multiplied with.
    """

    codes: StateCodes
    usual: torch.Tensor
    width: torch.Tensor

    @classmethod
    def of(cls, stays: StayTensors, weight: float) -> Inputs:
        """What is left of doses gets deviation `weight`."""
        made = stays.transitions()
        codes = StateCodes.of(stays.history)
        x = torch.cat([codes.inputs(made.states), torch.ones(len(made.states), 1)], 1).double()
        y = made.doses.double()
        gram = x.T @ x + 1e-3 * len(x) * torch.eye(x.shape[1], dtype=x.dtype)
        usual = torch.linalg.solve(gram, x.T @ y)
        left = (y - x @ usual).square().mean(0).sqrt()
        return cls(codes, usual.float(), (weight / left.clip(min=LEAST_DEVIATION)).float())

    @property
    def columns(self) -> int:
        """Number of inputs."""
        return self.codes.width + len(self.width)

    def __call__(self, states: torch.Tensor, doses: torch.Tensor) -> Seen:
        """Of states (rows, .) and doses (..., rows, .)."""
        return self.beside(states, self.unusual(states, doses))

    def unusual(self, states: torch.Tensor, doses: torch.Tensor) -> torch.Tensor:
        """(..., rows, .) doses as they go in."""
        numbers, codes = self.codes.numbers(states), self.codes.codes(states)
        last = numbers.shape[1]
        usual = numbers @ self.usual[:last] + self.usual[-1]
        if codes is not None:  # an unknown one, -1, says nothing
            each = torch.cat([self.usual[last:-1], torch.zeros(1, doses.shape[-1])])
            usual = usual + each[codes].sum(1)
        return (doses - usual) * self.width

    def beside(self, states: torch.Tensor, unusual: torch.Tensor) -> Seen:
        """Of states (rows, .) and `unusual` doses there, (..., rows, .)."""
        numbers, codes = self.codes.numbers(states), self.codes.codes(states)
        before = unusual.shape[:-1]
        seen = torch.cat([numbers.expand(*before, -1), unusual], -1)
        return Seen(seen, None if codes is None else codes.expand(*before, -1))


@dataclass(frozen=True)
class Heads:
    """Answers of networks as values within their range: low + (high - low) sigmoid(z + start).

    Attributes:
        low: (quantities,).
        span: (quantities,) high - low.
        start: (policies, 1, 1, quantities) logits of the mean value that fits begin with.
    """

    low: torch.Tensor
    span: torch.Tensor
    start: torch.Tensor

    def shares(self, answers: torch.Tensor) -> torch.Tensor:
        """(policies, networks, rows, quantities) as shares of their range."""
        policies, quantities_ = self.start.shape[0], len(self.low)
        return torch.sigmoid(answers.view(policies, -1, answers.shape[1], quantities_) + self.start)

    def values(self, shares: torch.Tensor) -> torch.Tensor:
        """Shares of the range as values."""
        return self.low + self.span * shares


def first_decisions(stays: StayTensors) -> torch.Tensor:
    """Rows of first decisions, one a stay that holds any."""
    return ((stays.step == 0) & stays.decision).nonzero().squeeze(1)


@dataclass(frozen=True)
class Task:
    """Logged decisions, and what each policy would have done next."""

    states: torch.Tensor
    doses: torch.Tensor
    next_states: torch.Tensor
    next_doses: torch.Tensor  # (draws, policies, decisions, doses)
    paid: torch.Tensor  # (decisions, quantities)
    counts: torch.Tensor
    going: torch.Tensor  # discounted; (decisions, quantities)
    refused: torch.Tensor  # (draws, policies, decisions, quantities) after the step
    low: torch.Tensor
    high: torch.Tensor
    returns: torch.Tensor  # (policies, decisions, quantities) as logged
    known: torch.Tensor  # decisions of which that is known
    patient: torch.Tensor

    @classmethod
    def of(
        cls, stays: StayTensors, executed: Mapping[str, Executed], wanted: Sequence[Quantity]
    ) -> Task:
        made = stays.transitions()
        following = stays.next_row[made.row].clip(min=0)
        going = (~made.terminal).float()
        paid = torch.stack([one.paid for one in wanted], 1)
        once = torch.tensor([one.once for one in wanted])
        discount = torch.tensor([one.discount for one in wanted])
        deferred = torch.stack([one.deferred[:, following] for one in executed.values()], 1)
        share = deferred * going / stays.history.preparation.cohort.max_steps
        refusal = torch.tensor([one.name == REFUSAL for one in wanted])
        returns = [to_go(stays, one) for one in wanted]
        logged = torch.stack([total for total, _ in returns], 1).repeat(len(executed), 1, 1)
        for j, one in enumerate(wanted):
            if one.name == REFUSAL:  # what the policy would refuse of the rows still to come
                for p, of_policy in enumerate(share.mean(0)):
                    theirs = Quantity(one.name, of_policy, one.counts, 1.0, 0.0, 1.0)
                    logged[p, :, j] = to_go(stays, theirs)[0]
        return cls(
            states=made.states,
            doses=made.doses,
            next_states=made.next_states,
            next_doses=torch.stack([one.doses[:, following] for one in executed.values()], 1),
            paid=paid,
            counts=torch.stack([one.counts for one in wanted], 1).float(),
            going=discount * going[:, None] * torch.where(once, 1 - paid, 1.0),
            refused=share[..., None] * refusal,
            low=torch.tensor([one.low for one in wanted]),
            high=torch.tensor([one.high for one in wanted]),
            returns=logged,
            known=returns[0][1].nonzero().squeeze(1),
            patient=stays.patient[made.row],
        )

    def __len__(self) -> int:
        return len(self.states)

    def heads(self) -> Heads:
        """Values that begin at the mean of what was logged."""
        mean = self._shares().mean(1).clip(LEAST, 1 - LEAST)
        return Heads(self.low, self._span, torch.logit(mean)[:, None, None])

    def weights(self) -> torch.Tensor:
        """(quantities,) what errors count: more, the less patients differ in a quantity.

        Else the layers that quantities share are made for deaths alone.
        """
        apart = self._shares().flatten(0, 1).std(0, correction=0)
        return 1 / apart.clip(min=LEAST_APART)

    def _shares(self) -> torch.Tensor:
        """(policies, some decisions, quantities) what was logged, in shares of its range."""
        some = len(self.known) > 0
        logged = self.returns[:, self.known] if some else self.paid.expand_as(self.returns)
        return (logged - self.low) / self._span

    @property
    def _span(self) -> torch.Tensor:
        """(quantities,) of their ranges."""
        return (self.high - self.low).clip(min=1e-6)
