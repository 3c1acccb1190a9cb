"""One seed of an algorithm from its first step to its last, with checkpoints to go on from.

Called by the train stage. A run that was stopped goes on bit for bit; a number that is no number
ends its own seed alone, with a status that says where.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ogsrl.errors import ModelError
from ogsrl.modeldir import load_model, save_model
from ogsrl.policies.config import AlgorithmParams, OgsrlParams, TrainParams
from ogsrl.policies.learner import Learner
from ogsrl.policies.offline import OfflineLearner
from ogsrl.policies.problem import Problem
from ogsrl.policies.saved import save_policy

KIND = "training"
Progress = Callable[[int], None]


@dataclass
class Seed:
    """What came of a seed.

    Attributes:
        seed: Its number.
        status: done, or why it ended early.
        log: One row a refresh.
        steps: Steps at which a policy was saved.
    """

    seed: int
    status: str = "done"
    log: list[dict[str, float]] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Place:
    """Where a seed's policies and its checkpoint lie.

    Attributes:
        policies: step_N directories are written here.
        checkpoint: What an interrupted run goes on from.
        made_of: A hash of everything that training depends on; another's checkpoint is not used.
    """

    policies: Path
    checkpoint: Path
    made_of: str

    def policy(self, step: int) -> Path:
        """The policy saved at a step."""
        return self.policies / f"step_{step}"


def learner_of(
    problem: Problem, params: OgsrlParams, seed: int, steps: int
) -> Learner | OfflineLearner:
    """The loop that these settings ask for, with a model or without."""
    if params.model:
        return Learner(problem, params, seed, steps)
    return OfflineLearner(problem, params, seed, steps)


def train_seed(
    problem: Problem,
    algorithm: AlgorithmParams,
    train: TrainParams,
    seed: int,
    place: Place,
    progress: Progress = lambda _: None,
) -> Seed:
    """Train, saving a policy every `checkpoint_every` steps; KeyboardInterrupt passes through."""
    place.policies.mkdir(parents=True, exist_ok=True)
    if algorithm.peer is not None:
        return _peer(problem, algorithm.peer, train, seed, place, progress)
    settings = algorithm.ogsrl or OgsrlParams()
    if settings.cloning_only:
        return _cloned(problem, settings, seed, place)
    learner, done = learner_of(problem, settings, seed, train.steps), Seed(seed)
    begun = _resume(learner, done, place)
    progress(learner.step)
    try:
        if not begun:
            learner.begin()
        while learner.step < train.steps:
            # whole refreshes: rollouts are not part of a checkpoint
            steps = min(train.checkpoint_every, train.steps - learner.step)
            for row in learner.train(steps):
                done.log.append({"seed": float(seed), **row})
            about = {"algorithm": algorithm.name, "seed": seed, "step": learner.step}
            save_policy(place.policy(learner.step), learner.policy, problem.history, about)
            done.steps.append(learner.step)
            _save(learner, done, place)
            progress(steps)
    except ModelError as error:
        done.status = str(error)
    else:
        shutil.rmtree(place.checkpoint, ignore_errors=True)
    return done


def _peer(
    problem: Problem, name: str, train: TrainParams, seed: int, place: Place, progress: Progress
) -> Seed:
    from ogsrl.policies.peers import fit_peer  # noqa: PLC0415 - d3rlpy takes seconds to import

    try:
        actor = fit_peer(name, problem.rows, problem.history, train.steps, seed, progress)
    except ModelError as error:
        return Seed(seed, status=str(error))
    about = {"algorithm": name, "seed": seed, "step": train.steps}
    save_policy(place.policy(train.steps), actor, problem.history, about)
    return Seed(seed, steps=[train.steps])


def _cloned(problem: Problem, settings: OgsrlParams, seed: int, place: Place) -> Seed:
    learner = Learner(problem, settings, seed, 0)
    learner.begin()
    about = {"algorithm": "bc", "seed": seed, "step": settings.start_steps}
    save_policy(place.policy(settings.start_steps), learner.policy, problem.history, about)
    return Seed(seed, steps=[settings.start_steps])


def _save(learner: Learner | OfflineLearner, done: Seed, place: Place) -> None:
    config: Mapping[str, Any] = {
        "made_of": place.made_of,
        "log": done.log,
        "steps": done.steps,
    }
    arrays = {name: value.numpy() for name, value in learner.tensors().items()}
    place.checkpoint.parent.mkdir(parents=True, exist_ok=True)
    save_model(place.checkpoint, KIND, config, arrays)


def _resume(learner: Learner | OfflineLearner, done: Seed, place: Place) -> bool:
    """Whether there was a checkpoint of exactly this run, and its policies are there."""
    try:
        config, arrays = load_model(place.checkpoint, KIND)
    except ModelError:
        return False
    there = all(place.policy(step).is_dir() for step in config["steps"])
    if config["made_of"] != place.made_of or not there:
        return False
    learner.restore({name: torch.from_numpy(value.copy()) for name, value in arrays.items()})
    done.log.extend(config["log"])
    done.steps.extend(config["steps"])
    return True
