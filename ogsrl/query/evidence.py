"""How many patients were like this, what they were given and how they fared: cells of the region.

Fitted and saved by the stage select on training patients, asked by query. A cell holds means of at
least ten distinct patients, and nothing of fewer: what is told of those given a dose, or of those
who died, is told of nobody or of ten.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from ogsrl.evaluation.quantities import deaths, tells_deaths
from ogsrl.guardian.cells import CELL_PATIENTS, distinct_patients, find_centers
from ogsrl.guardian.columns import Layout
from ogsrl.modeldir import load_model, rebuilding, save_model
from ogsrl.preparation.history import History
from ogsrl.preparation.tensors import StayTensors

KIND = "evidence"
#: Cells at most; fewer where a cell would be of fewer patients' stays than this.
CELLS, STAYS_A_CELL = 500, 20


@dataclass(frozen=True)
class Similar:
    """Of each row: those of its cell. (rows,) tensors, or (rows, doses); NaN where not told."""

    patients: torch.Tensor
    given: torch.Tensor
    mean: torch.Tensor
    died: torch.Tensor


@dataclass(frozen=True)
class Evidence:
    """Cells of states, in the columns that the guardian reads.

    Attributes:
        layout: Those columns.
        center: Of each column, subtracted.
        width: Of each column, divided by.
        centers: (cells, columns).
        patients: (cells,) distinct training patients.
        given: (cells, doses) share of steps in which a dose was given at all; NaN where one to
            nine patients were given it, or had a step without it.
        mean: (cells, doses) mean dose in clinical units, over all steps; NaN there too, for
            mean / given is the mean dose of those who were given it.
        died: (cells,) share of patients who died, in hundredths; NaN where one to nine did, or
            survived.
    """

    layout: Layout
    center: torch.Tensor
    width: torch.Tensor
    centers: torch.Tensor
    patients: torch.Tensor
    given: torch.Tensor
    mean: torch.Tensor
    died: torch.Tensor

    @classmethod
    def fit(cls, train: StayTensors, generator: torch.Generator) -> Evidence | None:
        """Of training decisions; None where there are fewer than ten patients."""
        layout = Layout.of(train.history)
        rows = train.decision
        patient, given = train.patient[rows], train.given[rows].double()
        people = len(torch.unique(patient))
        if people < CELL_PATIENTS:
            return None
        plain = train.states[rows][:, layout.places]
        center, width = plain.mean(0), plain.std(0).clip(min=1e-6)
        x = (plain - center) / width
        count = max(1, min(CELLS, people // STAYS_A_CELL))
        made = find_centers(x, patient, generator, count)
        cell = _nearest(x, made)
        kept = distinct_patients(cell, patient, len(made)) >= CELL_PATIENTS
        if not bool(kept.all()):  # nearest now, or when they were merged: ten either way
            made = made[kept]
            cell = _nearest(x, made)
        size = len(made)
        steps = torch.bincount(cell, minlength=size).double()[:, None]
        summed = torch.zeros(size, given.shape[1], dtype=torch.float64)
        share = summed.clone().index_add_(0, cell, (given > 0).double()) / steps
        mean = summed.index_add_(0, cell, given) / steps
        hidden = _few_apart(given > 0, cell, patient, size)
        return cls(
            layout,
            center,
            width,
            made,
            distinct_patients(cell, patient, size),
            share.masked_fill(hidden, torch.nan),
            mean.masked_fill(hidden, torch.nan),
            _died(train, rows, cell, size),
        )

    def of(self, states: torch.Tensor) -> Similar:
        """The cell nearest to each row."""
        x = (states[:, self.layout.places] - self.center) / self.width
        cell = _nearest(x, self.centers)
        return Similar(self.patients[cell], self.given[cell], self.mean[cell], self.died[cell])

    def save(self, directory: Path) -> None:
        """As every model is saved.

        Deaths in whole percent: the audit looks for patients' values, and many a chart has
        hundredths.
        """
        arrays = {
            "center": self.center,
            "width": self.width,
            "centers": self.centers,
            "patients": self.patients,
            "given": self.given,
            "mean": self.mean,
            "died_percent": (100 * self.died).round(),
        }
        config = {"layout": self.layout.to_json()}
        save_model(directory, KIND, config, {n: each.numpy() for n, each in arrays.items()})

    @classmethod
    def load(cls, directory: Path, history: History) -> Evidence:
        """As it was saved."""
        config, arrays = load_model(directory, KIND)
        with rebuilding(directory):
            tensors = {name: torch.from_numpy(each.copy()) for name, each in arrays.items()}
            tensors["died"] = tensors.pop("died_percent") / 100
            return cls(Layout.matching(config["layout"], history), **tensors)


def _nearest(x: torch.Tensor, centers: torch.Tensor) -> torch.Tensor:
    """A row's nearest centre, whatever the rows beside it."""
    return (x @ centers.T - centers.square().sum(1) / 2).argmax(1)


def _patients(
    which: torch.Tensor, cell: torch.Tensor, patient: torch.Tensor, size: int
) -> torch.Tensor:
    """How many different patients have one of these rows in each cell."""
    if not bool(which.any()):
        return torch.zeros(size, dtype=torch.int64)
    return distinct_patients(cell[which], patient[which], size)


def _few_apart(
    given: torch.Tensor, cell: torch.Tensor, patient: torch.Tensor, size: int
) -> torch.Tensor:
    """Of each cell and dose: whether one to nine patients got it, or went a step without it.

    >>> given = torch.tensor([[True, False]] + [[False, False]] * 19)
    >>> nobody = torch.zeros(20, dtype=torch.int64)
    >>> _few_apart(given, nobody, torch.arange(20), 1).tolist()
    [[True, False]]
    """
    hidden = torch.zeros(size, given.shape[1], dtype=torch.bool)
    for j, got in enumerate(given.T):
        for which in (got, ~got):
            count = _patients(which, cell, patient, size)
            hidden[:, j] |= (count > 0) & (count < CELL_PATIENTS)
    return hidden


def _died(train: StayTensors, rows: torch.Tensor, cell: torch.Tensor, size: int) -> torch.Tensor:
    """Share of each cell's patients with a known end who died.

    In hundredths: a fraction in full would tell out of how many, and so how few ends are unknown.
    """
    nothing = torch.full((size,), torch.nan, dtype=torch.float64)
    if not tells_deaths(train.history.preparation.cohort):
        return nothing
    patients = int(train.patient.max()) + 1
    dead = torch.zeros(patients, dtype=torch.bool)
    dead[train.patient[deaths(train)]] = True
    known = dead.clone()
    known[train.patient[train.terminal]] = True
    whose = train.patient[rows]

    died = _patients(dead[whose], cell, whose, size)
    lived = _patients((known & ~dead)[whose], cell, whose, size)
    told = (died >= CELL_PATIENTS) & (lived >= CELL_PATIENTS)
    share = died.double() / (died + lived).clip(min=1)
    return torch.where(told, share.round(decimals=2), nothing)
