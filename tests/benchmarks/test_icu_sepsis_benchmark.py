"""ICU-Sepsis: planners are what they say, figures are of parts, finished parts are kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import icu_sepsis
from benchmarks._icu_sepsis_pipeline import settings
from benchmarks._icu_sepsis_planner import Logs, planned, survival
from ogsrl.guardian.columns import Layout
from ogsrl.guardian.counts import Counts
from ogsrl.guardian.protocol import Rows
from ogsrl.policies.deployed import Deployed
from ogsrl.preparation import TrainingRows, fit
from ogsrl.preparation.tensors import stay_tensors
from ogsrl.sources.icu_sepsis import (
    COMBINATIONS,
    STATES,
    evaluated,
    logged,
    occupancy,
    optimal,
    process,
)


def test_logs_are_the_table_s_decisions() -> None:
    table = logged(process(), 200, seed=4)
    logs = Logs.of(table)
    assert logs.pairs.sum() == len(table)
    assert logs.counts[..., STATES].sum() == (table["end"] == "death").sum()
    assert logs.counts[..., STATES + 1].sum() == (table["end"] == "discharge").sum()
    going = int(table["end"].isna().argmax())
    first = table.iloc[going]
    doses = 5 * first.fluid + first.vasopressor
    assert (logs.state[going], logs.given[going]) == (first.state, doses)
    assert logs.outcome[going] == table.iloc[going + 1].state
    assert logs.begun.sum() == pytest.approx(1)
    assert process().given[logs.pairs > 0].all()


def test_the_planner_finds_the_best_policy_of_a_known_model() -> None:
    logs, made = Logs.of(logged(process(), 200, seed=4)), process()
    anything = np.ones((STATES, COMBINATIONS), dtype=bool)
    plan = planned(logs, made.follows, anything, np.zeros((STATES, COMBINATIONS)))
    best = evaluated(made, optimal(made)).survival
    assert evaluated(made, plan).survival == pytest.approx(best, abs=1e-6)
    assert survival(logs, made.follows, plan) == pytest.approx(
        float(logs.begun @ evaluated(made, plan).survival_from)
    )
    nothing = planned(logs, made.follows, ~anything, np.zeros((STATES, COMBINATIONS)))
    assert not nothing.any()
    assert occupancy(made, optimal(made), 2).shape == (2, STATES)


def part(trajectories: int, seed: int, ours: float, planner: float) -> dict[str, Any]:
    told = {name: {"survival": 0.7, "deferred": 0.1} for name in icu_sepsis.POLICIES}
    told["ogsrl"] = {"survival": ours, "deferred": 0.02}
    told["planner"] = {"survival": planner, "deferred": 0.0}
    return {
        "trajectories": trajectories,
        "seed": seed,
        "published": told,
        "deadly": told,
        "false_support": 0.0,
    }


def test_figures_are_means_but_margins_are_the_worst() -> None:
    parts = [part(5, 0, 0.80, 0.81), part(5, 1, 0.84, 0.80), part(9, 0, 0.83, 0.82)]
    parts.append(part(9, 1, 0.77, 0.82))
    figures = icu_sepsis.figures_of(parts)
    assert figures["survival_5"] == pytest.approx(0.82)
    assert figures["survival_5_vs_reference"] == pytest.approx(0.015)
    assert figures["survival_5_vs_same_support"] == pytest.approx(0.82 - 0.7)
    assert figures["worst_margin"] == pytest.approx(0.77 - 0.781845, abs=1e-6)
    assert figures["deadly_margin"] == pytest.approx(0.80 - 0.781845, abs=1e-6)
    assert figures["recovered_5"] == pytest.approx((0.82 - 0.781845) / 0.093297, abs=1e-4)


def test_nobody_is_tested_and_all_else_is_the_cohort_s() -> None:
    cohort, params = settings()
    assert params.prepare.split.test == 0
    assert params.prepare.history_steps == cohort.overrides["prepare"]["history_steps"] == 0
    assert params.guardian.kind == "counts"


@pytest.mark.parametrize("own", [0, 1])
def test_what_nobody_was_given_is_let_pass_by_no_guardian_that_asks_for_one(own: int) -> None:
    """It is what kills in the deadly variant; neighbours alone would support it."""
    cohort, params = settings({"guardian": {"own": own}})
    table = logged(process(), 2_500, 4, cohort.max_steps, cohort.time_step_hours)
    preparation = fit(TrainingRows.of(table, cohort), cohort, params.prepare)
    stays = stay_tensors(preparation.apply(table), preparation)
    rows, generator = Rows.of(stays), torch.Generator().manual_seed(0)
    guardian = Counts.fit([rows], Layout.of(stays.history), params.guardian, generator)
    guardian = guardian.calibrate(rows.states, rows.doses, rows.patient, params.guardian.alpha)
    guarded = Deployed.of(None, guardian, stays.history)
    let_pass = icu_sepsis.false_support(guarded)
    assert let_pass == 0 if own else let_pass > 0.05
    random = icu_sepsis.at_random(guarded).policy
    lived = [evaluated(process(deadly=kills), random).survival for kills in (False, True)]
    assert lived[0] > 0.7
    assert (lived[1] == pytest.approx(lived[0])) == bool(own)
    assert own or lived[1] < 0.65


@pytest.mark.slow
def test_a_quick_run_is_kept(tmp_path: Path) -> None:
    arguments = ["--quick", "--processes", "1", "--work", str(tmp_path)]
    figures = icu_sepsis.main([*arguments, "--json", str(tmp_path / "figures.json")])
    assert figures["survival_clinicians"] == pytest.approx(0.7818, abs=5e-5)
    assert figures["worst_margin"] > -0.05
    assert figures["deadly_false_support_1200"] == 0
    (kept,) = tmp_path.rglob("1200_0.json")
    told = json.loads(kept.read_text())
    told["published"]["ogsrl"]["survival"] = 0.5
    kept.write_text(json.dumps(told))
    assert icu_sepsis.main(arguments)["survival_1200"] == 0.5
    assert "--quick" not in json.loads((tmp_path / "figures.json").read_text())["name"]
