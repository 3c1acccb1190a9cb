"""What behaviour tells about itself: the contents of behaviour.json, from validation patients.

Called by the stage behaviour; figures are drawn from this alone. Aggregates only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from ogsrl.behaviour.baselines import Persistence
from ogsrl.behaviour.crowds import shown
from ogsrl.behaviour.decisions import Decisions
from ogsrl.behaviour.distribution import DosePolicy
from ogsrl.behaviour.measures import (
    bands_of,
    log_probs,
    over_patients,
    ratio_by_step,
    reliability_by_band,
)
from ogsrl.behaviour.policy import Behaviour
from ogsrl.preparation.coverage import MIN_PATIENTS, cells

#: What `effective` must reach for a step's ratio to be judged, and what it should lie within.
EFFECTIVE, RATIO = 2_000, (0.9, 1.1)


def describe(
    behaviour: Behaviour,
    train: Decisions,
    validation: Decisions,
    others: Mapping[str, DosePolicy],
) -> dict[str, Any]:
    """The contents of behaviour.json.

    Args:
        behaviour: The policy fitted.
        train: What it was fitted on; fits the persistence baseline.
        validation: Patients on which it is judged; they also chose its kind.
        others: Policies that are not b, by name, for E_b[pi/b].
    """
    cohort = behaviour.history.preparation.cohort
    told: dict[str, Any] = {
        "cohort": cohort.name,
        "version": cohort.version,
        "status": behaviour.status,
        "params": behaviour.params.model_dump(mode="json"),
        "needed": behaviour.needed,
        "smallest_cell": MIN_PATIENTS,
        "patients": behaviour.patients,
    }
    if behaviour.fitted is None:
        return told
    if validation.patients < MIN_PATIENTS:  # whatever is said, is said of one of them
        return told | {"status": "too_few_to_report"}
    fitted = behaviour.fitted
    logged = log_probs(behaviour, validation)
    bands = {
        grid.name: bands_of(grid, logs, cohort.actions[grid.name].levels)
        for grid, logs in zip(fitted.marginal.grids, fitted.marginal.log_weights, strict=True)
    }
    reliable = reliability_by_band(behaviour, validation, bands)
    errors = [b["error"] for each in reliable.values() for b in each if b["error"] is not None]
    return told | {
        "kind": fitted.kind,
        "kinds": behaviour.likelihoods,
        "constant_columns": list(fitted.inputs.constant),
        "calibration": {
            one.grid.name: {"slope": one.slope, "within": one.within, "marginal_share": one.share}
            for one in fitted.calibrations
        },
        "doses": _doses(behaviour, train),
        "decisions": len(validation),
        "likelihood": _likelihood(behaviour, train, validation, logged),
        "reliability": reliable,
        "calibration_error": max(errors, default=None),
        "ratio": {
            "effective_needed": EFFECTIVE,
            "within": list(RATIO),
            "policies": {
                name: ratio_by_step(log_probs(policy, validation), logged, validation)
                for name, policy in others.items()
            },
        },
    }


def _doses(behaviour: Behaviour, train: Decisions) -> dict[str, Any]:
    """What each dose's distribution is made of, and what training clinicians never did."""
    cohort = behaviour.history.preparation.cohort
    told = {}
    for j, grid in enumerate(behaviour.marginal.grids):
        action = cohort.actions[grid.name]
        names = action.levels if grid.kind == "ordinal" else grid.part_names
        part = grid.part(train.doses[:, j]).numpy()
        found = cells(part, train.patient.numpy(), len(names), total_known=True)
        given = set(part.tolist())
        told[grid.name] = {
            "label": action.label or grid.name,
            "unit": action.unit,
            "knots": len(grid.knots),
            "training_shares": {
                name: None if i in found.suppressed else float(found.rows[i] / len(part))
                for i, name in enumerate(names)
            },
            "never": [name for i, name in enumerate(names) if i not in given],
        }
    return told


def _likelihood(
    behaviour: Behaviour, train: Decisions, validation: Decisions, logged: torch.Tensor
) -> dict[str, Any]:
    """Mean log-likelihood a decision, beside baselines in the same measure."""
    persistence = Persistence.fit(behaviour.marginal, train)
    others = {
        "persistence": persistence.distribution(validation).log_prob(validation.doses),
        "marginal": log_probs(behaviour.marginal, validation),
    }
    given = logged > -torch.inf
    rows, never = validation.where(given), validation.where(~given)
    return {
        "behaviour": _enough(over_patients(logged[given], rows.patient)),
        "baselines": {
            name: {
                "mean": _finite(logs[given].double().mean()) if shown(rows.patients) else None,
                "gain": _enough(over_patients((logged - logs)[given], rows.patient)),
            }
            for name, logs in others.items()
        },
        "never_given_in_training": None if shown(never.patients) is None else len(never),
    }


def _enough(measured: dict[str, float | int | None]) -> dict[str, float | int | None]:
    """What was measured, unless of fewer than ten patients."""
    return measured if shown(int(measured["patients"] or 0)) else dict.fromkeys(measured)


def _finite(value: torch.Tensor) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None
