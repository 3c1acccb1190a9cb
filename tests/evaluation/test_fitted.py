"""What cold fits say: between bounds that hold, and only where they agree."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ogsrl.evaluation.bounds import normal_interval
from ogsrl.evaluation.estimators.base import Estimate
from ogsrl.evaluation.estimators.fitted import LARGEST_SPREAD, Fits, estimate
from tests.evaluation.fits import FITS, PATIENTS, TRUE, drawn

COHORTS = 1_000


def fits(values: torch.Tensor, networks: int = 1, low: float = 0.0, high: float = 1.0) -> Fits:
    return Fits(values, networks, 1000, low, high)


def around(mean: float, spread: float) -> torch.Tensor:
    """(5, patients) of which the fits' means have exactly this standard deviation."""
    apart = torch.arange(-2.0, 3.0, dtype=torch.float64)
    people = torch.linspace(-0.05, 0.05, PATIENTS, dtype=torch.float64)
    return mean + spread * (apart / apart.std())[:, None] + people


def ask(values: Fits, inflation: float = 1.0, level: float = 0.95) -> Estimate:
    return estimate(values, level, inflation)


@pytest.mark.parametrize("networks", [1, 2])
@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-15.0, 5.0)])
def test_one_fit_alone_says_that_anything_is_possible(
    networks: int, low: float, high: float
) -> None:
    found = ask(fits(around(0.3, 0.001)[:networks], networks, low, high))
    assert (found.low, found.high) == (low, high)
    assert not found.votes
    assert found.diagnosis == "one cold fit does not say how far it may be off"


def test_fits_that_spread_more_than_a_share_of_the_range_do_not_vote() -> None:
    close, far = (ask(fits(around(0.3, k * LARGEST_SPREAD))) for k in (0.99, 1.01))
    assert close.votes
    assert close.diagnosis == "cold fits differ by 0.0198 (standard deviation)"
    assert not far.votes
    assert far.diagnosis.endswith("more than 0.02 of the range")


def test_of_a_value_their_spread_is_a_share_of_its_own_range() -> None:
    of_value = {"low": -15.0, "high": 5.0}
    assert ask(fits(around(-3.0, 0.39), **of_value)).votes
    assert not ask(fits(around(-3.0, 0.41), **of_value)).votes
    narrow = {"low": 0.0, "high": 0.1}
    assert not ask(fits(around(0.05, 0.01), **narrow)).votes


def test_of_a_gain_their_spread_is_a_share_of_the_range_of_the_quantity_itself() -> None:
    of_gain = Fits(around(-0.1, 0.03), 1, 1000, -1.0, 1.0, gain=True)
    assert not ask(of_gain).votes
    assert ask(replace(of_gain, gain=False)).votes
    alone = ask(replace(of_gain, values=of_gain.values[:1]))
    assert (alone.low, alone.high) == (-1.0, 1.0)


def test_networks_of_a_fit_are_not_fits_that_disagree() -> None:
    apart = torch.tensor([0.1, -0.1], dtype=torch.float64).repeat(FITS)[:, None]
    values = around(0.3, 0.01).repeat_interleave(2, 0) + apart
    found = ask(fits(values, networks=2))
    assert found.votes
    assert not ask(fits(values)).votes
    assert found.estimate == pytest.approx(0.3)


@given(
    mean=st.floats(0, 1),
    spread=st.floats(0, 2),
    inflation=st.floats(1, 50),
    level=st.floats(0.5, 0.999),
    shift=st.floats(-20, 20),
    span=st.floats(0.01, 40),
)
def test_an_interval_never_leaves_the_range(
    *, mean: float, spread: float, inflation: float, level: float, shift: float, span: float
) -> None:
    values = (shift + span * around(mean, spread)).clip(shift, shift + span)
    found = ask(fits(values, 1, shift, shift + span), inflation, level)
    assert shift <= found.low <= found.high <= shift + span
    assert found.estimate is not None
    assert found.low - 1e-9 <= found.estimate <= found.high + 1e-9


def test_no_patient_but_one_leaves_all_of_the_range_open() -> None:
    found = ask(fits(around(0.3, 0.001)[:, :1]))
    assert (found.low, found.high) == (0.0, 1.0)


@pytest.mark.parametrize("inflation", [1.0, 1.3, 2.5])
@pytest.mark.parametrize("level", [0.8, 0.95])
def test_inflation_widens_by_exactly_its_factor(inflation: float, level: float) -> None:
    values = fits(around(0.5, 0.01).repeat_interleave(2, 0), networks=2)
    bound = normal_interval(values.values, (1 + level) / 2, resampled=True, networks=2)
    found = ask(values, inflation, level)
    assert found.high - 0.5 == pytest.approx(inflation * (bound.high - 0.5))
    assert 0.5 - found.low == pytest.approx(inflation * (bound.high - 0.5))


def test_what_is_impossible_does_not_vote() -> None:
    values = fits(around(1.01, 0.001))
    assert not ask(values).votes
    assert ask(values).diagnosis.endswith("the estimate is impossible")
    assert ask(replace(values, high=2.0)).votes


def test_an_estimate_counts_patients_and_knows_no_weights() -> None:
    found = ask(fits(around(0.3, 0.01)))
    assert (found.patients, found.steps, found.level) == (PATIENTS, 1000, 0.95)
    assert found.ess is None
    assert found.max_weight is None


def coverage(inflation: float, data: float, networks: int = 1, people: float = 0.05) -> float:
    """How often the truth is held, whoever votes."""
    generator, held = torch.Generator().manual_seed(3), 0
    for _ in range(COHORTS):
        values = drawn(
            generator, people=people, seeds=0.005, data=data, resampled=True, networks=networks
        )
        found = ask(fits(values, networks), inflation)
        held += found.low <= TRUE <= found.high
    return held / COHORTS


def test_an_interval_holds_the_truth_as_often_as_it_says_where_patients_differ_most() -> None:
    assert 0.93 < coverage(1.0, data=0.004, networks=2, people=0.3) < 0.97


def test_where_fits_differ_most_five_of_them_need_inflation() -> None:
    assert 0.86 < coverage(1.0, data=0.01) < 0.93
    assert coverage(1.5, data=0.01) > 0.94
