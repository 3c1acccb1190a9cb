"""Our fitted Q evaluation and d3rlpy's say the same of a shared problem, and what is true."""

from __future__ import annotations

import d3rlpy
import numpy as np
import pytest
import torch
from d3rlpy.models.encoders import VectorEncoderFactory
from d3rlpy.ope import FQE, FQEConfig

from ogsrl.evaluation.config import FqeParams
from ogsrl.evaluation.fqe import fit_fqe
from ogsrl.preparation.tensors import LoggedArrays, logged_arrays
from tests.evaluation.ward import Ward, WardClinicians, acting

PARAMS = FqeParams(
    fits=2, networks=1, hidden=24, start_steps=100, steps=900, batch_size=256, learning_rate=2e-3,
    dose_weight=1,
)  # fmt: skip
DISCOUNT = 0.9
Dataset = d3rlpy.dataset.MDPDataset


def dataset(logged: LoggedArrays, doses: np.ndarray) -> Dataset:
    return Dataset(
        logged.observations,
        doses,
        logged.rewards,
        logged.terminals,
        logged.timeouts,
        action_space=d3rlpy.ActionSpace.CONTINUOUS,
    )


def theirs(logged: LoggedArrays, dose: float, first: np.ndarray) -> np.ndarray:
    """What d3rlpy says at first states of whoever always gives this dose."""
    d3rlpy.seed(0)
    encoder = VectorEncoderFactory([24, 24])
    always = np.full_like(logged.actions, dose)
    config = d3rlpy.algos.BCConfig(encoder_factory=encoder, learning_rate=1e-2)
    giver = config.create(device=False)
    quiet = {"show_progress": False, "logger_adapter": d3rlpy.logging.NoopAdapterFactory()}
    giver.fit(dataset(logged, always), n_steps=300, n_steps_per_epoch=300, **quiet)
    assert np.abs(giver.predict(first) - dose).max() < 0.1
    asked = FQEConfig(
        learning_rate=2e-3, gamma=DISCOUNT, batch_size=256, target_update_interval=50,
        encoder_factory=encoder,
    )  # fmt: skip
    fqe = FQE(algo=giver, config=asked)
    fqe.fit(dataset(logged, logged.actions), n_steps=2000, n_steps_per_epoch=2000, **quiet)
    return np.asarray(fqe.predict_value(first, giver.predict(first)))


@pytest.mark.parametrize(("dose", "chance"), [(1.0, 1.0), (-1.0, 0.0)])
def test_ours_and_d3rlpy_s_find_the_same_value(dose: float, chance: float) -> None:
    ward = Ward.draw(4_000, 1)
    stays = ward.stays
    known = ward.value(lambda _step, _state: chance, "value")
    first = stays.states[stays.step == 0].numpy()
    peer = theirs(logged_arrays(stays), dose, first)
    generator = torch.Generator().manual_seed(0)
    policies = {"always": acting(dose, stays.history)}
    ours = fit_fqe(stays, policies, WardClinicians(), PARAMS, generator, names=("value",))
    values = ours.first_values["always"]["value"].mean(0).numpy()
    assert values.mean() == pytest.approx(known, abs=0.03)
    assert peer.mean() == pytest.approx(known, abs=0.06)
    assert values.mean() == pytest.approx(peer.mean(), abs=0.06)
    ill = first[:, 0] > 0  # and of each state, not only on average
    for state in (ill, ~ill):
        assert values[state].mean() == pytest.approx(peer[state].mean(), abs=0.1)
