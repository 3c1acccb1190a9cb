"""Up to which Gamma a word is said of the whole stay, and from which it no longer is."""

from __future__ import annotations

from typing import Any

import pytest

from ogsrl.evaluation.confounding import Bounds, Confounding
from ogsrl.evaluation.panel import Panel
from ogsrl.evaluation.sensitivity import Recorded, Tipping, Widening

GAMMAS = (1.0, 1.1, 1.25, 2.0)


def told(low: float, high: float, sign: int = -1) -> dict[str, Any]:
    """Of a gain with this interval, which a Gamma widens by what it is above 1."""
    gain = Panel((low + high) / 2, low, high, 0.95, ("fqe",), "")
    widening = {gamma: Widening(gamma - 1, gamma - 1) for gamma in GAMMAS}
    bounds = Bounds(gain, gain, widening, -5.0, 5.0)
    first = Tipping("better", 1.03, 1.04, 10.0)
    made = Confounding("selected", sign, bounds, bounds, first, Recorded((), 0, None)).plain()
    return {name.removeprefix("selected.sensitivity."): value for name, value in made.items()}


@pytest.mark.parametrize(
    ("low", "high", "withstood", "lost"),
    [
        (-0.3, -0.05, 1.0, 1.1),  # lost at the first asked
        (-0.3, -0.15, 1.1, 1.25),
        (-3.0, -1.5, 2.0, None),  # never lost
        (0.15, 0.3, 1.1, 1.25),  # `worse` tips as `better` does
        (-0.1, 0.1, None, None),  # nothing is said
    ],
)
def test_what_is_withstood_is_where_the_word_is_still_said(
    low: float, high: float, withstood: float | None, lost: float | None
) -> None:
    found = told(low, high)
    assert found["whole_stay.withstood_gamma"] == withstood
    assert found["whole_stay.tipping_gamma"] == lost
    word = found["whole_stay.gamma_1.gain.word"]
    for gamma, key in zip(GAMMAS, ("1", "1_1", "1_25", "2"), strict=True):
        still = found[f"whole_stay.gamma_{key}.gain.word"] == word
        assert still == (withstood is None or gamma <= withstood)


def test_of_the_first_dose_both_gammas_are_told() -> None:
    found = told(-0.3, -0.05)
    assert found["first_dose.withstood_gamma"] == 1.03
    assert found["first_dose.tipping_gamma"] == 1.04
