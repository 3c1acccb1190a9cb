"""d3rlpy's own algorithms as baselines, fitted on our transitions and handed back as our actors.

Called by training. d3rlpy is asked for its update steps alone: batches are ours, so no step of a
stay is dropped. It draws from torch's one global generator, whose state is put back afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from d3rlpy.algos import (
    PRDC,
    CQLConfig,
    DiscreteBCConfig,
    DiscreteBCQConfig,
    DiscreteCQLConfig,
    IQLConfig,
    PRDCConfig,
    TD3PlusBCConfig,
)
from d3rlpy.dataset import TransitionMiniBatch
from sklearn.base import clone
from torch import nn

from ogsrl.errors import ModelError, NoFormError
from ogsrl.policies.actors import LevelsActor, NetworkActor
from ogsrl.policies.codes import DoseLevels, StateCodes
from ogsrl.policies.devices import CPU, generator_on
from ogsrl.policies.networks import Perceptrons, Shape
from ogsrl.preparation.history import History
from ogsrl.preparation.tensors import Transitions

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Peer:
    """An algorithm of d3rlpy, for continuous doses, ordinal ones, or both.

    Attributes:
        continuous: Makes its settings; None: it has no form for continuous doses.
        ordinal: The same for ordinal doses.
    """

    continuous: Callable[..., Any] | None = None
    ordinal: Callable[..., Any] | None = None


#: By the name that `params.yaml` gives; settings are d3rlpy's own defaults, as published.
PEERS: Mapping[str, Peer] = {
    "d3rlpy_bc": Peer(ordinal=DiscreteBCConfig),
    "d3rlpy_bcq": Peer(ordinal=DiscreteBCQConfig),
    "d3rlpy_cql": Peer(CQLConfig, DiscreteCQLConfig),
    "d3rlpy_iql": Peer(IQLConfig),
    "d3rlpy_prdc": Peer(PRDCConfig),
    "d3rlpy_td3bc": Peer(TD3PlusBCConfig),
}


def fit_peer(
    name: str,
    transitions: Transitions,
    history: History,
    steps: int,
    seed: int,
    progress: Progress = lambda _: None,
) -> NetworkActor | LevelsActor:
    """One of `PEERS` after so many gradient steps.

    Settings are d3rlpy's, but for two: the cohort's discount, and a target network that is renewed
    at least ten times (every 8,000 steps, as published for Atari, would be never).

    Args:
        name: One of `PEERS`.
        transitions: Of training patients.
        history: Their layout.
        steps: Gradient steps.
        seed: Of all that is drawn; the same gives the same actor.
        progress: Called with steps done.
    """
    generator = generator_on(transitions.states.device, seed)
    return actor_of(fitted(name, transitions, history, steps, generator, progress), history)


def fitted(
    name: str,
    transitions: Transitions,
    history: History,
    steps: int,
    generator: torch.Generator,
    progress: Progress = lambda _: None,
) -> Any:
    """The same as d3rlpy holds it: an algorithm with `predict` and `predict_value`."""
    if not len(transitions.row):
        raise ModelError("train: no decision; a policy needs training rows")
    codes = StateCodes.of(history)
    levels = DoseLevels.of(history) if ordinal(history) else None
    settings, device = _settings(name, history, steps), transitions.states.device
    first = torch.randint(2**62, (1,), generator=generator, device=device)
    with _seeded(int(first), device):
        algorithm = settings.create(device=False if device == CPU else str(device))
        if isinstance(algorithm, PRDC):  # its index is the class's: two models would share it
            algorithm._nbsr = clone(PRDC._nbsr).set_params(n_jobs=1)  # a pool a query costs more
            pairs = [settings.beta * codes.inputs(transitions.states), transitions.doses]
            algorithm._nbsr.fit(torch.cat(pairs, 1).cpu().numpy())
        outputs = len(levels) if levels else transitions.doses.shape[1]
        algorithm.create_impl((codes.width,), outputs)
        for step in range(steps):
            rows = torch.randint(
                len(transitions.row), (settings.batch_size,), generator=generator, device=device
            )
            told = algorithm.update(batch_of(transitions, rows, codes, levels))
            _check_finite(name, step, told)
            progress(1)
    return algorithm


def ordinal(history: History) -> bool:
    """Whether every dose of the cohort is ordinal."""
    return all(a.kind == "ordinal" for a in history.preparation.cohort.actions.values())


def batch_of(
    transitions: Transitions, rows: torch.Tensor, codes: StateCodes, levels: DoseLevels | None
) -> TransitionMiniBatch:
    """Some transitions as d3rlpy takes them; what follows a terminal step is never looked at."""
    doses = transitions.doses[rows]
    actions = doses if levels is None else levels.codes(doses)[:, None].float()
    rewards = transitions.rewards[rows, None]
    return TransitionMiniBatch(
        observations=codes.inputs(transitions.states[rows]).cpu().numpy(),
        actions=actions.cpu().numpy(),
        rewards=rewards.cpu().numpy(),
        next_observations=codes.inputs(transitions.next_states[rows]).cpu().numpy(),
        next_actions=np.zeros(actions.shape, np.float32),  # none of these algorithms asks for it
        terminals=transitions.terminal[rows, None].float().cpu().numpy(),
        intervals=np.ones(rewards.shape, np.float32),
        transitions=[],
    )


def actor_of(algorithm: Any, history: History) -> NetworkActor | LevelsActor:
    """The policy that a fitted algorithm of d3rlpy predicts with, as plain networks."""
    modules, codes = algorithm.impl.modules, StateCodes.of(history)
    kind = algorithm.config.get_type()
    match kind:
        case "td3_plus_bc" | "prdc":
            return NetworkActor(_networks((modules.policy, modules.policy._fc)), codes)
        case "cql" | "iql":  # both predict with the tanh of the mean
            return NetworkActor(_networks((modules.policy, modules.policy._mu)), codes)
        case "discrete_bc":
            networks = _networks((modules.imitator, modules.imitator._fc))
            return LevelsActor(networks, DoseLevels.of(history), codes)
        case "discrete_cql":
            (worth,) = modules.q_funcs
            return LevelsActor(_networks((worth, worth._fc)), DoseLevels.of(history), codes)
        case "discrete_bcq":
            (worth,), usual = modules.q_funcs, modules.imitator
            networks = _networks((worth, worth._fc), (usual, usual._fc))
            share = algorithm.config.action_flexibility
            return LevelsActor(networks, DoseLevels.of(history), codes, share)
    raise ModelError(f"{kind}: an algorithm of d3rlpy that has no actor here")


def _settings(name: str, history: History, steps: int) -> Any:
    peer = PEERS.get(name)
    if peer is None:
        raise ModelError(f"{name}: no algorithm of that name; there are {', '.join(PEERS)}")
    made = peer.ordinal if ordinal(history) else peer.continuous
    if made is None:
        kind = "ordinal" if ordinal(history) else "continuous"
        raise NoFormError(f"{name}: d3rlpy has it for no {kind} doses; take it out of `train`")
    settings = made()
    if hasattr(settings, "gamma"):
        settings.gamma = history.preparation.cohort.discount
    if hasattr(settings, "target_update_interval"):
        settings.target_update_interval = min(settings.target_update_interval, max(1, steps // 10))
    return settings


def _check_finite(name: str, step: int, told: Mapping[str, float]) -> None:
    broken = [metric for metric, value in told.items() if not np.isfinite(value)]
    if broken:
        raise ModelError(
            f"{name}: {', '.join(broken)} is no number at step {step}; check the rewards, or "
            "take another seed"
        )


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """While d3rlpy draws: torch's global generators start here, and are put back as they were."""
    with torch.random.fork_rng(devices=[] if device == CPU else [device]):
        torch.default_generator.manual_seed(seed)
        if device != CPU:
            torch.manual_seed(seed)
        yield


def _networks(*policies: tuple[Any, nn.Linear]) -> Perceptrons:
    """Encoders and heads of d3rlpy's default size, side by side."""
    stacks = [[*_linear(policy._encoder), head] for policy, head in policies]
    layers = [
        (
            torch.stack([stack[i].weight.detach().T for stack in stacks]),
            torch.stack([stack[i].bias.detach()[None] for stack in stacks]),
        )
        for i in range(3)
    ]
    (n, inputs, hidden), outputs = layers[0][0].shape, layers[2][0].shape[2]
    flat = torch.cat([tensor.flatten() for layer in layers for tensor in layer])
    return Perceptrons(Shape(n, inputs, hidden, outputs), flat)


def _linear(encoder: nn.Module) -> Sequence[nn.Linear]:
    return [module for module in encoder.modules() if isinstance(module, nn.Linear)]
