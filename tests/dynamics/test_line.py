"""On a linear world with known noise and risk, the ensemble finds the world."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import norm

from ogsrl.dynamics.calibration import platt
from ogsrl.dynamics.outcomes import outcomes
from tests.dynamics.conftest import Line
from tests.dynamics.worlds import KEPT, NOISE, RISK, RISK_OF_X, line_cohort, push


@pytest.fixture(scope="module")
def known(line: Line) -> dict[str, np.ndarray]:
    """What is true of each decision of fresh patients."""
    truth = outcomes(line.fresh, line.dynamics.layout)
    preparation = line.fresh.history.preparation
    x = preparation.states["x"].inverse(truth.states[:, line.dynamics.layout.current["x"]].numpy())
    given = line.fresh.given[truth.row, 0].numpy()
    mean = KEPT * x + push(given) - 0.5
    return {"x": x, "mean": mean, "death": 1 / (1 + np.exp(-(RISK + RISK_OF_X * x)))}


def test_the_mean_of_the_next_value_is_found(line: Line, known: dict[str, np.ndarray]) -> None:
    truth = outcomes(line.fresh, line.dynamics.layout)
    predicted = line.dynamics.predict(truth.states, truth.doses)
    mean = predicted.mean[:, predicted.names.index("x")].numpy()
    assert np.sqrt(np.mean((mean - known["mean"]) ** 2)) < 0.12 * NOISE


def test_the_noise_of_the_next_value_is_found(line: Line) -> None:
    truth = outcomes(line.fresh, line.dynamics.layout)
    predicted = line.dynamics.predict(truth.states, truth.doses)
    scale = line.fresh.history.preparation.states["x"].scale
    spread = scale * predicted.scaled_sd[:, predicted.names.index("x")]
    assert float(spread.mean()) == pytest.approx(NOISE, rel=0.05)
    assert float(spread.std()) < 0.12 * NOISE


def test_intervals_hold_what_they_promise(line: Line) -> None:
    truth = outcomes(line.fresh, line.dynamics.layout)
    predicted = line.dynamics.predict(truth.states, truth.doses, level=0.8)
    i = predicted.names.index("x")
    own = truth.follows
    column = line.dynamics.layout.numeric.index("x")
    x = line.fresh.history.preparation.states["x"].inverse(truth.numeric[own, column].numpy())
    inside = (predicted.low[own, i].numpy() <= x) & (x <= predicted.high[own, i].numpy())
    assert inside.mean() == pytest.approx(0.8, abs=0.02)


def test_the_risk_of_death_is_calibrated_and_ranks(
    line: Line, known: dict[str, np.ndarray]
) -> None:
    truth = outcomes(line.fresh, line.dynamics.layout)
    risk = line.dynamics.predict(truth.states, truth.doses).p_death
    slope, _ = platt(
        risk, torch.from_numpy(np.random.default_rng(0).random(len(risk)) < known["death"])
    )
    assert slope == pytest.approx(1, abs=0.2)
    assert float(risk.mean()) == pytest.approx(known["death"].mean(), rel=0.15)
    assert np.corrcoef(risk.numpy(), known["death"])[0, 1] > 0.88


def test_a_mean_that_is_safe_can_be_unsafe_often(line: Line, known: dict[str, np.ndarray]) -> None:
    truth = outcomes(line.fresh, line.dynamics.layout)
    unsafe = line.dynamics.predict(truth.states, truth.doses).unsafe["low"].numpy()
    chance = norm.cdf((-1 - known["mean"]) / NOISE)
    assert np.abs(unsafe - chance).mean() < 0.02
    close = (known["mean"] > -1) & (known["mean"] < -0.6)  # safe on average
    assert unsafe[close].mean() == pytest.approx(chance[close].mean(), abs=0.04)
    assert chance[close].mean() > 0.3


def test_drawn_and_closed_form_chances_agree(line: Line) -> None:
    truth = outcomes(line.fresh, line.dynamics.layout)
    states, doses = truth.states[:500], truth.doses[:500]
    unsafe = line.dynamics.unsafe(states, doses, draws=400)
    lines = line.dynamics.fitted.unsafe_calibration
    assert not torch.equal(lines, torch.tensor([[1.0, 0.0]] * len(line_cohort().constraints)))
    assert float((unsafe["low"] - unsafe["low_drawn"]).abs().max()) < 0.05


def test_the_flag_follows_x(line: Line, known: dict[str, np.ndarray]) -> None:
    truth = outcomes(line.fresh, line.dynamics.layout)
    predicted = line.dynamics.predict(truth.states, truth.doses)
    chance = norm.cdf(known["mean"] / NOISE)
    mean = predicted.mean[:, predicted.names.index("flag")].numpy()
    assert np.abs(mean - chance).mean() < 0.04


def test_members_disagree_most_where_no_patient_was(line: Line) -> None:
    truth = outcomes(line.fresh, line.dynamics.layout)
    usual = line.dynamics.disagreement(truth.states, truth.doses)
    assert float(usual.mean()) > 0
    far = truth.states.clone()
    far[:, line.dynamics.layout.current["x"]] = 8
    never = line.dynamics.disagreement(far, torch.ones_like(truth.doses))
    assert float(never.mean()) > 3 * float(usual.mean())


def test_rules_of_flags_gaps_and_sums_are_as_likely_as_they_come_about(line: Line) -> None:
    truth = outcomes(line.fresh, line.dynamics.layout)
    own = truth.follows
    unsafe = line.dynamics.unsafe(truth.states[own], truth.doses[own])
    for i, name in enumerate(line_cohort().constraints):
        slope, _ = platt(unsafe[name], truth.unsafe[own, i])
        assert slope == pytest.approx(1, abs=0.12), name
        share = float(truth.unsafe[own, i].float().mean())
        assert float(unsafe[name].mean()) == pytest.approx(share, abs=0.02), name
