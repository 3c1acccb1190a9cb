"""OGSRL's training: critics on shielded rollouts, an actor that climbs them through the model.

Called by the train stage and by the d3rlpy algorithm. The model gives Q a slope in the dose.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from ogsrl.errors import ModelError
from ogsrl.policies.actors import NetworkActor
from ogsrl.policies.config import OgsrlParams
from ogsrl.policies.dataset import dataset_index, rows_of
from ogsrl.policies.deployed import Actor, Deployed
from ogsrl.policies.index import DatasetIndex
from ogsrl.policies.loop import (
    COPY_RATE,
    Loop,
    cost_multipliers,
    discounts,
    refusal_multiplier,
    softly_beyond,
)
from ogsrl.policies.multipliers import Multipliers
from ogsrl.policies.networks import Adam, Perceptrons, Shape
from ogsrl.policies.outlook import outlook
from ogsrl.policies.problem import Problem
from ogsrl.policies.rollouts import Rows, Shares, World

#: The least share of the actor's rate, at the end.
LEAST_RATE = 0.05
#: The share of the steps in which the margin narrows.
NARROWS = 0.8
#: Logged decisions whose nearest pairs are looked at for the log.
PROBED = 256


@dataclass(frozen=True)
class Real:
    """Some logged decisions: states, doses given, and their places among training rows if known."""

    states: torch.Tensor
    doses: torch.Tensor
    rows: torch.Tensor | None = None


@dataclass(frozen=True)
class ActorLoss:
    """The actor's loss, part by part; all but `total` are for the log."""

    total: torch.Tensor
    value: torch.Tensor
    margin: torch.Tensor
    clinicians: torch.Tensor
    refused: torch.Tensor


class Learner(Loop):
    r"""One seed.

    Critics V_k(s), k = reward, costs, refusal, value a state under Deployed, on model rows:

        L_V = sum_k mean (V_k(s) - now_k - going gamma_k V_k'(s'))^2,   V' a slow copy

    The model turns them into Q_k(s, a) = E[now_k(s, a) + going(s, a) gamma_k V_k'(s'(s, a))], which
    has a slope in a. With x what Deployed executes of pi(s), and rows where it defers masked out:

        L_pi = mean [ -Q_r(s, x) / R + sum_j mu_j Q_j(s, x) + mu_g Q_g(s, x) ]
               + w_m mu_g mean tau softplus((score(s, x) - t) / tau)
               + w_c mean |pi(s) - a|^2 + w_dc mean |pi(s) - a~|^2

    over real rows in the last two, a the logged dose, a~ that of the logged pair of another stay
    nearest to (s, pi(s)). Rewards are less w_d x disagreement beyond the usual; R is the standard
    deviation of the clinicians' returns: unlike the mean of |Q_r|, it does not change when a
    constant is added to every patient's reward.
    """

    def __init__(self, problem: Problem, params: OgsrlParams, seed: int, steps: int) -> None:
        """Nothing is trained yet; `steps` is how many there will be, for the falling rate."""
        super().__init__(problem, seed)
        self.params, self.steps = params, steps
        columns, doses = self.codes.width, problem.rows.doses.shape[1]
        hidden, quantities = params.hidden, len(problem.quantities)
        self.actor = Perceptrons.drawn(Shape(1, columns, hidden, doses), self.generator)
        self.critics = Perceptrons.drawn(Shape(quantities, columns, hidden, 1), self.generator)
        self._learn_in(params.products)
        self.targets = self.critics.twin()
        self.actor_adam = Adam(self.actor, COPY_RATE)
        self.critics_adam = Adam(self.critics, params.critic_rate)
        self.costs = cost_multipliers(torch.tensor(list(problem.limits.values())), params)
        self.refusals = refusal_multiplier(params, problem)
        self._discounts = discounts(problem, params.discount, quantities)
        self._offset = problem.best_end if self._discounts[0] == 1 else 0.0
        guardian = problem.guardian if params.guardian else None
        #: what acts in the model, following the actor; without the guardian, an ablation
        acting = NetworkActor(self.actor, self._own_codes)
        self.deployed = Deployed.of(acting, guardian, problem.history)
        self.shares: Shares | None = None
        self._pool: list[Rows] = []
        self._rows: Rows | None = None

    @property
    def policy(self) -> Actor:
        """The actor as it is now, apart from what training does next."""
        return NetworkActor(self.actor.twin(), self._own_codes)

    def begin(self) -> None:
        """Copy the clinicians, and value them."""
        params = self.params
        self._copy_clinicians(params.start, params.start_steps, params.value_batch)
        self.actor_adam = Adam(self.actor, params.actor_rate)
        if params.cloning_only:
            return
        self._value_clinicians(params.critic_start_steps, params.value_batch, self._offset)
        self.targets.flat.copy_(self.critics.flat)

    def refresh(self) -> Shares:
        """Roll out what acts now, and let the multipliers answer to it."""
        problem, params, g = self.problem, self.params, self.generator
        stops = params.on_refusal == "stop"
        world = World(self.deployed, problem.behaviour, problem.dynamics, self._offset, stops)
        first = problem.first[self._drawn(len(problem.first), params.first_decisions)]
        begun = problem.rows.states[self._drawn(len(problem.rows.row), params.starts)]
        rolled = world.roll(begun, params.horizon, g)
        followed, shares = world.follow(problem.rows.states[first], self._discounts, g)
        self._pool = [*self._pool, self._doubted(Rows.joined([rolled, followed]))][-params.pool :]
        self._rows, self.shares = Rows.joined(self._pool), shares
        if params.constraints and params.multipliers != "fixed":
            self.costs.update(shares.totals[1:-1])
        if params.guardian:
            self.refusals.update(shares.totals[-1:])
        return shares

    def _doubted(self, rows: Rows) -> Rows:
        """The same rows, their rewards less what members' disagreement costs."""
        if self.params.disagreement:
            rows.now[:, 0] -= self._doubt(rows.disagreement)
        return rows

    def _doubt(self, apart: torch.Tensor) -> torch.Tensor:
        """In units of reward; only what is beyond the usual, or ending a stay would pay."""
        beyond = (apart - self.problem.usual_disagreement).clip(min=0)
        return self.params.disagreement * self.problem.spread * beyond

    def train(self, steps: int) -> Iterator[dict[str, float]]:
        """So many steps more; what was measured, once a refresh."""
        for _ in range(steps):
            if self.due:
                self.refresh()
                yield self.measured()
            self.advance()

    @property
    def due(self) -> bool:
        """Whether the next step needs rollouts of what acts now."""
        return self._rows is None or self.step % self.params.refresh == 0

    def advance(self, real: Real | None = None) -> None:
        """One step; its real rows are these logged decisions, or drawn."""
        params, rows = self.params, self._known_rows()
        i = self._drawn(len(rows.states), params.value_batch)
        self._learn_values(rows, i)
        share = max(1 - self.step / max(self.steps, 1), 0.0)
        self.actor_adam.learning_rate = params.actor_rate * (share + LEAST_RATE)
        self._learn_actor(rows, real)
        self.step += 1

    @torch.no_grad()
    def worth(
        self, states: torch.Tensor, doses: torch.Tensor, generator: torch.Generator, draws: int = 16
    ) -> torch.Tensor:
        """(rows, quantities) Q of doses that are given, over so many steps of the model."""
        problem, total = self.problem, torch.zeros(len(states), len(self.problem.quantities))
        for _ in range(draws):
            following = problem.dynamics.step(states, doses, generator)
            seen = outlook(states, following, problem.history, self._offset)
            never = torch.zeros(len(states), 1)
            after = self.targets.answer(self.codes.inputs(following.states))[..., 0].T
            now = torch.cat([seen.reward[:, None], seen.costs, never], 1)
            total += now + seen.going[:, None] * self._discounts * after
        worth = total / draws
        worth[:, 0] += self._offset
        return worth

    def measured(self) -> dict[str, float]:
        """The log's row: shares at first decisions, multipliers, what critics say."""
        if self.shares is None or self._rows is None:
            raise ModelError("training: nothing was rolled out yet")
        names = tuple(self.problem.limits)
        probed = self.codes.inputs(self._rows.states[:1000])
        said = {
            "step": float(self.step),
            "deaths": self.shares.deaths,
            "value": float(self.shares.totals[0]) + self._offset,
            "refusal": float(self.shares.totals[-1]),
            "deferred": self.shares.deferred,
            "disagreement": float(self._rows.disagreement.mean()),
            "mu_refusal": float(self.refusals.values[0]),
            "active_refusal": float(self.refusals.active[0]),
            "scale": float(self.critics.answer(probed)[0].abs().mean()),
        }
        if self.params.dataset.weight:
            said |= self._near_data()
        for j, name in enumerate(names):
            said[f"cost_{name}"] = float(self.shares.totals[1 + j])
            said[f"limit_{name}"] = self.problem.limits[name]
            said[f"mu_{name}"] = float(self.costs.values[j])
            fixed = self.params.multipliers == "fixed"
            active = self.costs.values > 0 if fixed else self.costs.active
            said[f"active_{name}"] = float(active[j])
        return said

    @torch.no_grad()
    def _near_data(self) -> dict[str, float]:
        """How far proposals are from logged pairs, at some of the listed rows."""
        index = self.index
        probe = index.listed[:: max(len(index.listed) // PROBED, 1)]
        proposed = self.policy.propose(self.problem.rows.states[probe], self.generator)
        near = index.of_rows(probe, proposed)
        return {
            "dataset_distance": float(near.distance.mean()),
            "certified": float(near.certified.float().mean()),
            "own_row": index.own_row_share(probe, proposed),
        }

    def _learn_values(self, rows: Rows, i: torch.Tensor) -> None:
        discount = self._discounts[:, None]
        with torch.no_grad():
            after = self.targets.forward(self.codes.inputs(rows.next_states[i]))[..., 0]
            wanted = rows.now[i].T + discount * rows.going[i] * after
        self._step_critics(rows.states[i], wanted.T)
        self.targets.flat.lerp_(self.critics.flat, self.params.target_rate)

    def _learn_actor(self, rows: Rows, real: Real | None = None) -> None:
        real, states = self._batch(rows, real)
        proposed = torch.tanh(self.actor.forward(self.codes.inputs(states))[0])
        free = proposed.detach().clone().requires_grad_(True)
        loss = self._actor_loss(states, free, real.doses)
        (slope,) = torch.autograd.grad(loss.total, free)
        slope[: len(real.states)] += self._to_data(real, proposed[: len(real.states)])
        self._finite("the actor's slope", slope)
        self._step_actor(proposed, slope)

    def _batch(self, rows: Rows, real: Real | None) -> tuple[Real, torch.Tensor]:
        """Real decisions, and their states before those of the model."""
        half, known = self.params.batch_size // 2, self.problem.rows
        if real is None:
            listed = self.index.listed if self.params.dataset.weight else known.row
            i = self._drawn(len(listed), half)
            i = listed[i] if self.params.dataset.weight else i
            real = Real(known.states[i], known.doses[i], i)
        modelled = self._drawn(len(rows.states), self.params.batch_size - half)
        return real, torch.cat([real.states, rows.states[modelled]])

    @property
    def margin(self) -> float:
        """The softplus' tau at this step."""
        params, narrows = self.params, NARROWS * max(self.steps, 1)
        share = min(self.step / narrows, 1.0)
        return params.margin + share * (params.last_margin - params.margin)

    @property
    def index(self) -> DatasetIndex:
        """The logged pairs; made anew, never saved."""
        return dataset_index(self.problem, self.params.dataset)

    def _nearest(self, real: Real, proposed: torch.Tensor) -> torch.Tensor:
        """Doses of the logged pairs of other stays that are nearest to what is proposed."""
        rows = rows_of(self.problem, real.states) if real.rows is None else real.rows
        return self.index.doses[self.index.of_rows(rows, proposed).row]

    def _to_data(self, real: Real, proposed: torch.Tensor) -> torch.Tensor:
        """The slope of the dataset constraint; a~ is taken as it is."""
        weight = self.params.dataset.weight
        if not weight:
            return torch.zeros_like(proposed)
        return 2 * weight / len(proposed) * (proposed - self._nearest(real, proposed))

    def _weights(self) -> torch.Tensor:
        """Of the quantities, in what is minimised."""
        reward = torch.tensor([-1 / self.problem.spread])
        costs = self.costs.values * self.params.constraints
        return torch.cat([reward, costs, self.refusals.values])

    def _actor_loss(
        self, states: torch.Tensor, proposed: torch.Tensor, logged: torch.Tensor
    ) -> ActorLoss:
        params, problem = self.params, self.problem
        decided = self.deployed.judge(states, proposed)
        acts = (~decided.deferred).to(states.dtype)
        following = problem.dynamics.step_with_gradient(states, decided.doses, self.generator)
        seen = outlook(states, following, problem.history, self._offset)
        weights = self._weights()
        reward = seen.reward
        if params.disagreement and following.disagreement is not None:
            reward = reward - self._doubt(following.disagreement)
        now = torch.cat([reward[:, None], seen.costs], 1)
        after = self._after(following.states, seen.going, weights * self._discounts)
        value = acts * ((now * weights[:-1]).sum(1) + after)
        margin = torch.zeros(())
        threshold = problem.threshold if params.guardian else None
        if threshold is not None:
            felt = softly_beyond(decided.score, threshold, self.margin)
            margin = self.refusals.values[0] * felt
        apart = (proposed[: len(logged)] - logged).square().sum(1).mean()
        total = value.mean() + params.margin_weight * margin + params.clinicians * apart
        return ActorLoss(total, value.mean(), margin, apart, 1 - acts.mean())

    def _after(
        self, states: torch.Tensor, going: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        """Weighted critics of the next states, with a slope in them and in `going`."""
        fixed = self.codes.inputs(states.detach())
        values = (self.targets.forward(fixed)[..., 0] * weights[:, None]).sum(0)
        slope = weights[:, None, None].expand(-1, len(states), 1).contiguous()
        inputs = self.targets.backward_to_last(slope, fixed.shape[1])
        moving = self.codes.numbers(states)  # a code has no slope
        count = moving.shape[1]
        return going * (values + ((moving - fixed[:, :count]) * inputs[:, :count]).sum(1))

    def _known_rows(self) -> Rows:
        if self._rows is None:
            raise ModelError("training: nothing was rolled out yet")
        return self._rows

    def _vectors(self) -> dict[str, torch.Tensor]:
        return {**super()._vectors(), "targets": self.targets.flat}

    def _adams(self) -> dict[str, Adam]:
        return {"actor_adam": self.actor_adam, "critics_adam": self.critics_adam}

    def _multipliers(self) -> dict[str, Multipliers]:
        return {"costs": self.costs, "refusals": self.refusals}

    def tensors(self) -> dict[str, torch.Tensor]:
        """All that goes on, with the rollouts that the next refresh adds to."""
        older = self._pool[1 - self.params.pool :] if self.params.pool > 1 else []
        found = super().tensors()
        for k, rows in enumerate(older):
            found |= {f"pool_{k}.{name}": value.clone() for name, value in vars(rows).items()}
        return found

    def restore(self, tensors: dict[str, torch.Tensor]) -> None:
        """Go on from a checkpoint."""
        self.actor_adam = Adam(self.actor, self.params.actor_rate)
        super().restore(tensors)
        self._pool, self._rows = [], None
        while f"pool_{len(self._pool)}.states" in tensors:
            name = f"pool_{len(self._pool)}."
            held = {k.removeprefix(name): v for k, v in tensors.items() if k.startswith(name)}
            self._pool.append(Rows(**held))
