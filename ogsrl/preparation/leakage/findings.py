"""What a leakage check says, and the rows that checks look at.

Used by the checks beside it and by the stage prepare. A finding names columns and counts, never a
value or a patient.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from ogsrl.errors import LeakageError
from ogsrl.preparation.rows import TrainingRows
from ogsrl.spec import Cohort
from ogsrl.trajectories import Stays

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Kind = Literal["construction", "reconstruction", "temporal_overlap", "timing", "persistence"]
Status = Literal["clean", "leak", "warning", "not run"]
KINDS: tuple[Kind, ...] = (
    "construction",
    "reconstruction",
    "temporal_overlap",
    "timing",
    "persistence",
)


@dataclass(frozen=True)
class Finding:
    """One check: what was measured, against what limit, on which columns, and what it means."""

    kind: Kind
    check: str
    status: Status
    message: str
    statistic: float | None = None
    limit: float | None = None
    columns: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """For dataset.json."""
        number = None if self.statistic is None else round(self.statistic, 4)
        return asdict(self) | {"statistic": number, "columns": list(self.columns)}


def not_run(kind: Kind, check: str, why: str) -> Finding:
    """A check that could not be run, and why."""
    return Finding(kind, check, "not run", why)


def worst(
    kind: Kind,
    check: str,
    scores: dict[tuple[str, ...], float],
    limit: float,
    message: str,
    clean: str,
    warning: float | None = None,
) -> Finding:
    """A leak naming every set of columns at or above the limit, or clean with the largest score.

    With `warning`, scores between it and the limit are a warning instead.
    """
    known = {columns: score for columns, score in scores.items() if np.isfinite(score)}
    if not known:
        return not_run(kind, check, "too few rows to measure it on any column")
    largest = max(known.values())
    status: Status = "leak" if largest >= limit else "clean"
    if status == "clean" and warning is not None and largest >= warning:
        status, limit = "warning", warning
    if status == "clean":
        return Finding(kind, check, status, clean, largest, limit)
    found = [columns for columns, score in known.items() if score >= limit]
    named = tuple(dict.fromkeys(name for columns in found for name in columns))
    return Finding(kind, check, status, message, largest, limit, named)


def raise_on_leak(findings: list[Finding]) -> None:
    """Raise if any check found a leak, naming all of them."""
    leaks = [finding for finding in findings if finding.status == "leak"]
    if leaks:
        lines = [
            f"{leak.kind} ({leak.check}): {', '.join(leak.columns) or 'the table'}: {leak.message}"
            for leak in leaks
        ]
        raise LeakageError(f"{len(leaks)} leaks into the state:\n" + "\n".join(lines))


class Sample:
    """A fixed sample of training patients' rows, in clinical units."""

    def __init__(self, frame: pd.DataFrame, cohort: Cohort) -> None:
        self.frame = frame
        self.cohort = cohort
        self.stays = Stays.of(frame["stay_id"])

    @classmethod
    def of(cls, rows: TrainingRows) -> Sample:
        """The sample of the training rows."""
        return cls(rows.sample(), rows.cohort)

    def numpy(self, name: str) -> Floats:
        """A column, NaN where nothing is charted."""
        return self.frame[name].to_numpy(np.float64, na_value=np.nan)

    @cached_property
    def filled(self) -> dict[str, Floats]:
        """States with gaps carried, then the median; columns never charted are left out."""
        result = {}
        for name in self.cohort.states:
            values = self.stays.carry(self.numpy(name))
            if not np.isnan(values).all():
                result[name] = np.where(np.isnan(values), np.nanmedian(values), values)
        return result

    @cached_property
    def decision(self) -> Flags:
        """Rows where a dose was chosen."""
        censored: Flags = (self.frame["end"] == "censored").fillna(False).to_numpy(bool)
        return ~censored

    @cached_property
    def later(self) -> Flags:
        """Decisions that have a row before them."""
        return self.decision & ~self.stays.first

    def previous_doses(self, name: str) -> Floats:
        """The dose's two values before the row, 0 before the stay."""
        dose = np.nan_to_num(self.numpy(name))
        once = self.stays.previous(dose, 0.0)
        return np.column_stack([once, self.stays.previous(once, 0.0)])

    def changed(self, name: str) -> Flags:
        """Decisions whose dose is not the dose before: where a lagged copy cannot pass."""
        other: Flags = self.numpy(name) != self.previous_doses(name)[:, 0]
        return self.later & other

    @cached_property
    def died(self) -> Floats | None:
        """Whether each stay's patient died, NaN where unknown; None where nobody's death is."""
        if self.cohort.outcome is None:
            return None
        ends = self.frame["end"].iloc[self._last]
        died = self.frame["died"].iloc[self._last].astype("boolean")
        known = np.asarray(died.to_numpy(np.float64, na_value=np.nan), np.float64)
        known[(ends == "death").fillna(False).to_numpy(bool)] = 1.0
        return known

    @property
    def _last(self) -> npt.NDArray[np.int64]:
        return self.stays.start + self.stays.length - 1

    def at(self, values: Floats, which: Literal["first", "last"]) -> Floats:
        """A column's value on each stay's first or last row."""
        return values[self.stays.start if which == "first" else self._last]

    @cached_property
    def held_out(self) -> Flags:
        """Rows of every other patient, kept from fits."""
        odd: Flags = pd.factorize(self.frame["patient_id"])[0] % 2 == 1
        return odd
