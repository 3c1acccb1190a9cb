"""What is true in ICU-Sepsis: exact, with the package's clinicians wherever a policy defers."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from ogsrl.behaviour.baselines import fit_marginal
from ogsrl.behaviour.decisions import Decisions
from ogsrl.behaviour.doses import grids_of
from ogsrl.evaluation.evaluate import Subject
from ogsrl.evaluation.known import truths
from ogsrl.evaluation.quantities import MORTALITY, REFUSAL, VALUE
from ogsrl.evaluation.truth import icu_sepsis_truth, knows_icu_sepsis
from ogsrl.guardian.columns import Layout
from ogsrl.guardian.config import GuardianParams
from ogsrl.guardian.counts import Counts
from ogsrl.guardian.protocol import Rows
from ogsrl.policies.actors import ConstantActor, MarginalActor, TableActor
from ogsrl.policies.codes import DoseLevels
from ogsrl.policies.deployed import Deployed
from ogsrl.policies.table import acting
from ogsrl.preparation import PrepareParams, TrainingRows, fit
from ogsrl.preparation.tensors import StayTensors, stay_tensors
from ogsrl.sources.icu_sepsis import evaluated, logged, optimal, process
from ogsrl.spec import load_cohort

COHORT = load_cohort(Path(__file__).parents[2] / "data_contracts" / "icu_sepsis.yaml")


@cache
def logs() -> StayTensors:
    table = logged(process(), 2_000, seed=8)
    preparation = fit(TrainingRows.of(table, COHORT), COHORT, PrepareParams(history_steps=0))
    return stay_tensors(preparation.apply(table), preparation)


def best() -> TableActor:
    cells = torch.from_numpy(optimal(process()).argmax(1))
    return TableActor(cells, DoseLevels.of(logs().history))


def test_the_best_policy_survives_as_published_and_clinicians_where_all_is_deferred() -> None:
    history = logs().history
    ours = icu_sepsis_truth(Deployed.of(best(), None, history), COHORT)
    assert ours.survival == pytest.approx(0.8751, abs=5e-5)
    assert (ours.steps_deferred, ours.quantities[REFUSAL]) == (0, 0)
    nobody = icu_sepsis_truth(Deployed.of(None, None, history), COHORT)
    assert nobody.survival == pytest.approx(0.7818, abs=5e-5)
    assert (nobody.steps_deferred, nobody.stays_deferred) == pytest.approx((1, 1))
    assert nobody.quantities[REFUSAL] == pytest.approx(nobody.steps / COHORT.max_steps)
    for told in (ours, nobody):  # a survivor is worth 1
        assert told.quantities[VALUE] == pytest.approx(1 - told.quantities[MORTALITY], abs=1e-5)


def test_truth_is_of_the_cohort_that_is_asked_about_and_not_of_the_model_s() -> None:
    source = COHORT.source.model_copy(update={"options": {"patients": 500, "deadly": True}})
    deadly = COHORT.model_copy(update={"source": source})
    anything = np.where(process().clinicians > 0, -1.0, 1.0).argmax(1)  # what nobody gives
    actor = TableActor(torch.from_numpy(anything), DoseLevels.of(logs().history))
    subjects = [
        Subject("clinicians", Deployed.of(None, None, logs().history)),
        Subject("deadly", Deployed.of(actor, None, logs().history)),
    ]
    here, there = (
        truths(subjects, cohort, 1, 0).own["deadly"]["mortality"].truth
        for cohort in (COHORT, deadly)
    )
    assert here < 0.3
    assert there > 0.9


def test_deferred_states_are_the_clinicians_and_their_visits_are_the_refusals() -> None:
    train = logs()
    rows = Rows.of(train)
    layout, params = Layout.of(train.history), GuardianParams(kind="counts")
    guardian = Counts.fit([rows], layout, params, torch.Generator())
    guardian = guardian.calibrate(rows.states, rows.doses, rows.patient, 0.05)
    deployed = Deployed.of(best(), guardian, train.history)
    does = acting(deployed)
    known = guardian.supported_doses()[torch.arange(713), best().cells]
    assert torch.equal(does.deferred, (~known).double())
    policy = np.where(known[:, None], optimal(process()), process().clinicians)
    exact, told = evaluated(process(), policy), icu_sepsis_truth(deployed, COHORT)
    assert told.survival == pytest.approx(exact.survival)
    refused = float(exact.visits @ (~known).numpy())
    assert told.quantities[REFUSAL] == pytest.approx(refused / COHORT.max_steps)
    assert 0 < told.steps_deferred < told.stays_deferred < 1


def test_a_policy_that_draws_is_its_distribution() -> None:
    history = logs().history
    levels = DoseLevels.of(history)
    plain = Deployed.of(ConstantActor.zero(history), None, history)
    assert acting(plain).given[:, 0].tolist() == [1.0] * 713
    decisions, scales = Decisions.of(logs()), history.preparation.doses
    grids = grids_of(COHORT.actions, scales, decisions.doses, decisions.patient, 8)
    drawing = Deployed.of(MarginalActor(fit_marginal(grids, decisions)), None, history)
    given = acting(drawing).given
    drawn = drawing.decide(torch.zeros(20_000, 1), torch.Generator().manual_seed(1))
    seen = torch.bincount(levels.codes(drawn.doses), minlength=len(levels)) / 20_000
    assert given.sum(1).tolist() == pytest.approx([1.0] * 713)
    assert (given[0] - seen).abs().max() < 0.02


def test_only_such_a_cohort_is_known() -> None:
    other = load_cohort(Path(__file__).parents[2] / "data_contracts" / "sepsis.yaml")
    assert knows_icu_sepsis(COHORT)
    assert not knows_icu_sepsis(other)
