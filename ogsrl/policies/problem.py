"""What training knows: training rows, the clinicians' policy, the model, the region, the limits.

Called by the training loop. Everything is of training patients; made once and shared by all seeds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import torch

from ogsrl.behaviour.policy import Behaviour
from ogsrl.dynamics.ensemble import Dynamics
from ogsrl.errors import ModelError
from ogsrl.guardian.protocol import Guardian
from ogsrl.policies.limits import limits, lived
from ogsrl.preparation.blocks import side_by_side
from ogsrl.preparation.history import History
from ogsrl.preparation.tensors import StayTensors, Transitions

BLOCK = 8192
#: Logged decisions that members' disagreement is looked at.
PROBED = 20_000
#: Critics before and after those of the constraints.
REWARD, REFUSAL = "reward", "refusal"


@dataclass(frozen=True)
class Problem:
    """An offline problem.

    Attributes:
        history: The layout of states.
        behaviour: b.
        dynamics: P^.
        guardian: The region.
        rows: Logged decisions.
        stay: Number of each row's stay, rising.
        after: Place of the stay's next decision among the rows; -1 where there is none.
        first: Places of first decisions among the rows.
        usual: (rows, doses) b's mode.
        to_go: (rows, quantities) undiscounted sums from each decision on.
        known: Places of rows of which that is known (the stay was not censored).
        limits: d_j by constraint.
        shared: What several seeds make of these rows alike; never saved.
    """

    history: History
    behaviour: Behaviour
    dynamics: Dynamics
    guardian: Guardian
    rows: Transitions
    stay: torch.Tensor
    after: torch.Tensor
    first: torch.Tensor
    usual: torch.Tensor
    to_go: torch.Tensor
    known: torch.Tensor
    limits: dict[str, float]
    shared: dict[str, object] = field(default_factory=dict, init=False, compare=False, repr=False)

    @classmethod
    @torch.no_grad()
    def of(
        cls, train: StayTensors, behaviour: Behaviour, dynamics: Dynamics, guardian: Guardian
    ) -> Problem:
        """From training patients and what was fitted on them."""
        if not train.history.place("step"):
            raise ModelError(
                "states do not know their step, on which the horizon and what a death costs "
                "depend; set prepare.history_steps to 1 or more"
            )
        rows = train.transitions()
        usual = _by_block(lambda i: behaviour.distribution(rows.states[i]).mode(), len(rows.row))
        refused = _by_block(
            lambda i: ~guardian.supported(rows.states[i], rows.doses[i]), len(rows.row)
        )
        after = _after(train, rows)
        to_go, known = _to_go(train, rows, refused.float(), after)
        return cls(
            history=train.history,
            behaviour=behaviour,
            dynamics=dynamics,
            guardian=guardian,
            rows=rows,
            stay=train.stay[rows.row],
            after=after,
            first=(train.step[rows.row] == 0).nonzero().squeeze(1),
            usual=usual,
            to_go=to_go,
            known=known.nonzero().squeeze(1),
            limits=limits(train),
        )

    @property
    def device(self) -> torch.device:
        """Where it all lies."""
        return self.rows.states.device

    @property
    def quantities(self) -> tuple[str, ...]:
        """What critics value, in the order of their networks."""
        return (REWARD, *self.limits, REFUSAL)

    @property
    def threshold(self) -> float | None:
        """The guardian's; None where it refuses everything for want of patients."""
        return None if self.guardian.threshold is None else self.guardian.threshold.value

    @cached_property
    def spread(self) -> float:
        """Standard deviation of the clinicians' returns; 1 where they are all alike."""
        known = self.to_go[self.known, 0]
        spread = float(known.std()) if len(known) > 1 else 0.0
        return spread if spread > 0 else 1.0

    @cached_property
    def usual_disagreement(self) -> float:
        """How far members are apart at most logged decisions: 19 of 20."""
        some = slice(None, None, max(len(self.rows.row) // PROBED, 1))
        apart = self.dynamics.disagreement(self.rows.states[some], self.rows.doses[some])
        return float(apart.quantile(0.95))

    @property
    def best_end(self) -> float:
        """What the best end of a stay pays; 0 where ends pay nothing."""
        paid = self.history.preparation.cohort.reward.terminal
        return 0.0 if paid is None else max(paid.discharge, paid.horizon)

    @property
    def lived(self) -> float:
        """How much of the horizon logged stays last."""
        return lived(len(self.rows.row), len(self.first), self.max_steps)

    @property
    def max_steps(self) -> int:
        """Steps of the longest stay."""
        return self.history.preparation.cohort.max_steps


def _by_block(ask: Callable[[slice], torch.Tensor], rows: int) -> torch.Tensor:
    blocks = [slice(i, i + BLOCK) for i in range(0, rows, BLOCK)]
    return torch.cat(side_by_side(ask, blocks))


def _after(train: StayTensors, rows: Transitions) -> torch.Tensor:
    """Where among the rows each stay's next decision is; -1: nowhere."""
    place = torch.full((len(train.step),), -1)
    place[rows.row] = torch.arange(len(rows.row))
    following = train.next_row[rows.row]
    return torch.where(following >= 0, place[following.clip(min=0)], -1)


def _to_go(
    train: StayTensors, rows: Transitions, refused: torch.Tensor, after: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Undiscounted sums to the end of each stay, and whether the end is known."""
    cohort = train.history.preparation.cohort
    now = torch.cat([rows.rewards[:, None], rows.costs, refused[:, None] / cohort.max_steps], 1)
    total, known = now.clone(), rows.terminal.clone()
    step = train.step[rows.row]
    for k in range(int(step.max()), -1, -1):
        here = ((step == k) & (after >= 0)).nonzero().squeeze(1)
        total[here] = now[here] + total[after[here]]
        known[here] = known[after[here]]
    return total, known
