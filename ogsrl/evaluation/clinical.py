"""What a policy does at the bedside, in the words of clinicians, beside what they did.

Called by evaluation with logged decisions of patients that nothing was fitted on. Nothing here
says whether a policy is good: values do. Each measure names the degenerate answer that it has.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field

from ogsrl.errors import EstimateError
from ogsrl.evaluation.clinical_parts import (
    WIDE,
    Decided,
    DoseUse,
    dose_planes,
    dose_use,
    intensified,
)
from ogsrl.evaluation.clinical_risks import (
    HazardUse,
    hazard_use,
    not_evaluable,
    predicted_unsafe,
)
from ogsrl.evaluation.clustered import Beside, Measured, Steps, dotted
from ogsrl.evaluation.executed import BLOCK, Executed
from ogsrl.evaluation.rollouts import Model
from ogsrl.policies.deployed import Decisions, Deployed
from ogsrl.preparation.coverage import cells
from ogsrl.preparation.tensors import StayTensors
from ogsrl.spec import Cohort


class ClinicalParams(BaseModel):
    """Parameters of the clinical measures."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    confidence: float = Field(0.95, gt=0.5, lt=1, description="Of every interval, two-sided.")
    tolerance: dict[str, float] = Field(
        default_factory=dict,
        description="Of a dose, in its unit: how far policy and clinicians may be apart and still "
        "agree. None: one `increment`; an ordinal dose, its level; else 5 % of the bounds' width.",
    )


@dataclass(frozen=True)
class Clinical:
    """What a policy does, measured.

    But for deferrals, everything is of the steps where the policy recommends a dose, and the
    clinicians' own beside it is of the same steps: who always defers does nothing, and has no
    numbers. Steps weigh the same; intervals are over patients (see `clustered`).

    Attributes:
        concordance: Share of steps where every dose is within its tolerance of what was given.
            Cloning is concordant, good or not.
        concordance_by_dose: The same of each dose alone.
        tolerance: Of each dose, in its unit.
        intensified: Among states that meet a constraint, after a stay's first step: share where
            more of some dose is given than the step before and less of none. Who always gives more
            has 1: see the next.
        intensified_safe: The same among states that meet no constraint.
        intensified_by_constraint: The same among states that meet this one.
        predicted_unsafe: By constraint: what the dynamics expect of the next charted row, if there
            is one. Empty where no dynamics were given.
        doses: How each dose is used.
        hazards: What must never be recommended, by name.
        deferred_steps: Share of all steps.
        deferred_stays: Share of stays with any.
        rules: Share of all steps deferred by each rule.
        planes: Of the first two doses (or one), as the figure `evaluate_plane` takes them.
    """

    concordance: Measured
    concordance_by_dose: Mapping[str, Measured]
    tolerance: Mapping[str, float]
    intensified: Beside
    intensified_safe: Beside
    intensified_by_constraint: Mapping[str, Beside]
    predicted_unsafe: Mapping[str, Beside]
    doses: Mapping[str, DoseUse]
    hazards: Mapping[str, HazardUse]
    deferred_steps: Measured
    deferred_stays: Measured
    rules: Mapping[str, Measured]
    planes: Mapping[str, Mapping[str, Any]]

    def plain(self) -> dict[str, float | None]:
        """Numbers by dotted names, e.g. `doses.iv_fluid.mean.clinicians.lo`; for JSON."""
        told: dict[str, float | None] = {}
        for field in fields(self):
            if field.name == "planes":
                continue  # drawn alone
            entry = getattr(self, field.name)
            if field.name == "tolerance":
                told |= {f"tolerance.{name}": float(x) for name, x in entry.items()}
            elif isinstance(entry, Mapping):
                each = {name: one.plain() for name, one in entry.items()}
                told |= dotted(**{field.name: dotted(**each)})
            else:
                told |= dotted(**{field.name: entry.plain()})
        return told

    def distributions(self) -> list[dict[str, Any]]:
        """Of each dose the shares of its bins, as the figure `evaluate_doses` takes them."""
        return [use.distribution() for use in self.doses.values()]

    @property
    def not_evaluable(self) -> dict[str, Sequence[str]]:
        """Hazards of which nothing is known, with the columns that the cohort lacks."""
        return not_evaluable(self.hazards)


#: As documented.
DEFAULTS = ClinicalParams()


@torch.no_grad()
def measure(
    stays: StayTensors,
    executed: Executed,
    deployed: Deployed,
    generator: torch.Generator,
    params: ClinicalParams = DEFAULTS,
    model: Model | None = None,
) -> Clinical:
    """Clinical measures of one policy on logged decisions.

    Args:
        stays: Whole stays of patients that nothing was fitted on.
        executed: What the policy does in every row of them.
        deployed: The policy, asked once more for its rules.
        generator: Of what the policy and the model draw.
        params: See there.
        model: Dynamics, for what to expect of the next row; none: nothing is predicted.
    """
    cohort = stays.history.preparation.cohort
    decided = Decided.of(stays, executed, params.confidence)
    some, doses = decided.recommended, decided.doses
    tolerance = tolerances(cohort, params)
    close = {name: dose.concordant(tolerance[name]) for name, dose in doses.items()}
    mine, theirs = intensified(doses)
    unsafe = decided.unsafe()
    any_unsafe = torch.stack([torch.zeros_like(decided.step, dtype=torch.bool), *unsafe.values()])

    later = some.among(decided.step > 0)  # before the first nothing is known to have been given
    met = any_unsafe.any(0)

    def more(where: torch.Tensor) -> Beside:
        return later.among(where).beside(mine, theirs.double())

    both = more(met), more(~met)
    if later.few(met) or later.few(~met):  # the other would tell of them by subtraction
        both = Beside.untold(params.confidence), Beside.untold(params.confidence)
    return Clinical(
        concordance=some.measured(torch.stack([*close.values()]).all(0), charted=True),
        concordance_by_dose={
            name: some.measured(same, charted=True) for name, same in close.items()
        },
        tolerance=tolerance,
        intensified=both[0],
        intensified_safe=both[1],
        intensified_by_constraint={name: more(met) for name, met in unsafe.items()},
        predicted_unsafe={} if model is None else predicted_unsafe(decided, model, generator),
        doses={name: dose_use(decided, name) for name in doses},
        hazards=hazard_use(decided),
        deferred_steps=decided.every.measured(decided.deferred),
        deferred_stays=_stays_deferred(stays, executed, params.confidence),
        rules=_rules(decided, deployed, generator),
        planes=dose_planes(decided),
    )


def tolerances(cohort: Cohort, params: ClinicalParams = DEFAULTS) -> dict[str, float]:
    """How far policy and clinicians may be apart and still agree, of each dose."""
    unknown = sorted(params.tolerance.keys() - cohort.actions.keys())
    if unknown:
        known = ", ".join(cohort.actions)
        raise EstimateError(f"tolerance: {', '.join(unknown)} is no dose of this cohort: {known}")
    made = {}
    for name, action in cohort.actions.items():
        low, high = action.range
        usual = 0.0 if action.kind == "ordinal" else action.increment or WIDE * (high - low)
        made[name] = params.tolerance.get(name, usual)
    return made


def _stays_deferred(stays: StayTensors, executed: Executed, level: float) -> Measured:
    """Share of stays with any step deferred."""
    row = stays.decision.nonzero().squeeze(1)
    stay = torch.unique(stays.stay[row], return_inverse=True)[1]
    count = int(stay.max()) + 1 if len(stay) else 0
    patient = torch.zeros(count, dtype=stays.patient.dtype)
    patient[stay] = stays.patient[row]
    ever = torch.zeros(len(executed.deferred), count, dtype=torch.int64)
    ever.index_add_(1, stay, executed.deferred[:, row].long())
    return Steps(patient, torch.ones_like(ever, dtype=torch.float64), level).measured(ever > 0)


def _rules(decided: Decided, deployed: Deployed, generator: torch.Generator) -> dict[str, Measured]:
    """Share of steps deferred by each rule, of a draw of the policy's own; commonest first.

    Of a rule that one to nine patients meet, its name alone.
    """
    said: list[str | None] = []
    for states in torch.split(decided.states, BLOCK):
        asked = deployed.decide(states, generator)
        some = asked.deferred.nonzero().squeeze(1)
        kept = Decisions(*(getattr(asked, field.name)[some] for field in fields(Decisions)))
        rules: list[str | None] = [None] * len(states)
        for place, rule in zip(some.tolist(), deployed.rules(states[some], kept), strict=True):
            rules[place] = rule
        said += rules
    counted = Counter(rule for rule in said if rule is not None)
    names = sorted(counted, key=lambda rule: (-counted[rule], rule))
    code = np.array([len(names) if rule is None else names.index(rule) for rule in said])
    # all deferred steps are told too: a rule of few patients is not to be had by subtraction
    refused = code < len(names)
    patient = decided.every.patient.numpy()
    hidden = cells(code[refused], patient[refused], len(names), total_known=True).suppressed
    return {
        rule: Measured.untold(decided.every.level)
        if number in hidden
        else decided.every.measured(torch.from_numpy(code == number))
        for number, rule in enumerate(names)
    }
