"""What counts as closing the gap: not deferring, not copying clinicians, not luck of one seed."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks._truth_figures import (
    HarderResult,
    SeedResult,
    default_figures,
    gain_in_se,
    gap,
    harder_figures,
    lower_bound,
)

M_REF, M_ORACLE, M_CLINICIANS = 0.1917, 0.14, 0.1994
GOOD = SeedResult(0.15, True, True, 0.02, {"hypoxia": 0.4, "oliguria": 0.2, "refusal": 0.9})
CLONING = SeedResult(0.19, False, True, 0.02, {})


def seeds(one: SeedResult, *mortality: float) -> list[SeedResult]:
    return [replace(one, mortality=value) for value in mortality]


def figures(ours: list[SeedResult]) -> dict[str, float]:
    cloning = seeds(CLONING, 0.190, 0.192, 0.191, 0.189, 0.190)
    return default_figures(ours, cloning, M_REF, M_ORACLE)


def test_five_good_seeds_close_the_gap() -> None:
    found = figures(seeds(GOOD, 0.150, 0.151, 0.149, 0.152, 0.150))
    assert found["gap_closed"] == pytest.approx((M_REF - 0.1504) / (M_REF - M_ORACLE))
    assert 0.75 < found["gap_closed_lo"] < found["gap_closed"]
    assert found["seeds_feasible"] == 5
    assert found["multipliers_active"] == 1
    assert found["steps_deferred"] == 0.02
    assert found["gain_over_bc_in_se"] > 2


def test_who_always_defers_closes_nothing_and_is_not_feasible() -> None:
    always = SeedResult(M_CLINICIANS, False, False, 1.0, {"hypoxia": 0.0, "refusal": 1.0})
    found = figures([always] * 5)
    assert found["gap_closed"] <= 0
    assert found["gap_closed_lo"] <= 0
    assert found["seeds_feasible"] == 0
    assert found["steps_deferred"] == 1
    assert found["multipliers_active"] < 1
    assert found["gain_over_bc_in_se"] < 0


def test_clinicians_without_variation_close_nothing() -> None:
    assert gap(M_REF, M_REF, M_ORACLE) == 0
    assert gap(M_CLINICIANS, M_REF, M_ORACLE) < 0


def test_a_seed_that_selection_did_not_pass_is_not_counted_feasible() -> None:
    ours = [*[GOOD] * 4, replace(GOOD, selected=False)]
    assert figures(ours)["seeds_feasible"] == 4
    ours[0] = replace(GOOD, within_limits=False)
    assert figures(ours)["seeds_feasible"] == 3


def test_one_multiplier_asleep_in_one_seed_is_seen() -> None:
    ours = [*[GOOD] * 4, replace(GOOD, multipliers={**GOOD.multipliers, "oliguria": 0.04})]
    assert figures(ours)["multipliers_active"] == pytest.approx(14 / 15)
    assert figures([replace(GOOD, multipliers={})] * 5)["multipliers_active"] == 0


def test_the_worst_seed_tells_how_much_is_deferred() -> None:
    ours = [*[GOOD] * 4, replace(GOOD, steps_deferred=0.3)]
    assert figures(ours)["steps_deferred"] == 0.3


def test_the_bound_is_a_one_sided_t_bound() -> None:
    values = [0.7, 0.8, 0.9, 0.8, 0.85]
    mean, deviation = 0.81, math.sqrt(sum((v - 0.81) ** 2 for v in values) / 4)
    assert lower_bound(values) == pytest.approx(mean - 2.131847 * deviation / math.sqrt(5))
    assert lower_bound([0.9]) == -math.inf


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=6), st.floats(-1, 1))
def test_the_bound_lies_below_the_mean_and_moves_with_it(values: list[float], shift: float) -> None:
    bound = lower_bound(values)
    assert bound <= sum(values) / len(values) + 1e-12
    assert lower_bound([v + shift for v in values]) == pytest.approx(bound + shift, abs=1e-9)


def test_a_gain_in_every_seed_alike_is_sure_and_none_is_none() -> None:
    assert gain_in_se([0.25, 0.5], [0.5, 0.75]) == math.inf
    assert gain_in_se([0.25, 0.5], [0.25, 0.5]) == 0
    assert gain_in_se([0.25, 0.5], [0.5, 0.25]) == 0
    assert gain_in_se([0.5, 0.75], [0.25, 0.5]) == -math.inf


def test_no_gap_to_close_is_an_error_and_not_a_success() -> None:
    with pytest.raises(ValueError, match="no better than the reference"):
        gap(0.1, reference=0.15, oracle=0.15)


def test_an_honest_no_policy_harms_nobody_but_three_of_them_are_silence() -> None:
    none = HarderResult(None, None)
    found = harder_figures({"few": none, "confounded": none, "unsafe": none})
    assert found["harder_worst_margin"] == 0
    assert found["harder_breaches"] == 0
    assert found["harder_selected"] == 0


def test_a_harmful_policy_on_a_harder_cohort_is_seen() -> None:
    harmful = HarderResult(-0.02, 0.002, ("hypoxia", "oliguria"))
    found = harder_figures({"few": HarderResult(0.01, 0.002), "confounded": harmful})
    assert found["harder_worst_margin"] == pytest.approx(-0.016)
    assert found["harder_breaches"] == 2
    assert found["harder_selected"] == 2
    within = HarderResult(-0.003, 0.002)
    assert harder_figures({"few": within})["harder_worst_margin"] > 0
