"""What an explanation names is what was changed, in the units that a reviewer reads."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

from ogsrl.guardian.christoffel import ChristoffelGuardian
from ogsrl.guardian.columns import Layout
from ogsrl.guardian.config import GuardianParams
from ogsrl.guardian.protocol import Guardian, Rows
from tests.guardian.cohorts import simulated
from tests.harness_guardian import calibrated, doctor_history, doctor_rows

PREPARATION = doctor_history().preparation


@cache
def planted() -> tuple[Guardian, Rows]:
    train, other = (doctor_rows(n, np.random.default_rng(n)) for n in (1500, 500))
    layout, generator = Layout.of(doctor_history()), torch.Generator().manual_seed(1)
    guardian = ChristoffelGuardian.fit([train], layout, GuardianParams(), generator)
    guardian = calibrated(guardian, other, 0.05)
    ordinary = guardian.score(other.states, other.doses) < 0.6
    return guardian, other.take(ordinary)


@cache
def sepsis() -> tuple[Guardian, Rows]:
    parts, _ = simulated()
    train, other, fresh = (Rows.of(parts[p]) for p in ("train", "calibration", "validation"))
    layout, generator = Layout.of(parts["train"].history), torch.Generator().manual_seed(1)
    guardian = ChristoffelGuardian.fit([train], layout, GuardianParams(), generator)
    return calibrated(guardian, other, 0.05), fresh


@pytest.mark.parametrize("name", ["x0", "x3", "fluid", "pressor"])
def test_the_column_that_was_moved_is_named_first(name: str) -> None:
    guardian, ordinary = planted()
    states, doses = ordinary.states[:40].clone(), ordinary.doses[:40].clone()
    if name in guardian.layout.doses:
        place = guardian.layout.doses.index(name)
        doses[:, place] = torch.where(doses[:, place] < 0, 1.0, -1.0)
    else:
        states[:, guardian.layout.state_names.index(name)] += 6.0
    told = guardian.explain(states, doses, PREPARATION)
    refused = told.cases.index[~told.cases["supported"]]
    assert len(refused) > 5
    first = told.moves.groupby("case").first()["column"]
    assert (first == name).mean() > 0.7


def test_how_far_inside_it_would_have_to_come_is_to_the_edge_and_no_further() -> None:
    guardian, ordinary = planted()
    states = ordinary.states[:30].clone()
    states[:, 3] += 8.0
    told = guardian.explain(states, ordinary.doses[:30], PREPARATION)
    moves = told.moves[(told.moves["column"] == "x3") & told.moves["inside"].notna()]
    assert len(moves) > 20
    cases = torch.tensor(moves["case"].to_list())
    assert (moves["change"] < 0).all()
    for factor, inside in ((1.0, True), (0.98, False)):  # a little less is not enough
        moved = states[cases].clone()
        moved[:, 3] += factor * torch.tensor(moves["change"].to_numpy(np.float32))
        assert bool((guardian.supported(moved, ordinary.doses[cases]) == inside).all())


def test_supported_cases_have_nothing_to_explain() -> None:
    guardian, ordinary = planted()
    told = guardian.explain(ordinary.states[:20], ordinary.doses[:20], PREPARATION)
    assert told.cases["supported"].all()
    assert told.cases["rule"].isna().all()
    assert told.moves.empty


def test_rows_that_cannot_be_read_are_named_so_and_moved_nowhere() -> None:
    guardian, ordinary = planted()
    states = ordinary.states[:3].clone()
    states[1, 2] = torch.nan
    told = guardian.explain(states, ordinary.doses[:3], PREPARATION)
    assert told.cases["rule"].fillna("").tolist() == ["", "not_a_number", ""]
    assert told.moves.empty


def test_the_rule_is_the_question_that_failed() -> None:
    guardian, ordinary = planted()
    states = ordinary.states[:30].clone()
    states[:, 0] += 30
    told = guardian.explain(states, ordinary.doses[:30], PREPARATION).cases
    assert set(told["rule"]) <= {"patient", "pair", "evidence"}
    assert (told["patient"] > told["threshold"]).all()
    wrong_dose = guardian.explain(ordinary.states[:200], -ordinary.doses[:200], PREPARATION).cases
    refused = wrong_dose[~wrong_dose["supported"]]
    assert set(refused["rule"]) <= {"pair", "dose", "evidence"}
    assert (refused["rule"] == "dose").mean() > 0.5


def test_changes_of_doses_and_states_are_in_clinical_units() -> None:
    guardian, fresh = sepsis()
    preparation = simulated()[0]["train"].history.preparation
    low = fresh.doses[:, 1] <= -0.99  # no vasopressor: give the most
    few = fresh.take(low.nonzero().squeeze(1)[:40])
    doses = few.doses.clone()
    doses[:, 1] = 1.0
    told = guardian.explain(few.states, doses, preparation)
    moves = told.moves[told.moves["column"] == "vasopressor"].dropna()
    assert len(moves) > 20
    assert moves["inside"].between(0, 1.5).all()
    np.testing.assert_allclose(moves["inside"] - moves["change"], 1.5, atol=1e-6)
    assert (moves["kind"] == "dose").all()
    pressures = told.moves[told.moves["column"] == "map"].dropna()
    assert pressures["inside"].between(15, 200).all()
