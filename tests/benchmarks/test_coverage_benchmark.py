"""Coverage: figures are of what was said, silence earns nothing, finished parts are kept."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import coverage
from benchmarks._coverage_cohorts import PLAIN
from benchmarks._coverage_figures import (
    confounded_figures,
    figures,
    fitted_inflation,
    fitted_misses,
    limit_figures,
    said,
    share,
)
from ogsrl.evaluation.known import Known, Truths

TRUTHS = Truths(
    own={
        "clinicians": {"mortality": Known(0.20, 0.001)},
        "better_03": {"mortality": Known(0.17, 0.001)},
        "worse_03": {"mortality": Known(0.23, 0.001)},
        "deadly": {"mortality": Known(0.60, 0.001)},
    },
    gains={
        "better_03": {"mortality": Known(-0.03, 0.001)},
        "worse_03": {"mortality": Known(0.03, 0.001)},
        "deadly": {"mortality": Known(0.40, 0.001)},
    },
)


def estimate(middle: float, half: float, votes: bool = True) -> dict[str, Any]:
    return {
        "estimate": middle,
        "low": middle - half,
        "high": middle + half,
        "ess": 10.0,
        "max_weight": 1.0,
        "votes": votes,
    }


def part(fqe: Mapping[str, float], half: float = 0.02, votes: bool = True) -> dict[str, Any]:
    """A cohort in which cold fits say so much of each policy, and clinicians come to .2."""
    own = {
        name: {"mortality": {"fqe": estimate(x, half, votes), "wis": estimate(x, 0.001, False)}}
        for name, x in fqe.items()
    }
    gain = {
        name: {"mortality": {"fqe": estimate(x - 0.2, half, votes)}}
        for name, x in fqe.items()
        if name != "clinicians"
    }
    return {"own": own, "gain": gain}


RIGHT = {"clinicians": 0.20, "better_03": 0.171, "worse_03": 0.229, "deadly": 0.3}


def test_the_panel_holds_the_truth_and_says_better_of_who_is() -> None:
    made = figures(said([part(RIGHT)] * 3, TRUTHS, PLAIN))
    assert made["coverage"] == 1
    assert made["coverage_fqe_deadly"] == 0, "the deadly one is told apart"
    assert made["rmse_mortality"] == pytest.approx(math.sqrt(2 / 3) * 0.001)
    assert (made["power"], made["false_better"], made["told"]) == (1, 0, 1)
    assert made["coverage_wis_better_03"] == 1
    assert made["coverage_lo"] < 0.5, "three cohorts tell little, however often they agree"


def test_better_said_of_the_worse_is_counted() -> None:
    wrong = {**RIGHT, "worse_03": 0.15, "deadly": 0.1}  # the deadly one makes no rate small
    made = figures(said([part(RIGHT), part(wrong)], TRUTHS, PLAIN))
    assert made["false_better"] == 0.5
    assert made["false_better_pairs"] == 2
    assert made["coverage"] == pytest.approx(5 / 6)
    assert made["coverage_gain"] == pytest.approx(3 / 4)


def test_who_says_nothing_has_no_power() -> None:
    made = figures(said([part(RIGHT, votes=False)] * 2, TRUTHS, PLAIN))
    assert made["coverage"] == 1, "nothing was said"
    assert made["power"] == made["told"] == 0
    assert "coverage_told" not in made
    # who makes everything wide says nothing either
    wide = figures(
        said([part(RIGHT)] * 2, TRUTHS, PLAIN.model_copy(update={"mortality_gain": 10.0}))
    )
    assert wide["power"] == 0
    assert wide["coverage"] == 1


def test_inflation_is_what_makes_fits_hold() -> None:
    generator = np.random.default_rng(0)
    parts = []
    for _ in range(400):
        true = {name: TRUTHS.own[name]["mortality"].truth for name in RIGHT}
        off = {name: x + 0.02 * generator.standard_normal() for name, x in true.items()}
        parts.append(part(off, 0.02))
    plain = said(parts, TRUTHS, PLAIN)
    found = fitted_inflation(plain)
    assert found["mortality"] == pytest.approx(1.96, rel=0.1)
    assert figures(plain)["coverage"] == pytest.approx(0.68, abs=0.03)
    after = figures(said(parts, TRUTHS, PLAIN.model_copy(update={"mortality": found["mortality"]})))
    assert after["coverage"] == pytest.approx(0.95, abs=0.01)
    sure = said([part({"clinicians": 0.2}, 0.5)], TRUTHS, PLAIN)
    assert fitted_inflation(sure)["mortality"] == 1, "never below what fits say"
    gains = PLAIN.model_copy(update={"mortality_gain": found["mortality_gain"]})
    assert figures(said(parts, TRUTHS, gains))["coverage"] == figures(plain)["coverage"]
    assert figures(said(parts, TRUTHS, gains))["coverage_gain"] == pytest.approx(0.95, abs=0.01)


def test_what_fits_of_costs_miss_is_found_of_who_is_served_worst() -> None:
    generator = np.random.default_rng(0)
    cost = "cost:hypoxia"
    true = {"better_03": 0.1, "worse_01": 0.2}
    truths = Truths({p: {cost: Known(x, 0.0)} for p, x in true.items()}, {})
    parts = []
    for _ in range(400):
        told = {}
        for policy, x in true.items():
            missed = 0.03 * generator.standard_normal() if policy == "worse_01" else 0.0
            off = x + missed + 0.01 * generator.standard_normal()
            told[policy] = {cost: {"fqe": estimate(off, 0.0196)}}
        parts.append({"own": told, "gain": {}})
    found = fitted_misses(said(parts, truths, PLAIN), held=0.95)["limits_miss"]
    assert found == pytest.approx(0.03, abs=0.004)
    better = [{**one, "own": {"better_03": one["own"]["better_03"]}} for one in parts]
    assert fitted_misses(said(better, truths, PLAIN), held=0.93)["limits_miss"] < 0.004


def of_costs(missed: float, cohorts: int) -> tuple[list[dict[str, Any]], Truths]:
    """One policy of lower costs, of which fits are right; one of higher, told too low."""
    generator = np.random.default_rng(0)
    cost, true = "cost:hypoxia", {"better_03": -0.05, "worse_01": 0.02}
    off = {"better_03": 0.0, "worse_01": missed}
    parts: list[dict[str, Any]] = [{"own": {}, "gain": {}} for _ in range(cohorts)]
    for part_ in parts:
        for policy, x in true.items():
            told = x - off[policy] + 0.01 * generator.standard_normal()
            part_["gain"][policy] = {cost: {"fqe": estimate(told, 0.0196)}}
    return parts, Truths({}, {p: {cost: Known(x, 0.0)} for p, x in true.items()})


def test_of_lower_costs_less_is_missed_and_of_higher_none_is_said_to_be_lower() -> None:
    seen = said(*of_costs(0.04, 400), PLAIN)
    found = fitted_misses(seen, held=0.93)
    assert found["limits_miss"] > 0.02
    assert found["limits_miss_lower"] < 0.004
    made = limit_figures(seen, found["limits_miss"], found["limits_miss_lower"])
    assert made["limits_wrong"] < 0.05
    assert made["limits_held_worst"] >= 0.92
    assert made["limits_shown"] > 0.3
    assert 0.8 < made["limits_held_second"] < made["limits_held"]  # those wrongly called lower
    blind = limit_figures(seen, 0.0, 0.0)  # one who did not know what fits miss
    assert blind["limits_wrong"] > 0.5
    assert blind["limits_held_worst"] < 0.2
    deaf = limit_figures(seen, 1.0, 1.0)  # one who says nothing
    assert (deaf["limits_held"], deaf["limits_shown"]) == (1, 0)


def test_an_interval_of_shares_is_over_cohorts() -> None:
    together = [(k, k < 19) for k in range(20) for _ in range(50)]
    made = share("held", together)
    assert made["held"] == 0.95
    assert made["held_lo"] == pytest.approx(0.95 - 1.96 * 0.05, abs=1e-3)
    assert share("held", [(0, True)] * 1_000)["held_lo"] < 0.3


def bound(low: float, high: float) -> dict[str, Any]:
    panel = {"alone": [0.1, 0.2], "panel": [0.1, 0.201], "voters": [] if high == 1 else ["fqe"]}
    return {"low": low, "high": high, **panel}


def test_confounded_figures_are_of_both_bounds_and_the_width_of_the_first_at_a_quarter() -> None:
    one = {"first": bound(0.1, 0.25), "first_truth": 0.2, "whole": bound(0.1, 0.3)}
    parts = [
        (0.25, 0, {"policies": {"ogsrl": {**one, "whole_truth": 0.31}}}),
        (1.0, 1, {"policies": {"ogsrl": {**one, "whole_truth": 0.29, "first": bound(0, 1)}}}),
    ]
    made = confounded_figures(parts)
    assert made["gamma_coverage"] == 0.75
    alike = confounded_figures([(level, 0, part) for level, _, part in parts])
    assert alike["gamma_coverage_lo"] < made["gamma_coverage_lo"], "same luck is one cohort"
    assert made["gamma_coverage_first"] == 1
    assert made["gamma_coverage_whole"] == 0.5
    assert made["gamma_width"] == pytest.approx(0.15)
    assert made["gamma_width_whole"] == pytest.approx(0.2)
    assert made["gamma_told"] == 0.75, "a bound around no interval says nothing"
    assert made["gamma_one_apart"] == pytest.approx(0.001)


@pytest.mark.slow
def test_a_quick_run_is_kept(tmp_path: Path) -> None:
    arguments = ["--quick", "--processes", "1", "--work", str(tmp_path)]
    made = coverage.main([*arguments, "--json", str(tmp_path / "figures.json")])
    assert made["gamma_one_apart"] < 1e-6, "at Gamma 1 bounds are the panel's"
    told_too = {"coverage_light_pdis", "gamma_coverage_whole", "limits_held_worst"}
    assert {"coverage_panel", *told_too} <= made.keys()
    (kept,) = tmp_path.rglob("panel_*.json")
    told = json.loads(kept.read_text())
    told["own"]["ogsrl"]["mortality"]["fqe"]["estimate"] = 0.9
    kept.write_text(json.dumps(told))
    assert coverage.main(arguments)["rmse_fqe_ogsrl"] > 0.5
    found = coverage.main([*arguments, "--fit"])
    assert found["inflation_mortality_gain"] >= 1
    assert {"limits_miss", "limits_miss_lower", "bias_fqe_ogsrl"} <= found.keys()
