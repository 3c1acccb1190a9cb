"""What was logged of patients, laid out for estimators: weights, what was paid, and fitted values.

Called by every estimator. A stay that ended keeps its last weight and pays 0 in every later
column: ragged stays, but not a ragged estimand.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from ogsrl.errors import EstimateError, ModelError
from ogsrl.evaluation.terms import Terms

#: Cumulated log weights beyond this would be no number.
MOST = 600.0


@dataclass(frozen=True)
class Values:
    """Fitted values under the policy, 0 after a stay's end; of other patients than the record's.

    Attributes:
        q: (stays, steps) of the dose that was logged.
        v: (stays, steps) of the doses that the policy would give.
    """

    q: torch.Tensor
    v: torch.Tensor


@dataclass(frozen=True)
class Record:
    """Stays of patients, one quantity, one policy.

    Attributes:
        patient: (stays,) number of the patient, from 0, each with at least one stay.
        inside: (stays, steps) whether the stay still went on.
        ratio: (stays, steps) how much likelier the logged dose is under the policy; 1 where it
            defers, and after the end.
        paid: (stays, steps) what the step added; 0 after the end.
        discount: A step.
        low: The least that the quantity can be.
        high: The most.
        values: Fitted values; None where an estimator does not ask for them.
    """

    patient: torch.Tensor
    inside: torch.Tensor
    ratio: torch.Tensor
    paid: torch.Tensor
    discount: float
    low: float
    high: float
    values: Values | None = None

    def __post_init__(self) -> None:
        """Refuse what no estimator could answer rightly."""
        shape = self.inside.shape
        if not shape[0] or not bool(self.inside.any(1).all()):
            raise EstimateError("estimators: no stay, or a stay without a decision")
        for name in ("ratio", "paid"):
            found = getattr(self, name)
            if found.shape != shape or not bool(torch.isfinite(found).all()):
                raise EstimateError(f"estimators: {name} has gaps, or not a column a step")
        if bool((self.ratio < 0).any()) or bool((self.ratio[~self.inside] != 1).any()):
            raise EstimateError("estimators: a ratio is negative, or not 1 after the end of a stay")
        if bool((self.paid[~self.inside] != 0).any()):
            raise EstimateError("estimators: something is paid after the end of a stay")

    def __len__(self) -> int:
        return len(self.patient)

    @property
    def patients(self) -> int:
        """Number of patients."""
        return int(self.patient.max()) + 1

    @property
    def stays(self) -> torch.Tensor:
        """(patients,) how many stays each had."""
        return torch.bincount(self.patient).double()

    @property
    def weights(self) -> torch.Tensor:
        """(stays, steps) w_t: the product of ratios up to each step."""
        logs = self.ratio.double().log().cumsum(1)
        return logs.clip(max=MOST).exp()

    @property
    def weights_before(self) -> torch.Tensor:
        """(stays, steps) w_{t-1}, 1 at the first."""
        first = torch.ones(len(self), 1, dtype=torch.float64)
        return torch.cat([first, self.weights[:, :-1]], 1)

    @property
    def discounts(self) -> torch.Tensor:
        """(steps,)."""
        return self.discount ** torch.arange(self.inside.shape[1], dtype=torch.float64)

    @property
    def discounted(self) -> torch.Tensor:
        """(stays, steps) what the step added, as it counts at the first decision."""
        return self.paid.double() * self.discounts

    @property
    def returns(self) -> torch.Tensor:
        """(stays,)."""
        return self.discounted.sum(1)

    @property
    def fitted(self) -> Values:
        """Fitted values as they count at the first decision, or an error."""
        if self.values is None:
            raise ModelError("estimators: this one needs fitted values of training patients")
        q, v = self.values.q.double(), self.values.v.double()
        return Values(q * self.discounts, v * self.discounts)

    def by_patient(self, of_stays: torch.Tensor) -> torch.Tensor:
        """(patients, ...) sums over each patient's stays."""
        total = of_stays.new_zeros(self.patients, *of_stays.shape[1:])
        return total.index_add_(0, self.patient, of_stays)

    def mean(self, of_stays: torch.Tensor) -> Terms:
        """The mean over stays; patients are what is drawn.

        A mean of each patient's mean would count deaths too often: only survivors come again.
        """
        return Terms.weighted(self.by_patient(of_stays), self.stays)

    def in_order(self, order: torch.Tensor) -> Record:
        """The same stays in another order."""
        values = self.values and Values(self.values.q[order], self.values.v[order])
        changed = {n: getattr(self, n)[order] for n in ("patient", "inside", "ratio", "paid")}
        return replace(self, **changed, values=values)


@dataclass(frozen=True)
class Support:
    """How much of the logs speaks of the policy.

    Attributes:
        ess: (sum w)^2 / sum w^2 over patients' last weights.
        max_weight: The largest share of one patient.
        mean_weight: What should be 1.
    """

    ess: float
    max_weight: float
    mean_weight: float

    @classmethod
    def of(cls, record: Record) -> Support:
        """Of a record's last weights."""
        last = record.by_patient(record.weights[:, -1])
        most = float(last.max())
        if most <= 0:
            return cls(0.0, 1.0, 0.0)
        shares = last / most  # products of many ratios, squared, would be no number
        total = float(shares.sum())
        return cls(
            ess=total**2 / float(shares.square().sum()),
            max_weight=1 / total,
            mean_weight=float((last / len(record)).sum()),
        )
