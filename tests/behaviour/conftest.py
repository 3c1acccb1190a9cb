"""Planted clinicians and what was fitted to them, once for all tests of this folder."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import pytest
import torch

from ogsrl.behaviour.config import BehaviourParams, BoostedParams, NeuralParams
from ogsrl.behaviour.decisions import Decisions
from ogsrl.behaviour.fitting import fit
from ogsrl.behaviour.policy import Behaviour
from ogsrl.preparation import Preparation
from ogsrl.preparation.tensors import StayTensors
from tests.behaviour import planted

NEURAL = NeuralParams(hidden=48, head=32, max_epochs=8, batch_size=128, learning_rate=8e-3)
BOOSTED = BoostedParams(trees=25, scale_trees=8, depth=3, learning_rate=0.2, min_leaf=30)


def params(*kinds: str) -> BehaviourParams:
    return BehaviourParams(kinds=kinds, knots=16, neural=NEURAL, boosted=BOOSTED)


@dataclass(frozen=True)
class Planted:
    preparation: Preparation
    train: StayTensors
    calibration: StayTensors
    validation: StayTensors
    table: pd.DataFrame  # of validation

    @property
    def parts(self) -> tuple[StayTensors, StayTensors, StayTensors]:
        return self.train, self.calibration, self.validation

    @property
    def decisions(self) -> Decisions:
        return Decisions.of(self.validation)


@pytest.fixture(scope="session")
def cohort() -> Planted:
    frames = [planted.table(n, seed) for n, seed in ((1500, 1), (400, 2), (600, 3))]
    prepared_by = planted.preparation(frames[0])
    made = [planted.tensors(frame, prepared_by) for frame in frames]
    return Planted(prepared_by, *made, frames[2])


def fitted_as(cohort: Planted, *kinds: str) -> Behaviour:
    return fit(*cohort.parts, params(*kinds), torch.Generator().manual_seed(0))


@pytest.fixture(scope="session")
def neural(cohort: Planted) -> Behaviour:
    return fitted_as(cohort, "neural")


@pytest.fixture(scope="session")
def boosted(cohort: Planted) -> Behaviour:
    return fitted_as(cohort, "boosted")


@pytest.fixture(params=["neural", "boosted"])
def behaviour(request: pytest.FixtureRequest) -> Behaviour:
    found: Behaviour = request.getfixturevalue(request.param)
    return found
