"""The report is plain numbers of validation patients, and is drawn from alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from ogsrl.dynamics.config import DynamicsParams
from ogsrl.dynamics.fitting import fit
from ogsrl.dynamics.report import describe
from ogsrl.figures.dynamics import FIGURES
from ogsrl.figures.style import save_svg
from ogsrl.preparation import PrepareParams, TrainingRows
from ogsrl.preparation import fit as fit_preparation
from ogsrl.preparation.tensors import stay_tensors
from ogsrl.sources.simulator import simulate
from ogsrl.spec.reader import load_cohort
from tests.dynamics.conftest import Line
from tests.dynamics.worlds import line_cohort, line_table, prepare

ROOT = Path(__file__).parents[2]
TINY = DynamicsParams(members=2, hidden=12, hidden_ends=8, max_epochs=4)


def plain(report: dict[str, Any]) -> dict[str, Any]:
    """As it is read back: JSON without a number that is none."""
    read: dict[str, Any] = json.loads(json.dumps(report, allow_nan=False))
    return read


def described(*tables: pd.DataFrame) -> dict[str, Any]:
    """The report of dynamics of training, calibration and validation patients."""
    cohort = load_cohort(ROOT / "data_contracts" / "sepsis.yaml")
    made = fit_preparation(TrainingRows.of(tables[0], cohort), cohort, PrepareParams())
    train, calibration, validation = (stay_tensors(made.apply(t), made) for t in tables)
    generator = torch.Generator().manual_seed(0)
    dynamics = fit(train, calibration, TINY, generator)
    return plain(describe(dynamics, train, validation, generator, starts=300, asked=60))


@pytest.fixture(scope="module")
def sepsis() -> dict[str, Any]:
    return described(*(simulate(n, seed) for n, seed in ((400, 1), (150, 2), (250, 3))))


@pytest.fixture(scope="module")
def of_line(line: Line) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    return plain(describe(line.dynamics, line.train, line.fresh, generator, starts=1500))


def test_every_question_of_the_issue_is_answered(sepsis: dict[str, Any]) -> None:
    assert sepsis["horizons"] == [1, 3, 6, 12]
    assert len(sepsis["columns"]) == 19
    cell = sepsis["columns"]["map"]["ahead"]["3"]
    assert set(cell["gain"]) == {"persistence", "linear", "direct"}
    assert set(sepsis["constraints"]) == {"hypoxia", "oliguria"}
    assert sepsis["constraints"]["hypoxia"]["slope"]["se"] > 0
    assert set(sepsis["ends"]) == {"death", "discharge", "late_death"}
    every = sepsis["other_doses"]["all"]
    assert every["ours"]["error"]["estimate"] < every["nearest neighbour"]["error"]["estimate"]
    assert sepsis["columns"]["spo2"]["charted_step"] == 1
    assert sepsis["columns"]["ph"]["charted_step"] == 0.01


def test_death_is_told_from_discharge_unless_ends_are_others(sepsis: dict[str, Any]) -> None:
    area, rng = sepsis["ends_apart"], np.random.default_rng(0)
    assert area["estimate"] - 3 * area["se"] > 0.5
    tables = [simulate(n, seed) for n, seed in ((400, 1), (150, 2), (250, 3))]
    for table in tables:
        rows = table.index[table["end"].isin(["death", "discharge"])]
        other = rng.permutation(rows)
        for name in ("end", "died"):
            table.loc[rows, name] = table.loc[other, name].to_numpy()
    shuffled = described(*tables)
    area = shuffled["ends_apart"]
    assert abs(area["estimate"] - 0.5) < 3 * area["se"]
    assert shuffled["ends"]["discharge"]["auroc"]["estimate"] > 0.6, "that a stay ends is told"


def test_a_linear_worlds_report_says_what_is_true(of_line: dict[str, Any]) -> None:
    assert of_line["other_doses"] is None
    x = of_line["columns"]["x"]
    assert x["intervals"]["within"]["0.9"]["estimate"] == pytest.approx(0.9, abs=0.015)
    assert x["intervals"]["score_sd"] == pytest.approx(1, abs=0.04)
    assert x["ahead"]["1"]["gain"]["persistence"]["estimate"] > 0.1
    assert of_line["constraints"]["low"]["slope"]["estimate"] == pytest.approx(1, abs=0.1)
    assert of_line["ends"]["death"]["slope"]["estimate"] == pytest.approx(1, abs=0.25)
    assert of_line["ends"]["late_death"] is None  # nobody died after leaving
    assert of_line["codes"]["flag"]["auroc"]["estimate"] > 0.9


def test_the_same_report_twice(line: Line, of_line: dict[str, Any]) -> None:
    generator = torch.Generator().manual_seed(0)
    again = plain(describe(line.dynamics, line.train, line.fresh, generator, starts=1500))
    assert again == of_line


def test_few_validation_patients_are_a_status() -> None:
    stays = prepare(line_table(150, 1), line_cohort())
    few = prepare(line_table(9, 2), line_cohort(), fitted=stays.history.preparation)
    generator = torch.Generator().manual_seed(0)
    report = describe(fit(stays, None, TINY, generator), stays, few, generator)
    assert report == {"status": "too_few_validation_patients", "needed": 10}


def test_a_small_validation_part_is_told_without_small_cells() -> None:
    stays = prepare(line_table(150, 1), line_cohort())
    small = prepare(line_table(25, 2), line_cohort(), fitted=stays.history.preparation)
    generator = torch.Generator().manual_seed(0)
    report = plain(describe(fit(stays, None, TINY, generator), stays, small, generator))
    assert report["ends"]["death"]["slope"] is None
    assert report["ends"]["death"]["events"] is None
    for draw in FIGURES.values():
        draw(report)


def test_a_report_of_twelve_patients_has_no_cell_of_fewer_than_ten() -> None:
    stays = prepare(line_table(150, 1), line_cohort())
    table = line_table(12, 3)
    few = prepare(table[table["step"] < 2], line_cohort(), 1, stays.history.preparation)
    generator = torch.Generator().manual_seed(0)
    report = plain(describe(fit(stays, None, TINY, generator), stays, few, generator, starts=100))
    for column in report["columns"].values():
        told = column["intervals"]
        assert told["places"] in ([], [{"below": 1.0, "share": 1.0}])
        assert told["within"] == {}  # one to nine patients have a value outside
    assert len(report["disagreement"]["deciles"]) <= 2
    for draw in FIGURES.values():
        draw(report)


def test_deciles_and_places_are_told_apart_where_there_are_patients(
    of_line: dict[str, Any],
) -> None:
    assert len(of_line["disagreement"]["deciles"]) == 10
    places = of_line["columns"]["x"]["intervals"]["places"]
    assert [cell["below"] for cell in places] == pytest.approx([i / 10 for i in range(1, 11)])
    assert sum(cell["share"] for cell in places) == pytest.approx(1)
    assert all(0.05 < cell["share"] < 0.15 for cell in places)


def test_figures_are_drawn_from_the_report_alone_and_are_the_same_bytes(
    sepsis: dict[str, Any], of_line: dict[str, Any], tmp_path: Path
) -> None:
    for report in (sepsis, of_line):
        for name, draw in FIGURES.items():
            for copy in ("a", "b"):
                save_svg(draw(report), tmp_path / f"{name}_{copy}.svg")
            one, other = (tmp_path / f"{name}_{copy}.svg" for copy in ("a", "b"))
            assert one.read_bytes() == other.read_bytes()


def test_figures_of_a_cohort_without_constraints() -> None:
    table = line_table(150, 1)
    table.loc[table["end"] == "death", "end"] = "discharge"
    table["died"] = table["died"].where(table["died"].isna(), other=False)
    cohort = line_cohort(constraints={}, outcome=None, reward={"step": "x > 0"})
    stays = prepare(table, cohort)
    generator = torch.Generator().manual_seed(0)
    report = plain(describe(fit(stays, None, TINY, generator), stays, stays, generator))
    assert report["ends"]["death"] is None
    for draw in FIGURES.values():
        draw(report)


def test_a_cohort_of_short_stays_is_reported_as_far_as_they_last() -> None:
    table = line_table(400, 5)
    short = table[table["step"] < 4].reset_index(drop=True)
    short.loc[short.groupby("stay_id").tail(1).index, "end"] = "censored"
    stays = prepare(short, line_cohort())
    generator = torch.Generator().manual_seed(0)
    dynamics = fit(stays, stays, TINY, generator)
    assert describe(dynamics, stays, stays, generator, starts=200)["horizons"] == [1, 3]
