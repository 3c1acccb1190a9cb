"""The density is the one that scikit-learn gives, and a row's own kernel is left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.neighbors import KernelDensity as Reference

from ogsrl.errors import SupportError
from ogsrl.guardian import kde
from ogsrl.guardian.config import GuardianParams
from ogsrl.guardian.kde import KernelDensity
from tests.guardian.cohorts import layout, numeric, rows
from tests.harness_guardian import GuardianHarness

RNG = np.random.default_rng(3)
STATES, DOSES = RNG.normal(size=(700, 4)), RNG.uniform(-1, 1, (700, 1))
HISTORY = numeric(4)
CONSTANT = 5 * np.log(0.535 * np.sqrt(2 * np.pi))  # of a normal density in five dimensions


class TestKernelDensity(GuardianHarness):
    kind = "kde"
    patients = (300, 300, 400)


def fitted(states: np.ndarray = STATES, doses: np.ndarray = DOSES) -> KernelDensity:
    generator = torch.Generator().manual_seed(0)
    return KernelDensity.fit([rows(states, doses)], layout(HISTORY), GuardianParams(), generator)


def scaled(z: np.ndarray) -> np.ndarray:
    low, high = np.hstack([STATES, DOSES]).min(axis=0), np.hstack([STATES, DOSES]).max(axis=0)
    return 2 * (z - low) / (high - low) - 1


def asked(states: np.ndarray, doses: np.ndarray) -> np.ndarray:
    found = rows(states, doses)
    return fitted().score(found.states, found.doses).numpy()


def test_the_density_is_scikit_learns() -> None:
    states, doses = RNG.normal(size=(300, 4)), RNG.uniform(-1, 1, (300, 1))
    reference = Reference(bandwidth=0.535).fit(scaled(np.hstack([STATES, DOSES])))
    wanted = reference.score_samples(scaled(np.hstack([states, doses])))
    np.testing.assert_allclose(-asked(states, doses) - CONSTANT, wanted, atol=2e-4)


def test_training_rows_are_scored_without_their_own_kernel() -> None:
    z = scaled(np.hstack([STATES, DOSES]))
    wanted = [
        Reference(bandwidth=0.535).fit(np.delete(z, i, axis=0)).score_samples(z[i : i + 1])[0]
        for i in range(0, 700, 70)
    ]
    found = -fitted().training_scores().numpy()[::70] - CONSTANT
    np.testing.assert_allclose(found, wanted, atol=2e-4)
    with_own = fitted().score(*(torch.tensor(x, dtype=torch.float32) for x in (STATES, DOSES)))
    assert (fitted().training_scores() > with_own).all()


def test_far_away_the_order_stays_though_every_kernel_is_nothing() -> None:
    far = np.full((3, 4), [[50.0], [60.0], [70.0]])
    scores = asked(far, np.zeros((3, 1)))
    assert np.isfinite(scores).all()
    assert (np.diff(scores) > 100).all()


def test_blocks_change_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    states, doses = RNG.normal(size=(90, 4)), np.zeros((90, 1))
    wanted = asked(states, doses)
    monkeypatch.setattr(kde, "QUERIES", 7)
    monkeypatch.setattr(kde, "TRAINING", 64)
    np.testing.assert_allclose(asked(states, doses), wanted, atol=1e-5)


def test_the_score_has_the_gradient_of_the_log_density() -> None:
    found = rows(STATES[:5] + 0.3, DOSES[:5])
    doses = found.doses.clone().requires_grad_()
    fitted().score(found.states, doses).sum().backward()
    step = 1e-2
    up = asked(STATES[:5] + 0.3, DOSES[:5] + step)
    down = asked(STATES[:5] + 0.3, DOSES[:5] - step)
    assert doses.grad is not None
    np.testing.assert_allclose(doses.grad[:, 0].numpy(), (up - down) / (2 * step), atol=5e-3)


def test_a_constant_column_is_compared_as_it_is() -> None:
    same = STATES.copy()
    same[:, 2] = 4.0
    guardian = fitted(same)
    assert torch.isfinite(
        guardian.score(*(rows(same, DOSES).states, rows(same, DOSES).doses))
    ).all()


def test_a_saved_density_gives_the_same_scores(tmp_path: Path) -> None:
    found = rows(STATES, DOSES)
    guardian = fitted().calibrate(found.states, found.doses, found.patient, 0.1)
    guardian.save(tmp_path / "kde")
    again = KernelDensity.load(tmp_path / "kde", HISTORY)
    assert KernelDensity.holds_rows
    assert torch.equal(
        again.score(found.states, found.doses), guardian.score(found.states, found.doses)
    )
    assert again.threshold == guardian.threshold


def test_training_rows_that_are_no_number_are_named_and_not_shown() -> None:
    broken = STATES.copy()
    broken[0, 1] = np.nan
    with pytest.raises(SupportError, match="x1"):
        fitted(broken)
    with pytest.raises(SupportError, match="no decision"):
        fitted(STATES[:0], DOSES[:0])
