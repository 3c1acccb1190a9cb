"""The report of a cohort of levels: counts are measured, and promise nothing."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure

from ogsrl.figures.guardian import FIGURES
from ogsrl.guardian.christoffel import ChristoffelGuardian
from ogsrl.guardian.columns import Layout
from ogsrl.guardian.config import GuardianParams
from ogsrl.guardian.counts import Counts
from ogsrl.guardian.protocol import Rows
from ogsrl.guardian.report import describe, fit_peers
from ogsrl.preparation.tensors import StayTensors, stay_tensors
from tests.guardian.cohorts import planted

ALPHA = GuardianParams().alpha


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def passed(report: dict[str, Any]) -> dict[str, bool | None]:
    return {check["name"]: check["passed"] for check in report["checks"]}


def wards(patients: int, seed: int) -> tuple[StayTensors, pd.DataFrame]:
    """Prepared stays of a cohort of one categorical state and an ordinal dose."""
    preparation = planted(
        {"ward": {"kind": "categorical", "levels": ["a", "b", "c"]}},
        {"drug": {"kind": "ordinal", "levels": ["none", "low", "high"]}},
        subgroups={"ward": {"column": "ward"}},
    ).preparation
    rng = np.random.default_rng(seed)
    rows = 5 * patients
    names = [f"P{i // 5}" for i in range(rows)]
    ward = np.repeat(rng.integers(0, 3, patients), 5).astype(float)
    drug = np.where(rng.random(rows) < 0.03, (ward + 1) % 3, ward)
    last = np.arange(rows) % 5 == 4
    prepared = pd.DataFrame(
        {
            "patient_id": names,
            "stay_id": names,
            "step": np.arange(rows) % 5,
            "site": None,
            "end": np.where(last, "discharge", None),
            "died": None,
            "ward": ward.astype(np.float32),
            "drug": preparation.doses["drug"].forward(drug),
            "given_drug": drug,
            "reward": 0.0,
        }
    )
    return stay_tensors(prepared, preparation), prepared


@pytest.fixture(scope="module")
def counted() -> dict[str, Any]:
    return report_of_counts(10)


def report_of_counts(least: int) -> dict[str, Any]:
    (train, _), (calibration, _), (validation, frame) = (wards(n, n) for n in (900, 300, 301))
    params = GuardianParams(min_stays=least, usual="density")  # peers are given no density
    rows, asked = Rows.of(train), Rows.of(calibration)
    guardian = Counts.fit([rows], Layout.of(train.history), params, generator())
    guardian = guardian.calibrate(asked.states, asked.doses, asked.patient, ALPHA)
    peers = fit_peers(guardian, rows, asked, params, generator())
    assert isinstance(peers.pop("christoffel"), ChristoffelGuardian)
    assert peers == dict.fromkeys(("kde", "neighbours"), "levels have no distance")
    found = describe(guardian, peers, rows, validation, frame, generator())
    json.dumps(found, allow_nan=False)
    return found


def test_a_cohort_of_levels_is_reported_too(counted: dict[str, Any]) -> None:
    assert counted["false_alarm"]["steps"]["estimate"] < 0.05
    powers = counted["power"]["departures"]
    assert powers["sicker_than_seen"]["status"] == "not evaluable"
    assert powers["random_doses"]["power"]["counts"]["estimate"] > 0.2
    assert counted["power"]["by_rarity"] is None
    assert counted["region"] is None


def test_a_rule_by_counts_is_measured_and_promises_nothing(counted: dict[str, Any]) -> None:
    assert counted["alpha"] is counted["false_alarm"]["alpha"] is None
    assert counted["false_alarm"]["prediction_bound"] is None
    assert counted["members"]["counts"]["promises"] is False
    assert 0 <= counted["calibration"]["share"] < 0.05
    assert passed(counted) == {"share refused": True, "power": True}


def test_counts_that_refuse_nearly_everything_fail(counted: dict[str, Any]) -> None:
    found = report_of_counts(800)
    assert found["false_alarm"]["steps"]["estimate"] > 0.9
    assert passed(found) == {"share refused": False, "power": False}


@pytest.mark.parametrize("name", list(FIGURES))
def test_no_figure_draws_a_promise_that_nobody_made(name: str, counted: dict[str, Any]) -> None:
    figure = FIGURES[name](counted)
    assert figure.axes
    assert "promised:" not in words(figure)
    assert "dashed" not in words(figure)
    assert not any(line.get_linestyle() == "--" for axes in figure.axes for line in axes.lines)


def words(figure: Figure) -> str:
    texts = " ".join(text.get_text() for axes in figure.axes for text in axes.texts)
    return texts + "".join(axes.get_xlabel() + axes.get_title() for axes in figure.axes)
