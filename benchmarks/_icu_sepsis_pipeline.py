"""The pipeline's own steps on logs of ICU-Sepsis, in memory: what stages do, without their files.

Called by benchmarks.icu_sepsis. Nothing here knows the truth.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
import torch

from benchmarks._report import ROOT
from ogsrl.behaviour.fitting import fit as fit_behaviour
from ogsrl.dynamics.config import TooFewPatients
from ogsrl.dynamics.counts import fit_counts
from ogsrl.guardian.columns import Layout
from ogsrl.guardian.counts import Counts
from ogsrl.guardian.protocol import Rows
from ogsrl.policies.deployed import Deployed
from ogsrl.policies.table import TableProblem
from ogsrl.policies.training import learner_of
from ogsrl.preparation import PrepareParams, TrainingRows, assign_parts, fit
from ogsrl.preparation.tensors import StayTensors, stay_tensors
from ogsrl.selection.choose import Candidate, Grounds, Selection, select
from ogsrl.selection.screen import second_model
from ogsrl.spec import Cohort, load_cohort
from pipelines.params import Params, parse_params, read_params

OURS, CLONING, UNGUARDED = "ogsrl", "bc", "unguarded"
#: Nobody is tested on these logs, since the truth is known: test patients train instead.
SPLIT = {"train": 0.95, "calibration": 0.02, "validation": 0.03, "test": 0.0}


@dataclass(frozen=True)
class Made:
    """What came of the logs.

    Attributes:
        deployed: By algorithm, whether or not selection would let it act.
        selection: Of OGSRL, on validation patients; None: too few patients to judge it.
    """

    deployed: Mapping[str, Deployed]
    selection: Selection | None

    @property
    def chosen(self) -> Deployed:
        """OGSRL if selection lets it act, else `no policy`: clinicians go on."""
        ours = self.deployed[OURS]
        lets = self.selection is not None and self.selection.chosen is not None
        return ours if lets else replace(ours, actor=None)


def settings(changes: Mapping[str, Any] | None = None) -> tuple[Cohort, Params]:
    """The cohort and its parameters as stages read them, but for the split."""
    cohort = load_cohort(ROOT / "data_contracts" / "icu_sepsis.yaml")
    overrides = dict(cohort.overrides)
    overrides["prepare"] = {**overrides["prepare"], "split": SPLIT}
    for key, value in (changes or {}).items():
        overrides[key] = {**overrides.get(key, {}), **value}
    values = {**read_params(ROOT / "params.yaml"), "cohort": cohort.name}
    return cohort, parse_params(values, overrides, "params.yaml")


def make(table: pd.DataFrame, cohort: Cohort, params: Params, seed: int) -> Made:
    """Prepare, fit, guard, train, select."""
    generator = torch.Generator().manual_seed(seed)
    parts = _parts(table, cohort, params.prepare)
    train, calibration, validation = (
        parts[name] for name in ("train", "calibration", "validation")
    )
    behaviour = fit_behaviour(train, calibration, validation, params.behaviour, generator)
    dynamics = fit_counts(train, validation)
    guardian = Counts.fit([Rows.of(train)], Layout.of(train.history), params.guardian, generator)
    rows = Rows.of(calibration)
    guardian = guardian.calibrate(rows.states, rows.doses, rows.patient, params.guardian.alpha)
    problem = TableProblem.of(train, behaviour, dynamics, guardian)
    deployed = {}
    for name in (OURS, CLONING, UNGUARDED):
        algorithm = params.algorithms[OURS if name == UNGUARDED else name]
        if name == UNGUARDED:
            assert algorithm.ogsrl is not None
            changed = algorithm.ogsrl.model_copy(update={"guardian": False, "least_patients": 1})
            algorithm = algorithm.model_copy(update={"ogsrl": changed})
        learner = learner_of(problem, algorithm, seed, params.train.steps)
        learner.begin()
        if not (algorithm.ogsrl and algorithm.ogsrl.cloning_only):
            list(learner.train(params.train.steps))
        guarded = None if name == UNGUARDED else guardian
        deployed[name] = Deployed.of(learner.policy, guarded, train.history)
    ours = Candidate(OURS, OURS, seed, f"step_{params.train.steps}", deployed[OURS])
    try:
        model = second_model(validation, params.dynamics, generator)
    except TooFewPatients:  # the stage then puts nobody forward
        return Made(deployed, None)
    grounds = Grounds(validation, behaviour, model, params.guardian.max_refusal)
    return Made(deployed, select([ours], grounds, params.select, generator))


def _parts(table: pd.DataFrame, cohort: Cohort, params: PrepareParams) -> dict[str, StayTensors]:
    part = assign_parts(table["patient_id"], params)
    trained = table[(part == "train").to_numpy()].reset_index(drop=True)
    preparation = fit(TrainingRows.of(trained, cohort), cohort, params)
    found = {}
    for name in ("train", "calibration", "validation"):
        rows = table[(part == name).to_numpy()].reset_index(drop=True)
        found[name] = stay_tensors(preparation.apply(rows), preparation)
    return found
