"""A cohort that the model never saw: how its patients differ, and whether its clinicians are known.

Called by `ogsrl evaluate`, before anything is said of the policy's worth there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch

from ogsrl.behaviour.policy import Behaviour
from ogsrl.evaluation.clustered import Measured, Steps
from ogsrl.guardian.protocol import Guardian
from ogsrl.preparation.tensors import StayTensors

#: A column has drifted where its mean is off by so many training deviations.
FAR = 0.25
#: Rows asked at a time.
BLOCK = 8_192


@dataclass(frozen=True)
class Drift:
    """How this cohort differs from the training patients.

    Attributes:
        means: By column: its mean here less there, in training deviations.
        deviations: By column: its deviation here over that there.
        refused: Share of the clinicians' own steps here that the guardian refuses.
        promised: What it promised of a patient like those it was calibrated on, on average.
        log_likelihood: Mean log chance of the doses given here under the clinicians' policy, of
            those that have any.
        impossible: Share of steps whose doses that policy gives no chance.
    """

    means: dict[str, float]
    deviations: dict[str, float]
    refused: Measured
    promised: float | None
    log_likelihood: float | None
    impossible: float

    @property
    def drifted(self) -> tuple[str, ...]:
        """Columns that are far off, farthest first."""
        far = [name for name, value in self.means.items() if abs(value) > FAR]
        return tuple(sorted(far, key=lambda name: -abs(self.means[name])))

    def plain(self) -> dict[str, Any]:
        """`drift.<name>`."""
        told: dict[str, Any] = {f"drift.mean.{name}": x for name, x in self.means.items()}
        told |= {f"drift.deviation.{name}": x for name, x in self.deviations.items()}
        told |= {f"drift.refused.{name}": x for name, x in self.refused.plain().items()}
        return told | {
            "drift.refused.promised": self.promised,
            "drift.behaviour.log_likelihood": self.log_likelihood,
            "drift.behaviour.impossible": self.impossible,
            "drift.columns": len(self.drifted),
        }


@torch.no_grad()
def drift(
    prepared: pd.DataFrame,
    stays: StayTensors,
    behaviour: Behaviour,
    guardian: Guardian,
    level: float = 0.95,
) -> Drift:
    """Compare a cohort with what a model was fitted on.

    Args:
        prepared: Rows as the model's own preparation makes them: training patients have mean 0
            and deviation 1 in every numeric column.
        stays: The same rows as tensors.
        behaviour: The model's.
        guardian: The model's.
        level: Of the interval of what is refused.
    """
    cohort = stays.history.preparation.cohort
    numeric = [name for name, column in cohort.states.items() if column.kind == "numeric"]
    row = stays.decision.nonzero().squeeze(1)
    asked = torch.split(row, BLOCK)
    scores = [guardian.score(stays.states[some], stays.doses[some]) for some in asked]
    refused = ~guardian.accepts(torch.cat(scores))
    patient = stays.patient[row]
    each = 1 / torch.bincount(patient)[patient].double()  # as promised, a patient weighs 1
    log_b = behaviour.log_prob(stays.states[row], stays.doses[row])
    known = torch.isfinite(log_b)
    return Drift(
        means={name: float(prepared[name].mean()) for name in numeric},
        deviations={name: float(prepared[name].std()) for name in numeric},
        refused=Steps(patient, each[None], level).measured(refused),
        promised=guardian.alpha,
        log_likelihood=float(log_b[known].mean()) if bool(known.any()) else None,
        impossible=float((~known).double().mean()),
    )
