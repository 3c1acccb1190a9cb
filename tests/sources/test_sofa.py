"""SOFA: every boundary, what helps and what is unknown."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ogsrl.sources.sofa import PARTS, READ, sofa, total


def scored(part: str, **known: float) -> float:
    rows = {name: np.array([known.get(name, np.nan)]) for name in READ}
    return float(sofa(rows)[part][0])


@pytest.mark.parametrize(
    ("part", "name", "points"),
    [
        (
            "coagulation",
            "platelets",
            {150: 0, 149.9: 1, 100: 1, 99.9: 2, 50: 2, 49: 3, 20: 3, 19: 4},
        ),
        ("liver", "bilirubin", {1.19: 0, 1.2: 1, 1.95: 1, 2.0: 2, 5.99: 2, 6: 3, 11.95: 3, 12: 4}),
        ("consciousness", "gcs", {15: 0, 14: 1, 13: 1, 12: 2, 10: 2, 9: 3, 6: 3, 5: 4, 3: 4}),
        ("kidney", "creatinine", {1.19: 0, 1.2: 1, 1.95: 1, 2: 2, 3.49: 2, 3.5: 3, 4.95: 3, 5: 4}),
        ("kidney", "urine_day", {500: 0, 499: 3, 200: 3, 199: 4, 0: 4}),
        ("circulation", "map", {70: 0, 69.9: 1, 20: 1}),
        ("circulation", "dopamine", {0.5: 2, 5: 2, 5.1: 3, 15: 3, 15.1: 4}),
        ("circulation", "pressors", {0.01: 3, 0.1: 3, 0.11: 4}),
    ],
)
def test_boundaries_have_no_holes(part: str, name: str, points: dict[float, int]) -> None:
    for value, score in points.items():
        assert scored(part, **{name: value}) == score, value


@pytest.mark.parametrize("ventilated", [0.0, 1.0, np.nan])
def test_only_a_ventilated_patient_has_more_than_two_points_for_breathing(
    ventilated: float,
) -> None:
    helped = ventilated == 1
    of = {400: 0, 399: 1, 300: 1, 299: 2, 200: 2, 199: 3 if helped else 2, 99: 4 if helped else 2}
    for ratio, score in of.items():
        assert scored("respiration", pf_ratio=ratio, ventilated=ventilated) == score, ratio


def test_no_pressor_and_a_good_pressure_is_no_point() -> None:
    assert scored("circulation", map=80, pressors=0, dopamine=0) == 0
    assert np.isnan(scored("circulation", pressors=0.0))


def test_the_worse_of_creatinine_and_urine_counts() -> None:
    assert scored("kidney", creatinine=1.0, urine_day=100) == 4
    assert scored("kidney", creatinine=5.0, urine_day=2_000) == 4


@given(st.dictionaries(st.sampled_from(READ), st.floats(0, 800)))
def test_the_score_is_between_0_and_24_and_unknown_only_of_nobody_known(
    known: dict[str, float],
) -> None:
    rows = {name: np.array([known.get(name, np.nan)]) for name in READ}
    parts = sofa(rows)
    score = total(parts)[0]
    assert tuple(parts) == PARTS
    assert np.isnan(score) or 0 <= score <= 24
    assert np.isnan(score) == all(np.isnan(parts[name][0]) for name in PARTS)
