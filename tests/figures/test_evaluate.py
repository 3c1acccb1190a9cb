"""Figures of evaluation: any number of policies and quantities, the same bytes, nothing clipped."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from ogsrl.figures import evaluate as figures
from ogsrl.figures.style import CLINICIAN, POLICY, save_svg

POLICIES = ("clinicians", "selected", "ogsrl, seed 1, step_6000", "bc, seed 0", "td3bc, seed 2")
USUAL = {
    "mortality": 0.2,
    "value": 0.6,
    "cost:hypoxia": 0.07,
    "cost:oliguria": 0.03,
    "refusal": 0.02,
}
VOTERS = {"fqe": True, "pdis": False, "wis": False, "dr": True, "rollouts": False}


def estimates(
    policies: tuple[str, ...] = POLICIES,
    quantities: tuple[str, ...] = tuple(USUAL),
    known: bool = True,
) -> pd.DataFrame:
    """As evaluation.parquet; of the last policy nobody may say anything, `wis` says nothing."""
    rng, rows = np.random.default_rng(0), []
    for policy, quantity in itertools.product(policies, quantities):
        usual = USUAL[quantity]
        truth = usual * (1 + 0.1 * rng.normal())
        silent = policy == POLICIES[-1]
        for name, votes in {**VOTERS, "panel": True}.items():
            middle, half = truth + 0.05 * usual * rng.normal(), usual * (0.1 if votes else 0.6)
            heard = votes and not silent
            whole = not heard and name in ("panel", "wis")
            rows.append(
                {
                    "policy": policy,
                    "quantity": quantity,
                    "estimator": name,
                    "estimate": None if whole and name == "wis" else middle,
                    "lo": 0.0 if whole else middle - half,
                    "hi": 1.0 if whole else middle + half,
                    "level": 0.95,
                    "truth": truth if known else None,
                    "truth_se": 0.002 if known else None,
                    "covered": abs(middle - truth) < half if known else None,
                    "diagnosis": said(name, votes=heard),
                }
            )
    frame = pd.DataFrame(rows)
    numbers = ["estimate", "lo", "hi", "level", "truth", "truth_se"]
    return frame.astype({**dict.fromkeys(numbers, "float64"), "covered": "boolean"})


def said(name: str, *, votes: bool) -> str:
    if name == "panel":
        return "fqe, dr voted" if votes else "nobody may vote: anything is possible"
    return "votes: enough" if votes else "no vote: too few"


def bandwidths(policies: tuple[str, ...] = POLICIES[1:]) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    return pd.DataFrame(
        [
            {
                "policy": policy,
                "quantity": "mortality",
                "estimator": name,
                "bandwidth": h,
                "estimate": 0.2 + 0.01 * rng.normal(),
                "lo": 0.1,
                "hi": 0.3,
                "ess": 40 * h * (1 + rng.random()),
                "votes": h > 0.6,
            }
            for policy, name, h in itertools.product(policies, ("pdis", "wis"), (0.25, 0.5, 1.0))
        ]
    )


def plane(levels: bool = False) -> dict[str, Any]:
    """As `ogsrl.preparation.coverage.plane` makes it, of two doses."""
    edges = [-0.5, 0.5, 1.5, 2.5] if levels else np.linspace(0, 2000, 21).tolist()
    axis = {
        "label": "Intravenous fluid",
        "unit": "1" if levels else "mL/4 h",
        "zero_bin": not levels,
        "edges": edges,
        "levels": ["none", "some", "much"] if levels else [],
    }
    cells = [{"x": i, "y": i, "steps": 10**i, "patients": 10} for i in range(3)]
    both = {"x": axis | {"dose": "iv_fluid"}, "y": axis | {"dose": "vasopressor"}}
    return {**both, "cells": cells, "steps_suppressed": 7}


def shares(levels: bool = False) -> list[dict[str, Any]]:
    def bin_(share: float) -> dict[str, Any]:
        return {"policy": {"estimate": share, "lo": share / 2, "hi": 2 * share}, "clinicians": None}

    return [
        {
            "dose": "fluid",
            "label": "Fluid",
            "unit": "mL",
            "transform": "sqrt",
            "zero_bin": not levels,
            "edges": [-0.5, 0.5, 1.5]
            if levels
            else [float(x) for x in np.linspace(0, 45, 21) ** 2],
            "levels": ["none", "some"] if levels else [],
            "bins": [bin_(0.05)] * (2 if levels else 21),
        }
    ]


def calibrated(bins: int = 10) -> dict[str, Any]:
    said = {"estimate": 1.0, "lo": 0.9, "hi": 1.1}
    points = [
        {"predicted": 0.05 * i, "estimate": 0.05 * i, "lo": 0.04 * i, "hi": 0.06 * i + 0.01}
        for i in range(bins)
    ]
    return {"quantity": "mortality", "bins": points, "offset": said, "slope": said}


ASKED: dict[str, Any] = {
    "evaluate_panel": estimates(),
    "evaluate_truth": estimates(),
    "evaluate_frontier": bandwidths(),
    "evaluate_plane": {"clinicians": plane(), "policy": plane()},
    "evaluate_doses": dict.fromkeys(POLICIES[1:], shares()),
    "evaluate_calibration": calibrated(),
}
NOTHING: dict[str, Any] = {
    "evaluate_panel": estimates().iloc[:0],
    "evaluate_truth": estimates(known=False),
    "evaluate_frontier": bandwidths().iloc[:0],
    "evaluate_plane": {},
    "evaluate_doses": {},
    "evaluate_calibration": calibrated(0),
}


@pytest.mark.parametrize("name", list(figures.FIGURES))
def test_the_same_numbers_give_the_same_bytes(name: str, tmp_path: Path) -> None:
    before = dict(mpl.rcParams)
    paths = [tmp_path / f"{i}.svg" for i in range(2)]
    for path in paths:
        save_svg(figures.FIGURES[name](ASKED[name]), path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert dict(mpl.rcParams) == before


@pytest.mark.parametrize("name", list(figures.FIGURES))
def test_where_there_is_nothing_to_draw_a_sentence_stands(name: str) -> None:
    (axes,) = figures.FIGURES[name](NOTHING[name]).axes
    assert len(axes.texts) == 1
    assert not axes.lines


SMALL: dict[str, Any] = {
    "evaluate_panel": estimates(POLICIES[:2], ("mortality",)),
    "evaluate_truth": estimates(POLICIES[:1], ("value",)),
    "evaluate_frontier": bandwidths(POLICIES[1:2]),
    "evaluate_plane": {"clinicians": plane(levels=True), "policy": plane(levels=True)},
    "evaluate_doses": {"selected": shares() * 3},
    "evaluate_calibration": calibrated(1),
}


@pytest.mark.parametrize("asked", [ASKED, SMALL], ids=["usual", "small"])
@pytest.mark.parametrize("name", list(figures.FIGURES))
def test_nothing_that_is_written_overlaps_or_leaves_the_figure(
    name: str, asked: dict[str, Any]
) -> None:
    figure = figures.FIGURES[name](asked[name])
    whole = figure.bbox
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            texts = [label for label in axis.get_ticklabels() if label.get_text()]
            boxes = [text.get_window_extent() for text in texts if text.get_visible()]
            shown = [box for box in boxes if box.width and box.overlaps(axes.get_tightbbox())]
            for one, other in itertools.combinations(shown, 2):
                assert not one.overlaps(other), name
        assert axes.get_tightbbox().x0 >= whole.x0 - 1
        assert axes.get_tightbbox().x1 <= whole.x1 + 1
    for legend in figure.legends:
        box = legend.get_window_extent()
        assert box.x1 <= whole.x1 + 1
        assert not any(box.overlaps(axes.bbox) for axes in figure.axes)


def test_every_policy_and_quantity_has_its_place_in_the_panel() -> None:
    figure = figures.panel(ASKED["evaluate_panel"])
    assert [axes.get_title("left") for axes in figure.axes] == [
        "mortality",
        "value",
        "cost: hypoxia",
        "cost: oliguria",
        "refusal",
    ]
    assert [text.get_text() for text in figure.axes[0].texts] == list(POLICIES)
    rows = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert rows == ["panel", *VOTERS] * 5


def test_a_panel_of_one_policy_without_truth_can_be_drawn() -> None:
    figure = figures.panel(estimates(("clinicians",), ("value",), known=False))
    assert "truth" not in words(figure)
    assert "truth" in words(figures.panel(estimates(("clinicians",), ("value",))))


def test_an_interval_that_holds_anything_does_not_hide_the_others() -> None:
    frame = estimates(quantities=("mortality",))
    (axes,) = figures.panel(frame).axes
    low, high = axes.get_xlim()
    assert low > 0.1
    assert high < 0.35


def test_ordinal_doses_carry_their_levels() -> None:
    (axes,) = figures.FIGURES["evaluate_doses"]({"selected": shares(levels=True)}).axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["none", "some"]
    (axes,) = figures.FIGURES["evaluate_doses"]({"selected": shares()}).axes
    assert axes.get_xlabel() == "Fluid [mL]"
    assert axes.get_xticklabels()[0].get_text() == "none"


def test_clinicians_are_grey_and_the_first_policy_blue() -> None:
    colours = figures.policy_colours(POLICIES)
    assert colours["clinicians"] == CLINICIAN
    assert colours["selected"] == POLICY
    assert len(set(colours.values())) == len(POLICIES)


def words(figure: Figure) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]
