"""The training rows, a column at a time, so that a large cohort is fitted in little memory.

Called by fit, leakage and quality; the stage passes the function that reads a column. Keeps a
fixed sample of whole patients for what needs several columns at once. Sees training rows alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd

from ogsrl.errors import PreparationError
from ogsrl.preparation.split import hash_position
from ogsrl.spec import Cohort
from ogsrl.trajectories import Stays

SAMPLE_ROWS = 40_000
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Missingness:
    """How often a column is charted."""

    rows: int
    missing: int
    never: int
    steps_since: tuple[float, float, float]

    @property
    def share(self) -> float:
        """Share of rows without a value."""
        return self.missing / self.rows if self.rows else 0.0


class TrainingRows:
    """Training rows in clinical units, read a column at a time.

    Args:
        column: Reads one column of the training rows, in the table's order.
        cohort: The cohort.
        sample_rows: About how many rows of whole patients the sample holds.
    """

    def __init__(
        self,
        column: Callable[[str], pd.Series],
        cohort: Cohort,
        sample_rows: int = SAMPLE_ROWS,
    ) -> None:
        self.cohort = cohort
        self.sample_rows = sample_rows
        self.missingness: dict[str, Missingness] = {}
        self._column = column
        self._sampled: dict[str, pd.Series] = {}

    @classmethod
    def of(
        cls, frame: pd.DataFrame, cohort: Cohort, sample_rows: int = SAMPLE_ROWS
    ) -> TrainingRows:
        """Training rows that are in memory already."""

        def column(name: str) -> pd.Series:
            return frame[name]

        return cls(column, cohort, sample_rows)

    @cached_property
    def stays(self) -> Stays:
        """Where each stay lies."""
        stays = Stays.of(self._column("stay_id"))
        if not len(stays.start):
            raise PreparationError(
                "train: no patient; the cohort is too small for prepare.split, or the source's "
                "own split holds no training patient"
            )
        return stays

    @cached_property
    def patient(self) -> npt.NDArray[np.int64]:
        """Number of each stay's patient, from 0."""
        return self._patients[0]

    @property
    def patients(self) -> int:
        """Number of training patients."""
        return len(self._patients[1])

    @cached_property
    def _patients(self) -> tuple[npt.NDArray[np.int64], Floats]:
        codes, names = pd.factorize(self._column("patient_id").iloc[self.stays.start])
        return codes, hash_position(names.astype(str), "ogsrl-sample")

    @cached_property
    def sampled(self) -> npt.NDArray[np.bool_]:
        """Whether a row's patient is in the sample; the same patients in whatever order."""
        length = np.bincount(self.patient, weights=self.stays.length, minlength=self.patients)
        order = np.argsort(self._patients[1], kind="stable")
        within = np.cumsum(length[order]) - length[order] < self.sample_rows
        chosen = np.zeros(self.patients, bool)
        chosen[order[within]] = True
        return np.repeat(chosen[self.patient], self.stays.length)

    def series(self, name: str) -> pd.Series:
        """A column as the table has it."""
        values = self._column(name)
        if len(values) != self.stays.rows:
            raise PreparationError(
                f"{name}: {len(values)} rows where stay_id has {self.stays.rows}; "
                "the table changed while it was read, run prepare again"
            )
        if name not in self._sampled:
            self._sampled[name] = values[self.sampled].reset_index(drop=True)
        return values

    def numpy(self, name: str) -> Floats:
        """A numeric column in clinical units, NaN where nothing is charted."""
        values = self.series(name).to_numpy(np.float64, na_value=np.nan)
        if name in self.cohort.states and name not in self.missingness:
            self.missingness[name] = _missingness(values, self.stays)
        return values

    def sample(self) -> pd.DataFrame:
        """All columns of the sampled patients' rows, in the table's order."""
        for name in self.cohort.table_columns:
            if name not in self._sampled:
                self.series(name)
        return pd.DataFrame({name: self._sampled[name] for name in self.cohort.table_columns})


def _missingness(values: Floats, stays: Stays) -> Missingness:
    missing = np.isnan(values)
    count = int(missing.sum())
    if not count:
        return Missingness(stays.rows, 0, 0, (0.0, 0.0, 0.0))
    since = stays.step - stays.carry(np.where(missing, np.nan, stays.step))
    known = since[~np.isnan(since)]
    middle = np.quantile(known, [0.25, 0.5, 0.9]) if len(known) else np.full(3, np.nan)
    never = int((stays.sum((~missing).astype(np.int64)) == 0).sum())
    return Missingness(
        stays.rows, count, never, (float(middle[0]), float(middle[1]), float(middle[2]))
    )
