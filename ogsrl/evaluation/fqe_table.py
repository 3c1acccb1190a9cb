r"""Fitted Q where a state is one code and doses are levels: solved, not trained.

Called by `ogsrl.evaluation.fqe` alone. A network that sees hundreds of codes a few times each says
of every dose nearly what it says of the code (docs/decisions/0020).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch

from ogsrl.dynamics.counts import has_counts
from ogsrl.errors import ModelError
from ogsrl.evaluation.executed import Executed
from ogsrl.evaluation.fqe_parts import Task
from ogsrl.evaluation.quantities import REFUSAL
from ogsrl.policies.codes import DoseLevels, StateCodes
from ogsrl.policies.deployed import Deployed
from ogsrl.policies.table import Acting, acting, pairs
from ogsrl.preparation.history import History
from ogsrl.preparation.tensors import StayTensors

#: Decisions that what follows a code, whatever was given, stands for beside those of each dose.
POOLED = 1.0


@runtime_checkable
class Chances(Protocol):
    """Clinicians whose chances are known."""

    def log_prob(self, states: torch.Tensor, doses: torch.Tensor) -> torch.Tensor:
        """Log b(a|s) of each row."""
        ...


def known_chances(behaviour: object) -> Chances:
    """Clinicians whose chances are known, and no others."""
    if not isinstance(behaviour, Chances):
        raise ModelError(
            f"fqe: {type(behaviour).__name__} tells no chances of doses; a table needs `log_prob`"
        )
    return behaviour


def is_table(history: History) -> bool:
    """Whether a state is one code and nothing else, and all doses are levels."""
    return has_counts(history.preparation.cohort) and len(history.columns) == 1


def never_given(executed: Executed, stays: StayTensors, others: StayTensors | None) -> float:
    """Share of a policy's own decisions whose dose none of these patients had in that code.

    Args:
        executed: What it does in every row of `stays`.
        stays: Whole stays.
        others: More patients of the same layout.
    """
    levels = DoseLevels.of(stays.history)
    (codes,) = StateCodes.of(stays.history).levels.values()
    given = torch.zeros(codes, len(levels), dtype=torch.bool)
    for some in (stays, others):
        if some is not None:
            made = some.transitions()
            given[made.states[:, 0].long(), levels.codes(made.doses)] = True
    asked = stays.decision.nonzero().squeeze(1)
    state = stays.states[asked, 0].long()
    own = ~executed.deferred[:, asked]
    new = [~given[state, levels.codes(doses[asked])] for doses in executed.doses]
    return float((torch.stack(new) & own).sum()) / max(int(own.sum()), 1)


@dataclass(frozen=True)
class Tables:
    r"""Q(s, a) of each policy, network and quantity, of the decisions that the network was fed.

        y = paid + discount going V(s'),   V(s) = sum_a p(a|s) Q(s, a) + refused(s) / max_steps,
        Q(s, a) = (Y(s, a) + k m(s)) / (n(s, a) + k),   m(s) = (Y(s) + g) / (n(s) + 1),

    Y and n sums of y and of 1 over decisions, g the mean of y over all of them, p what patients
    get: b where it defers. Solved for V, exactly.

    Attributes:
        levels: Combinations of doses.
        worth: (policies, networks, codes, combinations, quantities).
    """

    levels: DoseLevels
    worth: torch.Tensor

    def centred_on(self, whole: Tables, fits: int, task: Task) -> Tables:
        """The same scatter around what the whole samples say, fold by fold, within the range.

        Of a sample drawn with replacement a third of the patients are missing, and with them what
        some doses were followed by: tables of samples are drawn towards what follows the code.

        Args:
            whole: Of one fit, fed all that these fits' samples were drawn from.
            fits: How many there are here, all parting patients into the same folds: nobody is in
                their own value.
            task: Its ranges.
        """
        each = self.worth.view(len(self.worth), fits, -1, *self.worth.shape[2:])
        worth = each + (whole.worth - each.mean(1))[:, None]
        return replace(self, worth=worth.clip(task.low, task.high).flatten(1, 2))

    def values(self, policy: int, states: torch.Tensor, doses: torch.Tensor) -> torch.Tensor:
        """(networks, rows, quantities) Q."""
        return self.worth[policy][:, states[:, 0].long(), self.levels.codes(doses)]


def solve(
    task: Task,
    history: History,
    policies: Mapping[str, Deployed],
    behaviour: Chances,
    names: Sequence[str],
    pools: Sequence[torch.Tensor],
) -> Tables:
    """Q of every policy, network and quantity.

    Args:
        task: Logged decisions.
        history: The layout of states.
        policies: What acts, by name.
        behaviour: Who acts where a policy defers.
        names: Quantities.
        pools: Of each network: the decisions it is fed, some more than once.
    """
    levels = DoseLevels.of(history)
    (codes,) = StateCodes.of(history).levels.values()
    usual = behaviour.log_prob(*pairs(codes, levels)).double().exp().view(codes, -1)
    usual = usual / usual.sum(1, keepdim=True)
    does = [acting(one) for one in policies.values()]
    most = history.preparation.cohort.max_steps
    found: list[torch.Tensor] = []
    rows = _Rows(task.states[:, 0].long(), levels.codes(task.doses), task.next_states[:, 0].long())
    for before, pool in zip([None, *pools], pools, strict=False):
        if pool is before:  # networks of one fit are fed the same
            found.append(found[-1])
            continue
        times = torch.bincount(pool, minlength=len(task)).double()
        each = []
        for k, name in enumerate(names):
            paid, going = task.paid[:, k].double(), task.going[:, k].double()
            sums = _Sums.of(rows, times * task.counts[:, k], usual.shape)
            for one in does:
                refused = one.deferred / most if name == REFUSAL else torch.zeros(codes).double()
                each.append(sums.solved(one, usual, paid, going, refused))
        worth = torch.stack(each).view(len(names), len(does), *usual.shape).permute(1, 2, 3, 0)
        found.append(worth.clip(task.low, task.high).float())
    return Tables(levels, torch.stack(found, 1))


@dataclass(frozen=True)
class _Rows:
    """Places of logged decisions in a table."""

    state: torch.Tensor
    dose: torch.Tensor
    then: torch.Tensor


@dataclass(frozen=True)
class _Sums:
    """How often each decision counts, and how many there are of each kind."""

    rows: _Rows
    times: torch.Tensor
    here: torch.Tensor  # (codes,)
    given: torch.Tensor  # (codes, combinations)

    @classmethod
    def of(cls, rows: _Rows, times: torch.Tensor, shape: torch.Size) -> _Sums:
        place = rows.state * shape[1] + rows.dose
        given = torch.bincount(place, times, shape.numel()).view(shape)
        return cls(rows, times, given.sum(1), given)

    def solved(
        self,
        does: Acting,
        usual: torch.Tensor,
        paid: torch.Tensor,
        going: torch.Tensor,
        refused: torch.Tensor,
    ) -> torch.Tensor:
        """(codes, combinations) Q of a policy and quantity."""
        rows, treats, codes = self.rows, does.treated(usual), len(refused)
        # V is linear in itself: so much of each decision's y, and so much of the mean of all
        pooled = (treats * POOLED / (self.given + POOLED)).sum(1) / (self.here + 1)
        alone = (treats / (self.given + POOLED))[rows.state, rows.dose]
        share = self.times * (alone + pooled[rows.state])
        every = self.times / self.times.sum().clip(min=1)
        ahead = torch.bincount(rows.then, every * going, codes)
        on = torch.bincount(rows.state * codes + rows.then, share * going, codes * codes)
        on = on.view(codes, codes) + pooled[:, None] * ahead
        now = torch.bincount(rows.state, share * paid, codes) + pooled * (every @ paid) + refused
        value = torch.linalg.solve(torch.eye(codes, dtype=on.dtype) - on, now)
        y = paid + going * value[rows.then]
        place = rows.state * self.given.shape[1] + rows.dose
        total = torch.bincount(place, self.times * y, self.given.numel()).view(self.given.shape)
        mean = (total.sum(1) + every @ y) / (self.here + 1)
        worth: torch.Tensor = (total + POOLED * mean[:, None]) / (self.given + POOLED)
        return worth
