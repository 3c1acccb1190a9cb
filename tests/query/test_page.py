"""The page of a stay says what is meant: shares in percent, values as they are, gaps as gaps."""

from __future__ import annotations

import re
from dataclasses import replace

import pandas as pd
import pytest

from ogsrl.query.answer import ask
from ogsrl.query.model import Model
from ogsrl.query.page import stay_page


@pytest.fixture(scope="module")
def stay(rows: pd.DataFrame) -> pd.DataFrame:
    """One stay."""
    return rows[rows["stay_id"] == rows["stay_id"].iloc[0]].reset_index(drop=True)


@pytest.fixture(scope="module")
def answers(model: Model, stay: pd.DataFrame) -> pd.DataFrame:
    """To it."""
    return ask(model, stay)


def cells(page: str) -> str:
    """The page's table, without the figure."""
    return page[page.index("<tbody>") : page.index("</tbody>")]


def test_a_value_is_a_number_and_a_share_is_in_percent(
    model: Model, stay: pd.DataFrame, answers: pd.DataFrame
) -> None:
    assert model.predictions is not None
    names = tuple("value" if q == "mortality" else q for q in model.predictions.names)
    deathless = replace(model, predictions=replace(model.predictions, names=names))
    told = answers.rename(columns=lambda name: name.replace("p_death", "value"))
    told = told.assign(value=-3.2, value_lo=-400.0, value_hi=-2.0, cost_hypoxia=0.25)
    page = cells(stay_page(deathless, stay, told, "s"))
    assert page.count("-3.2 (-400 to -2)") == len(stay)
    assert page.count("25.0% (") == len(stay)
    assert not re.search(r"-\d[\d.,]*%", page)


def test_what_is_not_predicted_is_not_known(
    model: Model, stay: pd.DataFrame, answers: pd.DataFrame
) -> None:
    told = answers.assign(p_death=None, clinician_cost_hypoxia_hi=None)
    assert cells(stay_page(model, stay, told, "s")).count("not known") == 2 * len(stay)


def test_where_it_defers_the_clinician_decides_and_zero_is_a_recommendation(
    model: Model, stay: pd.DataFrame, answers: pd.DataFrame
) -> None:
    told = answers.assign(verdict="recommend", dose_iv_fluid=0.0, dose_vasopressor=0.1)
    doses = ["dose_iv_fluid", "dose_vasopressor"]
    told.loc[told.index[:2], "verdict"] = "defer"
    told.loc[told.index[:2], doses] = None
    page = cells(stay_page(model, stay, told, "s"))
    assert page.count("the clinician decides") == 2 * len(doses)
    assert page.count("<b>0</b>") == page.count("<b>0.1</b>") == len(stay) - 2
    assert "no dose" not in page
