"""The guarded CPO: on-policy steps within a trust region, in the model under the guardian.

Called by training, as a baseline. What it saves is the mean of its policy, a `NetworkActor`. All
that goes on from one update to the next is in `tensors`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from ogsrl.errors import ModelError
from ogsrl.policies.actors import NetworkActor
from ogsrl.policies.config import CpoParams
from ogsrl.policies.deployed import Deployed
from ogsrl.policies.episodes import Episodes
from ogsrl.policies.limits import refusals_allowed
from ogsrl.policies.loop import Loop, discounts
from ogsrl.policies.networks import Adam, Perceptrons, Shape
from ogsrl.policies.problem import REFUSAL, Problem
from ogsrl.policies.rollouts import World
from ogsrl.policies.trust import SLACK, Product, conjugate_gradient, trust_step

#: How much a try of the line search shortens a step.
SHORTER = 0.7
#: The least limit that an excess is measured against.
LEAST_LIMIT = 1e-3


@dataclass(frozen=True)
class Gaussian:
    """pi(a|s) = N(tanh f(s), sigma^2), sigma the same in every state.

    Attributes:
        mean: (rows, doses).
        log_deviation: (doses,).
    """

    mean: torch.Tensor
    log_deviation: torch.Tensor

    @classmethod
    def of(cls, shape: Shape, flat: torch.Tensor, states: torch.Tensor) -> Gaussian:
        """Of parameters in one vector, the network's first; it has a gradient in them."""
        mean = Perceptrons(shape, flat[: shape.parameters]).answer(states)[0].tanh()
        return cls(mean, flat[shape.parameters :])

    def log_density(self, doses: torch.Tensor) -> torch.Tensor:
        """(rows,) but for a constant."""
        far = (doses - self.mean) / self.log_deviation.exp()
        return -(far.square() / 2 + self.log_deviation).sum(1)

    def draw(self, generator: torch.Generator) -> torch.Tensor:
        """Doses; those beyond [-1, 1] become orders at its ends."""
        noise = torch.randn(self.mean.shape, generator=generator)
        return self.mean + self.log_deviation.exp() * noise

    def divergence(self, other: Gaussian) -> torch.Tensor:
        """(rows,) KL of another from this one."""
        wider = other.log_deviation - self.log_deviation
        apart = (self.mean - other.mean).square() + (2 * self.log_deviation).exp()
        return (wider + apart / (2 * (2 * other.log_deviation).exp()) - 0.5).sum(1)


@dataclass(frozen=True)
class Update:
    """How an update went.

    Attributes:
        divergence: Mean KL of the new policy from the old.
        share: Of the step that was taken; 0: none was.
        feasible: Whether all limits could be met within the trust region.
    """

    divergence: float
    share: float
    feasible: bool


class Cpo(Loop):
    r"""One seed.

    Each update follows stays of pi from first decisions in the model, guardian included, and takes

        max_d  g_r d   subject to  V_j + g_j d <= d_j,  V_g + g_g d <= d_g,  d H d / 2 <= radius,

    g_k = gradient of sum_i w_i gamma^t pi(a_i|s_i) / pi_old(a_i|s_i) A_k(s_i, a_i) over all steps,
    a_i the dose proposed, w_i the chance that the stay gets there, H the curvature of the KL.
    Advantages of costs stay in units of their limits: they are centred, never standardised. Where
    no such step exists, d lowers what is broken. Critics V_k are regressed on A_k + V_k.
    """

    def __init__(self, problem: Problem, params: CpoParams, seed: int, steps: int) -> None:
        """Nothing is trained yet; `steps` are `train.steps`, of which an update counts as many."""
        super().__init__(problem, seed)
        self.params, self.steps = params, steps
        columns, doses = self.codes.width, problem.rows.doses.shape[1]
        hidden, quantities = params.hidden, len(problem.quantities)
        self.actor = Perceptrons.drawn(Shape(1, columns, hidden, doses), self.generator)
        self.log_deviation = torch.full((doses,), math.log(params.deviation))
        self.critics = Perceptrons.drawn(Shape(quantities, columns, hidden, 1), self.generator)
        self.critics_adam = Adam(self.critics, params.critic_rate)
        self._discounts = discounts(problem, params.discount, quantities)
        self._offset = problem.best_end if self._discounts[0] == 1 else 0.0
        limits = dict(problem.limits) if params.constraints else {}
        allowed = refusals_allowed(params.refusal_limit, problem.lived)
        self.limits = limits | ({REFUSAL: allowed} if params.guardian else {})
        self.multipliers = torch.zeros(len(self.limits))
        self.positive = torch.zeros(len(self.limits))
        self.updates = torch.zeros((), dtype=torch.int64)
        self.last: tuple[Episodes, Update] | None = None

    @property
    def policy(self) -> NetworkActor:
        """The mean of the policy as it is now, apart from what training does next."""
        return NetworkActor(self.actor.twin(), self._own_codes)

    @property
    def deployed(self) -> Deployed:
        """What acts in the model; without the guardian, an ablation."""
        guardian = self.problem.guardian if self.params.guardian else None
        acting = NetworkActor(self.actor, self._own_codes)
        return Deployed.of(acting, guardian, self.problem.history)

    def begin(self) -> None:
        """Copy the clinicians, and value them."""
        params = self.params
        self._copy_clinicians(params.start, params.start_steps, params.value_batch)
        self._value_clinicians(params.critic_start_steps, params.value_batch, self._offset)

    def train(self, steps: int) -> Iterator[dict[str, float]]:
        """So many steps more; what was measured, once an update."""
        end = self.step + steps
        while self.step < end:
            self.update()
            yield self.measured()
            self.step += min(self.params.steps_per_update, end - self.step)

    def update(self) -> Update:
        """Follow stays, step within the trust region, and value the policy anew."""
        problem, params, g = self.problem, self.params, self.generator
        stops = params.on_refusal == "stop"
        world = World(self.deployed, problem.behaviour, problem.dynamics, self._offset, stops)
        flat, shape = torch.cat([self.actor.flat, self.log_deviation]), self.actor.shape
        first = problem.first[self._drawn(len(problem.first), params.stays)]
        codes = self.codes
        seen = Episodes.follow(
            world,
            problem.rows.states[first],
            lambda s: Gaussian.of(shape, flat, codes.inputs(s)).draw(g),
            g,
        )
        values = self.critics.answer(codes.inputs(seen.rows.states))[..., 0].T
        after = self.critics.answer(codes.inputs(seen.rows.next_states))[..., 0].T
        found = seen.advantages(values, after, self._discounts, params.decay)
        self._finite("an advantage", found)
        share = seen.shares(self._discounts)
        centre = (share * found).sum(0) / share.sum(0)  # changes no slope but by chance
        made = self._improve(flat, seen, found - centre)
        wanted = values + found
        for _ in range(params.critic_steps):
            i = self._drawn(len(wanted), params.value_batch)
            self._step_critics(seen.rows.states[i], wanted[i])
        self.last = seen, made
        return made

    def _improve(self, flat: torch.Tensor, seen: Episodes, advantages: torch.Tensor) -> Update:
        """One constrained step of the policy."""
        shape, params = self.actor.shape, self.params
        states = self.codes.inputs(seen.rows.states)
        old = Gaussian.of(shape, flat, states)
        before = old.log_density(seen.proposed)
        # reward in spreads of the clinicians' returns, what is limited in units of its limit
        scale, places = self._units()
        worth = (seen.shares(self._discounts) * advantages)[:, places] * scale
        excess = (seen.totals(self._discounts)[places[1:]] - self._limits()) * scale[1:]

        def change(at: torch.Tensor) -> torch.Tensor:
            ratio = (Gaussian.of(shape, at, states).log_density(seen.proposed) - before).exp()
            return ((ratio - 1)[:, None] * worth).sum(0)

        slopes = self._slopes(change, flat)
        self._finite("the policy's slope", slopes)
        some = self._drawn(len(states), min(params.curvature_rows, len(states)))
        curvature = self.curvature(flat, seen, some)
        step = trust_step(
            slopes[0],
            slopes[1:],
            excess,
            lambda v: conjugate_gradient(curvature, v, params.conjugate_steps),
            params.radius,
        )
        self.updates += 1
        self.multipliers = step.multipliers * scale[1:]
        binds = step.multipliers > 0 if step.feasible else excess > 0
        self.positive = self.positive + binds
        there = seen.weight / seen.weight.sum()
        share = 1.0
        for _ in range(params.backtracks):
            new = self._bounded(flat + share * step.direction)
            with torch.no_grad():
                divergence = float((there * old.divergence(Gaussian.of(shape, new, states))).sum())
                gained = change(new)
            if divergence <= params.radius and _better(gained, excess, step.feasible):
                self.actor.flat.copy_(new[: shape.parameters])
                self.log_deviation = new[shape.parameters :].clone()
                return Update(divergence, share, step.feasible)
            share *= SHORTER
        return Update(0.0, 0.0, step.feasible)

    def _units(self) -> tuple[torch.Tensor, list[int]]:
        """What reward and limited quantities are multiplied by, and their places."""
        names = self.problem.quantities
        limits = self._limits().clip(min=LEAST_LIMIT)
        scale = torch.cat([torch.tensor([1 / self.problem.spread]), 1 / limits])
        return scale, [0, *(names.index(name) for name in self.limits)]

    def _limits(self) -> torch.Tensor:
        return torch.tensor(list(self.limits.values()))

    def _slopes(
        self, change: Callable[[torch.Tensor], torch.Tensor], flat: torch.Tensor
    ) -> torch.Tensor:
        """(quantities, parameters) gradients at the policy as it is."""
        at = flat.clone().requires_grad_(True)
        changed = change(at)
        return torch.stack(
            [torch.autograd.grad(one, at, retain_graph=True)[0] for one in changed.unbind()]
        )

    def curvature(self, flat: torch.Tensor, seen: Episodes, rows: torch.Tensor) -> Product:
        """Product with H + damping, H the second derivative of the mean KL at the policy itself."""
        weight = seen.weight[rows] / seen.weight[rows].sum()
        networks, count = self.actor.twin(), self.actor.shape.parameters
        mean = networks.forward(self.codes.inputs(seen.rows.states[rows]))[0].tanh()
        narrow = (-2 * flat[count:]).exp()  # 1 / sigma^2
        steep = weight[:, None] * narrow * (1 - mean.square()).square()

        def product(v: torch.Tensor) -> torch.Tensor:
            networks.backward(steep * networks.along(v[:count]))
            return torch.cat([networks.gradient, 2 * v[count:]]) + self.params.damping * v

        return product

    def _bounded(self, flat: torch.Tensor) -> torch.Tensor:
        """The same parameters, with no deviation below the least or beyond 1."""
        bounded = flat.clone()
        tail = bounded[self.actor.shape.parameters :]
        tail.clip_(math.log(self.params.least_deviation), 0.0)
        return bounded

    def measured(self) -> dict[str, float]:
        """The log's row: what the policy that draws came to, and how the last update went."""
        if self.last is None:
            raise ModelError("training: nothing was rolled out yet")
        seen, made = self.last
        totals = dict(zip(self.problem.quantities, seen.totals(self._discounts), strict=True))
        said = {
            "step": float(self.step),
            "deaths": seen.deaths,
            "value": float(seen.totals(self._discounts)[0]) + self._offset,
            "refusal": float(totals[REFUSAL]),
            "deferred": seen.deferred,
            "disagreement": float(seen.rows.disagreement.mean()),
            "kl": made.divergence,
            "step_share": made.share,
            "feasible": float(made.feasible),
            "deviation": float(self.log_deviation.exp().mean()),
        }
        mu = dict(zip(self.limits, self.multipliers.tolist(), strict=True))
        binds = dict(zip(self.limits, self.positive.tolist(), strict=True))
        updates = max(int(self.updates), 1)
        said[f"mu_{REFUSAL}"] = mu.get(REFUSAL, 0.0)
        said[f"active_{REFUSAL}"] = binds.get(REFUSAL, 0.0) / updates
        for name, limit in self.problem.limits.items():
            said[f"cost_{name}"] = float(totals[name])
            said[f"limit_{name}"] = limit
            said[f"mu_{name}"] = mu.get(name, 0.0)
            said[f"active_{name}"] = binds.get(name, 0.0) / updates
        return said

    def _vectors(self) -> dict[str, torch.Tensor]:
        own = {"log_deviation": self.log_deviation}
        own |= {"multipliers": self.multipliers, "positive": self.positive}
        return {**super()._vectors(), **own, "updates": self.updates}

    def _adams(self) -> dict[str, Adam]:
        return {"critics_adam": self.critics_adam}


def _better(changed: torch.Tensor, excess: torch.Tensor, feasible: bool) -> bool:
    """Whether a step may be taken, as far as the advantages tell.

    Nothing that was met is broken, nothing broken gets worse; where all was met, the reward rises;
    where a step cannot meet all, what is broken falls in sum.
    """
    gained, after = float(changed[0]), excess + changed[1:]
    if not bool(torch.isfinite(changed).all()):
        return False
    broken = excess.clip(min=0)
    if not feasible:
        return float(after.clip(min=0).sum()) < float(broken.sum())
    return bool((after <= broken + SLACK).all()) and (gained > 0 or bool((excess > 0).any()))
