"""Intervals, reliability and mean weights tell a right policy from a wrong one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from ogsrl.behaviour.decisions import Decisions
from ogsrl.behaviour.distribution import Tempered
from ogsrl.behaviour.measures import (
    bands_of,
    log_probs,
    over_patients,
    ratio_by_step,
    reliability,
    reliability_by_band,
)
from ogsrl.behaviour.policy import Behaviour
from ogsrl.behaviour.report import describe
from ogsrl.figures.behaviour import FIGURES
from ogsrl.figures.style import save_svg
from tests.behaviour.conftest import Planted


def test_rows_of_one_patient_count_as_one() -> None:
    values = torch.randn(50, generator=torch.Generator().manual_seed(0)).repeat_interleave(4)
    together = over_patients(values, torch.arange(50).repeat_interleave(4))
    apart = over_patients(values, torch.arange(200))
    assert together["se"] == pytest.approx(2 * (apart["se"] or 0), rel=0.02)
    assert over_patients(values, torch.zeros(200))["estimate"] is None


def test_mean_weights_are_one_under_b_and_not_under_another(
    neural: Behaviour, cohort: Planted
) -> None:
    plain = cohort.decisions
    drawn = Decisions(
        plain.states,
        neural.sample(plain.states, torch.Generator().manual_seed(3)),
        plain.last,
        torch.zeros_like(plain.step),
        plain.patient,
    )
    b, pi = log_probs(neural, drawn), log_probs(Tempered(neural, 1.5), drawn)
    right, wrong = ratio_by_step(pi, b, drawn)[0], ratio_by_step(b, pi, drawn)[0]
    assert abs(right["estimate"] - 1) < 3 * right["se"]
    assert wrong["estimate"] > 1 + 10 * wrong["se"]
    assert 1 < right["effective"] < len(drawn)


def test_a_policy_that_never_gives_the_dose_has_no_weight(cohort: Planted) -> None:
    decisions = cohort.decisions
    never = torch.full((len(decisions),), -torch.inf)
    steps = ratio_by_step(never, torch.zeros(len(decisions)), decisions)
    assert [step["estimate"] for step in steps] == [0.0] * 6
    assert [step["effective"] for step in steps] == [0.0] * 6
    unknown = ratio_by_step(torch.zeros(len(decisions)), never, decisions)
    assert [step["rows"] for step in unknown] == [0] * 6


def test_fewer_than_ten_patients_are_not_told_of(cohort: Planted) -> None:
    few = cohort.decisions.where(cohort.decisions.patient < 9)
    logs = torch.zeros(len(few))
    steps = ratio_by_step(logs, logs, few)
    assert all(step["estimate"] is None and step["rows"] is None for step in steps)
    found = reliability(torch.rand(90), torch.rand(90) < 0.5, torch.arange(90) % 9)
    assert found["error"] is None
    assert found["bins"] == []


def test_a_bin_is_told_of_ten_patients_with_the_dose_and_ten_without() -> None:
    maker = torch.Generator().manual_seed(1)
    chance = 0.02 * torch.rand(3_000, generator=maker)
    happened = torch.rand(3_000, generator=maker) < chance
    patient = torch.arange(3_000) // 3
    found = reliability(chance, happened, patient)
    assert 0 < int(happened.sum()) < 60
    assert 1 < len(found["bins"]) < 10, "bins of few events are joined, not all are one"
    assert found["rows"] == sum(b["rows"] for b in found["bins"]) == 3_000
    for flipped in (False, True):
        bins = reliability(chance, happened ^ flipped, patient)["bins"]
        events = [
            round((1 - b["estimate"] if flipped else b["estimate"]) * b["rows"]) for b in bins
        ]
        assert sum(events) == int(happened.sum())
        assert all(count == 0 or count >= 10 for count in events)
    one = reliability(chance, patient == 7, patient)
    assert one["bins"] == []
    assert one["error"] is None
    assert one["rows_suppressed"] == 3_000
    never = reliability(chance, torch.zeros(3_000, dtype=torch.bool), patient)
    assert [b["estimate"] for b in never["bins"]] == [0.0] * 10


def test_reliability_of_the_truth_is_small_and_of_a_bold_policy_large() -> None:
    maker = torch.Generator().manual_seed(0)
    chance = torch.rand(20_000, generator=maker)
    happened = torch.rand(20_000, generator=maker) < chance
    patient = torch.arange(20_000) // 10
    assert reliability(chance, happened, patient)["error"] < 0.015
    bold = torch.where(chance > 0.5, 1 - 0.3 * (1 - chance), 0.3 * chance)
    assert reliability(bold, happened, patient)["error"] > 0.1


def test_bands_of_a_dose_are_all_there_is(behaviour: Behaviour, cohort: Planted) -> None:
    marginal, decisions = behaviour.marginal, cohort.decisions
    each = behaviour.distribution(decisions.states).given(decisions.doses)
    names = {"fluid": (), "care": ("ward", "step-down", "intensive")}
    for j, (grid, logs) in enumerate(zip(marginal.grids, marginal.log_weights, strict=True)):
        bands = bands_of(grid, logs, names[grid.name])
        sums = sum(band.probability(each[grid.name]) for band in bands)
        assert torch.allclose(torch.as_tensor(sums), torch.ones(len(decisions)), atol=1e-4)
        inside = sum(band.contains(grid, decisions.doses[:, j]).long() for band in bands)
        assert bool((torch.as_tensor(inside) == 1).all())


def test_the_fitted_policy_is_calibrated_by_band(behaviour: Behaviour, cohort: Planted) -> None:
    marginal = behaviour.marginal
    bands = {
        grid.name: bands_of(grid, logs, ("ward", "step-down", "intensive"))
        for grid, logs in zip(marginal.grids, marginal.log_weights, strict=True)
    }
    found = reliability_by_band(behaviour, cohort.decisions, bands)
    assert [len(each) for each in found.values()] == [5, 3]
    assert max(band["error"] for each in found.values() for band in each) < 0.04


@pytest.fixture(scope="module")
def report(neural: Behaviour, cohort: Planted) -> dict[str, Any]:
    others = {"marginal": neural.marginal, "tempered": Tempered(neural, 1.5)}
    made = describe(neural, Decisions.of(cohort.train), cohort.decisions, others)
    again: dict[str, Any] = json.loads(json.dumps(made, allow_nan=False))
    return again


def test_the_report_holds_likelihoods_with_intervals(report: dict[str, Any]) -> None:
    gain = report["likelihood"]["baselines"]["persistence"]["gain"]
    assert 0 < gain["lo"] < gain["estimate"] < gain["hi"]
    assert report["calibration_error"] < 0.04
    assert set(report["ratio"]["policies"]) == {"marginal", "tempered"}
    assert report["doses"]["fluid"]["never"] == []
    assert sum(report["doses"]["care"]["training_shares"].values()) == pytest.approx(1)


def test_nine_patients_are_too_few_to_report(neural: Behaviour, cohort: Planted) -> None:
    few = cohort.decisions.where(cohort.decisions.patient < 9)
    nine = Behaviour(
        neural.history,
        neural.params,
        "fitted",
        {**neural.patients, "validation": None},
        neural.likelihoods,
        neural.fitted,
    )
    told = describe(nine, Decisions.of(cohort.train), few, {})
    assert told["status"] == "too_few_to_report"
    assert "likelihood" not in told
    assert told["patients"]["validation"] is None


@pytest.mark.parametrize("name", list(FIGURES))
def test_figures_are_the_same_bytes(name: str, report: dict[str, Any], tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.svg" for i in range(2)]
    for path in paths:
        save_svg(FIGURES[name](report), path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    few = json.loads(json.dumps(report))
    few["ratio"]["policies"] = {}
    for bands in few["reliability"].values():
        for band in bands:
            band.update(error=None, bins=[])
    save_svg(FIGURES[name](few), tmp_path / "few.svg")
