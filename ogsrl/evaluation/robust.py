r"""Robust fitted Q evaluation: the most and least that a policy may come to, confounded every step.

Called by evaluation, beside the bound for one decision. It assumes a confounder of each step's
own: given the state, what was hidden before says nothing of what is hidden now. One that stays, as
a patient's frailty does, is held by these bounds only as far as the states show what it did.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from ogsrl.errors import ModelError
from ogsrl.evaluation.config import FqeParams
from ogsrl.evaluation.executed import Clinicians, Executed
from ogsrl.evaluation.fqe_parts import Heads, Inputs, Seen, Task, first_decisions
from ogsrl.evaluation.quantities import default_quantities, quantities
from ogsrl.evaluation.sensitivity import Widening, check_gamma
from ogsrl.policies.deployed import Deployed
from ogsrl.policies.networks import Adam, Perceptrons, Shape
from ogsrl.preparation.tensors import StayTensors

#: First decisions asked at a time.
BLOCK = 1_024


@dataclass(frozen=True)
class Robust:
    r"""Q+(s, x) and Q-(s, x) of each policy, Gamma and quantity, x executed doses.

        T  = paid + discount going V+(s'),   Q+ = sup_m E[m T | s,a],   m in [1/Gamma, Gamma],
        Q+ = min_z E[ T / Gamma + (1 - 1/Gamma) (z + (1 + Gamma) max(T - z, 0)) | s,a ],

    the mean and the mean of the worst 1 / (1 + Gamma), mixed. The best z is T's quantile
    Gamma / (1 + Gamma), fitted beside Q+ by the pinball loss; another only makes the bound wider.
    Q- is that of the complement, 1 - T in shares of the range. V(s') = Q(s', x') as in fitted Q.

    Where the policy defers, the clinician acts as in the logs, hidden reasons and all: m = 1, and
    Q is the plain mean of T over b's doses. The networks see whether it defers, so that one state
    may hold both, and a policy that always defers is not widened at all.

    All networks of one number begin alike and see the same rows, whatever the policy, Gamma and
    side; Gamma 1 is among them, and what a Gamma adds is told against it. So it is exactly 0 at 1;
    that it never shrinks as Gamma grows is enforced (greatest so far), for fits are not exact.

    Attributes:
        policies: Their names.
        quantities: Their names.
        gammas: From 1, rising.
        bounds: By policy and quantity: (gammas, 2, networks, stays) Q- and Q+ at first decisions.
        low: (quantities,) the least that each can be.
        high: (quantities,) the most.
    """

    policies: tuple[str, ...]
    quantities: tuple[str, ...]
    gammas: tuple[float, ...]
    bounds: Mapping[str, Mapping[str, torch.Tensor]]
    low: torch.Tensor
    high: torch.Tensor

    def widening(self, policy: str, quantity: str, gamma: float) -> Widening:
        """What this Gamma, one of those fitted, could do to the policy's mean."""
        if policy not in self.policies or quantity not in self.quantities:
            raise ModelError(f"robust: {quantity} of {policy} was not fitted")
        if gamma not in self.gammas:
            known = ", ".join(f"{one:g}" for one in self.gammas)
            raise ModelError(f"robust: Gamma {gamma:g} was not fitted; known: {known}")
        means = self.bounds[policy][quantity].double().mean((2, 3))
        apart = torch.stack([means[0, 0] - means[:, 0], means[:, 1] - means[0, 1]])
        most = apart.cummax(1).values[:, self.gammas.index(gamma)]
        return Widening(*most.clip(min=0).tolist())


def fit_robust(
    stays: StayTensors,
    policies: Mapping[str, Deployed],
    behaviour: Clinicians,
    params: FqeParams,
    gammas: Sequence[float],
    generator: torch.Generator,
    names: Sequence[str] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Robust:
    """Evaluate policies on the patients of `stays`, at each Gamma.

    Args:
        stays: Whole stays.
        policies: What acts, by name.
        behaviour: Who acts where a policy defers.
        params: Size and training; all fits are fed all patients, so they count as networks alone.
        gammas: From 1 up; 1 is added.
        generator: Everything is drawn with it.
        names: Quantities; none: the primary one, every constraint's cost, refusal.
        progress: Called with 1 after each gradient step.
    """
    for gamma in gammas:
        check_gamma(gamma)
    cohort = stays.history.preparation.cohort
    if not policies or not len(first_decisions(stays)):
        raise ModelError("robust: no policy or no decision to evaluate; give at least one of each")
    names = tuple(names or default_quantities(cohort))
    executed = {
        name: Executed.of(deployed, behaviour, stays.states, params.draws, generator)
        for name, deployed in policies.items()
    }
    sides = _Sides.of(gammas)
    task = Task.of(stays, executed, quantities(stays, names))
    fit = _Fit.of(stays, executed, task, sides, params, generator)
    fit.train(params, generator, progress)
    values = fit.at_first(stays, executed)
    bounds = {
        policy: {q: sides.by_gamma(values[p, ..., k]) for k, q in enumerate(names)}
        for p, policy in enumerate(policies)
    }
    return Robust(tuple(policies), names, sides.gammas, bounds, task.low, task.high)


@dataclass(frozen=True)
class _Sides:
    """What is fitted side by side of each policy: Gamma 1 once, each other one from both sides."""

    gammas: tuple[float, ...]

    @classmethod
    def of(cls, gammas: Sequence[float]) -> _Sides:
        return cls(tuple(sorted({1.0, *map(float, gammas)})))

    def __len__(self) -> int:
        return 2 * len(self.gammas) - 1

    @property
    def gamma(self) -> torch.Tensor:
        """(sides, 1, 1, 1): 1, then below and above of each."""
        each = [1.0, *(gamma for gamma in self.gammas[1:] for _ in range(2))]
        return torch.tensor(each)[:, None, None, None]

    @property
    def above(self) -> torch.Tensor:
        """(sides, 1, 1, 1)."""
        each = [True, *[False, True] * (len(self.gammas) - 1)]
        return torch.tensor(each)[:, None, None, None]

    def by_gamma(self, values: torch.Tensor) -> torch.Tensor:
        """(gammas, 2, ...) of (sides, ...)."""
        one = values[:1].expand(2, *values.shape[1:])[None]
        return torch.cat([one, values[1:].view(len(self.gammas) - 1, 2, *values.shape[1:])])


@dataclass(frozen=True)
class _Fit:
    """Networks (policies x sides x networks), of each quantity a value and then of each a z."""

    task: Task
    sides: _Sides
    inputs: Inputs
    heads: Heads
    networks: Perceptrons
    defers: torch.Tensor  # (draws, policies, decisions) in the decision's own state
    then_defers: torch.Tensor  # the same, after it

    @classmethod
    def of(
        cls,
        stays: StayTensors,
        executed: Mapping[str, Executed],
        task: Task,
        sides: _Sides,
        params: FqeParams,
        generator: torch.Generator,
    ) -> _Fit:
        inputs, plain = Inputs.of(stays, params.dose_weight), task.heads()
        heads = Heads(plain.low.repeat(2), plain.span.repeat(2), plain.start.repeat(1, 1, 1, 2))
        shape = Shape(
            params.fits * params.networks, inputs.columns + 1, params.hidden, len(heads.low)
        )
        networks = Perceptrons.drawn(shape, generator).repeated(len(executed) * len(sides))
        deferred = torch.stack([one.deferred for one in executed.values()], 1)
        row = stays.decision.nonzero().squeeze(1)
        following = stays.next_row[row].clip(min=0)
        return cls(
            task, sides, inputs, heads, networks, deferred[..., row], deferred[..., following]
        )

    def train(
        self,
        params: FqeParams,
        generator: torch.Generator,
        progress: Callable[[int], None] | None,
    ) -> None:
        """Towards logged returns first, as they are, then towards the bounds."""
        task, networks, begun = self.task, self.networks, self.task.known
        targets, adam = networks.twin(), Adam(networks, params.learning_rate)
        start, each = params.start_steps if len(begun) else 0, params.fits * params.networks
        span = self.heads.span[: len(task.low)]
        for number in range(start + params.steps):
            pool = begun if number < start else torch.arange(len(task))
            rows = pool[torch.randint(len(pool), (each, params.batch_size), generator=generator)]
            draw, then = torch.randint(len(self.defers), (2,), generator=generator).tolist()
            defers = self.defers[draw][:, rows]
            given = task.doses[rows].expand(*defers.shape, -1)
            shares = self._shares(networks.forward(*self._seen(task.states[rows], given, defers)))
            if number < start:
                wanted, acts = task.returns[:, rows][:, None], torch.zeros_like(defers)
            else:
                wanted, acts = self._targets(targets, rows, then), ~defers
                done = (number - start) / params.steps
                adam.learning_rate = params.learning_rate * 0.5 * (1 + math.cos(math.pi * done))
            wanted = (wanted.clip(task.low, task.high) - task.low) / span
            slope = self._slope(shares, wanted.expand(*shares.shape[:-1], -1), acts)
            slope *= task.counts[rows].repeat(1, 1, 2)
            if not bool(torch.isfinite(slope).all()):
                raise ModelError(
                    f"robust: not finite at gradient step {number}; a state or dose of the stays "
                    "is no number, or learning_rate is too large"
                )
            networks.backward(slope.flatten(0, 2) / params.batch_size)
            adam.step()
            targets.flat.lerp_(networks.flat, params.target_rate if number >= start else 1.0)
            if progress is not None:
                progress(1)

    def _slope(
        self, shares: torch.Tensor, wanted: torch.Tensor, acts: torch.Tensor
    ) -> torch.Tensor:
        """Of the losses in the logits, (policies, sides, networks, rows, 2 x quantities).

        Args:
            shares: Answers: values, then z.
            wanted: T, of each quantity.
            acts: (policies, networks, rows) whether m may be other than 1.
        """
        gamma, above, acts = self.sides.gamma, self.sides.above, acts[:, None, ..., None]
        value, z = torch.split(shares, wanted.shape[-1], -1)
        # what is below is what is above of the complement
        t, z = (torch.where(above, x, 1 - x) for x in (wanted, z))
        worst = t / gamma + (1 - 1 / gamma) * (z + (1 + gamma) * (t - z).clip(min=0))
        worst = torch.where(acts, torch.where(above, worst, 1 - worst), wanted)
        # at Gamma 1 too, where z is not used: else its networks' luck would be another
        pinball = ((t <= z).to(t.dtype) - gamma / (1 + gamma)) * 4 * z * (1 - z)
        pinball = torch.where(above, pinball, -pinball) * acts
        return torch.cat([value - worst, pinball], -1)

    @torch.no_grad()
    def _targets(self, targets: Perceptrons, rows: torch.Tensor, draw: int) -> torch.Tensor:
        """(policies, sides, networks, rows, quantities) T."""
        task = self.task
        doses, defers = task.next_doses[draw][:, rows], self.then_defers[draw][:, rows]
        after = self._values(targets.answer(*self._seen(task.next_states[rows], doses, defers)))
        refused = task.refused[draw][:, rows][:, None]
        return task.paid[rows] + task.going[rows] * after + refused

    @torch.no_grad()
    def at_first(self, stays: StayTensors, executed: Mapping[str, Executed]) -> torch.Tensor:
        """(policies, sides, networks, stays, quantities) V at first decisions."""
        found = []
        for rows in torch.split(first_decisions(stays), BLOCK):
            states, total = stays.states[rows], torch.zeros(())
            for draw in range(len(self.defers)):
                doses, deferred = (
                    torch.stack([getattr(one, name)[draw, rows] for one in executed.values()])
                    for name in ("doses", "deferred")
                )
                seen = self._seen(states[None], doses[:, None], deferred[:, None])
                total = total + self._values(self.networks.answer(*seen))
            found.append(total / len(self.defers))
        return torch.cat(found, 3)

    def _seen(self, states: torch.Tensor, doses: torch.Tensor, defers: torch.Tensor) -> Seen:
        """(all networks, rows, .) of states (networks, rows, .), doses (policies, ...)."""
        policies, networks, rows, _ = doses.shape
        flat = doses.reshape(policies, -1, doses.shape[-1])
        seen = self.inputs(states.flatten(0, 1), flat)
        told = torch.cat([seen.numbers, 2.0 * defers.reshape(policies, -1, 1) - 1], -1)
        each = self.networks.shape.networks // (policies * len(self.sides))

        def of_all(one: torch.Tensor) -> torch.Tensor:
            one = one.reshape(policies, 1, networks, rows, -1)
            return one.expand(-1, len(self.sides), each, -1, -1).flatten(0, 2)

        return Seen(told, seen.codes).each(of_all)

    def _shares(self, answers: torch.Tensor) -> torch.Tensor:
        """(policies, sides, networks, rows, 2 x quantities)."""
        shares = self.heads.shares(answers)
        return shares.view(len(shares), len(self.sides), -1, *shares.shape[2:])

    def _values(self, answers: torch.Tensor) -> torch.Tensor:
        """(policies, sides, networks, rows, quantities)."""
        return self.heads.values(self._shares(answers))[..., : len(self.task.low)]
