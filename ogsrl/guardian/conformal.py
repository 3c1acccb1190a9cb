"""The threshold of a guardian by conformal risk control over patients, and what it promises.

Called by every guardian's `calibrate` with calibration patients alone, and by the benchmark. It
must never see a training patient, and it bounds false alarms only: nothing bounds false support.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from scipy import stats

from ogsrl.errors import SupportError
from ogsrl.preparation.coverage import MIN_PATIENTS

#: Scores from here on are refused whatever the threshold: what was never seen. Finite, so that a
#: gradient leads back; a row that cannot be read scores inf.
REFUSED = 1e6

Status = Literal["ready", "uncalibrated", "too_few_patients", "too_many_refused"]


@dataclass(frozen=True)
class Threshold:
    """The score above which a step is refused, and where it comes from.

    With L_i(t) the share of calibration patient i's steps whose score is above t, `value` is the
    smallest t with (sum_i L_i(t) + 1) / (n + 1) <= alpha. Then, for a new patient treated by the
    same clinicians, E[share of steps refused] <= alpha, whatever the guardian; it is also at least
    alpha - 2 / (n + 1) where scores have no ties (Angelopoulos et al. 2022, theorems 1 and 2).

    A guardian whose rule is fixed promises nothing: then alpha is None, `value` is that rule, and
    share and spread are what it was measured to do.

    Attributes:
        alpha: The promised mean share of a patient's steps refused; None: nothing is promised.
        value: Scores above it are refused; None refuses everything.
        status: ready; too_few_patients; or too_many_refused: steps that no threshold may accept.
        patients: Calibration patients, n; None below ten.
        needed: How many calibration patients alpha asks for at least.
        share: Mean over calibration patients of the share refused.
        spread: Standard deviation of that share over patients.
    """

    alpha: float | None
    value: float | None
    status: Status
    patients: int | None
    needed: int
    share: float
    spread: float

    def prediction_bound(self, fresh: int, level: float = 0.999) -> float:
        """Upper bound of the mean share refused in a sample of `fresh` new patients.

        Both samples vary, the one that set the threshold and the fresh one:
        alpha + t(level, n - 1) x spread x sqrt(1/n + 1/fresh).
        """
        if self.alpha is None:
            raise SupportError("guardian: a fixed rule promises nothing, so no bound holds")
        if self.value is None or self.patients is None:
            return 1.0
        quantile = float(stats.t.ppf(level, max(self.patients - 1, 1)))
        error = self.spread * math.sqrt(1 / self.patients + 1 / fresh)
        return min(1.0, self.alpha + quantile * error)

    @classmethod
    def too_few(cls, alpha: float | None, patients: int, needed: int) -> Threshold:
        """Of too few calibration patients: everything is refused, and nothing of them is told."""
        known = patients if patients >= MIN_PATIENTS else None
        return cls(alpha, None, "too_few_patients", known, needed, 1.0, 0.0)

    def to_json(self) -> dict[str, Any]:
        """Plain values; Threshold(**values) reads them back."""
        return asdict(self)


def patients_needed(alpha: float) -> int:
    """The least number of calibration patients n with 1 / (n + 1) <= alpha.

    >>> patients_needed(0.05), patients_needed(0.1), patients_needed(0.03)
    (19, 9, 33)
    """
    return max(1, math.ceil(1 / alpha - 1e-9) - 1)


def shares_above(scores: torch.Tensor, patient: torch.Tensor, value: float | None) -> torch.Tensor:
    """Per patient, the share of steps refused at this threshold; patients in order of number.

    >>> shares_above(torch.tensor([0.2, 0.9, 0.4]), torch.tensor([7, 7, 9]), 0.5).tolist()
    [0.5, 0.0]
    """
    _, number = torch.unique(patient, return_inverse=True)
    refused = torch.ones_like(scores, dtype=torch.bool)
    if value is not None:
        refused = ~((scores <= value) & (scores < REFUSED))
    rows = torch.bincount(number).double()
    return torch.bincount(number, weights=refused.double()) / rows


def conformal_threshold(
    scores: torch.Tensor, patient: torch.Tensor, alpha: float, least: int = MIN_PATIENTS
) -> Threshold:
    """The smallest threshold that keeps the promise, from the scores of calibration decisions.

    Args:
        scores: (rows,), at least `REFUSED` where the threshold does not matter.
        patient: (rows,) number of each row's patient.
        alpha: The promised mean share of a patient's steps refused.
        least: Patients below which no threshold is made, whatever alpha: it would tell of them.

    >>> scores = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    >>> patient = torch.tensor([0, 0, 1, 1, 2, 2])
    >>> conformal_threshold(scores, patient, 0.375, least=1).value  # .5 of 4
    0.5
    """
    if not 0 < alpha < 1:
        raise SupportError(f"guardian.alpha: {alpha:g}; give a share between 0 and 1")
    unknown = int(torch.isnan(scores).sum())
    if unknown:
        raise SupportError(
            f"calibration: {unknown} scores are not a number; a guardian gives inf where it cannot "
            "read a row, mend its `score`"
        )
    needed = max(patients_needed(alpha), least)
    people, number = torch.unique(patient, return_inverse=True)
    n = len(people)
    if n < needed:
        return Threshold.too_few(alpha, n, needed)
    weight = 1 / torch.bincount(number).double()[number]
    order = torch.argsort(scores.double(), descending=True, stable=True)
    falling = scores.double()[order]
    refused = torch.cumsum(weight[order], 0) - weight[order]  # weight of those sorted before
    new = torch.ones_like(falling, dtype=torch.bool)
    new[1:] = falling[1:] != falling[:-1]  # at a tie only the first one's count is of scores above
    allowed = new & (falling < REFUSED) & (refused <= alpha * (n + 1) - 1 + 1e-9)
    if not bool(allowed.any()):
        return Threshold(alpha, None, "too_many_refused", n, needed, 1.0, 0.0)
    value = float(falling[allowed][-1])
    shares = shares_above(scores.double(), patient, value)
    spread = float(shares.std()) if n > 1 else 0.0
    return Threshold(alpha, value, "ready", n, needed, float(shares.mean()), spread)
