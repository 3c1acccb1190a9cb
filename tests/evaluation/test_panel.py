"""One answer of many estimators: who is counted, how wide it is, and which word it allows."""

from __future__ import annotations

from dataclasses import replace
from statistics import NormalDist

import pytest

from ogsrl.evaluation.estimators.base import Estimate
from ogsrl.evaluation.panel import INFORMS, Panel, panel


def said(low: float, high: float, *, votes: bool = True) -> Estimate:
    middle = (low + high) / 2
    return Estimate(middle, low, high, 0.95, None, None, 500, 4000, votes, "")


def asked(low: float = -1.0, high: float = 1.0, **estimates: Estimate) -> Panel:
    return panel(estimates, low, high, 0.95)


def test_its_interval_is_the_union_of_the_voters() -> None:
    found = asked(fqe=said(-0.03, 0.0), wdr=said(-0.05, -0.02), wis=said(-0.9, 0.9, votes=False))
    assert (found.low, found.high) == (-0.05, 0.0)
    assert found.voters == ("fqe", "wdr")
    assert found.estimate == -0.015
    assert found.diagnosis == "fqe, wdr voted"


def test_one_voter_more_never_narrows_it() -> None:
    alone = asked(fqe=said(-0.05, 0.05))
    among = asked(fqe=said(-0.05, 0.05), wdr=said(-0.01, 0.01))
    assert (among.low, among.high) == (alone.low, alone.high)


@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (0.01, 1.0), (-15.0, -0.5)])
@pytest.mark.parametrize("sign", [1, -1])
def test_where_nobody_votes_anything_is_possible_and_nothing_can_be_told(
    low: float, high: float, sign: int
) -> None:
    found = asked(low, high, fqe=said(low, high, votes=False))
    assert (found.low, found.high) == (low, high)
    assert found.voters == ()
    assert found.word(sign) == "cannot tell"
    assert found.smallest_effect is None
    assert "nobody" in found.diagnosis


def test_nobody_at_all_says_nothing() -> None:
    found = asked(0.0, 1.0)
    assert found.estimate is None
    assert (found.low, found.high) == (0.0, 1.0)
    assert found.word(1) == "cannot tell"


@pytest.mark.parametrize("name", INFORMS)
def test_the_model_s_own_word_is_never_counted(name: str) -> None:
    estimates = {"fqe": said(-0.05, -0.01), name: said(-0.4, 0.4)}
    found = panel(estimates, -1.0, 1.0, 0.95)
    assert (found.low, found.high) == (-0.05, -0.01)
    assert found.voters == ("fqe",)
    alone = panel({name: said(-0.05, -0.01)}, -1.0, 1.0, 0.95)
    assert alone.word(-1) == "cannot tell"
    assert (alone.low, alone.high) == (-1.0, 1.0)


@pytest.mark.parametrize(
    ("low", "high", "more_is_better", "less_is_better"),
    [
        (0.01, 0.05, "better", "worse"),
        (-0.05, -0.01, "worse", "better"),
        (-0.01, 0.05, "cannot tell", "cannot tell"),
        (0.0, 0.05, "cannot tell", "cannot tell"),
        (-0.05, 0.0, "cannot tell", "cannot tell"),
    ],
)
def test_its_word_follows_its_interval(
    low: float, high: float, more_is_better: str, less_is_better: str
) -> None:
    found = asked(fqe=said(low, high))
    assert found.word(1) == more_is_better
    assert found.word(-1) == less_is_better


@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
def test_the_smallest_effect_is_what_so_wide_an_interval_finds_in_8_of_10_cohorts(
    level: float,
) -> None:
    normal, se = NormalDist(), 0.013
    half = normal.inv_cdf((1 + level) / 2) * se
    found = replace(asked(fqe=said(-half, half)), level=level).smallest_effect
    assert found == pytest.approx(half + normal.inv_cdf(0.8) * se)
    assert found is not None
    assert 1 - normal.cdf((half - found) / se) == pytest.approx(0.8)  # all of it above 0


def test_intervals_that_do_not_meet_are_said() -> None:
    apart = asked(fqe=said(-0.05, -0.03), wdr=said(-0.04, 0.0), wis=said(-0.02, 0.01))
    assert apart.diagnosis == "fqe, wdr, wis voted, and their intervals do not meet"
    assert "do not meet" not in asked(fqe=said(-0.05, -0.03), wdr=said(-0.03, 0.0)).diagnosis


def test_an_estimate_outside_the_voters_intervals_is_said() -> None:
    found = asked(fqe=said(0.2, 0.3, votes=False), wdr=said(0.3, 0.4))
    assert found.estimate == 0.25
    assert found.diagnosis == "wdr voted; fqe, which may not vote, is outside"


def test_where_fqe_is_missing_there_is_no_estimate_but_an_interval() -> None:
    found = asked(wdr=said(0.1, 0.2))
    assert found.estimate is None
    assert (found.low, found.high) == (0.1, 0.2)
