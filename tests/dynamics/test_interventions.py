"""Questions about other doses have the simulator's answers and leak nothing into the state."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ogsrl.dynamics.interventions import Questions, courses_of_another, questions, simulator_config
from ogsrl.errors import ModelError
from ogsrl.preparation import Preparation, PrepareParams, TrainingRows, fit
from ogsrl.preparation.history import History
from ogsrl.sources.simulator import simulate
from ogsrl.spec.reader import load_cohort
from tests.dynamics.worlds import line_cohort

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def prepared() -> Preparation:
    sepsis = load_cohort(ROOT / "data_contracts" / "sepsis.yaml")
    return fit(TrainingRows.of(simulate(300, 1), sepsis), sepsis, PrepareParams())


@pytest.fixture(scope="module")
def asked(prepared: Preparation) -> dict[str, Questions]:
    return questions(History.of(prepared), 150, np.random.default_rng(0), draws=32)


def test_the_same_rows_are_asked_about_every_dose(asked: dict[str, Questions]) -> None:
    logged = asked["logged"]
    for other in asked.values():
        assert torch.equal(other.states, logged.states)
        assert torch.equal(other.step, logged.step)
        assert torch.equal(other.logged, logged.logged)
    assert torch.equal(logged.given, logged.logged)


def test_doses_are_as_asked_and_as_they_can_be_given(asked: dict[str, Questions]) -> None:
    assert float(asked["none"].given.abs().max()) == 0
    torch.testing.assert_close(
        asked["half"].given[:, 1], asked["logged"].given[:, 1] / 2, atol=0.0051, rtol=0
    )
    for question in asked.values():
        fluid = question.given[:, 0]
        assert torch.equal(fluid, (fluid / 50).round() * 50)
    another, logged = (asked[name].given.sort(0).values for name in ("another patient's", "logged"))
    torch.testing.assert_close(another, logged)


def test_fluid_raises_the_true_pressure_and_vasopressor_more(asked: dict[str, Questions]) -> None:
    none, logged, random = (asked[n].expected["map"].mean() for n in ("none", "logged", "random"))
    assert float(none) < float(logged) < float(random)
    assert float(asked["random"].death.mean()) > float(asked["logged"].death.mean())


def test_a_state_is_what_was_charted_before_the_dose(
    asked: dict[str, Questions], prepared: Preparation
) -> None:
    history, logged = History.of(prepared), asked["logged"]
    total = history.names.index("fluid_total")
    for stay in range(5):
        rows = (logged.stay == stay).nonzero().squeeze(1)
        before = prepared.states["fluid_total"].inverse(logged.states[rows, total].numpy())
        given = logged.logged[rows, 0].numpy()
        assert before.tolist() == [0, *np.cumsum(given)[:-1].tolist()]
        lag = history.names.index("vasopressor[-1]")
        scaled = prepared.doses["vasopressor"].inverse(logged.states[rows[1:], lag].numpy())
        np.testing.assert_allclose(scaled, logged.logged[rows[:-1], 1].numpy(), atol=1e-5)


def test_courses_give_everybody_what_was_given_to_another(prepared: Preparation) -> None:
    rng = np.random.default_rng(1)
    found = courses_of_another(History.of(prepared), 200, rng, start=2, steps=4)
    rows = len(found.states)
    assert found.doses.shape == (rows, 4, 2)
    assert found.measured["map"].shape == found.alive.shape == (rows, 4)
    given = prepared.doses["iv_fluid"].inverse(found.doses[..., 0].numpy())
    step = History.of(prepared).names.index("fluid_total")
    before = prepared.states["fluid_total"].inverse(found.states[:, step].numpy())
    alive = found.alive[:, -1].numpy()
    np.testing.assert_allclose(
        found.measured["fluid_total"][:, -1].numpy()[alive],
        (before + given.sum(1))[alive],
        atol=0.5,
    )


def test_only_simulated_cohorts_know_the_truth() -> None:
    with pytest.raises(ModelError, match="simulated cohorts alone"):
        simulator_config(line_cohort())
