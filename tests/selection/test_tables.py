"""Selection where a state is one code: the screen is the table's exact value, and it chooses."""

from __future__ import annotations

from functools import cache

import pytest
import torch

from ogsrl.behaviour.config import BehaviourParams, BoostedParams
from ogsrl.behaviour.fitting import fit as fit_behaviour
from ogsrl.dynamics.counts import fit_counts
from ogsrl.evaluation.config import FqeParams
from ogsrl.evaluation.rollouts import Rollouts
from ogsrl.guardian.config import GuardianParams
from ogsrl.guardian.counts import Counts
from ogsrl.guardian.protocol import Rows
from ogsrl.policies.deployed import Deployed
from ogsrl.policies.table import Table, TableProblem
from ogsrl.selection.choose import Candidate, Grounds, select
from ogsrl.selection.config import SelectParams
from tests.guardian.cohorts import layout
from tests.policies.tables import table_frames


@cache
def problem() -> tuple[TableProblem, Grounds]:
    stays, g = table_frames()[0], torch.Generator().manual_seed(0)
    boosted = BoostedParams(trees=5, scale_trees=2, depth=2, learning_rate=0.3, min_leaf=30)
    params = BehaviourParams(kinds=("boosted",), boosted=boosted)
    behaviour = fit_behaviour(stays, stays, stays, params, g)
    rows = Rows.of(stays)
    region = Counts.fit([rows], layout(stays.history), GuardianParams(min_stays=40), g)
    region = region.calibrate(rows.states, rows.doses, rows.patient, 0.05)
    dynamics = fit_counts(stays, stays)
    return TableProblem.of(stays, behaviour, dynamics, region), Grounds(
        stays, behaviour, dynamics, 0.08
    )


@pytest.mark.parametrize("cells", [(0, 0), (0, 2), (3, 3)])
def test_the_screen_comes_to_what_the_table_is_worth(cells: tuple[int, int]) -> None:
    made, grounds = problem()
    table = Table(made, torch.ones(len(made.quantities)))
    exact = table.value(torch.tensor(cells))
    g = torch.Generator().manual_seed(3)
    screen = Rollouts.of(grounds.model, grounds.behaviour, grounds.validation, 10_000, g)
    seen = screen.follow(table.deployed(torch.tensor(cells)))
    begun = torch.bincount(screen.states[:, 0].long(), minlength=2) / len(screen.states)
    assert torch.allclose(begun.double(), made.begun, atol=1e-6)
    assert seen.mean("mortality") == pytest.approx(exact.deaths, abs=0.01)
    wanted = dict(zip(made.quantities, exact.totals.tolist(), strict=True))
    assert seen.mean("cost:ill") == pytest.approx(wanted["ill"], abs=0.015)
    assert seen.mean("refusal") == pytest.approx(wanted["refusal"], abs=0.01)
    assert seen.steps_deferred == pytest.approx(exact.deferred, abs=0.01)


def test_of_a_table_that_helps_and_one_that_always_defers_the_first_is_put_forward() -> None:
    made, grounds = problem()
    table = Table(made, torch.ones(len(made.quantities)))
    treats = table.deployed(torch.tensor([0, 2]))  # the drug for the ill
    nobody = Deployed.of(None, treats.guardian, treats.history)
    acting = {"treats": treats, "nobody": nobody}
    candidates = [Candidate(name, "ogsrl", 0, "last", acts) for name, acts in acting.items()]
    params = SelectParams(
        fqe=FqeParams(fits=4, networks=1, hidden=16, steps=1500, dose_weight=1, learning_rate=2e-3)
    )
    chosen = select(candidates, grounds, params, torch.Generator().manual_seed(0))
    assert chosen.chosen is not None
    assert chosen.chosen.name == "treats"
