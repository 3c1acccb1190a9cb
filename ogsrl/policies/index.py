"""The dataset-constraint index: which logged pair lies nearest to a proposal, own stay apart.

Called by training alone; it holds rows of patients, so it is never saved or registered. Exact:
where a precomputed list cannot prove its answer, all rows are asked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch

from ogsrl.errors import ModelError

#: Rows asked at a time where lists are made, and where all rows are asked.
BLOCK, ASKED = 512, 64
#: Pairs that the fast product finds nearest and that are then measured without cancellation.
MEASURED = 4
#: Every so many-th row tells how far the K-th neighbour about is.
SAMPLED = 16
Progress = Callable[[int], None]


@dataclass(frozen=True)
class Nearest:
    """The nearest pair of each query.

    Attributes:
        row: Its row.
        distance: || [beta s ; a] - [beta s' ; a'] ||, own stay apart.
        certified: Whether the precomputed list proved it; else all rows were asked.
    """

    row: torch.Tensor
    distance: torch.Tensor
    certified: torch.Tensor


@dataclass(frozen=True)
class DatasetIndex:
    r"""min over (s', a') of another stay of || [beta s ; a] - [beta s' ; a'] ||.

    For each training row its K nearest rows of other stays by state alone are known. A row outside
    that list is at least as far as the K-th by state, so the best of the list is the nearest of all
    where it is nearer than beta x the K-th distance: the certificate.

    Attributes:
        pairs: (rows, columns + doses) beta x metric columns of the state, then doses.
        columns: How many of them are state.
        stay: Number of each row's stay; rows of a stay lie together.
        neighbours: (rows, K) by distance.
        radius: (rows,) beta x distance of the K-th.
    """

    pairs: torch.Tensor
    columns: int
    stay: torch.Tensor
    neighbours: torch.Tensor
    radius: torch.Tensor

    @classmethod
    def of(
        cls,
        states: torch.Tensor,
        doses: torch.Tensor,
        stay: torch.Tensor,
        *,
        beta: float,
        k: int,
        progress: Progress = lambda _: None,
    ) -> DatasetIndex:
        """From training rows.

        Args:
            states: (rows, columns) of the metric.
            doses: (rows, doses) in [-1, 1].
            stay: (rows,) number of the stay, rising.
            beta: Weight of the state.
            k: Neighbours known of each row.
            progress: Called with rows done.
        """
        if bool((stay.diff() < 0).any()):
            raise ModelError("rows are not in order of their stays; sort by stay and step")
        pairs = torch.cat([beta * states, doses], 1).contiguous()
        made = cls(pairs, states.shape[1], stay, torch.zeros(0, 0), torch.zeros(0))
        k = min(k, len(stay) - int(torch.bincount(stay).max()))
        if k < 1:
            raise ModelError("dataset constraint: one stay alone has no other stay near it")
        near = torch.empty((len(stay), k), dtype=torch.int32)
        radius = torch.empty(len(stay))
        for rows in torch.split(torch.arange(len(stay)), BLOCK):
            near[rows], radius[rows] = made._listed(rows, k)
            progress(len(rows))
        return cls(pairs, states.shape[1], stay, near, radius)

    def __len__(self) -> int:
        return len(self.stay)

    @property
    def doses(self) -> torch.Tensor:
        """(rows, doses) logged."""
        return self.pairs[:, self.columns :]

    def of_rows(self, rows: torch.Tensor, doses: torch.Tensor) -> Nearest:
        """The nearest pair to (s of each row, a proposed dose)."""
        listed = self.neighbours[rows].long()
        there = self.pairs[listed.flatten()].view(*listed.shape, -1)
        here = torch.cat([self.pairs[rows, : self.columns], doses], 1)
        squares = (there - here[:, None]).square_().sum(-1)
        best, place = squares.min(1)
        row = listed.gather(1, place[:, None])[:, 0]
        certified = best <= self.radius[rows].square()
        if not bool(certified.all()):
            left = (~certified).nonzero().squeeze(1)
            row[left], best[left] = self._of_all(here[left], self.stay[rows[left]])
        return Nearest(row, best.sqrt(), certified)

    def of_states(self, states: torch.Tensor, doses: torch.Tensor, beta: float) -> Nearest:
        """The same for states that are no rows, e.g. a model's; all rows are asked."""
        here = torch.cat([beta * states, doses], 1)
        row, best = self._of_all(here, torch.full((len(here),), -1))
        return Nearest(row, best.sqrt(), torch.zeros(len(here), dtype=torch.bool))

    def own_row_share(self, rows: torch.Tensor, doses: torch.Tensor) -> float:
        """How often a row itself would win, were its own stay not apart: cloning in disguise."""
        own = (doses - self.doses[rows]).square().sum(1)
        return float((own <= self.of_rows(rows, doses).distance.square()).float().mean())

    def _of_all(self, here: torch.Tensor, stay: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Row and squared distance of the nearest pair of another stay."""
        parts = zip(torch.split(here, ASKED), torch.split(stay, ASKED), strict=True)
        found = [self._asked(*part) for part in parts]
        return torch.cat([row for row, _ in found]), torch.cat([best for _, best in found])

    def _asked(self, here: torch.Tensor, stay: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        gaps = torch.addmm(self._half_squares, here, self.pairs.T, beta=1.0, alpha=-1.0)
        self._part(gaps, stay)
        most = min(MEASURED, len(self))
        near = gaps.topk(most, dim=1, largest=False).indices
        there = self.pairs[near.flatten()].view(len(here), most, -1)
        exact = (there - here[:, None]).square_().sum(-1)
        exact[torch.isinf(gaps.gather(1, near))] = torch.inf
        best, place = exact.min(1)
        return near.gather(1, place[:, None])[:, 0], best

    @cached_property
    def _half_squares(self) -> torch.Tensor:
        return self.pairs.square().sum(1) / 2

    def _listed(self, rows: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The k nearest rows of other stays by state, and beta x the distance of the last."""
        states = self.pairs[:, : self.columns]
        here = states[rows]
        gaps = torch.addmm(states.square().sum(1) / 2, here, states.T, alpha=-1.0)
        self._part(gaps, self.stay[rows])
        some = gaps[:, ::SAMPLED]
        about = min(k // SAMPLED + 8, some.shape[1])
        limit = some.topk(about, dim=1, largest=False).values[:, -1:]
        row, column = (gaps <= limit).nonzero(as_tuple=True)
        count = torch.bincount(row, minlength=len(rows))
        if int(count.min()) < k:  # the sample misled: look at everything
            near = gaps.topk(k, dim=1, largest=False, sorted=True)
            place, furthest = near.indices, near.values[:, -1]
        else:
            slot = torch.arange(len(row)) - (count.cumsum(0) - count)[row]
            laid = gaps.new_full((len(rows), int(count.max())), torch.inf)
            names = torch.zeros(laid.shape, dtype=torch.int64)
            laid[row, slot] = gaps[row, column]
            names[row, slot] = column
            near = laid.topk(k, dim=1, largest=False, sorted=True)
            place, furthest = names.gather(1, near.indices), near.values[:, -1]
        squares = 2 * furthest + here.square().sum(1)
        # the fast product rounds: prove a little less than what it says
        slack = 1e-5 * (here.square().sum(1) + states.square().sum(1).max())
        return place.int(), (squares - slack).clip(min=0).sqrt()

    def _part(self, gaps: torch.Tensor, stay: torch.Tensor) -> None:
        """Rows of the query's own stay are infinitely far."""
        first = torch.searchsorted(self.stay, stay)
        last = torch.searchsorted(self.stay, stay, right=True)
        for i, (start, end) in enumerate(zip(first.tolist(), last.tolist(), strict=True)):
            gaps[i, start:end] = torch.inf
