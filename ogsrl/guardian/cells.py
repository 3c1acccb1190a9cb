"""Evidence cells: are there enough patients near here? And later: what became of them.

Called by christoffel.py for its fourth question, and by query for its evidence. A cell holds a
centre, a radius and counts, each of at least `CELL_PATIENTS` distinct patients, and no row.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from ogsrl.preparation.blocks import CACHED, blocks, side_by_side

CELLS = 2000
CELL_PATIENTS = 10
#: Fewer cells than `CELLS` where this many rows a cell are not there.
ROWS_PER_CELL = 30
#: One patient in so many makes no centre: among them it is fair to ask how far a patient lies.
KEPT_OUT = 4
ROUNDS = 12
#: Rows of which patient, scaled.
Shard = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Cells:
    """Where rows lie close together, in scaled columns.

    Attributes:
        centers: (cells, columns), the mean of the rows that made the cell.
        radius: Root mean square distance of training rows to their nearest centre.
        patients: Distinct training patients in each cell.
        rows: Training rows in each cell.
    """

    centers: torch.Tensor
    radius: torch.Tensor
    patients: torch.Tensor
    rows: torch.Tensor

    def __len__(self) -> int:
        return len(self.centers)

    def nearest(self, x: torch.Tensor) -> torch.Tensor:
        """The number of each row's nearest cell."""
        return _nearest(x, self.centers)

    def distance(self, x: torch.Tensor, cell: torch.Tensor | None = None) -> torch.Tensor:
        """How far each row is from its nearest cell's centre, in that cell's radii."""
        cell = self.nearest(x) if cell is None else cell
        squares = (x - self.centers.to(x.dtype)[cell]).square().sum(dim=1)
        return (squares + 1e-12).sqrt() / self.radius.to(x.dtype)[cell]


def find_centers(
    x: torch.Tensor, patient: torch.Tensor, generator: torch.Generator, cells: int = CELLS
) -> torch.Tensor:
    """Centres by Lloyd's k-means from random rows, then those of few patients merged.

    Rows of `kept_out` patients move no centre.

    >>> x = torch.cat([torch.zeros(40, 1), torch.ones(40, 1), torch.full((3, 1), 1.5)])
    >>> made = find_centers(x, torch.arange(83), torch.Generator().manual_seed(0), 3)
    >>> len(made) <= 2  # the three patients at 1.5 are too few to be a cell of their own
    True
    """
    making = ~kept_out(patient)
    made_of = x[making]
    count = max(1, min(cells, len(made_of) // ROWS_PER_CELL))
    start = torch.randperm(len(made_of), generator=generator)[:count]
    centers = torch.unique(made_of[start], dim=0) if x.shape[1] else x[:1]
    for _ in range(ROUNDS):
        cell = _nearest(made_of, centers)
        rows = torch.bincount(cell, minlength=len(centers)).to(x.dtype)
        sums = torch.zeros_like(centers).index_add_(0, cell, made_of)
        held = rows > 0
        centers = sums[held] / rows[held, None]
        cell = (torch.cumsum(held, 0) - 1)[cell]  # whose rows each centre is the mean of
    return _merged(x, patient, centers, cell, patient[making])


def kept_out(patient: torch.Tensor) -> torch.Tensor:
    """Rows of patients who move no centre; nobody where patients are few."""
    number = torch.unique(patient, return_inverse=True)[1]
    few = bool(number.max() < KEPT_OUT * CELL_PATIENTS)
    return torch.zeros_like(number, dtype=torch.bool) if few else number % KEPT_OUT == 0


def fair(patient: torch.Tensor) -> torch.Tensor:
    """Rows among which a distance means what it does for a new patient; all where few."""
    out = kept_out(patient)
    return out if bool(out.any()) else ~out


def _merged(
    x: torch.Tensor,
    patient: torch.Tensor,
    centers: torch.Tensor,
    made: torch.Tensor,
    maker: torch.Tensor,
) -> torch.Tensor:
    """Cells of too few patients join their nearest, until none is left or one holds all.

    Too few lie near the centre, or made it: `made` says of which centre each row of `maker`'s is.
    """
    while len(centers) > 1:
        rows = torch.bincount(made, minlength=len(centers)).to(x.dtype)
        near = distinct_patients(_nearest(x, centers), patient, len(centers))
        few = near.minimum(distinct_patients(made, maker, len(centers))) < CELL_PATIENTS
        if not bool(few.any()):
            break
        gaps = torch.cdist(centers[few], centers)
        gaps[torch.arange(len(gaps)), few.nonzero().squeeze(1)] = torch.inf
        into = gaps.argmin(dim=1)
        touched = torch.zeros(len(centers), dtype=torch.bool)
        gone = torch.zeros_like(touched)
        moved, joined = centers.clone(), torch.arange(len(centers))
        candidates = few.nonzero().squeeze(1)
        for k in torch.argsort(rows[candidates], stable=True).tolist():
            one, other = int(candidates[k]), int(into[k])
            if touched[one] or touched[other]:
                continue  # its turn comes in the next round
            both = rows[one] + rows[other]
            moved[other] = (rows[one] * centers[one] + rows[other] * centers[other]) / both
            touched[one] = touched[other] = True
            gone[one], joined[one] = True, other
        centers = moved[~gone]
        made = (torch.cumsum(~gone, 0) - 1)[joined[made]]
    return centers


def measure(centers: torch.Tensor, shards: Iterable[Shard]) -> Cells:
    """Counts and radii over all shards, each of whole patients."""
    size = len(centers)
    rows = torch.zeros(size, dtype=torch.int64)
    patients = torch.zeros(size, dtype=torch.int64)
    squares = torch.zeros(size, dtype=torch.float64)
    for x, patient in shards:
        cell = _nearest(x, centers)
        rows += torch.bincount(cell, minlength=size)
        patients += distinct_patients(cell, patient, size)
        far = (x - centers[cell]).square().sum(dim=1)
        squares += torch.bincount(cell, weights=far.double(), minlength=size)
    radius = (squares / rows.clip(min=1)).sqrt()
    usual = float((squares.sum() / rows.sum().clip(min=1)).sqrt())
    return Cells(centers, radius.clip(min=max(usual / 4, 1e-6)).float(), patients, rows)


def distinct_patients(cell: torch.Tensor, patient: torch.Tensor, cells: int) -> torch.Tensor:
    """How many different patients are in each cell.

    >>> distinct_patients(torch.tensor([0, 0, 1]), torch.tensor([5, 5, 5]), 3).tolist()
    [1, 1, 0]
    """
    number = torch.unique(patient, return_inverse=True)[1]
    pairs = torch.unique(cell * (int(number.max()) + 1) + number)
    return torch.bincount(pairs // (int(number.max()) + 1), minlength=cells)


def _nearest(x: torch.Tensor, centers: torch.Tensor) -> torch.Tensor:
    """Nearest centre: the largest x.c - |c|^2 / 2, as one product with a 1 beside x.

    numpy's argmax is several times faster than torch's on a processor, and it decides the speed.
    """
    x = x.detach()
    half = centers.square().sum(dim=1, keepdim=True) / -2
    beside = torch.cat([centers, half], dim=1).T.to(x.dtype).contiguous()

    def nearest(block: tuple[torch.Tensor, ...]) -> torch.Tensor:
        (part,) = block
        if not x.shape[1]:
            return torch.zeros(len(part), dtype=torch.int64)
        apart = torch.cat([part, torch.ones_like(part[:, :1])], dim=1) @ beside
        return torch.from_numpy(apart.cpu().numpy().argmax(axis=1))

    return torch.cat(side_by_side(nearest, blocks(x, size=CACHED))).to(x.device)
