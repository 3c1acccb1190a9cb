"""One seed of an algorithm from its first step to its last, with checkpoints to go on from.

Called by the train stage. A run that was stopped goes on bit for bit; a number that is no number
ends its own seed alone, with a status that says where.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ogsrl.errors import ModelError, NoFormError, SpecError
from ogsrl.modeldir import load_model, save_model
from ogsrl.policies.actors import ConstantActor, DenoisedActor, MarginalActor, ProtocolActor
from ogsrl.policies.categorical import LevelsLearner, all_ordinal
from ogsrl.policies.config import AlgorithmParams, OgsrlParams, TrainParams
from ogsrl.policies.cpo import Cpo
from ogsrl.policies.deployed import Actor
from ogsrl.policies.devices import CPU, moved
from ogsrl.policies.discrete import DiscreteOGSRL
from ogsrl.policies.learner import Learner
from ogsrl.policies.loop import GENERATOR
from ogsrl.policies.offline import OfflineLearner
from ogsrl.policies.problem import Problem
from ogsrl.policies.saved import save_policy
from ogsrl.policies.table import TableProblem
from ogsrl.spec import Cohort

KIND = "training"
#: Progress is told every so many steps; without rollouts checkpoints divide so many.
TOLD, OFTEN = 25, 150
#: Settings of the loop in the model alone.
IN_MODEL = {
    "value_batch",
    "critic_rate",
    "target_rate",
    "discount",
    "start_steps",
    "critic_start_steps",
    "refresh",
    "pool",
    "starts",
    "horizon",
    "clinicians",
    "disagreement",
    "on_refusal",
    "last_margin",
    "least_patients",
}
#: All that copying reads.
COPYING = {"cloning_only", "start", "start_steps", "hidden", "products", "value_batch"}
Progress = Callable[[int], None]
AnyLearner = Learner | OfflineLearner | Cpo | DiscreteOGSRL
AnyProblem = Problem | TableProblem


@dataclass
class Seed:
    """What came of a seed.

    Attributes:
        seed: Its number.
        status: done, or why it ended early.
        log: One row a refresh.
        steps: Steps at which a policy was saved.
        formless: Whether it ended since the algorithm has no form for this cohort.
    """

    seed: int
    status: str = "done"
    log: list[dict[str, float]] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    formless: bool = False

    def failed(self, error: ModelError) -> None:
        """It ends with what the error says."""
        self.status, self.formless = str(error), isinstance(error, NoFormError)


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


def check(algorithm: AlgorithmParams, train: TrainParams, cohort: Cohort) -> None:
    """Settings that do not go together are named before anything is trained."""
    ever = [name for name, one in cohort.constraints.items() if one.kind == "ever"]
    if ever:
        raise SpecError(
            f"constraints.{ever[0]}.kind: ever: no policy is trained under it, since a state does "
            "not know what was met before; take `share`, or end the pipeline at the guardian"
        )
    if not any((algorithm.ogsrl, algorithm.cpo, algorithm.peer, algorithm.plain)):
        raise SpecError(
            f"algorithms.{algorithm.name}: empty; say what it is: one of ogsrl, cpo, peer, plain"
        )
    if algorithm.plain == "protocol" and cohort.protocol is None:
        raise SpecError(
            f"algorithms.{algorithm.name}: the file of cohort {cohort.name} names no protocol; add "
            "`protocol:` to it, or take the entry out of train.algorithms"
        )
    if algorithm.plain is not None:
        return
    if algorithm.peer is not None:
        from ogsrl.policies.peers import PEERS  # noqa: PLC0415 - d3rlpy takes seconds to import

        if algorithm.peer not in PEERS:
            raise SpecError(
                f"algorithms.{algorithm.name}.peer: {algorithm.peer} is not known; there are "
                f"{', '.join(PEERS)}"
            )
        return
    settings = algorithm.ogsrl or OgsrlParams()
    unread = sorted(_unread(settings)) if algorithm.ogsrl is not None else []
    if unread:
        raise SpecError(
            f"algorithms.{algorithm.name}.ogsrl: {', '.join(unread)}: not read by the loop "
            f"{_loop_words(settings)}; take it out"
            + (" or see its namesake under `offline`" if not settings.model else "")
        )
    key, period = period_of(algorithm, train)
    if not settings.cloning_only and train.checkpoint_every % period:
        raise SpecError(
            f"train.checkpoint_every: {train.checkpoint_every} is no multiple of "
            f"algorithms.{algorithm.name}.{key}, {period}; policies are kept "
            "only where rollouts start anew, so change one of the two"
        )


def _loop_words(settings: OgsrlParams) -> str:
    if settings.cloning_only:
        return "that only copies"
    return "in the model" if settings.model else "without a model"


def _unread(settings: OgsrlParams) -> set[str]:
    """Keys that were set and that the loop asked for does not look at."""
    if settings.cloning_only:
        return settings.model_fields_set - COPYING
    return settings.model_fields_set & ({"offline"} if settings.model else IN_MODEL)


def period_of(algorithm: AlgorithmParams, train: TrainParams) -> tuple[str, int]:
    """Steps after which rollouts start anew, and the setting that says so."""
    if algorithm.cpo is not None:
        return "cpo.steps_per_update", algorithm.cpo.steps_per_update
    settings = algorithm.ogsrl or OgsrlParams()
    if not settings.model:  # no rollouts: a checkpoint can be taken anywhere
        return "ogsrl.model", math.gcd(train.checkpoint_every, OFTEN)
    return "ogsrl.refresh", settings.refresh


def learner_of(
    problem: AnyProblem, algorithm: AlgorithmParams, seed: int, steps: int
) -> AnyLearner:
    """The loop that an entry of `algorithms` asks for, in its form for this cohort."""
    settings, ordinal = algorithm.ogsrl or OgsrlParams(), all_ordinal(problem.history)
    if algorithm.ogsrl is not None and ordinal and not (settings.model or settings.cloning_only):
        raise NoFormError(
            f"algorithms.{algorithm.name}.ogsrl.model: false has no form for ordinal doses; "
            "take it out of `train`, or set a discrete peer"
        )
    if isinstance(problem, TableProblem):
        if algorithm.cpo is not None:
            raise NoFormError("cpo: it has no form for a table; take it out of `train`")
        return DiscreteOGSRL(problem, settings, seed, steps)
    if algorithm.cpo is not None:
        return Cpo(problem, algorithm.cpo, seed, steps)
    if ordinal:
        return LevelsLearner(problem, settings, seed, steps)
    in_model = settings.model or settings.cloning_only  # copying asks no model
    return (Learner if in_model else OfflineLearner)(problem, settings, seed, steps)


def steps_of(algorithm: AlgorithmParams, train: TrainParams) -> int:
    """How many steps `train_seed` will tell of."""
    if algorithm.plain is not None:
        return 1
    settings = algorithm.ogsrl or OgsrlParams()
    alone = algorithm.peer is None and settings.cloning_only
    return settings.start_steps if alone else train.steps


def train_seed(
    problem: AnyProblem,
    algorithm: AlgorithmParams,
    train: TrainParams,
    seed: int,
    place: Place,
    progress: Progress = lambda _: None,
) -> Seed:
    """Train, saving a policy every `checkpoint_every` steps and a checkpoint every refresh.

    It happens where the problem lies, and what is saved can be read anywhere; bit for bit the same
    comes of the same processor alone. Cloning and d3rlpy's algorithms have no checkpoint before
    their end.

    KeyboardInterrupt passes through. The checkpoint stays: who moves the policies to where they
    belong removes it, so that a stage that was stopped does not train a finished seed again.
    """
    device = problem.device if isinstance(problem, Problem) else CPU
    with nullcontext() if device == CPU else device:  # made for it: a context a call costs time
        return _trained(problem, algorithm, train, Seed(seed), place, progress)


def _trained(
    problem: AnyProblem,
    algorithm: AlgorithmParams,
    train: TrainParams,
    done: Seed,
    place: Place,
    progress: Progress,
) -> Seed:
    settings = algorithm.ogsrl or OgsrlParams()
    if algorithm.plain is not None or algorithm.peer is not None or settings.cloning_only:
        if _resume(None, done, place):  # nothing is saved of these before their end
            progress(steps_of(algorithm, train))
            return done
        _empty(place)
        if algorithm.plain is not None:
            _kept_plain(problem, algorithm, algorithm.plain, done, place)
            progress(1)
        elif algorithm.peer is not None:
            _peer(problem, algorithm, train, done, place, progress)
        else:
            _cloned(problem, algorithm, settings, done, place, progress)
        _save(None, done, place)
        return done
    try:
        learner = learner_of(problem, algorithm, done.seed, train.steps)
    except ModelError as error:
        _empty(place)
        done.failed(error)
        return done
    period = period_of(algorithm, train)[1]
    told = period if algorithm.cpo is not None else TOLD  # an update of CPO is not divided
    begun = _resume(learner, done, place)
    progress(learner.step)
    try:
        if not begun:
            _empty(place)
            learner.begin()
            _save(learner, done, place)
        while learner.step < train.steps:
            # whole refreshes: rollouts are not part of a checkpoint
            ends = min(learner.step + period, train.steps)
            while learner.step < ends:
                before = learner.step
                for row in learner.train(min(told, ends - before)):
                    done.log.append({"seed": float(done.seed), **row})
                progress(learner.step - before)
            if learner.step % train.checkpoint_every == 0 or learner.step == train.steps:
                _keep(learner.policy, problem, algorithm, done, place, learner.step)
            _save(learner, done, place)
    except ModelError as error:
        done.failed(error)
    return done


def _kept_plain(
    problem: AnyProblem, algorithm: AlgorithmParams, name: str, done: Seed, place: Place
) -> None:
    try:
        _keep(_plain(problem, name), problem, algorithm, done, place, 0)
    except ModelError as error:
        done.failed(error)


def _plain(problem: AnyProblem, name: str) -> Actor:
    """A policy that learns nothing."""
    match name:
        case "zero":
            return ConstantActor.zero(problem.history)
        case "maximum":
            return ConstantActor.maximum(problem.history)
        case "marginal":
            return MarginalActor(problem.behaviour.known.marginal)
        case "protocol":
            history = problem.history
            return ProtocolActor.of(history, history.preparation.cohort.protocol)
        case _:
            return DenoisedActor(problem.behaviour)


def _empty(place: Place) -> None:
    """Nothing of an earlier, different run stays."""
    shutil.rmtree(place.policies, ignore_errors=True)
    shutil.rmtree(place.checkpoint, ignore_errors=True)
    place.policies.mkdir(parents=True)


def _keep(
    actor: Actor,
    problem: AnyProblem,
    algorithm: AlgorithmParams,
    done: Seed,
    place: Place,
    step: int,
) -> None:
    about = {"algorithm": algorithm.name, "seed": done.seed, "step": step}
    save_policy(place.policy(step), moved(actor, CPU), problem.history, about)
    done.steps.append(step)


def _peer(
    problem: AnyProblem,
    algorithm: AlgorithmParams,
    train: TrainParams,
    done: Seed,
    place: Place,
    progress: Progress,
) -> None:
    from ogsrl.policies.peers import fit_peer  # noqa: PLC0415 - d3rlpy takes seconds to import

    name, seed = str(algorithm.peer), done.seed
    try:
        actor = fit_peer(name, problem.rows, problem.history, train.steps, seed, progress)
    except ModelError as error:
        done.failed(error)
    else:
        _keep(actor, problem, algorithm, done, place, train.steps)


def _cloned(
    problem: AnyProblem,
    algorithm: AlgorithmParams,
    settings: OgsrlParams,
    done: Seed,
    place: Place,
    progress: Progress,
) -> None:
    try:
        learner = learner_of(problem, algorithm, done.seed, 0)
        learner.begin()
    except ModelError as error:
        done.failed(error)
    else:
        _keep(learner.policy, problem, algorithm, done, place, settings.start_steps)
    progress(settings.start_steps)


def _save(learner: AnyLearner | None, done: Seed, place: Place) -> None:
    """What a run goes on from; without a learner, that it is over."""
    config: Mapping[str, Any] = {
        "made_of": place.made_of,
        "status": done.status,
        "formless": done.formless,
        "log": done.log,
        "steps": done.steps,
    }
    tensors = {} if learner is None else learner.tensors()
    arrays = {name: value.cpu().numpy() for name, value in tensors.items()}
    place.checkpoint.parent.mkdir(parents=True, exist_ok=True)
    save_model(place.checkpoint, KIND, config, arrays)


def _resume(learner: AnyLearner | None, done: Seed, place: Place) -> bool:
    """Whether there was a checkpoint of exactly this run, and its policies are there."""
    try:
        config, arrays = load_model(place.checkpoint, KIND)
    except ModelError:
        return False
    there = all(place.policy(step).is_dir() for step in config["steps"])
    if config["made_of"] != place.made_of or not there:
        return False
    if learner is not None:
        tensors = {name: torch.from_numpy(value.copy()) for name, value in arrays.items()}
        here = torch.get_default_device()  # but for the generator's state, which never leaves
        learner.restore({n: t if n == GENERATOR else t.to(here) for n, t in tensors.items()})
    done.status, done.formless = config["status"], config["formless"]
    done.log.extend(config["log"])
    done.steps.extend(config["steps"])
    return True
