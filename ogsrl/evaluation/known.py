"""What is true of policies, where the cohort knows it: it stands beside every estimate.

Called by the stage evaluate and by benchmarks. Nothing learned may ever read a number from here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ogsrl.dynamics.interventions import is_simulated, simulator_config
from ogsrl.evaluation.asking import CLINICIANS
from ogsrl.evaluation.evaluate import Subject
from ogsrl.evaluation.simulated import each_patient, simulated_truth
from ogsrl.evaluation.truth import icu_sepsis_truth, knows_icu_sepsis
from ogsrl.preparation.blocks import side_by_side
from ogsrl.sources.simulator import Clinicians
from ogsrl.sources.simulator.config import Floats
from ogsrl.spec import Cohort

#: Added to the seed: fresh patients are never those of the log.
APART = 1_000_003


@dataclass(frozen=True)
class Known:
    """A true number, and how sure it is."""

    truth: float
    se: float

    def held(self, low: float, high: float) -> bool:
        """Whether an interval holds it."""
        return low <= self.truth <= high


@dataclass(frozen=True)
class Truths:
    """What is true: by policy and quantity, of the policy and of its gain; empty: not known."""

    own: Mapping[str, Mapping[str, Known]] = field(default_factory=dict)
    gains: Mapping[str, Mapping[str, Known]] = field(default_factory=dict)


def known(cohort: Cohort) -> bool:
    """Whether what another policy would have done is known of this cohort."""
    return is_simulated(cohort) or knows_icu_sepsis(cohort)


def truths(
    subjects: Sequence[Subject],
    cohort: Cohort,
    patients: int,
    seed: int,
    progress: Callable[[int], None] | None = None,
) -> Truths:
    """What is true of each policy and of its gain; nothing where the cohort does not know.

    Args:
        subjects: The clinicians among them.
        cohort: Whose.
        patients: Fresh ones, where they must be drawn; 0: nothing is asked.
        seed: Of the pipeline.
        progress: Called with 1 after each policy.
    """
    if not known(cohort) or not patients:
        return Truths()
    if knows_icu_sepsis(cohort):
        return _exact(subjects, cohort)
    config = simulator_config(cohort)

    def treated(one: Subject) -> dict[str, Floats]:
        acting = Clinicians(config) if one.name == CLINICIANS else one.deployed
        told = simulated_truth(acting, cohort, config, patients, seed + APART)
        if progress is not None:
            progress(1)
        return each_patient(told, cohort)

    names = [one.name for one in subjects]
    each = dict(zip(names, side_by_side(treated, subjects), strict=True))
    own = {name: {q: _mean(x) for q, x in found.items()} for name, found in each.items()}
    gains = {
        name: {q: _mean(x - each[CLINICIANS][q]) for q, x in found.items()}
        for name, found in each.items()
        if name != CLINICIANS
    }
    return Truths(own, gains)


def _exact(subjects: Sequence[Subject], cohort: Cohort) -> Truths:
    """Of a process that is known: nothing is drawn."""
    found = {one.name: dict(icu_sepsis_truth(one.deployed, cohort).quantities) for one in subjects}
    theirs = found[CLINICIANS]
    own = {name: {q: Known(x, 0.0) for q, x in each.items()} for name, each in found.items()}
    gains = {
        name: {q: Known(x - theirs[q], 0.0) for q, x in each.items()}
        for name, each in found.items()
        if name != CLINICIANS
    }
    return Truths(own, gains)


def _mean(values: Floats) -> Known:
    return Known(float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values))))
