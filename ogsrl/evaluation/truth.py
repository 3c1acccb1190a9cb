"""What is true of a policy in ICU-Sepsis, exactly: the process is known, and nothing is drawn.

Called by evaluation, which puts it beside estimates, and by benchmarks. Nothing learned may ever
read a number from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from ogsrl.dynamics.counts import unsafe_codes
from ogsrl.evaluation.quantities import COST, MORTALITY, REFUSAL, VALUE
from ogsrl.policies.deployed import Deployed
from ogsrl.policies.table import acting
from ogsrl.sources.icu_sepsis import STATES, deadly_of, evaluated, ever, occupancy, process
from ogsrl.sources.icu_sepsis.published import Floats, Process
from ogsrl.spec import Cohort


@dataclass(frozen=True)
class ExactTruth:
    """A policy's truth, without error.

    Attributes:
        quantities: mortality, refusal, value and costs, each as `quantities` means it; no value
            where steps pay, no cost of kind `ever`.
        steps: Decisions a stay.
        steps_deferred: Share of them in which the clinician acted.
        stays_deferred: Share of stays with any such step.
    """

    quantities: Mapping[str, float]
    steps: float
    steps_deferred: float
    stays_deferred: float

    @property
    def survival(self) -> float:
        """Share who leave alive."""
        return 1.0 - self.quantities[MORTALITY]


def knows_icu_sepsis(cohort: Cohort) -> bool:
    """Whether the cohort is logged from ICU-Sepsis."""
    return cohort.source.kind == "icu_sepsis"


def icu_sepsis_truth(deployed: Deployed, cohort: Cohort) -> ExactTruth:
    """What is true of a policy in a cohort's process; where it defers, its own clinicians act.

    Of clinicians alone: a `Deployed` of no actor, whose every step counts as deferred. Mortality is
    that of stays to their end; the share of stays longer than the cohort's horizon is in
    `sources.icu_sepsis.logs`.
    """
    known = process(deadly=deadly_of(cohort))
    does = acting(deployed)
    policy = does.treated(torch.from_numpy(known.clinicians.copy())).numpy()
    deferred = does.deferred.numpy()
    exact = evaluated(known, policy)
    refused = float(exact.visits @ deferred)
    found = {MORTALITY: exact.mortality, REFUSAL: refused / cohort.max_steps}
    found |= _by_step(known, policy, cohort, unsafe_codes(deployed.history).numpy())
    return ExactTruth(
        quantities=found,
        steps=exact.steps,
        steps_deferred=refused / exact.steps,
        stays_deferred=ever(known, policy, deferred > 0),
    )


def _by_step(known: Process, policy: Floats, cohort: Cohort, unsafe: Floats) -> dict[str, float]:
    """What depends on a step's number: value and costs, within the cohort's horizon."""
    most = cohort.max_steps
    there = occupancy(known, policy, most)
    follows = np.einsum("sa,sao->so", policy, known.follows)
    death, leaves = there @ follows[:, STATES], there @ follows[:, STATES + 1]
    found: dict[str, float] = {}
    ends = cohort.reward.terminal
    if ends is not None and cohort.reward.step is None:
        leaves[-1] = 0.0  # all who live through the last step reach the horizon
        paid = ends.death * death + ends.discharge * leaves
        paid[-1] += ends.horizon * (there[-1].sum() - death[-1])
        found[VALUE] = float(paid @ cohort.discount ** np.arange(most))
    lost = float(death @ (most - np.arange(most))) / most
    on = there[:-1] @ follows[:, :STATES]
    for (name, constraint), codes in zip(cohort.constraints.items(), unsafe, strict=True):
        if constraint.kind == "share":
            found[COST + name] = lost + float(on.sum(0) @ codes) / most
    return found
