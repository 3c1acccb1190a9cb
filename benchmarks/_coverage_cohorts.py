"""Fresh cohorts, each estimated of by the whole panel or by the light estimators: a part each.

Called by benchmarks.coverage, in processes of their own. Policies, their transforms and their
region stay as they were fitted; a cohort with training patients fits its own clinicians' policy.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks._coverage_policies import BETTER, MUCH_WORSE, OURS, read
from benchmarks._truth_cohorts import Place, digest
from ogsrl.behaviour.fitting import fit as fit_behaviour
from ogsrl.dynamics.ensemble import Dynamics
from ogsrl.evaluation.asking import CLINICIANS, FITTED, Case, Shared
from ogsrl.evaluation.bedside import Bedside
from ogsrl.evaluation.config import EvaluateParams, Inflation, Name
from ogsrl.evaluation.confounding import Bounds, first_dose, whole_stay
from ogsrl.evaluation.estimators import WEIGHTED, Estimate
from ogsrl.evaluation.evaluate import Evaluation, Grounds, Subject, evaluate
from ogsrl.evaluation.quantities import MORTALITY
from ogsrl.evaluation.simulated import simulated_truth
from ogsrl.policies.deployed import Deployed
from ogsrl.preparation.tensors import StayTensors, stay_tensors
from ogsrl.sources.simulator import SimulatorConfig, simulate
from ogsrl.sources.simulator.config import Floats

#: What asks for no fit of its own; the others are left to the whole panel.
LIGHT: tuple[Name, ...] = ("pdis", "pdis_clipped", "wis", "cwpdis")
#: Asked about unrecorded confounders.
CONFOUNDED = (OURS, BETTER, MUCH_WORSE)
#: Cold fits as they are.
PLAIN = Inflation.model_validate(dict.fromkeys(Inflation.model_fields, 1))
#: What is kept of an estimate.
FIELDS = ("estimate", "low", "high", "ess", "max_weight", "votes")


@dataclass(frozen=True)
class Job:
    """One cohort.

    Attributes:
        kind: panel, fit (cold fits alone), light or confounded.
        seed: Of its patients.
        place: Where policies and models were fitted.
        folder: Where policies and parts lie.
        settings: Of evaluation, in a word, for the names of parts.
        train: Training patients; calibration and validation have a quarter of them each.
        test: Test patients.
        truth: Patients of the truth on confounded cohorts.
        confounding: Of the simulator.
        inflation: Of cold fits' intervals; what they are too sure by is found where it is 1.
    """

    kind: str
    seed: int
    place: Path
    folder: Path
    settings: str
    train: int
    test: int
    truth: int
    confounding: float = 0.0
    inflation: Inflation = PLAIN

    @property
    def file(self) -> Path:
        """Its part."""
        tail = ""
        if self.kind == "confounded":
            tail = f"_{self.confounding:g}_{digest([], self.inflation.model_dump())}"
        return self.folder / f"{self.kind}{tail}_{self.settings}_{self.seed}.json"


def done(job: Job) -> dict[str, Any]:
    """What came of a cohort; read back where it was done before."""
    if not job.file.exists():
        torch.set_num_threads(1)
        told = _WORK[job.kind](job)
        beside = job.file.with_suffix(".partial")
        beside.write_text(json.dumps(told), encoding="utf-8")
        beside.replace(job.file)
    found: dict[str, Any] = json.loads(job.file.read_text(encoding="utf-8"))
    return found


def _panel(job: Job) -> dict[str, Any]:
    evaluation = _evaluated(job, params=_params(job))
    told: dict[str, Any] = {}
    for which, answers in (("own", evaluation.own), ("gain", evaluation.gains)):
        told[which] = {
            policy: {quantity: _fields(one.estimates) for quantity, one in each.items()}
            for policy, each in answers.items()
        }
    return told


def _light(job: Job) -> dict[str, Any]:
    """Mortality, of test patients alone, with the clinicians' policy that was fitted once."""
    small = {"fits": 1, "networks": 1, "hidden": 4, "steps": 1, "start_steps": 0}
    fqe = _params(job).fqe.model_copy(update=small)  # nobody asks for it
    update = {"estimators": LIGHT, "fqe": fqe, "bootstrap": 1_000}
    params = _params(job).model_copy(update=update)
    subjects, grounds, generator = _asked(job)
    nobody = {CLINICIANS: Deployed.of(None, None, grounds.test.history)}
    policies = nobody | {one.name: one.deployed for one in subjects}
    shared = Shared.of(policies, grounds, params, generator, lambda _more: None)
    told = {}
    for name, deployed in policies.items():
        found = Case.of(shared, name, deployed).estimates(MORTALITY, gain=False)
        told[name] = {MORTALITY: _fields(found)}
    return {"own": told}


def _confounded(job: Job) -> dict[str, Any]:
    """Bounds at the known Gamma, and what is true there."""
    place, config = Place(job.place), SimulatorConfig(confounding=job.confounding)
    evaluation, told = _evaluated(job, params=_params(job)), {}
    generator = torch.Generator().manual_seed(job.seed + 1)
    gammas = sorted({1.0, config.gamma})
    for name in CONFOUNDED:
        (deployed,) = (one.deployed for one in evaluation.subjects if one.name == name)
        first, _ = first_dose(evaluation, name, gammas)
        whole = whole_stay(evaluation, name, gammas, generator)
        asked = place.cohort, config, job.truth, job.seed + 2
        told[name] = {
            "first": _bounds(first, config.gamma),
            "first_truth": simulated_truth(FirstOnly(Bedside(deployed)), *asked).mortality,
            "whole": _bounds(whole, config.gamma),
            "whole_truth": simulated_truth(deployed, *asked).mortality,
        }
    return {"gamma": config.gamma, "policies": told}


@dataclass(frozen=True)
class FirstOnly:
    """Gives the first dose of a stay, and leaves all others to clinicians."""

    bedside: Bedside

    def reset(self, n: int) -> None:
        """Begin with `n` unknown patients."""
        self.bedside.reset(n)

    def act(
        self,
        step: int,
        charted: Mapping[str, Floats],
        previous: Mapping[str, Floats],
        rng: np.random.Generator,
    ) -> dict[str, Floats]:
        """Doses for the row; none after the first."""
        if step == 0:
            return self.bedside.act(step, charted, previous, rng)
        nothing = np.full(len(charted["step"]), np.nan)
        return {name: nothing for name in previous}


def _params(job: Job) -> EvaluateParams:
    """Of the pipeline, but for what the job says."""
    params = Place(job.place).stage.params.evaluate
    update: dict[str, Any] = {
        "inflation": job.inflation,
        "bandwidths": params.bandwidths[:1],
    }
    if job.kind == "fit":
        update["estimators"] = (FITTED,)
    return params.model_copy(update=update)


def _evaluated(job: Job, params: EvaluateParams) -> Evaluation:
    subjects, grounds, generator = _asked(job)
    return evaluate(subjects, grounds, params, generator)


def _asked(job: Job) -> tuple[list[Subject], Grounds, torch.Generator]:
    """The policies, and the patients of this cohort."""
    place = Place(job.place)
    config = SimulatorConfig(confounding=job.confounding)
    generator = torch.Generator().manual_seed(job.seed)
    test = _prepared(place, simulate(job.test, 2 * job.seed, config))
    behaviour, train, others = place.behaviour, None, None
    if job.kind != "light":
        parts = _parts(place, job, config)
        train = parts["train"] if job.kind != "fit" else None  # cold fits need none
        others = parts["calibration"]
        asked = place.stage.params.behaviour.model_copy(update={"kinds": ("neural",)})
        behaviour = fit_behaviour(
            parts["train"], parts["calibration"], parts["validation"], asked, generator
        )
    model = Dynamics.load(place.stage.model("dynamics"), place.history)
    grounds = Grounds(test, behaviour, train, others, model if job.kind == "panel" else None)
    wanted = CONFOUNDED if job.kind == "confounded" else ()
    subjects = read(place, job.folder).subjects
    return [one for one in subjects if one.name in wanted or not wanted], grounds, generator


def _parts(place: Place, job: Job, config: SimulatorConfig) -> dict[str, StayTensors]:
    """Patients drawn together, each in one part."""
    quarter = job.train // 4
    table = simulate(job.train + 2 * quarter, 2 * job.seed + 1, config)
    people = table["patient_id"].unique()
    ends = {"train": job.train, "calibration": job.train + quarter, "validation": len(people)}
    found, begun = {}, 0
    for part, end in ends.items():
        found[part] = _prepared(place, table[table["patient_id"].isin(people[begun:end])])
        begun = end
    return found


def _prepared(place: Place, table: pd.DataFrame) -> StayTensors:
    """Prepared as the patients on whom the policies were trained."""
    preparation = place.history.preparation
    rows = table[list(place.cohort.table_columns)].reset_index(drop=True)
    return stay_tensors(preparation.apply(rows), preparation, place.history)


def _fields(estimates: Mapping[str, Estimate]) -> dict[str, Any]:
    return {name: {key: getattr(one, key) for key in FIELDS} for name, one in estimates.items()}


def _bounds(bounds: Bounds, gamma: float) -> dict[str, Any]:
    """At the known Gamma, at 1, and what the panel says."""
    known, alone = bounds.at(gamma)[0], bounds.at(1.0)[0]
    return {
        "low": known.low,
        "high": known.high,
        "alone": [alone.low, alone.high],
        "panel": [bounds.own.low, bounds.own.high],
        "voters": bounds.own.voters,
    }


_WORK = {"panel": _panel, "fit": _panel, "light": _light, "confounded": _confounded}
assert set(LIGHT) <= set(WEIGHTED)
