"""A cohort that the model never saw: how its patients differ, and whether its clinicians are known.

Called by `ogsrl evaluate`, before anything is said of the policy's worth there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from ogsrl.behaviour.policy import Behaviour
from ogsrl.evaluation.clustered import Measured, Steps
from ogsrl.guardian.protocol import Guardian
from ogsrl.preparation.coverage import MIN_PATIENTS
from ogsrl.preparation.split import hash_position
from ogsrl.preparation.tensors import StayTensors

Floats = npt.NDArray[np.float64]
#: A column has drifted where its mean is off by so many training deviations.
FAR = 0.25
#: A column of codes, or how often a column is charted, where so large a share of rows is moved.
FAR_SHARE = 0.1
#: Rows asked at a time.
BLOCK = 8_192


@dataclass(frozen=True)
class Drift:
    """How this cohort differs from the training patients.

    Attributes:
        means: By column: its mean here less there, in training deviations.
        deviations: By column: its deviation here over that there.
        gaps: By column: share of rows where nothing is charted, here less there; None where one to
            nine patients have any.
        moved: By column of codes: share of rows that would have to change their code for the codes
            to be as frequent as there, beyond what chance alone moves among so few patients.
        refused: Share of the clinicians' own steps here that the guardian refuses.
        promised: What it promised of a patient like those it was calibrated on, on average.
        log_likelihood: Mean log chance of the doses given here under the clinicians' policy, of
            those that have any.
        impossible: Share of steps whose doses that policy gives no chance; None as in gaps.
    """

    means: dict[str, float | None]
    deviations: dict[str, float | None]
    gaps: dict[str, float | None]
    moved: dict[str, float]
    refused: Measured
    promised: float | None
    log_likelihood: float | None
    impossible: float | None

    @property
    def drifted(self) -> tuple[str, ...]:
        """Columns that are far off, farthest first."""
        off = {name: abs(gap or 0.0) / FAR_SHARE for name, gap in self.gaps.items()}
        for found, far in ((self.means, FAR), (self.moved, FAR_SHARE)):
            for name, value in found.items():
                off[name] = max(off[name], abs(value or 0.0) / far)
        return tuple(sorted((name for name in off if off[name] > 1), key=lambda name: -off[name]))

    def plain(self) -> dict[str, Any]:
        """`drift.<name>`."""
        told: dict[str, Any] = {f"drift.mean.{name}": x for name, x in self.means.items()}
        told |= {f"drift.deviation.{name}": x for name, x in self.deviations.items()}
        told |= {f"drift.gaps.{name}": x for name, x in self.gaps.items()}
        told |= {f"drift.moved.{name}": x for name, x in self.moved.items()}
        told |= {f"drift.refused.{name}": x for name, x in self.refused.plain().items()}
        return told | {
            "drift.refused.promised": self.promised,
            "drift.behaviour.log_likelihood": self.log_likelihood,
            "drift.behaviour.impossible": self.impossible,
            "drift.columns": len(self.drifted),
        }


@torch.no_grad()
def drift(
    frame: pd.DataFrame,
    prepared: pd.DataFrame,
    stays: StayTensors,
    behaviour: Behaviour,
    guardian: Guardian,
    level: float = 0.95,
) -> Drift:
    """Compare a cohort with what a model was fitted on.

    Args:
        frame: Rows in clinical units.
        prepared: The same as the model's own preparation makes them: training patients have mean 0
            and deviation 1 in every numeric column.
        stays: The same rows as tensors.
        behaviour: The model's.
        guardian: The model's.
        level: Of the interval of what is refused.
    """
    columns = stays.history.preparation.states
    numeric = [name for name, column in columns.items() if column.kind == "numeric"]
    person, names = pd.factorize(frame["patient_id"])
    half = (hash_position(names.astype(str), "ogsrl-drift") < 0.5)[person]
    gaps: dict[str, float | None] = {}
    moved, few = {}, set()
    for name, column in columns.items():
        cell = column.cells(frame[name].to_numpy(np.float64, na_value=np.nan))
        missing = cell == column.levels
        here = _share(missing, person)
        gaps[name] = None if here is None else here - column.shares[-1]
        if 0 < len(np.unique(person[~missing])) < MIN_PATIENTS:
            few.add(name)  # what is charted of one to nine people
        if column.kind != "numeric":
            moved[name] = _moved(cell, half, np.array(column.shares))
    row = stays.decision.nonzero().squeeze(1)
    asked = torch.split(row, BLOCK)
    scores = [guardian.score(stays.states[some], stays.doses[some]) for some in asked]
    refused = ~guardian.accepts(torch.cat(scores))
    patient = stays.patient[row]
    each = 1 / torch.bincount(patient)[patient].double()  # as promised, a patient weighs 1
    log_b = behaviour.log_prob(stays.states[row], stays.doses[row])
    known = torch.isfinite(log_b)
    return Drift(
        means={n: None if n in few else float(prepared[n].mean()) for n in numeric},
        deviations={n: None if n in few else float(prepared[n].std()) for n in numeric},
        gaps=gaps,
        moved=moved,
        refused=Steps(patient, each[None], level).measured(refused),
        promised=guardian.alpha,
        log_likelihood=float(log_b[known].mean()) if bool(known.any()) else None,
        impossible=_share((~known).numpy(), patient.numpy()),
    )


def _share(rows: npt.NDArray[np.bool_], person: npt.NDArray[np.int64]) -> float | None:
    """Of rows; None where those of one to nine people are, or are not."""
    few = any(0 < len(np.unique(person[these])) < MIN_PATIENTS for these in (rows, ~rows))
    return None if few else float(rows.mean())


def _moved(cell: npt.NDArray[np.int64], half: npt.NDArray[np.bool_], there: Floats) -> float:
    """Half the sum of differences of shares, less what two halves of the patients here tell.

    Two halves of n/2 differ by twice as much as n do from a cohort that is much larger. What is not
    told of there, for want of patients, is one code.

    >>> cell, half = np.repeat([0, 1, 2], [20, 60, 20]), np.arange(100) % 2 == 0
    >>> round(_moved(cell, half, np.array([0.5, 0.5, 0.0])), 3)
    0.3
    """
    known = there > 0

    def shares(rows: npt.NDArray[np.bool_]) -> Floats:
        count = np.bincount(cell[rows], minlength=len(there))[: len(there)]
        return np.append(count[known], count[~known].sum()) / max(int(rows.sum()), 1)

    def distance(one: Floats, other: Floats) -> float:
        return float(np.abs(one - other).sum()) / 2

    chance = distance(shares(half), shares(~half)) / 2
    expected = np.append(there[known], max(1 - float(there.sum()), 0.0))
    return max(distance(shares(half | ~half), expected) - chance, 0.0)
