"""OGSRL's networks and training as d3rlpy's modules: what it saves, predicts with and steps.

Called by `algorithm` alone. Networks here are a learner's own vectors, never copies of them.
"""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from typing import Any

import torch
from d3rlpy.algos import QLearningAlgoImplBase
from d3rlpy.models.torch import ActionOutput, Policy
from d3rlpy.torch_utility import Modules, TorchMiniBatch
from d3rlpy.types import TorchObservation
from torch import nn

from ogsrl.errors import ModelError
from ogsrl.policies.learner import Learner, Real
from ogsrl.policies.networks import Perceptrons, Shape

#: Names of a checkpoint's tensors that hold rows.
POOL = "pool_"
NOT_ATTACHED = (
    "{asked}: it needs the clinicians' policy, the model and the guardian; "
    "call attach(Problem.of(train, behaviour, dynamics, guardian)) first"
)


class FlatPolicy(Policy):
    """The actor as a torch module; its one parameter is the actor's own vector, not a copy."""

    def __init__(self, networks: Perceptrons) -> None:
        """Of these networks."""
        super().__init__()
        self._shape = networks.shape
        self.flat = nn.Parameter(networks.flat)

    def forward(self, x: TorchObservation, *_: Any) -> ActionOutput:
        """Proposals, before and after the tanh."""
        answer = Perceptrons(self._shape, self.flat).answer(_rows(x))[0]
        return ActionOutput(answer, answer.tanh(), None)


class FlatValues(nn.Module):
    """Critics as a torch module, alike: V of each quantity, (rows, quantities)."""

    def __init__(self, networks: Perceptrons) -> None:
        """Of these networks."""
        super().__init__()
        self._shape = networks.shape
        self.flat = nn.Parameter(networks.flat)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Every critic on the same states."""
        return Perceptrons(self._shape, self.flat).answer(x)[..., 0].T


class Training(nn.Module):
    """All else that training goes on from, in what d3rlpy saves: optimisers, multipliers, draws.

    Rollouts of earlier refreshes are left out: they begin in patients' rows, and what is saved here
    leaves the building. With `pool: 1` nothing is missed and training goes on bit for bit; else the
    first refreshes after loading learn from fewer rollouts.
    """

    def __init__(self) -> None:
        """Nothing is attached yet."""
        super().__init__()
        self.learner: Learner | None = None
        self.kept: dict[str, torch.Tensor] = {}
        self.begun = False

    def get_extra_state(self) -> dict[str, torch.Tensor]:
        """What is saved; empty before the first step."""
        if self.learner is None or not self.begun:
            return self.kept
        tensors = self.learner.tensors()
        return {name: value for name, value in tensors.items() if not name.startswith(POOL)}

    def set_extra_state(self, state: dict[str, torch.Tensor]) -> None:
        """Take it back, now or when a problem is attached."""
        self.kept, self.begun = state, bool(state)
        if self.learner is not None and state:
            self.learner.restore(state)


@dataclasses.dataclass(frozen=True)
class OGSRLModules(Modules):
    """What d3rlpy saves and loads."""

    policy: FlatPolicy
    q_funcs: nn.ModuleList
    targ_q_funcs: nn.ModuleList
    training: Training


class OGSRLImpl(QLearningAlgoImplBase):
    """One step, one prediction; `OGSRL` is what one calls."""

    _modules: OGSRLModules

    def __init__(self, actor: Perceptrons, critics: Perceptrons, targets: Perceptrons) -> None:
        """Around these networks, which may be a learner's."""
        self.actor, self.critics, self.targets = actor, critics, targets
        modules = OGSRLModules(
            FlatPolicy(actor),
            nn.ModuleList([FlatValues(critics)]),
            nn.ModuleList([FlatValues(targets)]),
            Training(),
        )
        super().__init__((actor.shape.inputs,), actor.shape.outputs, modules, "cpu:0")

    @classmethod
    def drawn(cls, actor_shape: Shape, quantities: int, seed: int) -> OGSRLImpl:
        """The networks that a learner of this seed begins with."""
        generator = torch.Generator().manual_seed(seed)
        actor = Perceptrons.drawn(actor_shape, generator)
        critics = Perceptrons.drawn(replace(actor_shape, networks=quantities, outputs=1), generator)
        return cls(actor, critics, critics.twin())

    @classmethod
    def of(cls, learner: Learner) -> OGSRLImpl:
        """Around a learner's networks: what it learns is seen here at once."""
        made = cls(learner.actor, learner.critics, learner.targets)
        made.training.learner = learner
        return made

    @property
    def training(self) -> Training:
        """What is attached, and what was saved of its training."""
        return self._modules.training

    def learner(self, asked: str) -> Learner:
        """The one attached, after its first copying."""
        learner = self.training.learner
        if learner is None:
            raise ModelError(NOT_ATTACHED.format(asked=asked))
        return learner

    def ready(self, asked: str) -> dict[str, float]:
        """Copy, roll out if that is due; what was then measured, else nothing."""
        learner = self.learner(asked)
        if not self.training.begun:
            learner.begin()
            self.training.begun = True
        if not learner.due:
            return {}
        learner.refresh()
        return learner.measured()

    def inner_update(self, batch: TorchMiniBatch, grad_step: int) -> dict[str, float]:
        """One step whose real rows are the batch's."""
        told = self.ready("update")
        self.learner("update").advance(Real(_rows(batch.observations), batch.actions))
        return told

    def inner_predict_best_action(self, x: TorchObservation) -> torch.Tensor:
        """What the actor proposes; `Deployed` decides whether it is given."""
        return self._modules.policy(x).squashed_mu

    def inner_sample_action(self, x: TorchObservation) -> torch.Tensor:
        """The same: nothing is drawn."""
        return self.inner_predict_best_action(x)

    def inner_predict_value(self, x: TorchObservation, action: torch.Tensor) -> torch.Tensor:
        """Q_r through the model, the same at every call."""
        learner = self.learner("predict_value")
        generator = torch.Generator().manual_seed(0)
        return learner.worth(_rows(x), action, generator)[:, 0]

    @property
    def policy(self) -> FlatPolicy:
        """The actor."""
        return self._modules.policy

    @property
    def q_function(self) -> nn.ModuleList:
        """The critics."""
        return self._modules.q_funcs

    def copy_policy_from(self, impl: QLearningAlgoImplBase) -> None:
        """Start from another's actor, instead of copying clinicians."""
        super().copy_policy_from(impl)
        self.training.begun = True

    def reset_optimizer_states(self) -> None:
        """Adam's moments, from 0."""
        learner = self.learner("reset_optimizer_states")
        for adam in (learner.actor_adam, learner.critics_adam):
            for _, moment in adam.tensors():
                moment.zero_()


def _rows(x: TorchObservation) -> torch.Tensor:
    """States; d3rlpy's observations may be several tensors, ours never are."""
    if not isinstance(x, torch.Tensor):
        raise ModelError("observations: a state is one row of numbers")
    return x
