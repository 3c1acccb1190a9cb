"""Calibration of values: those that come true lie on the line, and few patients are not told."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from ogsrl.errors import EstimateError
from ogsrl.evaluation.fqe import first_decisions
from ogsrl.evaluation.quantities import deaths
from ogsrl.evaluation.value_calibration import value_calibration
from tests.evaluation.ward import Ward


def test_values_that_come_true_lie_on_the_line() -> None:
    stays = Ward.draw(4_000, 3).stays
    rng = np.random.default_rng(0)
    first = first_decisions(stays)
    died = torch.zeros(len(first)).index_add_(0, stays.stay, deaths(stays).float())
    ill = stays.states[first, 0] > 0
    mean = torch.stack([died[~ill].mean(), died[ill].mean()])
    right = mean[ill.long()] + 1e-4 * torch.from_numpy(rng.random(len(first)))
    found = value_calibration(stays, right)
    assert found.slope.estimate == pytest.approx(1, abs=0.05)
    assert found.offset.estimate == pytest.approx(0, abs=0.001)
    assert len(found.bins) == 10
    assert sum(one.observed.rows or 0 for one in found.bins) == 4_000
    for one in found.bins:
        assert one.observed.low is not None
        assert one.observed.high is not None
    extreme = value_calibration(stays, 0.5 + 3 * (right - 0.5))
    assert extreme.slope.high is not None
    assert extreme.slope.high < 0.5
    assert value_calibration(stays, torch.full((4_000,), 0.3)).slope.estimate is None
    json.dumps(found.plain(), allow_nan=False)


def test_bins_of_few_patients_or_few_deaths_join() -> None:
    stays = Ward.draw(60, 4).stays
    found = value_calibration(stays, torch.linspace(0, 1, 60))
    assert 1 <= len(found.bins) < 6
    few = Ward.draw(9, 5).stays
    none = value_calibration(few, torch.linspace(0, 1, 9))
    assert none.bins == ()
    assert none.offset.estimate is none.slope.estimate is None


def test_censored_stays_have_no_outcome() -> None:
    ward = Ward.draw(2_000, 6)
    cut = ward.censored(0)
    count = len(first_decisions(cut))
    found = value_calibration(cut, _guesses(count))
    assert found.censored is not None
    assert found.censored > 0
    assert sum(one.observed.rows or 0 for one in found.bins) == count - found.censored
    with pytest.raises(EstimateError, match="give one a stay"):
        value_calibration(cut, _guesses(count + 1))


def test_how_few_were_lost_from_sight_is_told_by_no_count() -> None:
    def told(share: float) -> dict[str, float | None]:
        cut = Ward.draw(400, 6).censored(0, share)
        return value_calibration(cut, _guesses(len(first_decisions(cut)))).plain()

    few, many = told(0.003), told(0.1)
    assert few["censored"] is None
    counts = [x for n, x in few.items() if n.endswith(("patients", "rows"))]
    assert counts
    assert not any(counts)
    assert few["offset.estimate"] is not None
    assert (many["censored"] or 0) >= 10
    assert many["offset.rows"] is not None


def _guesses(count: int) -> torch.Tensor:
    return torch.rand(count, generator=torch.Generator().manual_seed(0))
