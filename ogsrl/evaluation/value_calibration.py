"""Whether predicted values come true: of stays predicted alike, what was observed.

Called by evaluation with values of the clinicians at first decisions, predicted for patients that
their networks never saw, for only the clinicians' outcomes are observed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from scipy import stats

from ogsrl.errors import EstimateError
from ogsrl.evaluation.clustered import Measured, Steps
from ogsrl.evaluation.fqe import first_decisions
from ogsrl.evaluation.quantities import Quantity, primary, quantities, to_go
from ogsrl.preparation.coverage import MIN_PATIENTS
from ogsrl.preparation.tensors import StayTensors

#: Bins of equal counts.
BINS = 10


@dataclass(frozen=True)
class Bin:
    """Stays predicted alike: the mean predicted, and what was observed."""

    predicted: float
    observed: Measured


@dataclass(frozen=True)
class ValueCalibration:
    """Predicted values against what was observed of the same stays.

    A prediction of the mean for everybody has offset 0, and no slope.

    Attributes:
        quantity: Which.
        bins: By rising prediction.
        offset: Mean observed less mean predicted; 0 where values are right on average.
        slope: Of observed on predicted; 1 where they are right, less where they are too extreme.
        censored: Stays left out, whose end is not known; None for one to nine.
    """

    quantity: str
    bins: tuple[Bin, ...]
    offset: Measured
    slope: Measured
    censored: int | None

    def plain(self) -> dict[str, float | None]:
        """Numbers by dotted names, for JSON."""
        told: dict[str, float | None] = {"censored": self.censored}
        for name, one in (("offset", self.offset), ("slope", self.slope)):
            told |= {f"{name}.{field}": x for field, x in self._of(one).items()}
        for i, one_bin in enumerate(self.bins):
            told[f"bins.{i}.predicted"] = one_bin.predicted
            told |= {f"bins.{i}.{n}": x for n, x in self._of(one_bin.observed).items()}
        return told

    def _of(self, one: Measured) -> dict[str, float | None]:
        """Without counts, where how few were left out could be had by subtraction."""
        hidden = {} if self.censored is not None else {"patients": None, "rows": None}
        return one.plain() | hidden

    def drawn(self) -> dict[str, Any]:
        """As the figure `evaluate_calibration` takes it."""
        bins = [{"predicted": one.predicted, **self._of(one.observed)} for one in self.bins]
        return {
            "quantity": self.quantity,
            "bins": bins,
            "offset": self._of(self.offset),
            "slope": self._of(self.slope),
        }


def value_calibration(
    stays: StayTensors,
    predicted: torch.Tensor,
    quantity: str | None = None,
    level: float = 0.95,
) -> ValueCalibration:
    """How what was predicted at first decisions compares with what followed.

    Args:
        stays: Whole stays.
        predicted: (stays,) values of the clinicians at `first_decisions(stays)`, in that order, as
            `Fqe.first_values` has them (the mean over its networks), cross-fitted.
        quantity: Which; none: the primary one.
        level: Of intervals.
    """
    first = first_decisions(stays)
    if predicted.shape != first.shape:
        raise EstimateError(
            f"calibration: {tuple(predicted.shape)} values for {len(first)} first decisions; give "
            "one a stay with a decision"
        )
    name = quantity or primary(stays.history.preparation.cohort)
    (wanted,) = quantities(stays, [name])
    row = stays.decision.nonzero().squeeze(1)
    followed, ended = to_go(stays, wanted)
    here = torch.isin(row, first)
    known = ended[here]
    x, y = predicted.double()[known], followed[here][known].double()
    patient = stays.patient[first][known]
    censored = int((~known).sum())
    return ValueCalibration(
        quantity=name,
        bins=_bins(x, y, patient, wanted, level),
        offset=_steps(patient, level).measured(y - x, _range(y - x)),
        slope=_slope(x, y, patient, level),
        censored=None if 0 < censored < MIN_PATIENTS else censored,
    )


def _bins(
    x: torch.Tensor, y: torch.Tensor, patient: torch.Tensor, wanted: Quantity, level: float
) -> tuple[Bin, ...]:
    """Ten of equal counts; one that may not be told joins the next."""
    told: list[torch.Tensor] = []
    waiting = torch.zeros(0, dtype=torch.int64)
    for some in x.argsort(stable=True).tensor_split(BINS):
        waiting = torch.cat([waiting, some])
        if _may_be_told(y[waiting], patient[waiting]):
            told.append(waiting)
            waiting = waiting[:0]
    while len(waiting) and told:
        waiting = torch.cat([told.pop(), waiting])
        if _may_be_told(y[waiting], patient[waiting]):
            told.append(waiting)
            waiting = waiting[:0]
    within = (min(wanted.low, 0.0), max(wanted.high, wanted.low + 1e-9))
    return tuple(
        Bin(float(x[some].mean()), _steps(patient[some], level).measured(y[some], within))
        for some in told
    )


def _may_be_told(y: torch.Tensor, patient: torch.Tensor) -> bool:
    """Of ten patients or more; of an event, ten or none had it, and ten or none had it not."""
    if len(torch.unique(patient)) < MIN_PATIENTS:
        return False
    if not bool(torch.isin(y, torch.tensor([0.0, 1.0], dtype=y.dtype)).all()):
        return True
    people = [len(torch.unique(patient[y == value])) for value in (0, 1)]
    return not any(0 < count < MIN_PATIENTS for count in people)


def _slope(x: torch.Tensor, y: torch.Tensor, patient: torch.Tensor, level: float) -> Measured:
    """Least squares, Student's interval over patients."""
    people, who = torch.unique(patient, return_inverse=True)
    n = len(people)
    if n < MIN_PATIENTS or float(x.std()) <= 1e-9:
        return Measured.untold(level)
    off = x - x.mean()
    spread = float(off.square().sum())
    slope = float((off * y).sum()) / spread
    left = y - y.mean() - slope * off
    moved = torch.zeros(n, dtype=torch.float64).index_add_(0, who, off * left / spread)
    error = float(moved.square().sum() * n / (n - 1)) ** 0.5
    half = float(stats.t.ppf((1 + level) / 2, n - 1)) * error
    return Measured(slope, slope - half, slope + half, level, n, len(x))


def _steps(patient: torch.Tensor, level: float) -> Steps:
    return Steps(patient, torch.ones(1, len(patient), dtype=torch.float64), level)


def _range(values: torch.Tensor) -> tuple[float, float]:
    most = max(float(values.abs().max()) if len(values) else 0.0, 1.0)
    return -most, most
