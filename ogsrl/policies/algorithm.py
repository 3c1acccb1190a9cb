"""OGSRL as an algorithm of d3rlpy: its predict, save, load and FQE take it as one of their own.

Imported by who works with d3rlpy; our own stages need `Learner` alone. It trains as `Learner` does,
on an attached `Problem`, and never on what d3rlpy draws for itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator
from typing import Any, Self

from d3rlpy.algos import QLearningAlgoBase
from d3rlpy.base import DeviceArg, LearnableConfig, register_learnable, save_config
from d3rlpy.constants import ActionSpace, LoggingStrategy
from d3rlpy.dataset import MDPDataset, ReplayBufferBase
from d3rlpy.logging import D3RLPyLogger, FileAdapterFactory, LoggerAdapterFactory
from d3rlpy.metrics import EvaluatorProtocol
from tqdm.auto import tqdm
from typing_extensions import override

from ogsrl.errors import ModelError
from ogsrl.policies.actors import NetworkActor
from ogsrl.policies.algorithm_impl import NOT_ATTACHED, OGSRLImpl
from ogsrl.policies.codes import StateCodes
from ogsrl.policies.config import OgsrlParams, TrainParams
from ogsrl.policies.devices import CPU
from ogsrl.policies.learner import Learner
from ogsrl.policies.networks import Shape
from ogsrl.policies.problem import REFUSAL, REWARD, Problem
from ogsrl.preparation.tensors import StayTensors, logged_arrays


def _defaults() -> dict[str, Any]:
    return OgsrlParams().model_dump(mode="json")


@dataclasses.dataclass()
class OGSRLConfig(LearnableConfig):
    """Settings as d3rlpy keeps them; `OGSRLConfig.of` makes them of ours.

    Attributes:
        settings: An `OgsrlParams`, as JSON.
        constraints: Names of the constraints that critics value; `attach` fills them in.
        steps: How many there will be, for the falling rate of the actor.
        seed: Of all that is drawn.
    """

    settings: dict[str, Any] = dataclasses.field(default_factory=_defaults)
    constraints: list[str] = dataclasses.field(default_factory=list)
    steps: int = TrainParams().steps
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what would be ignored."""
        if self.params.cloning_only:
            raise ModelError("settings.cloning_only: behaviour cloning alone is d3rlpy's BC")
        if not self.params.model:
            raise ModelError(
                "settings.model: false has no form behind d3rlpy's interface; train it as an entry "
                "of `algorithms`"
            )
        for name in ("observation_scaler", "action_scaler", "reward_scaler"):
            if getattr(self, name) is not None:
                raise ModelError(f"{name}: prepared states, doses and rewards are scaled already")
        self.batch_size = self.params.batch_size
        self.gamma = 1.0 if self.params.discount is None else self.params.discount

    @classmethod
    def of(
        cls, params: OgsrlParams, steps: int = TrainParams().steps, seed: int = 0
    ) -> OGSRLConfig:
        """From our frozen settings."""
        return cls(settings=params.model_dump(mode="json"), steps=steps, seed=seed)

    @property
    def params(self) -> OgsrlParams:
        """Our settings, validated."""
        return OgsrlParams(**self.settings)

    def create(self, device: DeviceArg = False, enable_ddp: bool = False) -> OGSRL:
        """An algorithm that nothing is attached to."""
        if device not in (False, None, "cpu", "cpu:0"):
            raise ModelError(
                f"device: {device}: behind d3rlpy's interface OGSRL runs on the processor; leave "
                "it out, or train with `device` of params.yaml"
            )
        return OGSRL(self, device, enable_ddp)

    @staticmethod
    def get_type() -> str:
        """Its name in what d3rlpy saves."""
        return "ogsrl"


class OGSRL(QLearningAlgoBase[OGSRLImpl, OGSRLConfig]):
    """OGSRL behind d3rlpy's interface.

    Observations are prepared states, actions scaled doses (`dataset_of` makes a data set of
    stays). `predict` is what the actor *proposes*: give `actor()` to `Deployed` for what acts.

    `attach` a problem to train or to ask for values. Predicting, saving, loading and copying need
    none, and a saved one goes on from where it stopped once a problem is attached. For
    `d3rlpy.load_learnable` to know it, this module must have been imported.
    """

    def attach(self, problem: Problem) -> Self:
        """Train on this from now on; call it before handing the algorithm to FQE."""
        config, old = self._config, self._impl
        if problem.device != CPU:
            raise ModelError("attach: behind d3rlpy's interface a problem lies on the processor")
        if StateCodes.of(problem.history).levels:
            raise ModelError(
                "attach: d3rlpy's interface takes states as numbers, and this cohort has codes "
                "among them; train it by the stage train"
            )
        config.constraints = list(problem.limits)
        if config.params.discount is None:
            config.gamma = problem.history.preparation.cohort.discount
        learner = Learner(problem, config.params, config.seed, config.steps)
        made = OGSRLImpl.of(learner)
        if old is not None:
            _adopt(made, old)
        self._impl = made
        return self

    def actor(self) -> NetworkActor:
        """The policy as everything else here takes it, apart from what training does next."""
        if self._impl is None:
            raise ModelError("actor: there is none yet; attach a problem, fit or load")
        return NetworkActor(self._impl.actor.twin())

    def inner_create_impl(self, observation_shape: Any, action_size: int) -> None:
        """Networks of these sizes, drawn."""
        if len(observation_shape) != 1:
            raise ModelError("observations: a state is one row of numbers")
        training = None if self._impl is None else self._impl.training
        if training is not None and training.learner is not None:
            self.attach(training.learner.problem)
            return
        config, columns = self._config, int(observation_shape[0])
        shape = Shape(1, columns, config.params.hidden, action_size)
        quantities = len([REWARD, *config.constraints, REFUSAL])
        self._impl = OGSRLImpl.drawn(shape, quantities, config.seed)

    def get_action_type(self) -> ActionSpace:
        """Continuous doses."""
        return ActionSpace.CONTINUOUS

    @override
    def fitter(
        self,
        dataset: ReplayBufferBase,
        n_steps: int,
        n_steps_per_epoch: int = 10000,
        logging_steps: int = 500,
        logging_strategy: LoggingStrategy = LoggingStrategy.EPOCH,
        experiment_name: str | None = None,
        with_timestamp: bool = True,
        logger_adapter: LoggerAdapterFactory | None = None,
        show_progress: bool = True,
        save_interval: int = 1,
        evaluators: dict[str, EvaluatorProtocol] | None = None,
        callback: Callable[[Self, int, int], None] | None = None,
        epoch_callback: Callable[[Self, int, int], None] | None = None,
    ) -> Generator[tuple[int, dict[str, float]], None, None]:
        """Train an epoch at a time, as `fit` does; the last epoch may be shorter.

        Arguments are d3rlpy's. Rows are drawn from the attached problem, which must be that of the
        data set: the loop holds it in tensors.
        """
        if self._impl is None:
            raise ModelError(NOT_ATTACHED.format(asked="fit"))
        impl = self._impl
        _check_same(dataset, impl.learner("fit").problem)
        logger = D3RLPyLogger(
            algo=self,
            adapter_factory=logger_adapter or FileAdapterFactory(),
            experiment_name=experiment_name or type(self).__name__,
            n_steps_per_epoch=n_steps_per_epoch,
            with_timestamp=with_timestamp,
        )
        save_config(self, logger)
        done, epochs = 0, -(-n_steps // n_steps_per_epoch)
        for epoch in range(1, epochs + 1):
            steps, metrics = min(n_steps_per_epoch, n_steps - done), {}
            for _ in tqdm(range(steps), disable=not show_progress, desc=f"{epoch}/{epochs}"):
                for name, value in impl.ready("fit").items():
                    logger.add_metric(name, value)
                impl.learner("fit").advance()
                self._grad_step += 1
                done += 1
                if logging_strategy == LoggingStrategy.STEPS and done % logging_steps == 0:
                    metrics = logger.commit(epoch, done)
                if callback:
                    callback(self, epoch, done)
            if epoch_callback:
                epoch_callback(self, epoch, done)
            for name, evaluator in (evaluators or {}).items():
                logger.add_metric(name, evaluator(self, dataset))
            if logging_strategy == LoggingStrategy.EPOCH:
                metrics = logger.commit(epoch, done)
            if epoch % save_interval == 0:
                logger.save_model(done, self)
            yield epoch, metrics
        logger.close()

    def fit_online(self, *_: Any, **__: Any) -> None:
        """Refused: nobody tries doses on patients to learn from them."""
        raise ModelError("fit_online: OGSRL learns from logged stays alone; use fit")


def dataset_of(stays: StayTensors) -> MDPDataset:
    """Prepared stays as d3rlpy takes them; no decision is lost (see `logged_arrays`)."""
    logged = logged_arrays(stays)
    return MDPDataset(
        logged.observations,
        logged.actions,
        logged.rewards,
        logged.terminals,
        logged.timeouts,
        action_space=ActionSpace.CONTINUOUS,
    )


def _adopt(made: OGSRLImpl, old: OGSRLImpl) -> None:
    """What was drawn, copied or loaded before a problem was attached goes on."""
    for name in ("actor", "critics", "targets"):
        new, before = getattr(made, name), getattr(old, name)
        if name != "actor" and not old.training.kept and new.shape != before.shape:
            continue  # critics that never learned, drawn before the constraints were known
        if new.shape != before.shape:
            raise ModelError(
                f"attach: {name} of {before.shape}, the problem needs {new.shape}; it was made "
                "for other columns, doses or constraints"
            )
        new.flat.copy_(before.flat)
    made.training.set_extra_state(old.training.get_extra_state())
    made.training.begun = old.training.begun


def _check_same(dataset: ReplayBufferBase, problem: Problem) -> None:
    given, known = dataset.transition_count, len(problem.rows.row)
    paid = sum(float(episode.compute_return()) for episode in dataset.episodes)
    wanted = float(problem.rows.rewards.double().sum())
    if given != known or abs(paid - wanted) > 1e-3 * (1 + abs(wanted)):
        raise ModelError(
            f"fit: a data set of {given} decisions, while the attached problem has {known} or "
            "other rewards; make the data set with dataset_of(train)"
        )


register_learnable(OGSRLConfig)
