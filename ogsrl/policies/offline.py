"""OGSRL's training without a model: critics of executed doses on logged steps, and their baselines.

Called by the train stage. PRDC, its cost-penalised form, the Lagrangian without a guardian and our
own TD3+BC are settings of it. It never looks at a step that no clinician took.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from ogsrl.errors import ModelError
from ogsrl.policies.actors import NetworkActor
from ogsrl.policies.config import OgsrlParams
from ogsrl.policies.dataset import dataset_index
from ogsrl.policies.deployed import Deployed
from ogsrl.policies.index import DatasetIndex
from ogsrl.policies.logged import Batch, Logged
from ogsrl.policies.loop import (
    Loop,
    cost_multipliers,
    discounts,
    refusal_multiplier,
    softly_beyond,
)
from ogsrl.policies.multipliers import Multipliers
from ogsrl.policies.networks import Adam, Perceptrons, Shape
from ogsrl.policies.problem import Problem

#: Steps between rows of the log, and rows that it looks at.
LOGGED, PROBED = 250, 512
#: The least scale of the reward's critic.
LEAST_SCALE = 1e-6


class OfflineLearner(Loop):
    r"""One seed of TD3 with costs, a guardian and a dataset constraint, each a setting.

    Critics Q_k(s, a) of logged doses a, two of each quantity k, on logged steps alone:

        L_Q = sum_k mean (Q_k(s, a) - now_k - going gamma_k next_k)^2,  x' = pi'(s') + noise
        next_r = min(Q_r', Q_r'')(s', x'),  next_j = mean(Q_j', Q_j'')(s', x'),
        next_g = refused(s', x') / max_steps + mean(Q_g', Q_g'')(s', x'),

    Q', Q'', pi' slow copies. Costs and refusals are shares of steps: their targets stay in [0, 1].
    With the guardian, x' is what Deployed executes; where it defers, the clinicians' next dose. The
    actor, with x what Deployed executes of pi(s) and rows where it defers masked out of Q's terms:

        L_pi = mean [-alpha Q_r(s, x) / |Q_r| + sum_j mu_j max(Q_j)(s, x) + mu_g max(Q_g)(s, x)]
               + w_m mu_g mean tau softplus((score(s, x) - t) / tau)
               + w_dc mean (pi(s) - a~)^2 + w_bc mean (pi(s) - a)^2,

    |Q_r| the batch's mean of |Q_r(s, x)|, a~ the dose of the logged pair of another stay that is
    nearest to (s, pi(s)); the last two means are over rows and doses.
    """

    def __init__(self, problem: Problem, params: OgsrlParams, seed: int, steps: int) -> None:
        """Nothing is trained yet; `steps` is not asked for: rates stay as they are."""
        del steps
        if params.guardian and problem.guardian.threshold is None:
            raise ModelError("training: the guardian is not calibrated; run the stage guardian")
        super().__init__(problem, seed)
        self.params, self.settings = params, params.offline
        self.logged = Logged.of(problem, costs=params.constraints, refusals=params.guardian)
        width, doses, hidden = self.codes.width, self.logged.doses, params.hidden
        #: quantities once, then again, the reward last: an actor asks for all but that
        shape = Shape(2 * self.logged.quantities, width + doses, hidden, 1)
        self.actor = Perceptrons.drawn(Shape(1, width, hidden, doses), self.generator)
        self.critics = Perceptrons.drawn(shape, self.generator)
        self._learn_in(params.products)
        self.slow_actor, self.slow_critics = self.actor.twin(), self.critics.twin()
        proposes = NetworkActor(self.actor, self._own_codes)
        guardian = problem.guardian if params.guardian else None
        #: what acts while training; without the guardian, an ablation
        self.deployed = Deployed.of(proposes, guardian, problem.history)
        self._guarded = Deployed.of(proposes, problem.guardian, problem.history)
        self.actor_adam = Adam(self.actor, params.actor_rate)
        self.critics_adam = Adam(self.critics, self.settings.critic_rate)
        limits = list(problem.limits.values()) if params.constraints else []
        self.costs = cost_multipliers(torch.tensor(limits), params)
        self.refusals = refusal_multiplier(params, problem)
        self._discounts = discounts(problem, self.settings.discount, self.logged.quantities)
        self._asked = self.critics.some(slice(0, 2 * self.logged.quantities - 1))
        self._first = self._sample(problem.first, params.first_decisions)
        self._probe = self._sample(torch.arange(len(problem.rows.row)), PROBED)

    @property
    def policy(self) -> NetworkActor:
        """The actor as it is now, apart from what training does next."""
        return NetworkActor(self.actor.twin(), self._own_codes)

    @property
    def index(self) -> DatasetIndex:
        """The logged pairs; made anew, never saved."""
        return dataset_index(self.problem, self.params.dataset)

    def begin(self) -> None:
        """Copy the clinicians and value them, where that is asked for."""
        problem, params = self.problem, self.params
        wanted = problem.usual if params.start == "mode" else problem.rows.doses
        for _ in range(self.settings.start_steps):
            batch = self.logged.batch(self._drawn(len(wanted), params.batch_size))
            proposed = torch.tanh(self.actor.forward(batch.states)[0])
            self._step_actor(proposed, 2 * (proposed - wanted[batch.rows]) / proposed.numel())
        for _ in range(self.settings.critic_start_steps):
            rows = problem.known[self._drawn(len(problem.known), params.batch_size)]
            self._step_pairs(self.logged.batch(rows).pairs, self._returns(rows))
        self.actor_adam = Adam(self.actor, params.actor_rate)
        self.critics_adam = Adam(self.critics, self.settings.critic_rate)
        self.slow_actor.flat.copy_(self.actor.flat)
        self.slow_critics.flat.copy_(self.critics.flat)

    def train(self, steps: int) -> Iterator[dict[str, float]]:
        """So many steps more; what was measured, once every `LOGGED`."""
        for _ in range(steps):
            if self.step and self.step % self.settings.update_every == 0:
                self._update_multipliers()
            if self.step % LOGGED == 0:
                yield self.measured()
            self.learn(self._drawn(len(self.logged.packed), self.params.batch_size))

    def learn(self, rows: torch.Tensor) -> None:
        """One gradient step on these logged decisions."""
        batch = self.logged.batch(rows)
        self._step_pairs(batch.pairs, self._targets(batch))
        if self.step % self.settings.delay == 0:
            proposed = torch.tanh(self.actor.forward(batch.states)[0])
            slope = self._actor_slope(batch, proposed)
            self._finite("the actor's slope", slope)
            self._step_actor(proposed, slope)
            self.slow_actor.flat.lerp_(self.actor.flat, self.settings.target_rate)
            self.slow_critics.flat.lerp_(self.critics.flat, self.settings.target_rate)
        self.step += 1

    @torch.no_grad()
    def estimates(self) -> torch.Tensor:
        """(quantities,) V at the fixed sample of first decisions, as critics have it."""
        batch = self.logged.batch(self._first)
        doses, refused = self._executed(
            self.problem.rows.states[self._first],
            torch.tanh(self.actor.answer(batch.states)[0]),
            batch.doses,
        )
        answers = self.critics.answer(torch.cat([batch.states, doses], 1))[..., 0]
        values = self._joined(answers).mean(1)
        if self.params.guardian:
            values[-1] += refused.float().mean() / self.problem.max_steps
        self._finite("V at first decisions", values)
        return values

    @torch.no_grad()
    def measured(self) -> dict[str, float]:
        """The log's row: V at first decisions, multipliers, and how far from the data it acts."""
        problem, params, probe = self.problem, self.params, self._probe
        batch, values = self.logged.batch(probe), self.estimates()
        proposed = torch.tanh(self.actor.answer(batch.states)[0])
        decided = self._guarded.judge(problem.rows.states[probe], proposed)
        answers = self.critics.answer(torch.cat([batch.states, proposed], 1))[..., 0]
        active = self.costs.active
        said = {
            "step": float(self.step),
            "value": float(values[0]),
            "deferred": float(decided.deferred.float().mean()),
            "scale": float(answers[0].abs().mean()),
            "mu_refusal": float(self.refusals.values[0]),
            "active_refusal": float(self.refusals.active[0]),
        }
        if params.guardian:
            said["refusal"] = float(values[-1])
        for j, name in enumerate(problem.limits if params.constraints else ()):
            said[f"cost_{name}"] = float(values[1 + j])
            said[f"limit_{name}"] = problem.limits[name]
            said[f"mu_{name}"] = float(self.costs.values[j])
            fixed = params.multipliers == "fixed"
            said[f"active_{name}"] = float(self.costs.values[j] > 0 if fixed else active[j])
        if params.dataset.weight:
            near = self.index.of_rows(probe, proposed)
            said["dataset_distance"] = float(near.distance.mean())
            said["certified"] = float(near.certified.float().mean())
            said["own_row"] = self.index.own_row_share(probe, proposed)
        return said

    def _update_multipliers(self) -> None:
        params = self.params
        adapted = params.constraints and params.multipliers != "fixed"
        if not adapted and not params.guardian:
            return
        values = self.estimates()
        if adapted:
            self.costs.update(values[1 : 1 + len(self.costs.limits)])
        if params.guardian:
            self.refusals.update(values[-1:])

    def _returns(self, rows: torch.Tensor) -> torch.Tensor:
        """(quantities, rows) what clinicians came to; a refusal counts from the next step on."""
        to_go, after = self.problem.to_go, self.problem.after[rows]
        found = [to_go[rows, 0]]
        found += list(to_go[rows, 1:-1].unbind(1)) if self.params.constraints else []
        found += [to_go[after.clip(min=0), -1] * (after >= 0)] if self.params.guardian else []
        return torch.stack(found)

    @torch.no_grad()
    def _targets(self, batch: Batch) -> torch.Tensor:
        """(quantities, rows) what critics should say."""
        settings, half = self.settings, self.slow_critics.half
        following = torch.tanh(self.slow_actor.answer(batch.after, half=half)[0])
        noise = torch.randn(following.shape, generator=self.generator).mul_(settings.noise)
        doses = following.add_(noise.clip_(-settings.noise_clip, settings.noise_clip)).clip_(-1, 1)
        refused = None
        if self.params.guardian:
            states = self.problem.rows.next_states[batch.rows]
            doses, refused = self._executed(states, doses, self._clinicians_next(batch.rows))
        pairs = torch.cat([batch.after, doses], 1)
        answers = self.slow_critics.answer(pairs, half=half)[..., 0]
        joined = self._joined(answers)
        joined[0] = torch.minimum(answers[0], answers[-1])
        if refused is not None:
            joined[-1] += refused / self.problem.max_steps
        wanted = batch.now.T + self._discounts[:, None] * batch.going * joined
        wanted[1:].clip_(0, 1)
        return wanted

    def _actor_slope(self, batch: Batch, proposed: torch.Tensor) -> torch.Tensor:
        """The slope of L_pi in what is proposed."""
        params, rows = self.params, len(batch.rows)
        pulls = torch.zeros_like(proposed)
        if self.settings.cloning:
            pulls += self.settings.cloning * (proposed - batch.doses)
        if params.dataset.weight:
            near = self.index.of_rows(batch.rows, proposed)
            pulls += params.dataset.weight * (proposed - self.index.doses[near.row])
        pulls *= 2 / proposed.numel()
        if not params.guardian:
            acts = torch.ones(rows)
            return pulls + self._value_slope(batch, proposed, acts)
        free = proposed.detach().requires_grad_(True)
        states = self.problem.rows.states[batch.rows]
        decided = self.deployed.judge(states, free)
        acts = (~decided.deferred).float()
        slope = self._value_slope(batch, decided.doses.detach(), acts)
        felt = (decided.doses * slope).sum()
        threshold = self.problem.threshold
        if threshold is not None:
            beyond = softly_beyond(decided.score, threshold, params.margin)
            felt = felt + params.margin_weight * self.refusals.values[0] * beyond
        return pulls + torch.autograd.grad(felt, free)[0]

    def _value_slope(self, batch: Batch, doses: torch.Tensor, acts: torch.Tensor) -> torch.Tensor:
        """The slope of the critics' terms in executed doses; 0 where the actor does not act."""
        half = self.logged.quantities
        answers = self._asked.forward(torch.cat([batch.states, doses], 1))[..., 0]
        weight = acts / len(acts)
        scale = (answers[0].abs() * acts).sum() / acts.sum().clip(min=1)
        slope = torch.zeros_like(answers)
        slope[0] = -self.settings.alpha / scale.clip(min=LEAST_SCALE) * weight
        if half > 1:
            mu = self.costs.values
            if self.params.guardian:
                mu = torch.cat([mu, self.refusals.values])
            first = answers[1:half] >= answers[half:]
            slope[1:half] = first * mu[:, None] * weight
            slope[half:] = ~first * mu[:, None] * weight
        return self._asked.backward_to_last(slope[..., None], doses.shape[1])

    def _executed(
        self, states: torch.Tensor, proposed: torch.Tensor, clinicians: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Doses given, and where clinicians gave them; without the guardian, the proposed."""
        if not self.params.guardian:
            return proposed, torch.zeros(len(proposed), dtype=torch.bool)
        decided = self.deployed.judge(states, proposed)
        return torch.where(decided.deferred[:, None], clinicians, decided.doses), decided.deferred

    def _clinicians_next(self, rows: torch.Tensor) -> torch.Tensor:
        """The next logged doses; where the stay was censored before them, b's mode."""
        after = self.problem.after[rows]
        doses = self.problem.rows.doses[after.clip(min=0)]
        unknown = ((after < 0) & ~self.problem.rows.terminal[rows]).nonzero().squeeze(1)
        if len(unknown):
            states = self.problem.rows.next_states[rows[unknown]]
            doses[unknown] = self.problem.behaviour.distribution(states).mode()
        return doses

    def _joined(self, answers: torch.Tensor) -> torch.Tensor:
        """(quantities, rows) means of the two critics of each."""
        half = self.logged.quantities
        second = torch.cat([answers[-1:], answers[half:-1]])
        return (answers[:half] + second) / 2

    def _step_pairs(self, pairs: torch.Tensor, wanted: torch.Tensor) -> None:
        half = self.logged.quantities
        gap = self.critics.forward(pairs)
        gap[:half, :, 0] -= wanted
        gap[half:-1, :, 0] -= wanted[1:]
        gap[-1, :, 0] -= wanted[0]
        self._finite("the critics' error", gap)
        self.critics.backward(gap.mul_(2 / len(pairs)))
        self.critics_adam.step()

    def _sample(self, places: torch.Tensor, count: int) -> torch.Tensor:
        order = torch.randperm(len(places), generator=self.generator)[:count]
        return places[order.sort().values]

    def _vectors(self) -> dict[str, torch.Tensor]:
        slow = {"slow_actor": self.slow_actor.flat, "slow_critics": self.slow_critics.flat}
        return {**super()._vectors(), **slow}

    def _adams(self) -> dict[str, Adam]:
        return {"actor_adam": self.actor_adam, "critics_adam": self.critics_adam}

    def _multipliers(self) -> dict[str, Multipliers]:
        return {"costs": self.costs, "refusals": self.refusals}
