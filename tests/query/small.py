"""A model of few simulated patients, as the pipeline leaves it on disk, for tests that ask it."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import torch

from ogsrl.behaviour.config import BehaviourParams, NeuralParams
from ogsrl.behaviour.fitting import fit as fit_behaviour
from ogsrl.evaluation.config import FqeParams
from ogsrl.guardian.christoffel import ChristoffelGuardian
from ogsrl.guardian.columns import Layout
from ogsrl.guardian.config import GuardianParams
from ogsrl.guardian.protocol import Rows
from ogsrl.policies.actors import ConstantActor
from ogsrl.policies.deployed import Deployed
from ogsrl.policies.saved import save_policy
from ogsrl.preparation import PrepareParams, TrainingRows
from ogsrl.preparation import fit as fit_preparation
from ogsrl.preparation.tensors import stay_tensors
from ogsrl.query.evidence import Evidence
from ogsrl.query.model import EVIDENCE, PREDICTIONS, save_beside
from ogsrl.query.predictions import Predictions
from ogsrl.spec import load_cohort

SMALL = FqeParams(fits=2, networks=1, hidden=8, steps=20, start_steps=5)


def small_model(models: Path, table: pd.DataFrame, contract: Path, *, whole: bool = True) -> None:
    """Fit on these rows and write the folder of models.

    Args:
        models: Where.
        table: Rows of the trajectory table.
        contract: Its cohort file.
        whole: With predictions and evidence.
    """
    cohort = load_cohort(contract)
    preparation = fit_preparation(TrainingRows.of(table, cohort), cohort, PrepareParams())
    stays = stay_tensors(preparation.apply(table), preparation)
    g = torch.Generator().manual_seed(0)
    neural = NeuralParams(hidden=16, head=8, max_epochs=2)
    params = BehaviourParams(kinds=("neural",), neural=neural)
    models.mkdir(parents=True)
    behaviour = fit_behaviour(stays, stays, stays, params, g)
    behaviour.save(models / "behaviour")
    rows = Rows.of(stays)
    region = ChristoffelGuardian.fit(
        [rows], Layout.of(stays.history), GuardianParams(degree=1), g, None
    )
    guardian = region.calibrate(rows.states, rows.doses, rows.patient, 0.05)
    guardian.save(models / "guardian")
    about = {"status": "selected", "algorithm": "constant", "seed": 0, "step": "step_0"}
    actor = ConstantActor((-0.5, -1.0))
    selected = models / "selected"
    save_policy(selected, actor, stays.history, about)
    save_beside(contract, preparation, selected)
    if whole:
        deployed = Deployed.of(actor, guardian, stays.history)
        predictions = Predictions.fit(stays, stays, deployed, behaviour, SMALL, g)
        predictions.save(selected / PREDICTIONS)
        evidence = Evidence.fit(stays, g)
        assert evidence is not None
        evidence.save(selected / EVIDENCE)
