"""Every estimator on logs of a process whose answers are known exactly."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from ogsrl.errors import EstimateError, ModelError
from ogsrl.evaluation.estimators import (
    WEIGHTED,
    WITH_VALUES,
    cwpdis,
    dr,
    magic,
    pdis,
    wdr,
    wis,
)
from ogsrl.evaluation.estimators.base import Asked, Estimate
from ogsrl.evaluation.intervals import Samples, bca
from ogsrl.evaluation.record import Record, Support, Values
from ogsrl.evaluation.rollouts import by_patient
from tests.harness_estimators import FIRST, LOGGED, OTHER, logged, solved

TRUTH = solved(OTHER).mortality
TERMS = {m.__name__.rpartition(".")[2]: m.terms for m in (pdis, wis, cwpdis, dr, wdr, magic)}
UNBIASED = ("pdis", "dr")
CONSISTENT = ("wis", "cwpdis", "wdr", "magic")


def ask(name: str, record: Record, seed: int = 0, gain: bool = False) -> Estimate:
    samples = Samples(2000, torch.Generator().manual_seed(seed))
    return WEIGHTED[name](record, Asked(0.95, samples, gain))


def said(name: str, record: Record) -> float:
    return TERMS[name](record).estimate


def cohorts(count: int, stays: int, wrong: float = 0.0) -> list[Record]:
    return [logged(stays, torch.Generator().manual_seed(k), wrong=wrong) for k in range(count)]


@pytest.mark.parametrize("name", UNBIASED)
def test_an_unbiased_estimator_is_right_on_average_whatever_the_fitted_values(name: str) -> None:
    found = torch.tensor([said(name, one) for one in cohorts(60, 300, wrong=0.1)])
    assert abs(float(found.mean()) - TRUTH) < 4 * float(found.std()) / 60**0.5


@pytest.mark.parametrize("name", CONSISTENT)
def test_a_consistent_estimator_s_error_falls_with_the_root_of_patients(name: str) -> None:
    errors = []
    for stays in (200, 20_000):
        found = torch.tensor([said(name, one) for one in cohorts(20, stays, wrong=0.05)])
        errors.append(float((found - TRUTH).square().mean().sqrt()))
    assert errors[1] < 0.2 * errors[0]  # .1 in theory
    assert errors[1] < 0.01


@pytest.mark.parametrize("name", WITH_VALUES)
def test_right_fitted_values_take_some_of_the_scatter_away(name: str) -> None:
    plain = torch.tensor([said("pdis", one) for one in cohorts(200, 400)])
    found = torch.tensor([said(name, one) for one in cohorts(200, 400)])
    assert float(found.var()) < 0.95 * float(plain.var())  # deaths are mostly chance


@pytest.mark.parametrize("name", ["pdis", "wis", "cwpdis"])
def test_of_the_clinicians_themselves_it_says_what_was_seen(name: str) -> None:
    record = logged(500, torch.Generator().manual_seed(1), policy=LOGGED)
    assert bool((record.ratio == 1).all())
    assert said(name, record) == pytest.approx(float(record.returns.mean()), abs=1e-12)


@pytest.mark.parametrize("name", WITH_VALUES)
def test_of_the_clinicians_without_fitted_values_too(name: str) -> None:
    record = logged(500, torch.Generator().manual_seed(1), policy=LOGGED)
    nothing = Values(torch.zeros_like(record.paid), torch.zeros_like(record.paid))
    record = replace(record, values=nothing)
    if name != "magic":  # it may trust the fitted values, here wrong
        assert said(name, record) == pytest.approx(float(record.returns.mean()), abs=1e-12)
    assert ask(name, record).low <= float(record.returns.mean()) <= ask(name, record).high


def test_dropping_ended_stays_from_denominators_would_be_wrong_and_shows() -> None:
    record = logged(4000, torch.Generator().manual_seed(2), policy=LOGGED)
    still = record.inside.double()
    dropped = float(((record.paid * still).sum(0) / still.sum(0)).sum())
    assert dropped > 1.2 * said("cwpdis", record)


@pytest.mark.parametrize("name", WEIGHTED)
def test_order_of_stays_changes_nothing(name: str) -> None:
    record = logged(300, torch.Generator().manual_seed(3), per_patient=3)
    order = torch.randperm(300, generator=torch.Generator().manual_seed(4))
    mixed = ask(name, record.in_order(order))
    plain = ask(name, record)
    assert mixed.estimate == pytest.approx(plain.estimate, abs=1e-12)
    assert (mixed.low, mixed.high) == pytest.approx((plain.low, plain.high), abs=1e-9)
    assert mixed.ess == pytest.approx(plain.ess)


@pytest.mark.parametrize("name", WEIGHTED)
def test_shards_in_another_order_change_but_the_luck_of_samples(name: str) -> None:
    record = logged(300, torch.Generator().manual_seed(3), per_patient=3)
    second_first = torch.arange(300).roll(150)
    patient = torch.zeros(record.patients, dtype=torch.int64)
    seen = dict.fromkeys(record.patient[second_first].tolist())
    patient[torch.tensor([*seen])] = torch.arange(len(seen))
    renumbered = replace(
        record.in_order(second_first), patient=patient[record.patient[second_first]]
    )
    mixed, plain = ask(name, renumbered), ask(name, record)
    assert mixed.estimate == pytest.approx(plain.estimate, abs=1e-12)
    assert (mixed.ess, mixed.max_weight) == pytest.approx((plain.ess, plain.max_weight))
    assert (mixed.votes, mixed.diagnosis) == (plain.votes, plain.diagnosis)
    width = plain.high - plain.low
    assert (mixed.low, mixed.high) == pytest.approx((plain.low, plain.high), abs=0.1 * width)


@pytest.mark.parametrize("name", WEIGHTED)
@pytest.mark.parametrize("each", [1e-60, 1e60, 1e-40, 1e40])
def test_weights_beyond_all_numbers_get_no_vote_and_break_nothing(name: str, each: float) -> None:
    record = logged(400, torch.Generator().manual_seed(8))
    ratio = torch.where(record.inside, (record.ratio * each).double(), 1.0)
    found = ask(name, replace(record, ratio=ratio))
    assert not found.votes
    assert 0 <= found.low <= found.high <= 1
    assert found.estimate is None or math.isfinite(found.estimate)
    assert found.ess is None or 0 <= found.ess <= record.patients * 1.000001


@pytest.mark.parametrize("name", WEIGHTED)
def test_a_patient_s_stays_are_one_draw(name: str) -> None:
    record = logged(300, torch.Generator().manual_seed(5))
    twice = record.in_order(torch.arange(300).repeat(2))
    assert (len(twice), twice.patients) == (600, 300)
    once, both = ask(name, record), ask(name, twice)
    assert both.estimate == pytest.approx(once.estimate, abs=1e-12)
    assert (both.low, both.high) == pytest.approx((once.low, once.high), abs=1e-9)
    assert both.ess == pytest.approx(once.ess)


@pytest.mark.parametrize("name", ["pdis", "wis", "cwpdis"])
def test_survivors_who_come_again_do_not_change_what_is_estimated(name: str) -> None:
    record = logged(2000, torch.Generator().manual_seed(5), policy=LOGGED)
    lives = (record.returns == 0).nonzero().squeeze(1)
    patient = record.patient.clone()
    patient[lives[1::2]] = patient[lives[::2]][: len(lives[1::2])]
    again = replace(record, patient=torch.unique(patient, return_inverse=True)[1])
    assert again.patients < 1400
    died = float(record.returns.mean())
    assert said(name, again) == pytest.approx(died, abs=1e-12)
    of_patients = again.by_patient(again.returns) / again.stays
    assert float(of_patients.mean()) > died + 0.05, "a mean of patients' means is another number"
    values = record.returns[None]
    assert float(by_patient(values, again.patient).mean()) == pytest.approx(died, abs=1e-12)


@pytest.mark.parametrize("name", WEIGHTED)
def test_what_was_never_given_gets_no_estimate_and_no_vote(name: str) -> None:
    record = logged(400, torch.Generator().manual_seed(6))
    record = replace(record, ratio=torch.where(record.inside, 0.0, record.ratio))
    found = ask(name, record)
    assert not found.votes
    assert (found.low, found.high) == (0.0, 1.0)
    assert "too few" in found.diagnosis or "no patient" in found.diagnosis
    assert found.estimate is None or name == "pdis_clipped"


@pytest.mark.parametrize("name", WEIGHTED)
def test_one_patient_with_much_of_the_weight_takes_the_vote(name: str) -> None:
    record = logged(2000, torch.Generator().manual_seed(7))
    ratio = record.ratio.clone()
    assert ask(name, record).votes
    ratio[0, 0] = 2e4
    assert not ask(name, replace(record, ratio=ratio)).votes


@pytest.mark.parametrize("name", WEIGHTED)
def test_an_interval_holds_the_truth_about_as_often_as_it_says(name: str) -> None:
    made = [ask(name, one, k) for k, one in enumerate(cohorts(100, 300, wrong=0.02))]
    held = sum(one.low <= TRUTH <= one.high for one in made)
    assert held >= 88  # .95 of 100, less 3 standard errors
    if name == "pdis_clipped":
        assert held == 100
    else:
        widths = [one.high - one.low for one in made]
        assert max(widths) < 0.5


@pytest.mark.parametrize("name", WEIGHTED)
def test_a_gain_s_interval_holds_the_true_difference_from_the_clinicians(name: str) -> None:
    gain = TRUTH - solved(LOGGED).mortality
    made = [ask(name, one, k, gain=True) for k, one in enumerate(cohorts(100, 300, wrong=0.02))]
    assert sum(one.low <= gain <= one.high for one in made) >= 88
    plain = [ask(name, one, k) for k, one in enumerate(cohorts(20, 300))]
    if name != "pdis_clipped":  # the same patients: what they share falls away
        narrow = sum(one.high - one.low for one in made[:20])
        assert narrow < sum(one.high - one.low for one in plain)


@pytest.mark.parametrize("name", WEIGHTED)
def test_the_clinicians_gain_nothing_on_themselves(name: str) -> None:
    record = logged(500, torch.Generator().manual_seed(1), policy=LOGGED)
    nothing = Values(torch.zeros_like(record.paid), torch.zeros_like(record.paid))
    found = ask(name, replace(record, values=nothing), gain=True)
    assert found.low <= 0 <= found.high
    if name not in ("magic", "pdis_clipped"):
        assert found.estimate == pytest.approx(0, abs=1e-12)


def test_a_bootstrap_of_magic_s_blend_would_not_hold_it() -> None:
    made = cohorts(100, 300, wrong=0.02)
    drawn = [Samples(2000, torch.Generator().manual_seed(k)) for k in range(100)]
    pairs = zip(made, drawn, strict=True)
    ends = [bca(magic.terms(one), 0.95, samples, 1.0) for one, samples in pairs]
    assert 31 <= sum(one.holds(TRUTH) for one in ends) <= 43  # 37 as measured


def test_no_estimator_wants_a_record_with_holes() -> None:
    record = logged(10, torch.Generator().manual_seed(8))
    with pytest.raises(EstimateError, match="ratio"):
        replace(record, ratio=record.ratio * torch.nan)
    with pytest.raises(EstimateError, match="after the end"):
        replace(record, paid=torch.ones_like(record.paid))
    with pytest.raises(ModelError, match="fitted values"):
        ask("dr", replace(record, values=None))


def test_support_is_what_it_says() -> None:
    record = logged(1000, torch.Generator().manual_seed(9))
    weight = record.weights[:, -1]
    support = Support.of(record)
    assert support.ess == pytest.approx(float(weight.sum() ** 2 / weight.square().sum()))
    assert support.max_weight == pytest.approx(float(weight.max() / weight.sum()))
    assert abs(support.mean_weight - 1) < 0.2
    assert float(FIRST.sum()) == pytest.approx(1)
