"""The distance to the k-th nearest training pair, in closed form and as scikit-learn finds it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from ogsrl.guardian import neighbours
from ogsrl.guardian.config import GuardianParams
from ogsrl.guardian.neighbours import Neighbours
from ogsrl.guardian.shortage import Shortage
from tests.guardian.cohorts import layout, numeric, rows
from tests.harness_guardian import GuardianHarness

HISTORY = numeric(3)
RNG = np.random.default_rng(5)
STATES, DOSES = RNG.normal(size=(900, 3)), RNG.uniform(-1, 1, (900, 1))


class TestNeighbours(GuardianHarness):
    kind = "neighbours"
    patients = (300, 300, 400)


def fitted(states: np.ndarray, doses: np.ndarray, k: int = 10) -> Neighbours:
    generator = torch.Generator().manual_seed(0)
    params = GuardianParams(neighbours=k)
    return Neighbours.fit([rows(states, doses)], layout(HISTORY), params, generator)


def test_on_a_line_the_kth_neighbour_is_k_steps_away() -> None:
    states = np.zeros((101, 3))
    states[:, 0] = np.arange(101.0)
    guardian = fitted(states, np.zeros((101, 1)), k=3)
    ask = rows(np.array([[-1.0, 0, 0], [-5.0, 0, 0], [50.0, 0, 0]]), np.zeros((3, 1)))
    spread = states[:, 0].std()
    found = guardian.score(ask.states, ask.doses).numpy() * spread
    np.testing.assert_allclose(found, [3.0, 7.0, 1.0], rtol=1e-5)


def test_the_distance_is_scikit_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "TRAINING", 128)
    z = np.hstack([STATES, DOSES])
    asked, given = RNG.normal(size=(200, 3)), RNG.uniform(-1, 1, (200, 1))
    index = NearestNeighbors(n_neighbors=10).fit(z / z.std(axis=0))
    wanted = index.kneighbors(np.hstack([asked, given]) / z.std(axis=0))[0][:, -1]
    found = rows(asked, given)
    guardian = fitted(STATES, DOSES)
    np.testing.assert_allclose(guardian.score(found.states, found.doses), wanted, rtol=1e-5)


def test_a_pair_among_copies_of_itself_is_at_distance_zero() -> None:
    states, doses = np.repeat(STATES[:30], 12, axis=0) + 40, np.repeat(DOSES[:30], 12, axis=0)
    guardian = fitted(states, doses)
    found = rows(states, doses)
    assert guardian.score(found.states, found.doses).max() == 0


def test_a_saved_guardian_gives_the_same_scores(tmp_path: Path) -> None:
    found = rows(STATES, DOSES)
    guardian = fitted(STATES, DOSES).calibrate(found.states, found.doses, found.patient, 0.1)
    guardian.save(tmp_path / "neighbours")
    again = Neighbours.load(tmp_path / "neighbours", HISTORY)
    assert Neighbours.holds_rows
    assert torch.equal(
        again.score(found.states, found.doses), guardian.score(found.states, found.doses)
    )


def test_as_many_patients_as_neighbours_are_needed() -> None:
    guardian = fitted(STATES[:24], DOSES[:24], k=25)
    assert guardian.lacking == Shortage("training", 25)
    assert fitted(STATES[:25], DOSES[:25], k=25).lacking is None
    assert fitted(STATES[:9], DOSES[:9], k=1).lacking == Shortage("training", 10)
