"""Logged decisions as the loop without a model takes them: a batch is one look-up.

Called by that loop alone. A terminal step is a row like any other: what it paid is the whole of
what is learned there.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ogsrl.policies.codes import StateCodes
from ogsrl.policies.problem import Problem


@dataclass(frozen=True)
class Batch:
    """Some logged decisions.

    Attributes:
        rows: Their places.
        pairs: (rows, inputs + doses) states as networks take them, and logged doses.
        inputs: How many of those columns are states.
        after: (rows, inputs) next states as networks take them.
        now: (rows, critics' quantities) reward, costs, and 0 for a refusal of the logged dose.
        going: 0 after a terminal step, else 1.
    """

    rows: torch.Tensor
    pairs: torch.Tensor
    inputs: int
    after: torch.Tensor
    now: torch.Tensor
    going: torch.Tensor

    @property
    def states(self) -> torch.Tensor:
        """As networks take them."""
        return self.pairs[:, : self.inputs]

    @property
    def doses(self) -> torch.Tensor:
        """Logged."""
        return self.pairs[:, self.inputs :]


@dataclass(frozen=True)
class Logged:
    """All logged decisions of a problem.

    Attributes:
        packed: One row a decision, the parts of a batch side by side.
        inputs: Columns of a state as networks take it.
        doses: Columns of a dose.
        quantities: Columns of what is paid now.
    """

    packed: torch.Tensor
    inputs: int
    doses: int
    quantities: int

    @classmethod
    def of(cls, problem: Problem, *, costs: bool, refusals: bool) -> Logged:
        """Of a problem's rows, with the quantities that critics value."""
        rows, codes = problem.rows, StateCodes.of(problem.history)
        now = [rows.rewards[:, None]]
        now += [rows.costs] if costs else []
        now += [torch.zeros(len(rows.row), 1)] if refusals else []
        paid = torch.cat(now, 1)
        going = 1 - rows.terminal.float()[:, None]
        states, following = codes.inputs(rows.states), codes.inputs(rows.next_states)
        packed = torch.cat([states, rows.doses, following, paid, going], 1)
        return cls(packed, codes.width, rows.doses.shape[1], paid.shape[1])

    def batch(self, rows: torch.Tensor) -> Batch:
        """Some of them."""
        found = self.packed.index_select(0, rows)
        sizes = [self.inputs + self.doses, self.inputs, self.quantities, 1]
        pairs, after, now, going = torch.split(found, sizes, 1)
        return Batch(rows, pairs, self.inputs, after, now, going[:, 0])
