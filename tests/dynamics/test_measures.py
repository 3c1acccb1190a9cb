"""Measures equal their textbook values, and their errors are over patients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from ogsrl.dynamics.calibration import platt
from ogsrl.dynamics.measures import auroc, chance_report, gain, of_many, pooled, share, tellable


def drawn(n: int, slope: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Chances, and what came about when the logit should have been `slope` times theirs."""
    rng = np.random.default_rng(seed)
    logit = rng.normal(-2, 1, n)
    truth = rng.random(n) < 1 / (1 + np.exp(-slope * logit))
    return torch.from_numpy(1 / (1 + np.exp(-logit))), torch.from_numpy(truth)


@pytest.mark.parametrize("slope", [0.6, 1.0, 1.5])
def test_the_slope_of_a_chance_is_found_within_its_error(slope: float) -> None:
    chance, truth = drawn(20_000, slope)
    told = chance_report(chance, truth, torch.arange(len(truth)))["slope"]
    assert told["estimate"] == pytest.approx(slope, abs=4 * told["se"])
    assert 0.005 < told["se"] < 0.05


def test_the_area_under_the_curve_is_sklearns() -> None:
    chance, truth = drawn(3000, 1.0)
    chance = (chance * 50).round() / 50  # ties
    told = auroc(chance, truth)
    assert told is not None
    assert told["estimate"] == pytest.approx(roc_auc_score(truth.numpy(), chance.numpy()))


def test_repeating_every_patients_rows_makes_nothing_surer() -> None:
    chance, truth = drawn(2000, 1.0)
    patient = torch.arange(2000)
    once = chance_report(chance, truth, patient)
    often = chance_report(chance.repeat(5), truth.repeat(5), patient.repeat(5))
    assert often["slope"]["se"] == pytest.approx(once["slope"]["se"], rel=1e-3)
    assert often["observed"]["se"] == pytest.approx(once["observed"]["se"], rel=1e-6)
    squares = chance.square()
    assert gain(squares.repeat(5), 2 * truth.repeat(5), patient.repeat(5)).se == pytest.approx(
        gain(squares, 2 * truth, patient).se
    )


def test_a_prior_keeps_the_slope_of_few_events_near_one() -> None:
    chance, truth = drawn(1500, 1.5)
    assert abs(platt(chance, truth, 0.1)[0] - 1) < 0.5 * abs(platt(chance, truth)[0] - 1)


def test_few_events_have_no_slope_and_no_cell() -> None:
    chance = torch.linspace(0.01, 0.2, 400)
    truth = torch.zeros(400, dtype=torch.bool)
    truth[:7] = True
    told = chance_report(chance, truth, torch.arange(400))
    assert (told["slope"], told["auroc"], told["curve"], told["events"]) == (None, None, [], None)


def test_the_share_of_a_few_long_stays_is_less_sure() -> None:
    hits = torch.rand(1000, generator=torch.Generator().manual_seed(0)) < 0.3
    same = hits[:100].repeat_interleave(10)
    assert (
        share(same, torch.arange(100).repeat_interleave(10))["se"]
        > 2 * (share(hits, torch.arange(1000))["se"])
    )


def test_a_chance_that_is_the_same_for_all_has_no_slope() -> None:
    truth = torch.arange(3000) % 30 == 0
    found = chance_report(torch.full((3000,), 1 / 30), truth, torch.arange(3000) // 3)
    assert found["slope"] is None
    assert found["auroc"]["estimate"] == pytest.approx(0.5)


def test_a_share_of_few_events_is_not_shown_beside_their_hidden_count() -> None:
    truth = torch.arange(600) < 4
    found = chance_report(torch.linspace(0.1, 0.01, 600), truth, torch.arange(600))
    assert (found["events"], found["observed"], found["brier"]) == (None, None, None)


def test_many_events_of_one_patient_are_told_nowhere() -> None:
    patient, chance = torch.arange(400) // 25, torch.linspace(0.6, 0.01, 400)
    of_one = chance_report(chance, patient == 0, patient)
    for name in ("events", "auroc", "brier", "observed", "slope", "offset"):
        assert of_one[name] is None
    assert of_one["curve"] == []
    assert chance_report(chance, patient != 0, patient)["observed"] is None  # nor who has none
    of_all = chance_report(chance, torch.arange(400) % 25 == 0, patient)
    assert of_all["events"] == 16
    assert of_all["observed"]["estimate"] == pytest.approx(1 / 25)


def test_nothing_is_told_of_three_patients_without_an_event() -> None:
    patient = torch.arange(45) // 15
    found = chance_report(torch.linspace(0.01, 0.2, 45), torch.zeros(45), patient)
    assert {found[name] for name in ("events", "brier", "predicted", "observed")} == {None}


def test_bins_of_a_curve_hold_every_row_and_events_of_none_or_of_many() -> None:
    chance, truth = drawn(400, 1.0)
    patient = torch.arange(400) // 2
    curve = chance_report(chance, truth, patient)["curve"]
    assert 2 <= len(curve) < 10  # the lowest tenths have too few events
    cells = pooled(
        torch.argsort(chance, stable=True).tensor_split(10),
        lambda rows: tellable(truth[rows], patient[rows]),
    )
    assert sum(len(rows) for rows in cells) == 400
    assert [cell["estimate"] for cell in curve] == pytest.approx(
        [float(truth[rows].double().mean()) for rows in cells]
    )
    for rows in cells:
        for side in (truth[rows], ~truth[rows]):
            people = len(torch.unique(patient[rows][side]))
            assert people == 0 or people >= 10


def test_what_is_left_over_joins_the_last_cell_or_all_is_untold() -> None:
    cells = [rows.clone() for rows in torch.arange(40).split(12)]  # 12, 12, 12, 4
    assert [len(rows) for rows in pooled(cells, of_many)] == [12, 12, 16]
    assert pooled([torch.arange(4)], of_many) == []
