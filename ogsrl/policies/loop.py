"""What all loops of training share: draws, steps of actor and critics, what a checkpoint holds.

Base of the loops in the model, without it, and of the guarded CPO. All that goes on from one step
to the next is in `tensors`, so that a run that was stopped goes on bit for bit.
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional

from ogsrl.errors import ModelError
from ogsrl.policies.codes import StateCodes
from ogsrl.policies.config import OgsrlParams
from ogsrl.policies.devices import generator_on
from ogsrl.policies.limits import refusals_allowed
from ogsrl.policies.multipliers import Multipliers
from ogsrl.policies.networks import Adam, Perceptrons
from ogsrl.policies.problem import Problem

#: A score this far beyond the threshold pulls no harder.
FARTHEST = 5.0
#: The generator's state in a checkpoint.
GENERATOR = "generator"
#: Rate of an actor while it copies.
COPY_RATE = 1e-3


class Loop:
    """One seed of an algorithm."""

    actor: Perceptrons
    critics: Perceptrons
    actor_adam: Adam
    critics_adam: Adam

    def __init__(self, problem: Problem, seed: int) -> None:
        """Nothing is trained yet."""
        self.problem = problem
        #: networks see a column a level where a state holds codes
        self.codes = StateCodes.of(problem.history)
        self.generator = generator_on(problem.device, seed)
        self.step = 0

    @property
    def _own_codes(self) -> StateCodes | None:
        """What an actor is told of them: nothing where there are none."""
        return self.codes if self.codes.levels else None

    def _vectors(self) -> dict[str, torch.Tensor]:
        """What goes on, changed in place by `restore`."""
        return {"actor": self.actor.flat, "critics": self.critics.flat}

    def _adams(self) -> dict[str, Adam]:
        """Optimisers that go on."""
        return {}

    def _multipliers(self) -> dict[str, Multipliers]:
        """Multipliers that go on."""
        return {}

    def tensors(self) -> dict[str, torch.Tensor]:
        """All that goes on; a checkpoint is taken where rollouts start anew."""
        found = {**self._vectors(), "step": torch.tensor(self.step)}
        found[GENERATOR] = self.generator.get_state()
        parts = {name: dict(adam.tensors()) for name, adam in self._adams().items()}
        parts |= {name: held.tensors() for name, held in self._multipliers().items()}
        for name, held in parts.items():
            found |= {f"{name}.{key}": value for key, value in held.items()}
        return {name: value.clone() for name, value in found.items()}

    def restore(self, tensors: dict[str, torch.Tensor]) -> None:
        """Go on from a checkpoint."""
        for name, vector in self._vectors().items():
            vector.copy_(tensors[name].reshape(vector.shape))
        for name, adam in self._adams().items():
            for key, value in adam.tensors():
                value.copy_(tensors[f"{name}.{key}"].reshape(value.shape))
        for name, held in self._multipliers().items():
            held.restore({key: tensors[f"{name}.{key}"] for key in held.tensors()})
        self.step = int(tensors["step"])
        self.generator.set_state(tensors[GENERATOR])

    def _learn_in(self, products: str) -> None:
        """How exact the products of networks are while they learn."""
        self.actor.half = self.critics.half = products == "bfloat16"

    def _drawn(self, of: int, count: int) -> torch.Tensor:
        return torch.randint(of, (count,), generator=self.generator)

    def _finite(self, what: str, values: torch.Tensor) -> None:
        if not math.isfinite(float(values.sum())):  # one pass; what is no number stays none
            raise ModelError(f"training: {what} is not finite at step {self.step}")

    def _copy_clinicians(self, start: str, steps: int, rows: int) -> None:
        """Steps towards b's mode or the logged doses, with so many rows each."""
        problem = self.problem
        wanted = problem.usual if start == "mode" else problem.rows.doses
        self.actor_adam = Adam(self.actor, COPY_RATE)
        for _ in range(steps):
            i = self._drawn(len(wanted), rows)
            self._copy(problem.rows.states[i], wanted[i])

    def _value_clinicians(self, steps: int, rows: int, offset: float) -> None:
        """Critics' steps towards the clinicians' own returns, less what an end pays at best."""
        problem = self.problem
        less = torch.zeros(problem.to_go.shape[1])
        less[0] = offset
        for _ in range(steps):
            i = problem.known[self._drawn(len(problem.known), rows)]
            self._step_critics(problem.rows.states[i], problem.to_go[i] - less)

    def _copy(self, states: torch.Tensor, wanted: torch.Tensor) -> None:
        proposed = torch.tanh(self.actor.forward(self.codes.inputs(states))[0])
        self._step_actor(proposed, 2 * (proposed - wanted) / len(wanted))

    def _step_actor(self, proposed: torch.Tensor, slope: torch.Tensor) -> None:
        """Along a slope in what the actor has just proposed."""
        self.actor.backward((slope * (1 - proposed.square()))[None])
        self.actor_adam.step()

    def _step_critics(self, states: torch.Tensor, wanted: torch.Tensor) -> None:
        gap = self.critics.forward(self.codes.inputs(states)) - wanted.T[..., None]
        self._finite("the critics' error", gap)
        self.critics.backward(gap.mul_(2 / len(states)))
        self.critics_adam.step()


def discounts(problem: Problem, asked: float | None, quantities: int) -> torch.Tensor:
    """Of each quantity: the reward's as asked (none: the cohort's); shares of steps have none."""
    own = problem.history.preparation.cohort.discount
    return torch.tensor([own if asked is None else asked, *[1.0] * (quantities - 1)])


def cost_multipliers(limits: torch.Tensor, params: OgsrlParams) -> Multipliers:
    """Of constraints, as settings say: adapted from 0, fixed, or the slope of a squared excess."""
    aimed = params.aim * limits
    if params.multipliers == "quadratic":
        return Multipliers.at(aimed, 0.0, proportional=params.quadratic, rate=0.0)
    start = params.fixed_multiplier if params.multipliers == "fixed" else 0.0
    return Multipliers.at(aimed, start, proportional=params.proportional, rate=params.integral)


def refusal_multiplier(params: OgsrlParams, problem: Problem) -> Multipliers:
    """Of refusals: awake from the first step, and 0 without a guardian."""
    return Multipliers.at(
        torch.tensor([refusals_allowed(params.refusal_limit, problem.lived)]),
        params.refusal_start if params.guardian else 0.0,
        proportional=params.refusal_proportional,
        rate=params.refusal_integral,
    )


def softly_beyond(score: torch.Tensor, threshold: float, margin: float) -> torch.Tensor:
    """Mean over rows of tau softplus((score - t) / tau)."""
    beyond = (score.clip(max=threshold + FARTHEST) - threshold) / margin
    return margin * functional.softplus(beyond).mean()
