"""OGSRL behind d3rlpy's interface: what d3rlpy's own algorithms can do, it can do the same way."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ogsrl.errors import ModelError
from ogsrl.policies.config import OgsrlParams
from ogsrl.policies.learner import Learner
from ogsrl.policies.problem import Problem
from tests.guardian.cohorts import simulated
from tests.policies.problems import best_dose
from tests.policies.steered import problem

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of packages that d3rlpy loads
    import d3rlpy
    from d3rlpy.algos import TD3PlusBCConfig
    from d3rlpy.base import LearnableConfigWithShape
    from d3rlpy.dataset import MDPDataset, TransitionMiniBatch
    from d3rlpy.logging import NoopAdapterFactory

    from ogsrl.policies import OGSRL, OGSRLConfig
    from ogsrl.policies.algorithm import dataset_of

SMALL = OgsrlParams(
    hidden=16,
    start_steps=40,
    critic_start_steps=10,
    refresh=10,
    pool=1,
    starts=100,
    first_decisions=50,
    horizon=2,
    batch_size=64,
    value_batch=64,
    clinicians=0.003,
    disagreement=0.0,  # this model has one member
)
QUIET: dict[str, Any] = {"logger_adapter": NoopAdapterFactory(), "show_progress": False}


@cache
def made() -> Problem:
    return problem()


@cache
def dataset() -> MDPDataset:
    rows = made().rows
    return logged(rows.rewards.numpy(), np.ones(len(rows.row)))


def logged(rewards: np.ndarray[Any, Any], ends: np.ndarray[Any, Any]) -> MDPDataset:
    """The problem's first rows; d3rlpy takes doses within [-1, 1] for levels unless it is told."""
    rows, count = made().rows, len(ends)
    given = rows.states[:count].numpy(), rows.doses[:count].numpy()
    return MDPDataset(*given, rewards[:count], ends, action_space=d3rlpy.ActionSpace.CONTINUOUS)


def fresh(steps: int = 40, seed: int = 0) -> OGSRL:
    return OGSRLConfig.of(SMALL, steps, seed).create()


def fitted(steps: int = 20, seed: int = 0) -> OGSRL:
    algorithm = fresh(seed=seed).attach(made())
    algorithm.fit(dataset(), n_steps=steps, n_steps_per_epoch=steps, **QUIET)
    return algorithm


def states() -> np.ndarray[Any, Any]:
    return made().rows.states[:50].numpy()


def doses() -> np.ndarray[Any, Any]:
    return made().rows.doses[:50].numpy()


def batch(count: int = 32) -> TransitionMiniBatch:
    rows = made().rows
    return TransitionMiniBatch(
        observations=rows.states[:count].numpy(),
        actions=rows.doses[:count].numpy(),
        rewards=rows.rewards[:count, None].numpy(),
        next_observations=rows.next_states[:count].expand(-1, 2).numpy(),
        next_actions=np.zeros((count, 1), np.float32),
        terminals=np.ones((count, 1), np.float32),
        intervals=np.ones((count, 1), np.float32),
        transitions=[],
    )


def test_fit_is_our_loop_bit_for_bit_and_nothing_is_drawn_elsewhere() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    algorithm = fresh(seed=5).attach(made())
    told = algorithm.fit(dataset(), n_steps=25, n_steps_per_epoch=10, **QUIET)
    assert [epoch for epoch, _ in told] == [1, 2, 3]  # the last one shorter
    assert "cost_unsafe" in told[0][1]
    assert algorithm.grad_step == 25
    learner = Learner(made(), SMALL, 5, 40)
    learner.begin()
    list(learner.train(25))
    assert torch.equal(algorithm.actor().networks.flat, learner.actor.flat)
    assert torch.equal(torch.get_rng_state(), before)


def test_fit_finds_the_best_dose_through_the_model() -> None:
    # slow targets: what follows the worst doses is never rolled out, and its value extrapolated
    quick = SMALL.model_copy(update={"actor_rate": 1e-2, "clinicians": 0.0, "target_rate": 0.02})
    algorithm = OGSRLConfig.of(quick, 200).create().attach(made())
    x = np.linspace(-0.9, 0.9, 20, dtype=np.float32)[:, None]
    asked = np.concatenate([x, np.zeros_like(x)], 1)
    best = best_dose(torch.from_numpy(x)).numpy()
    algorithm.fit(dataset(), n_steps=200, n_steps_per_epoch=100, **QUIET)
    assert np.abs(algorithm.predict(asked) - best).mean() < 0.1 < np.abs(best).mean()
    # and it is worth more there than elsewhere
    gained = algorithm.predict_value(asked, best) - algorithm.predict_value(asked, -best)
    known = (2 * best[:, 0]) ** 2  # the squared distance from the best dose
    assert np.corrcoef(gained, known)[0, 1] > 0.95
    assert gained.mean() == pytest.approx(known.mean(), rel=0.5)


def test_fit_calls_back_evaluates_and_logs_as_d3rlpy_s_own_do(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    algorithm = fresh().attach(made())
    algorithm.fit(
        dataset(),
        n_steps=4,
        n_steps_per_epoch=2,
        show_progress=False,
        experiment_name="run",
        with_timestamp=False,
        logger_adapter=d3rlpy.logging.FileAdapterFactory(str(tmp_path)),
        evaluators={"mean": lambda algo, data: float(algo.predict(states()).mean())},
        callback=lambda algo, epoch, step: seen.append((epoch, step)),
        epoch_callback=lambda algo, epoch, step: seen.append((-epoch, step)),
    )
    assert seen == [(1, 1), (1, 2), (-1, 2), (2, 3), (2, 4), (-2, 4)]
    assert {"params.json", "model_2.d3", "model_4.d3", "mean.csv"} <= {
        file.name for file in (tmp_path / "run").iterdir()
    }


def test_an_update_is_one_step_on_the_batch_that_is_given() -> None:
    algorithm, before = fresh().attach(made()), []
    for logged in (batch(), batch()):
        told = algorithm.update(logged)
        before.append(algorithm.actor().networks.flat)
        assert all(np.isfinite(value) for value in told.values())
    assert algorithm.grad_step == 2
    assert not torch.equal(*before)
    other, moved = fresh().attach(made()), batch()
    moved.actions[:] = 1.0
    other.update(moved)
    assert not torch.equal(other.actor().networks.flat, before[0])


def test_predictions_are_proposals_of_the_same_network_and_nothing_is_sampled() -> None:
    algorithm = fitted()
    predicted = algorithm.predict(states())
    proposed = algorithm.actor().propose(torch.from_numpy(states()), torch.Generator())
    assert predicted.shape == (50, 1)
    assert np.array_equal(predicted, proposed.numpy())
    assert np.array_equal(algorithm.sample_action(states()), predicted)


def test_values_are_the_same_at_every_call_and_have_a_row_each() -> None:
    algorithm = fitted()
    values = algorithm.predict_value(states(), doses())
    assert values.shape == (50,)
    assert np.array_equal(values, algorithm.predict_value(states(), doses()))
    assert not np.allclose(values, algorithm.predict_value(states(), -doses()))


def test_a_saved_one_predicts_the_same_and_goes_on_bit_for_bit(tmp_path: Path) -> None:
    file = str(tmp_path / "model.d3")
    algorithm = fitted(20)
    algorithm.save(file)
    loaded = d3rlpy.load_learnable(file)
    assert isinstance(loaded, OGSRL)
    assert loaded.config.params == SMALL
    assert np.array_equal(loaded.predict(states()), algorithm.predict(states()))
    with pytest.raises(ModelError, match="predict_value: it needs the clinicians' policy"):
        loaded.predict_value(states(), doses())
    # what is not attached keeps all that it was loaded with
    loaded.save(file)
    again = d3rlpy.load_learnable(file).attach(made())
    for one in (algorithm, again):
        one.fit(dataset(), n_steps=20, n_steps_per_epoch=20, **QUIET)
    assert np.array_equal(again.predict(states()), algorithm.predict(states()))
    assert again.impl.training.learner.step == 40


def test_no_row_of_a_patient_is_saved(tmp_path: Path) -> None:
    """Rollouts begin in patients' rows: a checkpoint beside the data holds them, a model never."""
    pooled = SMALL.model_copy(update={"pool": 3})
    algorithm = OGSRLConfig.of(pooled, 40).create().attach(made())
    algorithm.fit(dataset(), n_steps=40, n_steps_per_epoch=40, **QUIET)
    held = algorithm.impl.training.learner.tensors()
    assert any(name.startswith("pool_") for name in held)
    algorithm.save_model(str(tmp_path / "model.pt"))
    saved = torch.load(tmp_path / "model.pt", weights_only=True)
    written = {n: v.flatten() for part in saved.values() for n, v in _flat(part).items()}
    parameters = {"flat", "0.flat", "actor", "critics", "targets", "generator"}
    for name, values in written.items():
        known = name in parameters or name.startswith(("actor_adam", "critics_adam"))
        assert known or len(values) <= 2, name


def _flat(part: dict[str, Any]) -> dict[str, torch.Tensor]:
    more = part.get("_extra_state", {})
    return {**{n: v for n, v in part.items() if n != "_extra_state"}, **more}


def test_saved_parameters_are_loaded_into_another_of_the_same_kind(tmp_path: Path) -> None:
    file = str(tmp_path / "model.pt")
    algorithm, other = fitted(seed=1), fresh(seed=2).attach(made())
    algorithm.save_model(file)
    other.load_model(file)
    assert np.array_equal(other.predict(states()), algorithm.predict(states()))
    wanted = algorithm.predict_value(states(), doses())
    assert np.array_equal(other.predict_value(states(), doses()), wanted)
    whole = algorithm.impl.training.learner.tensors()
    loaded = other.impl.training.learner.tensors()
    assert all(torch.equal(loaded[name], value) for name, value in whole.items())


def test_a_copied_policy_is_started_from_instead_of_the_clinicians() -> None:
    algorithm, other = fitted(seed=1), fresh(seed=2).attach(made())
    other.copy_policy_from(algorithm)
    assert np.array_equal(other.predict(states()), algorithm.predict(states()))
    other.update(batch())
    assert np.abs(other.predict(states()) - algorithm.predict(states())).max() < 0.01
    bare = fresh(seed=3)
    bare.create_impl((2,), 1)
    bare.copy_policy_from(algorithm)
    assert np.array_equal(bare.predict(states()), algorithm.predict(states()))
    bare.attach(made())
    assert np.array_equal(bare.predict(states()), algorithm.predict(states()))


def test_copied_critics_are_the_same_and_the_actor_stays() -> None:
    algorithm, other = fitted(seed=1), fresh(seed=2).attach(made())
    before = other.predict(states())
    other.copy_q_function_from(algorithm)
    learners = algorithm.impl.training.learner, other.impl.training.learner
    assert torch.equal(learners[0].critics.flat, learners[1].critics.flat)
    assert np.array_equal(other.predict(states()), before)


def test_a_policy_of_another_kind_is_not_copied() -> None:
    foreign = TD3PlusBCConfig().create()
    foreign.create_impl((2,), 1)
    with pytest.raises(ValueError, match="Invalid policy type"):
        fitted().copy_policy_from(foreign)


def test_a_policy_saved_as_torchscript_answers_any_number_of_rows(tmp_path: Path) -> None:
    file, algorithm = tmp_path / "policy.pt", fitted()
    algorithm.save_policy(str(file))
    script = torch.jit.load(str(file))
    for rows in (1, 7, 50):
        answer = script(torch.from_numpy(states()[:rows])).numpy()
        assert np.allclose(answer, algorithm.predict(states()[:rows]), atol=1e-6)
    with pytest.raises(ValueError, match="invalid format type"):
        algorithm.save_policy(str(tmp_path / "policy.txt"))
    algorithm.fit(dataset(), n_steps=2, n_steps_per_epoch=2, **QUIET)  # still learns afterwards


@pytest.mark.skipif(importlib.util.find_spec("onnx") is None, reason="onnx is not installed")
def test_a_policy_saved_as_onnx_is_a_file(tmp_path: Path) -> None:
    fitted().save_policy(str(tmp_path / "policy.onnx"))
    assert (tmp_path / "policy.onnx").stat().st_size > 0


def test_d3rlpy_s_fitted_q_evaluation_takes_it() -> None:
    rows = made().rows
    second = np.arange(1_000) % 2
    # stays of two decisions, the first paying nothing
    two = logged(np.where(second, rows.rewards.numpy(), 0.0), second.astype(float))
    algorithm = fitted()
    # d3rlpy draws without a seed of its own; over seeds and half the rows a step, sd is .03
    config = d3rlpy.ope.FQEConfig(
        learning_rate=3e-3, batch_size=500, gamma=1.0, target_update_interval=20
    )
    d3rlpy.seed(0)
    evaluated = d3rlpy.ope.FQE(algo=algorithm, config=config)
    evaluated.fit(two, n_steps=400, n_steps_per_epoch=400, **QUIET)
    first = made().rows.states[::2].numpy()
    value = evaluated.predict_value(first, algorithm.predict(first)).mean()
    # of any first dose: the second decision's reward under what is proposed there
    later = rows.states[1::2]
    far = algorithm.actor().propose(later, torch.Generator()) - best_dose(later[:, :1])
    assert value == pytest.approx(float(1 - far.square().mean()), abs=0.1)


def test_settings_are_ours_and_come_back_from_json() -> None:
    config = OGSRLConfig.of(SMALL, 77, 3)
    with_shape = LearnableConfigWithShape((2,), 1, config)
    back = LearnableConfigWithShape.deserialize(with_shape.serialize()).config
    assert isinstance(back, OGSRLConfig)
    assert (back.params, back.steps, back.seed) == (SMALL, 77, 3)
    assert (back.batch_size, back.gamma) == (64, 1.0)
    assert OGSRLConfig().params == OgsrlParams()
    with pytest.raises(ValueError, match="horizon"):
        OGSRLConfig(settings={"horizon": 0})
    with pytest.raises(ModelError, match="cloning_only"):
        OGSRLConfig.of(OgsrlParams(cloning_only=True))
    with pytest.raises(ModelError, match=r"settings\.model: false has no form"):
        OGSRLConfig.of(OgsrlParams(model=False))
    with pytest.raises(ModelError, match="observation_scaler"):
        OGSRLConfig(observation_scaler=d3rlpy.preprocessing.StandardObservationScaler())


def test_without_a_problem_it_predicts_and_saves_and_says_what_to_attach(tmp_path: Path) -> None:
    bare = fresh()
    with pytest.raises(ModelError, match=r"fit: it needs the clinicians' policy.*call attach"):
        bare.fit(dataset(), n_steps=1, **QUIET)
    bare.create_impl((2,), 1)
    bare.save(str(tmp_path / "model.d3"))
    loaded = d3rlpy.load_learnable(str(tmp_path / "model.d3"))
    assert np.array_equal(loaded.predict(states()), bare.predict(states()))
    with pytest.raises(ModelError, match="update: it needs"):
        bare.update(batch())
    with pytest.raises(ModelError, match="actor: there is none yet"):
        fresh().actor()


def test_another_data_set_or_problem_than_the_attached_one_is_refused() -> None:
    fewer = logged(made().rows.rewards.numpy(), np.ones(90))
    with pytest.raises(ModelError, match="a data set of 90 decisions, while the attached"):
        fresh().attach(made()).fit(fewer, n_steps=1, **QUIET)
    bare = fresh()
    bare.create_impl((3,), 1)
    with pytest.raises(ModelError, match=r"attach: actor of .* the problem needs"):
        bare.attach(made())
    with pytest.raises(ModelError, match="learns from logged stays alone"):
        fresh().fit_online(None)


def test_a_data_set_of_stays_loses_no_decision() -> None:
    stays = simulated()[0]["calibration"]
    data = dataset_of(stays)
    assert data.transition_count == int(stays.decision.sum())
    paid = sum(episode.compute_return() for episode in data.episodes)
    assert paid == pytest.approx(float(stays.rewards.sum()), abs=1e-3)


def test_optimisers_can_be_reset() -> None:
    algorithm = fitted()
    learner = algorithm.impl.training.learner
    assert learner.actor_adam.first.any()
    algorithm.reset_optimizer_states()
    assert not learner.actor_adam.first.any()
    assert not learner.critics_adam.second.any()


def test_d3rlpy_is_imported_when_asked_for_and_prints_nothing() -> None:
    code = (
        "import sys, ogsrl.policies as p; assert 'd3rlpy' not in sys.modules; p.OGSRL; "
        "assert 'd3rlpy' in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_another_device_is_refused_not_ignored() -> None:
    with pytest.raises(ModelError, match="device: cuda:0: behind d3rlpy's"):
        OGSRLConfig().create(device="cuda:0")
