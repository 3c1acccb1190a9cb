"""Fit the clinicians' policy: each kind on training, calibrated, chosen by validation likelihood.

Called by the stage behaviour and by benchmarks. Test patients are never looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from ogsrl.behaviour.baselines import fit_marginal
from ogsrl.behaviour.boosted import fit_boosted
from ogsrl.behaviour.calibration import fit_calibration
from ogsrl.behaviour.config import BehaviourParams, Kind
from ogsrl.behaviour.crowds import shown
from ogsrl.behaviour.decisions import Decisions, Inputs, check_varied, check_whole
from ogsrl.behaviour.distribution import Marginal
from ogsrl.behaviour.doses import DoseGrid, grids_of
from ogsrl.behaviour.neural import fit_neural
from ogsrl.behaviour.policy import BLOCK, Behaviour, Fitted, Learner
from ogsrl.errors import ModelError
from ogsrl.preparation.history import History
from ogsrl.preparation.tensors import StayTensors

Progress = Callable[[str], None]


@dataclass(frozen=True)
class DecisionParts:
    """The decisions that a fit needs, of three parts with the same columns."""

    history: History
    train: Decisions
    calibration: Decisions
    validation: Decisions

    @classmethod
    def of(
        cls, train: StayTensors, calibration: StayTensors, validation: StayTensors
    ) -> DecisionParts:
        """The decisions of three parts."""
        for name, part in (("calibration", calibration), ("validation", validation)):
            if part.state_names != train.state_names or part.dose_names != train.dose_names:
                raise ModelError(
                    f"{name}: its columns are not those of train; prepare all parts together"
                )
        parts = [Decisions.of(part) for part in (train, calibration, validation)]
        for name, found in zip(("train", "calibration", "validation"), parts, strict=True):
            check_whole(found, name, train.state_names)
        return cls(train.history, *parts)

    @property
    def patients(self) -> dict[str, int]:
        """Patients of each part."""
        names = ("train", "calibration", "validation")
        return {name: getattr(self, name).patients for name in names}

    def half(self, generator: torch.Generator) -> DecisionParts:
        """The same with half of the training patients."""
        kept, _ = self.train.split(0.5, generator)
        return DecisionParts(self.history, kept, self.calibration, self.validation)


def fit(
    train: StayTensors,
    calibration: StayTensors,
    validation: StayTensors,
    params: BehaviourParams,
    generator: torch.Generator,
    progress: Progress = lambda _: None,
) -> Behaviour:
    """Fit every kind of `params.kinds`, and keep the likeliest on validation patients.

    Args:
        train: Fits.
        calibration: Calibrates.
        validation: Chooses the kind.
        params: How.
        generator: All randomness.
        progress: Told what was just done.
    """
    parts = DecisionParts.of(train, calibration, validation)
    return fit_decisions(parts, params, generator, progress)


def fit_decisions(
    parts: DecisionParts,
    params: BehaviourParams,
    generator: torch.Generator,
    progress: Progress = lambda _: None,
) -> Behaviour:
    """As `fit`, from decisions."""
    patients = {part: shown(count) for part, count in parts.patients.items()}
    found = Behaviour(parts.history, params, "too_few_patients", patients, {}, None)
    if any(parts.patients[part] < count for part, count in found.needed.items()):
        return found
    check_varied(parts.train)
    preparation = parts.history.preparation
    actions, train = preparation.cohort.actions, parts.train
    grids = grids_of(actions, preparation.doses, train.doses, train.patient, params.knots)
    marginal = fit_marginal(grids, parts.train)
    inputs = Inputs.of(parts.history, parts.train.states)
    tried: dict[str, Behaviour] = {}
    likelihoods: dict[str, float | None] = {}
    for kind in params.kinds:
        learner = _learn(kind, parts.train, inputs, marginal, params, generator, progress)
        calibrations = tuple(
            fit_calibration(grid, logs, parts.calibration.doses[:, j], marginal.log_weights[j])
            for j, (grid, logs) in enumerate(
                zip(grids, _log_weights(learner, grids, parts.calibration), strict=True)
            )
        )
        progress(f"{kind} calibrated")
        fitted = Fitted(kind, learner, inputs, calibrations, marginal)
        tried[kind] = Behaviour(parts.history, params, "fitted", patients, likelihoods, fitted)
        with torch.no_grad():
            logs = tried[kind].log_prob(parts.validation.states, parts.validation.doses)
        if bool(logs.isnan().any()):
            raise ModelError(
                f"the {kind} behaviour has no number for {int(logs.isnan().sum())} "
                "validation decisions; lower its learning_rate"
            )
        possible = logs[logs > -torch.inf].double()
        likelihoods[kind] = float(possible.mean()) if len(possible) else None
    best = max(tried, key=lambda kind: (likelihoods[kind] is not None, likelihoods[kind]))
    return tried[best]


def _learn(
    kind: Kind,
    train: Decisions,
    inputs: Inputs,
    marginal: Marginal,
    params: BehaviourParams,
    generator: torch.Generator,
    progress: Progress,
) -> Learner:
    grids, logs = marginal.grids, marginal.log_weights

    def told(_: int) -> None:
        progress(kind)

    if kind == "neural":
        return fit_neural(train, inputs, grids, logs, params.neural, generator, told)
    return fit_boosted(train, inputs, grids, logs, params.boosted, generator, told)


@torch.no_grad()
def _log_weights(
    learner: Learner, grids: Sequence[DoseGrid], decisions: Decisions
) -> list[torch.Tensor]:
    """The model's log weights of each dose, given the doses before it as given."""
    found: list[list[torch.Tensor]] = [[] for _ in grids]
    for states, doses in zip(
        torch.split(decisions.states, BLOCK), torch.split(decisions.doses, BLOCK), strict=True
    ):
        context = learner.context(states)
        for j in range(len(grids)):
            found[j].append(learner.log_weights(j, context, doses[:, :j]))
    return [torch.cat(blocks) for blocks in found]
