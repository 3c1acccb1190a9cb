"""False support, which nothing bounds: measured on simulated cohorts, where the truth is known.

Called by the report of a simulated cohort. It asks the simulator about fresh patients, and never
shows its answers to anything that is fitted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ogsrl.dynamics.ensemble import Dynamics
from ogsrl.dynamics.interventions import (
    Ask,
    Questions,
    as_logged,
    at_random,
    of_another,
    questions,
    scaled_by,
    simulator_config,
)
from ogsrl.guardian.protocol import Guardian
from ogsrl.guardian.shares import share
from ogsrl.preparation import Preparation
from ogsrl.preparation.history import History
from ogsrl.preparation.tensors import StayTensors, stay_tensors
from ogsrl.sources.simulator import simulate
from ogsrl.spec import Cohort

#: Steps at which fresh patients are asked about.
STEPS = (0, 2, 5, 10)
DRAWS = 8
ERROR = (
    "root mean square over observations of predicted minus true mean of the next value, in "
    "training deviations"
)
WORST = "the largest error of a pair that clinicians chose and the guardian supports"
HIGH = "the 99th percentile of the errors of all pairs that clinicians chose"
FATAL = 0.999  # of an unsupported dose in the deadly variant the true risk of death is 1
#: Doses asked of everybody beside the clinicians' own.
ASKS: Mapping[str, Ask] = {
    "logged": as_logged,
    "double": scaled_by(2.0),
    "another patient's": of_another,
    "random": at_random,
}


def model_error(dynamics: Dynamics, asked: Questions, preparation: Preparation) -> torch.Tensor:
    """How wrong the dynamics are about each pair; see `ERROR`."""
    expected = dynamics.predict(asked.states, asked.doses)
    squares = []
    for i, name in enumerate(expected.names):
        made = preparation.states[name]
        if name in asked.expected and not made.constant:
            error = (expected.mean[:, i] - asked.expected[name]) / made.spread
            squares.append(error.square())
    return torch.stack(squares).mean(dim=0).sqrt()


def false_support(
    members: Mapping[str, Guardian],
    dynamics: Dynamics,
    history: History,
    patients: int,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """How often a supported pair is one of which the dynamics know too little.

    False: its error exceeds the worst inside the region, that is `WORST`. `no guardian` supports
    everything and shows what there was to be found.
    """
    asked = questions(history, patients, rng, asks=ASKS, steps=_steps(history), draws=DRAWS)
    errors = {
        name: model_error(dynamics, each, history.preparation) for name, each in asked.items()
    }
    everyone = {name: torch.ones(len(each), dtype=torch.bool) for name, each in asked.items()}
    high = float(torch.quantile(errors["logged"], 0.99)) if len(errors["logged"]) else 0.0
    found = {"no guardian": _beyond_worst(asked, errors, everyone, high)}
    for name, member in members.items():
        inside = {ask: member.supported(each.states, each.doses) for ask, each in asked.items()}
        found[name] = _beyond_worst(asked, errors, inside, high)
    return {
        "patients": patients,
        "error": ERROR,
        "worst_inside": WORST,
        "high": HIGH,
        "asked": [name for name in asked if name != "logged"],
        "members": found,
    }


def _beyond_worst(
    asked: Mapping[str, Questions],
    errors: Mapping[str, torch.Tensor],
    inside: Mapping[str, torch.Tensor],
    high: float,
) -> dict[str, Any]:
    """Of each question: what is supported, and how often that is beyond the worst error inside.

    `beyond_high` is against `HIGH`, the same bar for every guardian: 1 % of what clinicians chose.
    """
    own = errors["logged"][inside["logged"]]
    worst = float(own.max()) if len(own) else None
    asks = {}
    for ask, each in asked.items():
        if ask == "logged" or worst is None:
            continue
        kept, error = inside[ask], errors[ask]
        asks[ask] = {
            "supported": _share(kept, each, torch.ones_like(kept)),
            "beyond_worst": _share(error > worst, each, kept),
            "refused_beyond_worst": _share(error > worst, each, ~kept),
            "beyond_high": _share(error > high, each, kept),
            "mean_error": _mean(error, kept, each),
            "mean_error_refused": _mean(error, ~kept, each),
        }
    typical = float(own.median()) if len(own) else None
    return {"worst_inside": worst, "typical_inside": typical, "asks": asks}


def _share(flags: torch.Tensor, asked: Questions, rows: torch.Tensor) -> dict[str, Any] | None:
    return share(flags[rows].numpy(), asked.stay[rows].numpy())


def _mean(values: torch.Tensor, rows: torch.Tensor, asked: Questions) -> float | None:
    enough = len(torch.unique(asked.stay[rows])) >= 10
    return float(values[rows].double().mean()) if enough else None


#: Fits and calibrates a guardian as the stage does, from training and calibration stays.
Fit = Callable[[StayTensors, StayTensors], Guardian]


def deadly(fit: Fit, history: History, patients: int, rng: np.random.Generator) -> dict[str, Any]:
    """Guardians of the variant in which unsupported doses kill: how often a supported dose kills.

    A cohort of that variant is simulated with `patients` training and half as many calibration
    patients, a guardian is fitted to it as the stage fits its own, and fresh patients are asked
    about doses. Truly outside: a dose that no clinician would ever give to such a patient.
    """
    cohort = history.preparation.cohort
    options = {**cohort.source.options, "variant": "deadly"}
    source = cohort.source.model_copy(update={"options": options})
    variant = _with_cohort(history, cohort.model_copy(update={"source": source}))
    guardian = fit(
        _simulated(variant, patients, int(rng.integers(2**31))),
        _simulated(variant, patients // 2, int(rng.integers(2**31))),
    )
    asked = questions(variant, patients // 2, rng, asks=ASKS, steps=_steps(history), draws=1)
    told = {}
    for name, each in asked.items():
        inside = guardian.supported(each.states, each.doses)
        fatal = each.death >= FATAL
        everyone = torch.ones_like(inside)
        told[name] = {
            "supported": _share(inside, each, everyone),
            "kills": _share(fatal, each, everyone),
            "supported_kills": _share(fatal, each, inside),
            "fatal_refused": _share(~inside, each, fatal),
        }
    return {
        "patients": {"train": patients, "calibration": patients // 2, "fresh": patients // 2},
        "status": guardian.status,
        "asks": told,
    }


def _steps(history: History) -> list[int]:
    return [step for step in STEPS if step < history.preparation.cohort.max_steps]


def _with_cohort(history: History, cohort: Cohort) -> History:
    return replace(history, preparation=replace(history.preparation, cohort=cohort))


def _simulated(history: History, patients: int, seed: int) -> StayTensors:
    """Logged stays of simulated patients, prepared as the cohort's are."""
    preparation = history.preparation
    table = simulate(patients, seed, simulator_config(preparation.cohort))
    table = table[list(preparation.cohort.table_columns)]
    return stay_tensors(preparation.apply(table), preparation, history)
