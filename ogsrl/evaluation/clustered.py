r"""Shares and means of steps, with intervals over patients; what few patients share is not told.

Called by the clinical measures. Steps weigh the same, whoever they are of; the interval allows for
a patient's steps being alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from scipy import stats

from ogsrl.evaluation.terms import Terms
from ogsrl.preparation.coverage import MIN_PATIENTS

#: What a mean can be: no less, and no more.
Range = tuple[float, float]
SHARE: Range = (0.0, 1.0)
#: A standard error, in parts of the range, that is rounding alone.
ROUNDING = 1e-12


@dataclass(frozen=True)
class Measured:
    """A number with its interval over patients; all None where it is of too few of them.

    Attributes:
        estimate: The share or mean.
        low: Of the interval.
        high: Of the interval.
        level: Of the interval, two-sided.
        patients: Whom it is of.
        rows: Steps (or stays) that it is of.
    """

    estimate: float | None
    low: float | None
    high: float | None
    level: float
    patients: int | None
    rows: int | None

    @classmethod
    def untold(cls, level: float) -> Measured:
        """Of too few patients, or of nothing at all."""
        return cls(None, None, None, level, None, None)

    def plain(self) -> dict[str, float | None]:
        """For JSON."""
        return {
            "estimate": self.estimate,
            "lo": self.low,
            "hi": self.high,
            "patients": self.patients,
            "rows": self.rows,
        }


@dataclass(frozen=True)
class Beside:
    """What a policy does, what the clinicians did in the same steps, and the difference."""

    policy: Measured
    clinicians: Measured
    difference: Measured

    @classmethod
    def untold(cls, level: float) -> Beside:
        """Of too few patients."""
        return cls(*[Measured.untold(level)] * 3)

    def plain(self) -> dict[str, float | None]:
        """For JSON, dotted."""
        return dotted(
            policy=self.policy.plain(),
            clinicians=self.clinicians.plain(),
            difference=self.difference.plain(),
        )


@dataclass(frozen=True)
class Steps:
    r"""Rows that count, with their patients; what is measured on them is r below.

        r = sum_i N_i / sum_i D_i,   N_i, D_i patient i's sums of values and of rows,
        SE^2 = n / (n - 1) sum_i ((N_i - r D_i) / sum D)^2,

    and the interval is Wilson's for r in its range, of the sample that would have this SE were all
    rows independent: m = r (1 - r) / SE^2, with Student's quantile over n patients. So it never
    leaves the range. Where all patients say the same it is as wide as n patients leave open.

    Attributes:
        patient: (rows,) number of the patient, from 0.
        counts: (draws, rows) whether the row counts in this draw of the policy.
        level: Of intervals.

    >>> flags = torch.tensor([1.0, 0, 0, 0]).repeat(20)
    >>> steps = Steps(torch.arange(20).repeat_interleave(4), torch.ones(1, 80), 0.95)
    >>> found = steps.measured(flags)
    >>> found.estimate, found.patients, found.rows
    (0.25, 20, 80)
    >>> steps.among(steps.patient < 9).measured(flags).estimate is None
    True
    """

    patient: torch.Tensor
    counts: torch.Tensor
    level: float

    def among(self, kept: torch.Tensor) -> Steps:
        """Those of them where `kept`, (rows,) or (draws, rows), holds."""
        return replace(self, counts=self.counts * kept)

    def few(self, where: torch.Tensor) -> bool:
        """Whether those of them where this holds are of one to nine patients."""
        return 0 < self._people((self.counts > 0).any(0) & where) < MIN_PATIENTS

    def beside(
        self, policy: torch.Tensor, clinicians: torch.Tensor, within: Range = SHARE
    ) -> Beside:
        """Values of the policy, (draws, rows), and of the clinicians, (rows,), on the same rows."""
        span = within[1] - within[0]
        theirs = self.measured(clinicians, within, charted=True)
        difference = Measured.untold(self.level)
        if theirs.estimate is not None:
            difference = self.measured(policy.double() - clinicians, (-span, span))
        return Beside(self.measured(policy, within), theirs, difference)

    def measured(
        self, values: torch.Tensor, within: Range = SHARE, *, charted: bool = False
    ) -> Measured:
        """The mean of values, (rows,) or (draws, rows).

        Args:
            values: Of each row.
            within: What they can be.
            charted: Whether they are what patients were given: then nothing is told where one to
                nine patients have any (or, of shares, one to nine have not all).
        """
        kept = self.counts.double()
        n = torch.where(kept > 0, values.double(), 0.0).mul(kept).mean(0)
        d = kept.mean(0)
        size = int(self.patient.max()) + 1 if len(self.patient) else 0
        sums = torch.zeros(2, size, dtype=torch.float64)
        sums.index_add_(1, self.patient, torch.stack([n, d]))
        people = sums[1] > 0
        count = int(people.sum())
        if count < MIN_PATIENTS:
            return Measured.untold(self.level)
        rare = [n != 0] + ([n != d] if within == SHARE else [])
        if charted and any(0 < self._people(some) < MIN_PATIENTS for some in rare):
            return Measured.untold(self.level)
        terms = Terms.weighted(sums[0, people], sums[1, people])
        error = float(terms.influence().square().sum() * count / (count - 1)) ** 0.5
        low, high = interval(terms.estimate, error, count, self.level, within)
        return Measured(terms.estimate, low, high, self.level, count, round(float(d.sum())))

    def _people(self, rows: torch.Tensor) -> int:
        """Number of patients of these rows."""
        return int((torch.bincount(self.patient[rows]) > 0).sum())


def interval(estimate: float, error: float, patients: int, level: float, within: Range) -> Range:
    """Wilson's interval of a mean with this standard error over patients; see `Steps`.

    >>> [round(end, 3) for end in interval(0.0, 0.0, 100, 0.95, SHARE)]
    [0.0, 0.037]
    >>> [round(end, 3) for end in interval(0.5, 0.05, 100, 0.95, SHARE)]
    [0.403, 0.597]
    """
    span = within[1] - within[0]
    if error <= ROUNDING * span:
        open_ = span * min(1.0, math.log(2 / (1 - level)) / patients)
        return max(estimate - open_, within[0]), min(estimate + open_, within[1])
    share = min(max((estimate - within[0]) / span, 0.0), 1.0)
    size = max(share * (1 - share) / (error / span) ** 2, ROUNDING)
    z = float(stats.t.ppf((1 + level) / 2, patients - 1))
    centre = (share + z**2 / (2 * size)) / (1 + z**2 / size)
    half = z / (1 + z**2 / size) * math.sqrt(share * (1 - share) / size + (z / (2 * size)) ** 2)
    return within[0] + span * max(centre - half, 0.0), within[0] + span * min(centre + half, 1.0)


def dotted(**parts: dict[str, float | None]) -> dict[str, float | None]:
    """Numbers under dotted names.

    >>> dotted(a={"b": 1.0, "c.d": None})
    {'a.b': 1.0, 'a.c.d': None}
    """
    return {f"{part}.{name}": x for part, each in parts.items() for name, x in each.items()}
