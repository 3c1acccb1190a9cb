"""Figures draw aggregates only, the same bytes for the same numbers, on any cohort."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest

from benchmarks._tables import random_table, wide_cohort
from ogsrl.figures import dataset as figures
from ogsrl.figures.style import CLINICIAN, ORANGE, POLICY, save_svg, too_few
from ogsrl.preparation import PrepareParams, TrainingRows, fit
from ogsrl.preparation.quality import describe
from ogsrl.spec import Cohort


def dataset(cohort: Cohort, patients: int = 120) -> dict[str, Any]:
    rows = TrainingRows.of(random_table(cohort, patients, 0), cohort)
    found = describe(
        rows,
        fit(rows, cohort, PrepareParams()),
        PrepareParams(),
        np.random.default_rng(0),
        attrition=[{"step": "in the source", "patients": patients, "stays": patients, "rows": 1}],
        parts={"train": {"patients": patients, "stays": patients, "rows": 1}},
    )
    return json.loads(json.dumps(found, allow_nan=False))


def glucose(doses: int) -> Cohort:
    kinds = [
        {"unit": "U", "bounds": [0, 10]},
        {"unit": "1", "kind": "ordinal", "levels": ["none", "low", "high"]},
        {"unit": "mg", "bounds": [0, 2], "zero_inflated": True},
    ]
    return Cohort.model_validate(
        {
            "name": "glucose",
            "version": 1,
            "time_step_hours": 1,
            "max_steps": 12,
            "discount": 1,
            "source": {"kind": "table"},
            "observations": {"glucose": {"unit": "mg/dL", "plausible": [20, 600]}},
            "actions": {f"dose_{i}": kinds[i] for i in range(doses)},
            "reward": {"step": "glucose > 70 and glucose < 180"},
            "guardian": {"columns": ["glucose"]},
        }
    )


@pytest.fixture(scope="module")
def wide() -> dict[str, Any]:
    return dataset(wide_cohort(20))


@pytest.mark.parametrize("name", list(figures.FIGURES))
def test_the_same_numbers_give_the_same_bytes(
    name: str, wide: dict[str, Any], tmp_path: Path
) -> None:
    figure = figures.FIGURES[name](wide)
    paths = [tmp_path / f"{i}.svg" for i in range(3)]
    for path, drawn in zip(paths, (figure, figure, figures.FIGURES[name](wide)), strict=True):
        save_svg(drawn, path)
    assert len({path.read_bytes() for path in paths}) == 1
    assert b"<dc:date>" not in paths[0].read_bytes()
    assert str(tmp_path).encode() not in paths[0].read_bytes()


@pytest.mark.parametrize("doses", [1, 2, 3])
def test_a_cohort_without_deaths_or_constraints_can_be_drawn(doses: int, tmp_path: Path) -> None:
    found = dataset(glucose(doses))
    for name, draw in figures.FIGURES.items():
        save_svg(draw(found), tmp_path / f"{name}.svg")
    assert len(list(tmp_path.iterdir())) == len(figures.FIGURES)


def test_a_cohort_too_small_to_show_anything_can_be_drawn(tmp_path: Path) -> None:
    found = dataset(glucose(2), patients=4)
    assert found["status"] == "too_few_patients"
    save_svg(too_few(found["smallest_cell"]), tmp_path / "figure.svg")
    for draw in figures.FIGURES.values():
        save_svg(draw(dataset(glucose(2), patients=16)), tmp_path / "figure.svg")


def test_drawing_leaves_no_global_state(wide: dict[str, Any]) -> None:
    before = dict(mpl.rcParams)
    for draw in figures.FIGURES.values():
        draw(wide)
    assert dict(mpl.rcParams) == before


def test_axes_carry_units_and_text_does_not_overlap(wide: dict[str, Any]) -> None:
    for draw in figures.FIGURES.values():
        figure = draw(wide)
        figure.canvas.draw()
        for axes in figure.axes:
            for axis in (axes.xaxis, axes.yaxis):
                boxes = [
                    label.get_window_extent()
                    for label in axis.get_ticklabels()
                    if label.get_text() and not label.get_rotation()
                ]
                for i, box in enumerate(boxes):
                    assert not any(box.overlaps(other) for other in boxes[i + 1 :]), figure
    plane = figures.dataset_dose_plane(wide).axes[0]
    assert plane.get_xlabel() == "fluid [mL]"


def test_colours_differ_in_lightness_too() -> None:
    def lightness(colour: str) -> float:
        red, green, blue = mpl.colors.to_rgb(colour)
        return 0.299 * red + 0.587 * green + 0.114 * blue

    used = [CLINICIAN, POLICY, ORANGE]
    values = sorted(map(lightness, used))
    assert min(np.diff(values)) > 0.05
