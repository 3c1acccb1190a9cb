"""The dataset-constraint index: which logged pair lies nearest to a proposal, own stay apart.

Called by training alone; it holds rows of patients, so it is never saved or registered. Exact:
where a precomputed list cannot prove its answer, all rows are asked.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch

from ogsrl.errors import ModelError
from ogsrl.preparation.blocks import side_by_side

#: Rows whose lists are made, and rows asked of all, at a time.
BLOCK, ASKED = 64, 16
#: Columns of a product whose least is looked at before any of them is.
GROUP = 16
#: Every so many-th row tells how far the K-th neighbour about is.
SAMPLED = 16
#: Neighbours looked at first: they prove most answers.
FIRST = 32
#: A bound on what single precision rounds off a squared distance, over the squared norms in it.
ROUNDING = 1e-5
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
    where it is nearer than beta x the K-th distance: the certificate. The first few of the list
    prove most answers alike; the rest of it, and then all rows, are asked only where they do not.

    Attributes:
        pairs: (rows, columns + doses) beta x metric columns of the state, then doses.
        columns: How many of them are state.
        stay: Number of each row's stay; rows of a stay lie together.
        listed: Rows that have a list, rising; of any other all rows are asked.
        neighbours: (listed, K) by distance.
        inner: (listed,) beta x distance of the last that is looked at first.
        radius: (listed,) beta x distance of the K-th.
    """

    pairs: torch.Tensor
    columns: int
    stay: torch.Tensor
    listed: torch.Tensor
    neighbours: torch.Tensor
    inner: torch.Tensor
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
        listed: torch.Tensor | None = None,
        progress: Progress = lambda _: None,
    ) -> DatasetIndex:
        """From training rows.

        Args:
            states: (rows, columns) of the metric.
            doses: (rows, doses) in [-1, 1].
            stay: (rows,) number of the stay, rising.
            beta: Weight of the state.
            k: Neighbours known of each row.
            listed: Rows that will be asked most, rising; None: all. Making lists takes the time.
            progress: Called with rows done.
        """
        if bool((stay.diff() < 0).any()):
            raise ModelError("rows are not in order of their stays; sort by stay and step")
        pairs = torch.cat([beta * states, doses], 1).contiguous()
        k = min(k, len(stay) - int(torch.bincount(stay).max()))
        if k < 1:
            raise ModelError("dataset constraint: one stay alone has no other stay near it")
        lists = _Lists(pairs[:, : states.shape[1]], stay, k)
        listed = torch.arange(len(stay)) if listed is None else listed

        def one(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            found = lists.of(rows)
            progress(len(rows))
            return found

        made = side_by_side(one, torch.split(listed, BLOCK))
        near = torch.cat([rows for rows, _ in made])
        inner, radius = torch.cat([radii for _, radii in made]).T.contiguous().unbind()
        return cls(pairs, states.shape[1], stay, listed, near, inner, radius)

    def __len__(self) -> int:
        return len(self.stay)

    @property
    def doses(self) -> torch.Tensor:
        """(rows, doses) logged."""
        return self.pairs[:, self.columns :]

    def of_rows(self, rows: torch.Tensor, doses: torch.Tensor) -> Nearest:
        """The nearest pair to (s of each row, a proposed dose)."""
        here = torch.cat([self.pairs[rows, : self.columns], doses], 1)
        place = self.place[rows]
        row, best = self._best(here, self.neighbours[place, :FIRST])
        certified = best <= self.inner[place].square()
        if len(self.listed) < len(self):  # what has no list was compared with another's
            certified &= self.listed[place] == rows
        left = (~certified).nonzero().squeeze(1)
        if len(left) and self.neighbours.shape[1] > FIRST:
            more, better = self._best(here[left], self.neighbours[place[left], FIRST:])
            row[left] = torch.where(better < best[left], more, row[left])
            best[left] = torch.minimum(better, best[left])
            proved = best[left] <= self.radius[place[left]].square()
            certified[left] = proved & (self.listed[place[left]] == rows[left])
            left = left[~certified[left]]
        if len(left):
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

    def _best(self, here: torch.Tensor, listed: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Row and squared distance of the nearest pair of each list."""
        there = self.pairs.index_select(0, listed.flatten()).view(*listed.shape, -1)
        best, place = there.sub_(here[:, None]).square_().sum(-1).min(1)
        return listed.gather(1, place[:, None])[:, 0].long(), best

    def _of_all(self, here: torch.Tensor, stay: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Row and squared distance of the nearest pair of another stay."""
        parts = zip(torch.split(here, ASKED), torch.split(stay, ASKED), strict=True)
        found = [self._asked(*part) for part in parts]
        return torch.cat([row for row, _ in found]), torch.cat([best for _, best in found])

    def _asked(self, here: torch.Tensor, stay: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        gaps = self._products.of(here)
        _part(gaps, self.stay, stay)
        limit = gaps.amin(1)
        norms = (2 * limit + here.square().sum(1)).clip(min=0).sqrt() + here.norm(dim=1)
        near = _within(gaps, limit + ROUNDING * norms.square())
        squares = (self.pairs[near.column] - here[near.row]).square_().sum(1)
        best = squares.new_full((len(here),), torch.inf).scatter_reduce_(
            0, near.row, squares, "amin"
        )
        won = squares == best[near.row]
        row = torch.full((len(here),), len(self)).scatter_reduce_(
            0, near.row[won], near.column[won], "amin"
        )
        return row, best

    @cached_property
    def place(self) -> torch.Tensor:
        """(rows,) where each row's list is; for a row without one, any."""
        place = torch.zeros(len(self), dtype=torch.int64)
        place[self.listed] = torch.arange(len(self.listed))
        return place

    @cached_property
    def _products(self) -> _Products:
        return _Products.with_(self.pairs)


@dataclass(frozen=True)
class _Products:
    """Half the squared distances of all rows to queries, less the query's own square: one product.

    Attributes:
        wide: (columns + 1, rows) their negatives above half their squares; padded with what is
            infinitely far to a whole number of groups.
    """

    wide: torch.Tensor

    @classmethod
    def with_(cls, rows: torch.Tensor) -> _Products:
        wide = rows.new_zeros(rows.shape[1] + 1, -(-len(rows) // GROUP) * GROUP)
        wide[:-1, : len(rows)] = -rows.T
        wide[-1] = torch.inf
        wide[-1, : len(rows)] = rows.square().sum(1) / 2
        return cls(wide)

    def of(self, here: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        """(queries, rows)."""
        asked = torch.cat([here, here.new_ones(len(here), 1)], 1)
        return torch.mm(asked, self.wide, out=out)


@dataclass(frozen=True)
class _Found:
    """Entries of a product that are small enough: by row, then column."""

    row: torch.Tensor
    column: torch.Tensor
    gap: torch.Tensor


def _within(gaps: torch.Tensor, limit: torch.Tensor) -> _Found:
    """All entries up to each row's limit, looking at single ones only in groups that have some."""
    groups = gaps.view(len(gaps), GROUP, -1)
    row, group = (groups.amin(1) <= limit[:, None]).nonzero(as_tuple=True)
    some = groups[row, :, group]
    hit, member = (some <= limit[row, None]).nonzero(as_tuple=True)
    return _Found(row[hit], member * groups.shape[2] + group[hit], some[hit, member])


def _part(gaps: torch.Tensor, stays: torch.Tensor, stay: torch.Tensor) -> None:
    """Rows of the query's own stay are infinitely far; `stays` rise."""
    first = torch.searchsorted(stays, stay)
    last = torch.searchsorted(stays, stay, right=True)
    for i, (start, end) in enumerate(zip(first.tolist(), last.tolist(), strict=True)):
        gaps[i, start:end] = torch.inf


class _Lists:
    """The K nearest rows of other stays by state, a block of rows after the other."""

    def __init__(self, states: torch.Tensor, stay: torch.Tensor, k: int) -> None:
        self.states, self.stay, self.k = states, stay, k
        self.products = _Products.with_(states)
        self.sample = _Products.with_(states[::SAMPLED])
        share = k / SAMPLED
        most = self.sample.wide.shape[1]
        self.about = min(int(share + 4 * math.sqrt(share)) + 8, most)  # so that few find too few
        self.rooms = threading.local()

    def _room(self) -> torch.Tensor:
        """Where a block's distances lie, of each thread its own."""
        if not hasattr(self.rooms, "one"):
            self.rooms.one = torch.empty(BLOCK, self.products.wide.shape[1])
        room: torch.Tensor = self.rooms.one
        return room

    def of(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Lists by distance; beta x the distances of the `FIRST`-th or last, and of the last."""
        here, k = self.states[rows], self.k
        gaps = self.products.of(here, self._room()[: len(rows)])
        _part(gaps, self.stay, self.stay[rows])
        sampled = self.sample.of(here).topk(self.about, dim=1, largest=False)
        near = _within(gaps, sampled.values[:, -1])
        count = torch.bincount(near.row, minlength=len(rows))
        slot = torch.arange(len(near.row)) - (count.cumsum(0) - count)[near.row]
        laid = gaps.new_full((len(rows), max(int(count.max()), k)), torch.inf)
        names = torch.zeros(laid.shape, dtype=torch.int64)
        laid[near.row, slot] = near.gap
        names[near.row, slot] = near.column
        values, order = laid.sort(dim=1, stable=True)
        values, order = values[:, :k].clone(), names.gather(1, order[:, :k])
        short = (count < k).nonzero().squeeze(1)
        if len(short):  # the sample misled: look at everything
            values[short], order[short] = gaps[short].topk(k, dim=1, largest=False, sorted=True)
        squares = 2 * values[:, [min(FIRST, k) - 1, k - 1]] + here.square().sum(1, keepdim=True)
        norms = squares.clip(min=0).sqrt() + here.norm(dim=1, keepdim=True)
        # the fast product rounds: prove a little less than what it says
        radii = (squares - ROUNDING * norms.square()).clip(min=0).sqrt()
        return order.int(), radii
