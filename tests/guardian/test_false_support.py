"""What the simulator knows of false support: errors are against truth, and doses against death."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from ogsrl.dynamics.config import DynamicsParams
from ogsrl.dynamics.ensemble import Dynamics
from ogsrl.dynamics.fitting import fit
from ogsrl.dynamics.interventions import Questions, questions
from ogsrl.guardian.christoffel import ChristoffelGuardian
from ogsrl.guardian.columns import Layout
from ogsrl.guardian.config import GuardianParams
from ogsrl.guardian.false_support import false_support, model_error
from ogsrl.guardian.protocol import Rows
from ogsrl.preparation.history import History
from tests.guardian.cohorts import simulated


@pytest.fixture(scope="module")
def history() -> History:
    return simulated()[0]["train"].history


@pytest.fixture(scope="module")
def asked(history: History) -> Questions:
    return questions(history, 40, np.random.default_rng(1), steps=(0, 4), draws=4)["logged"]


def wrong_by(deviations: float, asked: Questions, history: History) -> Any:
    """Dynamics that are wrong by so many deviations in every column."""
    made, names = history.preparation, tuple(history.preparation.cohort.observations)
    columns = [asked.expected[n] + deviations * made.states[n].spread for n in names]
    mean = torch.stack(columns, dim=1)
    return SimpleNamespace(predict=lambda states, doses: SimpleNamespace(names=names, mean=mean))


@pytest.mark.parametrize("deviations", [0.0, 0.5, -2.0])
def test_the_error_is_in_deviations_of_the_column(
    deviations: float, asked: Questions, history: History
) -> None:
    error = model_error(wrong_by(deviations, asked, history), asked, history.preparation)
    np.testing.assert_allclose(error, abs(deviations), atol=1e-4)


def test_supported_pairs_are_those_the_dynamics_know(history: History) -> None:
    parts, _ = simulated()
    rows, few = Rows.of(parts["calibration"]), DynamicsParams(members=2, max_epochs=3, hidden=32)
    dynamics = fit(parts["train"], parts["calibration"], few, torch.Generator().manual_seed(0))
    assert isinstance(dynamics, Dynamics)
    guardian = ChristoffelGuardian.fit(
        [Rows.of(parts["train"])],
        Layout.of(history),
        GuardianParams(degree=1),
        torch.Generator().manual_seed(0),
    ).calibrate(rows.states, rows.doses, rows.patient, 0.05)
    found = false_support(
        {"christoffel": guardian}, dynamics, history, 120, np.random.default_rng(2)
    )
    mine, every = (found["members"][n] for n in ("christoffel", "no guardian"))
    assert every["asks"]["random"]["supported"]["estimate"] == 1
    assert every["asks"]["random"]["refused_beyond_worst"] is None
    assert mine["asks"]["random"]["supported"]["estimate"] < 0.8
    assert mine["asks"]["random"]["mean_error"] < mine["asks"]["random"]["mean_error_refused"]
    assert mine["worst_inside"] <= every["worst_inside"]
    shares = [who["asks"]["random"]["beyond_high"]["estimate"] for who in (mine, every)]
    assert shares[0] <= shares[1]
