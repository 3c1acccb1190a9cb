"""OGSRL's training: critics on shielded rollouts, an actor that climbs them through the model.

Called by the train stage and by the d3rlpy algorithm. Everything that goes on from one step to
the next is in `tensors`, so that a run that was stopped goes on bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from ogsrl.errors import ModelError
from ogsrl.policies.actors import NetworkActor
from ogsrl.policies.config import OgsrlParams
from ogsrl.policies.deployed import Actor, Deployed
from ogsrl.policies.multipliers import Multipliers
from ogsrl.policies.networks import Adam, Perceptrons, Shape
from ogsrl.policies.outlook import outlook
from ogsrl.policies.problem import Problem
from ogsrl.policies.rollouts import Rows, Shares, World

#: Rates of the actor while it copies, and the least share of its rate at the end.
COPY_RATE, LEAST_RATE = 1e-3, 0.05
#: A score this far beyond the threshold pulls no harder.
FARTHEST = 5.0


@dataclass(frozen=True)
class Logged:
    """Some logged decisions: states, and the doses given."""

    states: torch.Tensor
    doses: torch.Tensor


@dataclass(frozen=True)
class ActorLoss:
    """The actor's loss, part by part; all but `total` are for the log."""

    total: torch.Tensor
    value: torch.Tensor
    margin: torch.Tensor
    clinicians: torch.Tensor
    refused: torch.Tensor


class Learner:
    r"""One seed.

    Critics V_k(s), k = reward, costs, refusal, value a state under Deployed, on model rows:

        L_V = sum_k mean (V_k(s) - now_k - going gamma_k V_k'(s'))^2,   V' a slow copy

    The model turns them into Q_k(s, a) = E[now_k(s, a) + going(s, a) gamma_k V_k'(s'(s, a))], which
    has a slope in a. With x what Deployed executes of pi(s), and rows where it defers masked out:

        L_pi = mean [ -Q_r(s, x) / R + sum_j mu_j Q_j(s, x) + mu_g Q_g(s, x) ]
               + w_m mu_g mean tau softplus((score(s, x) - t) / tau)
               + w_c mean |pi(s) - a|^2,   a the logged dose,

    and R the standard deviation of the clinicians' returns: unlike the mean of |Q_r|, it does not
    change when a constant is added to every patient's reward.
    """

    def __init__(self, problem: Problem, params: OgsrlParams, seed: int, steps: int) -> None:
        """Nothing is trained yet; `steps` is how many there will be, for the falling rate."""
        self.problem, self.params, self.steps = problem, params, steps
        self.generator = torch.Generator().manual_seed(seed)
        columns, doses = problem.rows.states.shape[1], problem.rows.doses.shape[1]
        hidden, quantities = params.hidden, len(problem.quantities)
        self.actor = Perceptrons.drawn(Shape(1, columns, hidden, doses), self.generator)
        self.critics = Perceptrons.drawn(Shape(quantities, columns, hidden, 1), self.generator)
        self.targets = self.critics.twin()
        self.actor_adam = Adam(self.actor, COPY_RATE)
        self.critics_adam = Adam(self.critics, params.critic_rate)
        limits = params.aim * torch.tensor(list(problem.limits.values()))
        fixed = 0.0 if params.multipliers == "adapted" else params.fixed_multiplier
        self.costs = Multipliers.at(
            limits, fixed, proportional=params.proportional, rate=params.integral
        )
        self.refusals = Multipliers.at(
            torch.tensor([params.refusal_limit]),
            params.refusal_start,
            proportional=params.refusal_proportional,
            rate=params.refusal_integral,
        )
        own = problem.history.preparation.cohort.discount
        rewards = own if params.discount is None else params.discount
        # costs and refusals are shares of steps: never discounted
        self._discounts = torch.tensor([rewards, *[1.0] * (quantities - 1)])
        self._offset = problem.best_end if rewards == 1 else 0.0
        guardian = problem.guardian if params.guardian else None
        #: what acts in the model, following the actor; without the guardian, an ablation
        self.deployed = Deployed.of(NetworkActor(self.actor), guardian, problem.history)
        self.step = 0
        self.shares: Shares | None = None
        self._pool: list[Rows] = []
        self._rows: Rows | None = None

    @property
    def policy(self) -> Actor:
        """The actor as it is now, apart from what training does next."""
        return NetworkActor(self.actor.twin())

    def begin(self) -> None:
        """Copy the clinicians, and value them."""
        problem, params = self.problem, self.params
        wanted = problem.usual if params.start == "mode" else problem.rows.doses
        for _ in range(params.start_steps):
            i = self._drawn(len(wanted), params.value_batch)
            self._copy(problem.rows.states[i], wanted[i])
        self.actor_adam = Adam(self.actor, params.actor_rate)
        if params.cloning_only:
            return
        for _ in range(params.critic_start_steps):
            i = problem.known[self._drawn(len(problem.known), params.value_batch)]
            offset = torch.zeros(problem.to_go.shape[1])
            offset[0] = self._offset
            self._step_critics(problem.rows.states[i], problem.to_go[i] - offset)
        self.targets.flat.copy_(self.critics.flat)

    def refresh(self) -> Shares:
        """Roll out what acts now, and let the multipliers answer to it."""
        problem, params, g = self.problem, self.params, self.generator
        world = World(self.deployed, problem.behaviour, problem.dynamics, self._offset)
        first = problem.first[self._drawn(len(problem.first), params.first_decisions)]
        begun = problem.rows.states[self._drawn(len(problem.rows.row), params.starts)]
        rolled = world.roll(begun, params.horizon, g)
        followed, shares = world.follow(problem.rows.states[first], self._discounts, g)
        self._pool = [*self._pool, Rows.joined([rolled, followed])][-params.pool :]
        self._rows, self.shares = Rows.joined(self._pool), shares
        if params.constraints and params.multipliers == "adapted":
            self.costs.update(shares.totals[1:-1])
        if params.guardian:
            self.refusals.update(shares.totals[-1:])
        return shares

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

    def advance(self, logged: Logged | None = None) -> None:
        """One step; its real rows are these logged decisions, or drawn."""
        params, rows = self.params, self._known_rows()
        i = self._drawn(len(rows.states), params.value_batch)
        self._learn_values(rows, i)
        share = max(1 - self.step / max(self.steps, 1), 0.0)
        self.actor_adam.learning_rate = params.actor_rate * (share + LEAST_RATE)
        self._learn_actor(rows, logged)
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
            after = self.targets.answer(following.states)[..., 0].T
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
        said = {
            "step": float(self.step),
            "deaths": self.shares.deaths,
            "value": float(self.shares.totals[0]) + self._offset,
            "refusal": float(self.shares.totals[-1]),
            "deferred": self.shares.deferred,
            "disagreement": float(self._rows.disagreement.mean()),
            "mu_refusal": float(self.refusals.values[0]),
            "scale": float(self.critics.forward(self._rows.states[:1000])[0].abs().mean()),
        }
        for j, name in enumerate(names):
            said[f"cost_{name}"] = float(self.shares.totals[1 + j])
            said[f"limit_{name}"] = self.problem.limits[name]
            said[f"mu_{name}"] = float(self.costs.values[j])
            said[f"active_{name}"] = float(self.costs.active[j])
        return said

    def _learn_values(self, rows: Rows, i: torch.Tensor) -> None:
        discount = self._discounts[:, None]
        with torch.no_grad():
            after = self.targets.forward(rows.next_states[i])[..., 0]
            wanted = rows.now[i].T + discount * rows.going[i] * after
        self._step_critics(rows.states[i], wanted.T)
        self.targets.flat.lerp_(self.critics.flat, self.params.target_rate)

    def _learn_actor(self, rows: Rows, logged: Logged | None = None) -> None:
        logged, states = self._batch(rows, logged)
        proposed = torch.tanh(self.actor.forward(states)[0])
        free = proposed.detach().clone().requires_grad_(True)
        loss = self._actor_loss(states, free, logged.doses)
        (slope,) = torch.autograd.grad(loss.total, free)
        self._finite("the actor's slope", slope)
        self._step_actor(proposed, slope)

    def _batch(self, rows: Rows, logged: Logged | None) -> tuple[Logged, torch.Tensor]:
        """Real decisions, and their states before those of the model."""
        half = self.params.batch_size // 2
        if logged is None:
            real = self._drawn(len(self.problem.rows.row), half)
            logged = Logged(self.problem.rows.states[real], self.problem.rows.doses[real])
        modelled = self._drawn(len(rows.states), self.params.batch_size - half)
        return logged, torch.cat([logged.states, rows.states[modelled]])

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
        now = torch.cat([seen.reward[:, None], seen.costs], 1)
        after = self._after(following.states, seen.going, weights * self._discounts)
        value = acts * ((now * weights[:-1]).sum(1) + after)
        margin = torch.zeros(())
        threshold = problem.threshold if params.guardian else None
        if threshold is not None:
            beyond = (decided.score.clip(max=threshold + FARTHEST) - threshold) / params.margin
            margin = self.refusals.values[0] * params.margin * functional.softplus(beyond).mean()
        apart = (proposed[: len(logged)] - logged).square().sum(1).mean()
        total = value.mean() + params.margin_weight * margin + params.clinicians * apart
        return ActorLoss(total, value.mean(), margin, apart, 1 - acts.mean())

    def _after(
        self, states: torch.Tensor, going: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        """Weighted critics of the next states, with a slope in them and in `going`."""
        fixed = states.detach()
        values = (self.targets.forward(fixed)[..., 0] * weights[:, None]).sum(0)
        slope = weights[:, None, None].expand(-1, len(states), 1).contiguous()
        inputs = self.targets.backward_to_last(slope, states.shape[1])
        return going * (values + ((states - fixed) * inputs).sum(1))

    def _copy(self, states: torch.Tensor, wanted: torch.Tensor) -> None:
        proposed = torch.tanh(self.actor.forward(states)[0])
        self._step_actor(proposed, 2 * (proposed - wanted) / len(wanted))

    def _step_actor(self, proposed: torch.Tensor, slope: torch.Tensor) -> None:
        self.actor.backward((slope * (1 - proposed.square()))[None])
        self.actor_adam.step()

    def _step_critics(self, states: torch.Tensor, wanted: torch.Tensor) -> None:
        answers = self.critics.forward(states)
        gap = answers - wanted.T[..., None]
        self._finite("the critics' error", gap)
        self.critics.backward(2 * gap / len(states))
        self.critics_adam.step()

    def _drawn(self, of: int, count: int) -> torch.Tensor:
        return torch.randint(of, (count,), generator=self.generator)

    def _finite(self, what: str, values: torch.Tensor) -> None:
        if not bool(torch.isfinite(values).all()):
            raise ModelError(f"training: {what} is not finite at step {self.step}")

    def _known_rows(self) -> Rows:
        if self._rows is None:
            raise ModelError("training: nothing was rolled out yet")
        return self._rows

    def tensors(self) -> dict[str, torch.Tensor]:
        """All that goes on; a checkpoint is taken at a refresh, when rollouts start anew."""
        found = {"actor": self.actor.flat, "critics": self.critics.flat}
        found |= {"targets": self.targets.flat, "generator": self.generator.get_state()}
        found["step"] = torch.tensor(self.step)
        parts: dict[str, Any] = {
            "actor_adam": dict(self.actor_adam.tensors()),
            "critics_adam": dict(self.critics_adam.tensors()),
            "costs": self.costs.tensors(),
            "refusals": self.refusals.tensors(),
        }
        older = self._pool[1 - self.params.pool :] if self.params.pool > 1 else []
        parts |= {f"pool_{k}": vars(rows) for k, rows in enumerate(older)}
        for name, held in parts.items():
            found |= {f"{name}.{key}": value for key, value in held.items()}
        return {name: value.clone() for name, value in found.items()}

    def restore(self, tensors: dict[str, torch.Tensor]) -> None:
        """Go on from a checkpoint."""
        for name, networks in (
            ("actor", self.actor),
            ("critics", self.critics),
            ("targets", self.targets),
        ):
            networks.flat.copy_(tensors[name])
        self.actor_adam = Adam(self.actor, self.params.actor_rate)
        for name, adam in (("actor_adam", self.actor_adam), ("critics_adam", self.critics_adam)):
            for key, value in adam.tensors():
                value.copy_(tensors[f"{name}.{key}"].reshape(value.shape))
        for name, multipliers in (("costs", self.costs), ("refusals", self.refusals)):
            own = {k.removeprefix(f"{name}."): v for k, v in tensors.items()}
            multipliers.restore({k: own[k] for k in multipliers.tensors()})
        self._pool, self._rows = [], None
        while f"pool_{len(self._pool)}.states" in tensors:
            name = f"pool_{len(self._pool)}."
            held = {k.removeprefix(name): v for k, v in tensors.items() if k.startswith(name)}
            self._pool.append(Rows(**held))
        self.step = int(tensors["step"])
        self.generator.set_state(tensors["generator"])
