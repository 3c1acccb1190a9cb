"""One ensemble of the line, fitted once for all tests of this folder."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from ogsrl.dynamics.config import DynamicsParams
from ogsrl.dynamics.ensemble import Dynamics
from ogsrl.dynamics.fitting import fit
from ogsrl.preparation.tensors import StayTensors
from tests.dynamics.worlds import line_cohort, line_table, prepare

SMALL = DynamicsParams(members=3, hidden=16, hidden_ends=8, max_epochs=9, learning_rate=5e-3)


@dataclass(frozen=True)
class Line:
    dynamics: Dynamics
    train: StayTensors
    calibration: StayTensors
    fresh: StayTensors


@pytest.fixture(scope="session")
def line() -> Line:
    cohort = line_cohort()
    train = prepare(line_table(1200, 1), cohort)
    fitted = train.history.preparation
    calibration, fresh = (
        prepare(line_table(n, s), cohort, fitted=fitted) for n, s in ((600, 2), (1500, 3))
    )
    generator = torch.Generator().manual_seed(0)
    return Line(fit(train, calibration, SMALL, generator), train, calibration, fresh)
