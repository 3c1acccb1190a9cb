"""A cohort of one categorical state and ordinal doses as a finite problem, and its exact values.

Called by `DiscreteOGSRL`. All that is valued is `Deployed`: each proposal is judged once, and where
it would be deferred the clinicians' doses stand for it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ogsrl.behaviour.policy import Behaviour
from ogsrl.constraints import constraint_rules
from ogsrl.dynamics.counts import CountDynamics, unsafe_codes
from ogsrl.errors import ModelError
from ogsrl.guardian.protocol import Guardian
from ogsrl.policies.actors import MarginalActor, TableActor
from ogsrl.policies.codes import DoseLevels, StateCodes
from ogsrl.policies.counted import Counted
from ogsrl.policies.deployed import Deployed
from ogsrl.policies.limits import limits, lived
from ogsrl.policies.problem import REFUSAL, REWARD
from ogsrl.preparation.history import History
from ogsrl.preparation.tensors import StayTensors, Transitions
from ogsrl.spec import Cohort
from ogsrl.spec.expressions import parse_expression


@dataclass(frozen=True)
class TableProblem:
    """What training knows of such a cohort.

    Attributes:
        history: The layout of states: one code.
        behaviour: b.
        guardian: The region.
        rows: Logged decisions.
        levels: The combinations of doses.
        chances: (codes, combinations, codes and 2) what follows: a code, death, discharge; of
            training patients' own counts, shrunk as the dynamics say.
        patients: (codes, combinations) training patients to whom it was given there.
        clinicians: (codes, combinations) b(a|s).
        begun: (codes,) share of stays that begin there.
        limits: d_j by constraint.
        spread: Standard deviation of the clinicians' returns.
        lived: How much of the horizon logged stays last.
    """

    history: History
    behaviour: Behaviour
    guardian: Guardian
    rows: Transitions
    levels: DoseLevels
    chances: torch.Tensor
    patients: torch.Tensor
    clinicians: torch.Tensor
    begun: torch.Tensor
    limits: dict[str, float]
    spread: float
    lived: float

    @classmethod
    @torch.no_grad()
    def of(
        cls, train: StayTensors, behaviour: Behaviour, dynamics: CountDynamics, guardian: Guardian
    ) -> TableProblem:
        """From training patients and what was fitted on them."""
        history, rows = train.history, train.transitions()
        if len(history.columns) != 1:
            raise ModelError(
                f"{history.columns[1].name}: a table has a row a code and no other column of the "
                "state; set prepare.history_steps to 0 and chart the code at every step"
            )
        levels = DoseLevels.of(history)
        codes = _codes(history)
        states, doses = pairs(codes, levels)
        shape = codes, len(levels), -1
        usual = behaviour.log_prob(states, doses).double().exp().reshape(shape[:2])
        first = rows.states[train.step[rows.row] == 0, 0].long()
        returns = torch.zeros(int(train.stay.max()) + 1)
        returns.index_add_(0, train.stay[rows.row], rows.rewards)
        spread = float(returns.std()) if len(returns) > 1 else 0.0
        counted = Counted.of(train, codes, len(levels))
        return cls(
            history=history,
            behaviour=behaviour,
            guardian=guardian,
            rows=rows,
            levels=levels,
            chances=counted.chances(dynamics.planning_count),
            patients=counted.patients,
            clinicians=usual / usual.sum(1, keepdim=True),
            begun=torch.bincount(first, minlength=codes).double() / len(first),
            limits=limits(train),
            spread=spread if spread > 0 else 1.0,
            lived=lived(len(rows.row), len(first), history.preparation.cohort.max_steps),
        )

    @property
    def quantities(self) -> tuple[str, ...]:
        """What is valued, in order."""
        return (REWARD, *self.limits, REFUSAL)


@dataclass(frozen=True)
class Valued:
    """A table's values.

    Attributes:
        totals: (quantities,) V at first decisions.
        deaths: Chance to die in the stay.
        deferred: Share of steps deferred.
        gains: (codes, combinations, quantities) what each proposal would bring, were it made in
            this code alone: sum over steps of the chance to be there x Q_t.
    """

    totals: torch.Tensor
    deaths: float
    deferred: float
    gains: torch.Tensor


class Table:
    r"""The finite process under Deployed, T = max_steps.

        Q_t(s, a) = now_t(s, a) + gamma sum_s' M(s' | s, a) V_t+1(s'),   V_t(s) = Q_t(s, pi(s))

    M(.|s, a) is what follows the order that the proposal a becomes, or sum_x b(x|s) P(.|s, x) where
    it is deferred. At the last step all who live reach the horizon.
    """

    def __init__(
        self, problem: TableProblem, discounts: torch.Tensor, *, guarded: bool = True
    ) -> None:
        """Judge every proposal once; without the guardian, hazards alone defer."""
        self.problem, self.discounts = problem, discounts.double()
        cohort = problem.history.preparation.cohort
        self.most = cohort.max_steps
        states, doses = pairs(len(problem.begun), problem.levels)
        decided = self.deployed(torch.zeros(len(problem.begun), dtype=torch.int64), guarded).judge(
            states, doses
        )
        shape = problem.clinicians.shape
        self.deferred = decided.deferred.reshape(shape)
        ordered = problem.levels.codes(decided.doses).reshape(shape)
        given = problem.chances[torch.arange(shape[0])[:, None], ordered]
        drawn = torch.einsum("sa,sao->so", problem.clinicians, problem.chances)
        self.follows = torch.where(self.deferred[..., None], drawn[:, None], given)
        codes = shape[0]
        self.death, self.discharge = self.follows[..., codes], self.follows[..., codes + 1]
        self.unsafe = self.follows[..., :codes] @ _unsafe(problem.history).T
        self._reward(cohort)

    def deployed(self, cells: torch.Tensor, guarded: bool = True) -> Deployed:
        """What acts for such a table."""
        guardian = self.problem.guardian if guarded else None
        actor = TableActor(cells, self.problem.levels)
        return Deployed.of(actor, guardian, self.problem.history)

    def _reward(self, cohort: Cohort) -> None:
        """Of a step before the last, and of the last."""
        zero = torch.zeros_like(self.death)
        self.paid, self.paid_last = zero, zero
        if cohort.reward.terminal is not None:
            ends = cohort.reward.terminal
            dies = ends.death * self.death
            self.paid = dies + ends.discharge * self.discharge
            self.paid_last = dies + ends.horizon * (1 - self.death)
        if cohort.reward.step is not None:
            rule = parse_expression(cohort.reward.step)
            known = _clinical(self.problem.history, rule.columns)
            step = rule.torch(known).double().nan_to_num(0.0).expand(len(self.problem.begun))
            self.paid = self.paid + self.follows[..., : len(step)] @ step

    def _now(self, step: int) -> torch.Tensor:
        """(codes, combinations, quantities) paid and cost in a step."""
        most, last = self.most, step == self.most - 1
        reward = self.paid_last if last else self.paid
        costs = self.death[..., None] * (most - step) / most
        costs = costs + (0 if last else 1) * self.unsafe / most
        refused = self.deferred.double() / most
        return torch.cat([reward[..., None], costs, refused[..., None]], 2)

    def value(self, cells: torch.Tensor) -> Valued:
        """Exactly: forwards where stays are, backwards what they are worth."""
        place, codes, last = torch.arange(len(cells)), len(cells), self.most - 1
        here = self.follows[place, cells]
        on, now = here[:, :codes], [self._now(t)[place, cells] for t in (0, last)]
        there = [self.problem.begun]
        for _ in range(last):
            there.append(there[-1] @ on)
        weight = torch.stack(there)
        values = [now[1]]
        for step in range(last - 1, -1, -1):
            # of a step's pay, the death's cost alone depends on its number
            values.append(
                self._at(now[0], here[:, codes], step) + self.discounts * (on @ values[-1])
            )
        value = torch.stack(values[::-1])
        dies = (weight * here[:, codes]).sum()
        refused = (weight * self.deferred[place, cells]).sum() / weight.sum()
        total = self.problem.begun @ value[0]
        return Valued(total, float(dies), float(refused), self._gains(weight, value))

    def _at(self, now: torch.Tensor, death: torch.Tensor, step: int) -> torch.Tensor:
        """What is paid in the first step, a step before the last."""
        later = torch.zeros_like(now)
        later[..., 1:-1] = death[..., None] * step / self.most
        return now - later

    def _gains(self, weight: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Sums over steps, without a pass over all pairs for each of them."""
        codes, last = weight.shape[1], self.most - 1
        # codes where nobody comes are decided for a stay that comes there at any step
        weight = torch.where(weight.sum(0) > 0, weight, 1e-9)
        step = torch.arange(self.most, dtype=torch.float64)
        sums = torch.einsum("ts,tk->sk", weight[:last], self.discounts ** step[:last, None])
        final = weight[last][:, None] * self.discounts**last
        gains = sums[:, None] * self._now(0) + final[:, None] * self._now(last)
        spent = (weight[:last] * step[:last, None] / self.most).sum(0)
        gains[..., 1:-1] -= spent[:, None, None] * self.death[..., None]
        for k, discount in enumerate(self.discounts):
            ahead = (weight[:last] * discount ** (step[:last, None] + 1)).T @ value[1:, :, k]
            gains[..., k] += torch.bmm(self.follows[..., :codes], ahead[..., None])[..., 0]
        return gains


def pairs(codes: int, levels: DoseLevels) -> tuple[torch.Tensor, torch.Tensor]:
    """States and scaled doses of every pair, the combination running fastest."""
    states = torch.arange(codes, dtype=torch.float32).repeat_interleave(len(levels))[:, None]
    return states, levels.levels.float().repeat(codes, 1)


def _codes(history: History) -> int:
    (codes,) = StateCodes.of(history).levels.values()
    return codes


def _clinical(history: History, columns: frozenset[str]) -> dict[str, torch.Tensor]:
    """What an expression needs, for each code."""
    (name,) = history.preparation.states
    if not columns <= {name}:
        raise ModelError(f"{', '.join(sorted(columns))}: a table knows {name} alone")
    return {name: torch.arange(_codes(history), dtype=torch.float64)}


def _unsafe(history: History) -> torch.Tensor:
    """(constraints, codes) whether each code is unsafe."""
    rules = constraint_rules(history.preparation.cohort)
    ever = [name for name, rule in rules.items() if rule.kind == "ever"]
    if ever:
        raise ModelError(
            f"constraints.{ever[0]}: training knows `kind: share` alone; a state holds no flag of "
            "an earlier violation"
        )
    return unsafe_codes(history)


@dataclass(frozen=True)
class Acting:
    """What a deployed policy does in each code, whoever the clinicians are.

    Attributes:
        given: (codes, combinations) chance that it orders the combination.
        deferred: (codes,) chance that it defers.
    """

    given: torch.Tensor
    deferred: torch.Tensor

    def treated(self, clinicians: torch.Tensor) -> torch.Tensor:
        """(codes, combinations) what patients get, where these clinicians act on a deferral."""
        return self.given + self.deferred[:, None] * clinicians


@torch.no_grad()
def acting(deployed: Deployed) -> Acting:
    """Every proposal that it may make in each code, judged."""
    history = deployed.history
    levels, codes = DoseLevels.of(history), _codes(history)
    actor = deployed.actor
    if actor is None:
        return Acting(torch.zeros(codes, len(levels)).double(), torch.ones(codes).double())
    states, doses = pairs(codes, levels)
    if isinstance(actor, MarginalActor):  # the one that draws
        chance = actor.marginal.distribution(states).log_prob(doses).double().exp()
    else:
        alone = torch.arange(codes, dtype=states.dtype)[:, None]
        proposed = levels.codes(actor.propose(alone, torch.Generator()))
        chance = torch.nn.functional.one_hot(proposed, len(levels)).double().flatten()
    decided = deployed.judge(states, doses)
    place = torch.arange(codes).repeat_interleave(len(levels)) * len(levels)
    ordered = place + levels.codes(decided.doses)
    given = torch.zeros(codes * len(levels)).double()
    given.index_add_(0, ordered, chance * ~decided.deferred)
    refused = (chance * decided.deferred).reshape(codes, -1).sum(1)
    return Acting(given.reshape(codes, -1), refused)
