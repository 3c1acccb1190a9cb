"""Runs of the loop without a model: stopped, broken, repeated, and as params.yaml has them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from ogsrl.errors import ModelError
from ogsrl.policies.config import (
    AlgorithmParams,
    DatasetParams,
    OgsrlParams,
    TrainParams,
)
from ogsrl.policies.dataset import metric
from ogsrl.policies.learner import Learner
from ogsrl.policies.offline import OfflineLearner
from ogsrl.policies.saved import load_policy
from ogsrl.policies.training import Place, learner_of, train_seed
from tests.policies.offline_problems import (
    PRDC,
    TD3BC,
    plain_problem,
    sepsis,
    trained,
    with_,
)
from tests.policies.problems import one_decision, one_dose

SETTINGS = {
    "prdc": PRDC,
    "everything": with_(
        PRDC, guardian=True, constraints=True, offline={"start_steps": 5, "update_every": 7}
    ),
}


@pytest.mark.parametrize("name", list(SETTINGS))
def test_a_stopped_run_goes_on_bit_for_bit(name: str, tmp_path: Path) -> None:
    algorithm = AlgorithmParams(name=name, ogsrl=with_(SETTINGS[name], hidden=16, batch_size=32))
    train = TrainParams(steps=60, checkpoint_every=20)

    def place(run: str) -> Place:
        return Place(tmp_path / run / "policies", tmp_path / run / "checkpoint", "these data")

    def stop(steps: int) -> None:
        seen.append(steps)
        if sum(seen) >= 40:
            raise KeyboardInterrupt

    seen: list[int] = []
    whole = train_seed(sepsis(), algorithm, train, 3, place("whole"))
    with pytest.raises(KeyboardInterrupt):
        train_seed(sepsis(), algorithm, train, 3, place("parts"), stop)
    again = replace(sepsis())  # its index is made anew
    parts = train_seed(again, algorithm, train, 3, place("parts"))
    assert parts == whole
    assert whole.steps == [20, 40, 60]
    for step in whole.steps:
        one, other = (
            (tmp_path / run / "policies" / f"step_{step}" / "weights.safetensors").read_bytes()
            for run in ("whole", "parts")
        )
        assert one == other
    actor, _ = load_policy(tmp_path / "whole/policies/step_60", sepsis().history)
    assert actor is not None


def test_one_seed_gives_one_policy_and_another_another() -> None:
    params = with_(SETTINGS["everything"], hidden=16, batch_size=32)
    once, again, other = (trained(sepsis(), params, 12, seed).actor.flat for seed in (1, 1, 2))
    assert torch.equal(once, again)
    assert not torch.equal(once, other)


def test_a_number_that_is_none_ends_its_seed_alone_and_says_where(tmp_path: Path) -> None:
    made = one_decision(200)
    wild = plain_problem(replace(made, rewards=made.rewards * torch.nan), one_dose())
    algorithm = AlgorithmParams(name="td3bc_own", ogsrl=TD3BC)
    place = Place(tmp_path / "policies", tmp_path / "checkpoint", "these data")
    done = train_seed(wild, algorithm, TrainParams(steps=40, checkpoint_every=20), 3, place)
    assert done.status == "training: the critics' error is not finite at step 0"
    assert done.steps == []


def shipped() -> dict[str, OgsrlParams]:
    """Entries of params.yaml that train without a model."""
    text = (Path(__file__).parents[2] / "params.yaml").read_text()
    entries = {n: AlgorithmParams(**e) for n, e in yaml.safe_load(text)["algorithms"].items()}
    return {n: e.ogsrl for n, e in entries.items() if e.ogsrl and not e.ogsrl.model}


def test_baselines_of_params_yaml_are_what_their_names_say() -> None:
    entries = shipped()
    assert {"prdc", "cost_penalised_prdc", "lagrangian", "td3bc_own", "no_model"} == set(entries)
    assert [name for name, entry in entries.items() if entry.guardian] == ["no_model"]
    said = {}
    for name, entry in entries.items():
        small = AlgorithmParams(name=name, ogsrl=with_(entry, hidden=16, batch_size=32))
        learner = learner_of(sepsis(), small, 0, 30)
        assert isinstance(learner, OfflineLearner)
        learner.begin()
        said[name] = list(learner.train(30))[-1]
        learner.step = 250
        said[name] = learner.measured()
    constraint = next(iter(sepsis().limits))
    assert [f"mu_{constraint}" in row for row in said.values()] == [
        name in ("cost_penalised_prdc", "lagrangian", "no_model") for name in said
    ]
    assert said["cost_penalised_prdc"][f"mu_{constraint}"] > 0
    assert ["dataset_distance" in row for row in said.values()] == [
        name != "td3bc_own" for name in said
    ]
    ours = AlgorithmParams(ogsrl=OgsrlParams(hidden=16))
    assert isinstance(learner_of(sepsis(), ours, 0, 1), Learner)


def test_a_metric_counts_the_columns_it_says() -> None:
    history = sepsis().history
    numeric, _ = metric(history, DatasetParams())
    names = [history.names[i] for i in numeric]
    observed = history.preparation.cohort.observations
    assert names
    assert all(observed[name].kind == "numeric" for name in names)
    current, _ = metric(history, DatasetParams(metric="current"))
    everything, ones = metric(history, DatasetParams(metric="all"))
    assert len(numeric) < len(current) < len(everything) == len(history.names)
    assert torch.equal(ones, torch.ones(len(everything)))
    weighed, weights = metric(history, DatasetParams(weights={names[0]: 0.0, names[1]: 2.0}))
    assert weighed == numeric[1:]
    assert weights[0] == 2.0
    with pytest.raises(ModelError, match=r"dataset\.weights: nothing is no column of the metric"):
        metric(history, DatasetParams(weights={"nothing": 1.0}))
