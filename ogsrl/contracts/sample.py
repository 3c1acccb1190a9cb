"""A bounded sample of stays per site and exact counts per column, gathered while a table streams.

Called by `contract`; read by `summaries`, which compares columns, sites and cohorts. The sample is
the stays of least hash, so it is the same however the table was cut into parts.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from ogsrl.contracts.structure import Hashes, Ints, Layout, places_in_groups
from ogsrl.spec import Cohort

#: Stays kept per site at first, and in all; the share per site is halved until they fit.
_PER_SITE: Final = 1_000
_IN_ALL: Final = 30_000
#: How near to the least dose a given one still is that dose.
NEAR: Final = 1e-3

Shares = npt.NDArray[np.float64]


class Sample:
    """Stays of least hash at each site, and their rows."""

    def __init__(
        self, columns: list[str], per_site: int = _PER_SITE, in_all: int = _IN_ALL
    ) -> None:
        self.columns = columns
        self.per_site = per_site
        self._in_all = in_all
        self._hash = np.zeros(0, np.uint64)
        self._site = np.zeros(0, np.int64)
        self._length = np.zeros(0, np.int64)
        self._rows = np.zeros((0, len(columns)), np.float32)

    def add(self, frame: pd.DataFrame, layout: Layout, stays: Hashes, sites: Ints) -> None:
        """Take in a part's stays, whose hashes and site codes are given."""
        chosen = _least(stays, sites, self.per_site)
        rows = np.flatnonzero(np.isin(layout.number, chosen))
        values = np.full((len(rows), len(self.columns)), np.nan, np.float32)
        for place, name in enumerate(self.columns):
            if name in frame and pd.api.types.is_numeric_dtype(frame[name]):
                with np.errstate(over="ignore"):
                    values[:, place] = frame[name].to_numpy(np.float64, na_value=np.nan)[rows]
        self._hash = np.concatenate([self._hash, stays[chosen]])
        self._site = np.concatenate([self._site, sites[chosen]])
        self._length = np.concatenate([self._length, layout.length[chosen]])
        self._rows = np.concatenate([self._rows, values])
        self._trim()

    def _trim(self) -> None:
        counts = np.bincount(self._site) if len(self._site) else np.zeros(1, np.int64)
        while np.minimum(counts, self.per_site).sum() > self._in_all and self.per_site > 50:
            self.per_site //= 2
        kept = _least(self._hash, self._site, self.per_site)
        if len(kept) == len(self._hash):
            return
        mask = np.zeros(len(self._hash), bool)
        mask[kept] = True
        self._rows = self._rows[np.repeat(mask, self._length)]
        self._hash, self._site = self._hash[mask], self._site[mask]
        self._length = self._length[mask]

    @property
    def row_sites(self) -> Ints:
        """The site code of each sampled row."""
        return np.repeat(self._site, self._length)

    @property
    def firsts(self) -> npt.NDArray[np.bool_]:
        """Whether a sampled row is its stay's first."""
        mask = np.zeros(int(self._length.sum()), bool)
        mask[np.cumsum(self._length) - self._length] = True
        return mask

    @property
    def stays(self) -> int:
        """How many stays were kept."""
        return len(self._hash)

    def values(self, name: str) -> npt.NDArray[np.float32]:
        """A column's values on the sampled rows."""
        return self._rows[:, self.columns.index(name)]


def _least(hashes: Hashes, sites: Ints, per_site: int) -> Ints:
    """Positions of the `per_site` least hashes of each site, rising."""
    order = np.lexsort((hashes, sites))
    return np.sort(order[places_in_groups(sites[order]) < per_site])


class Tally:
    """Exact counts per column and site: rows, missing values, least and greatest.

    Of doses also how many were given, and how many of those are smaller than any that is ordered.
    """

    def __init__(self, cohort: Cohort) -> None:
        self.columns = [*cohort.states, *cohort.actions]
        self.sites: list[str | None] = []
        self._code: dict[str | None, int] = {}
        self.rows = np.zeros(0, np.int64)
        self.stays = np.zeros(0, np.int64)
        self.missing = np.zeros((0, len(self.columns)), np.int64)
        self.least = np.full(len(self.columns), np.inf)
        self.greatest = np.full(len(self.columns), -np.inf)
        self._smallest = {name: one.min_dose for name, one in cohort.actions.items()}
        self.given = dict.fromkeys(cohort.actions, 0)
        self.small = dict.fromkeys(cohort.actions, 0)

    def add(self, frame: pd.DataFrame, layout: Layout, usable: set[str]) -> Ints:
        """Count a part; gives the site code of each of its stays."""
        if "site" in usable:
            codes, names = pd.factorize(frame["site"].iloc[layout.first])
            known = [self._site(str(name).strip() or None) for name in names]
            sites = np.array([*known, self._site(None) if (codes < 0).any() else 0])[codes]
        else:
            sites = np.full(layout.stays, self._site(None))
        by_row = sites[layout.number]
        self.rows += np.bincount(by_row, minlength=len(self.rows))
        self.stays += np.bincount(sites, minlength=len(self.stays))
        for place, name in enumerate(self.columns):
            if name not in usable:
                continue
            value = frame[name].to_numpy(np.float64, na_value=np.nan)
            gaps = np.isnan(value)
            if gaps.any():
                self.missing[:, place] += np.bincount(by_row[gaps], minlength=len(self.rows))
            if not gaps.all():
                self.least[place] = min(self.least[place], np.nanmin(value))
                self.greatest[place] = max(self.greatest[place], np.nanmax(value))
            if name in self.given:
                given = value[value > 0]
                self.given[name] += len(given)
                self.small[name] += int((given < self._smallest[name] * (1 - NEAR)).sum())
        return np.asarray(sites, np.int64)

    def _site(self, name: str | None) -> int:
        if name not in self._code:
            self._code[name] = len(self.sites)
            self.sites.append(name)
            self.rows = np.append(self.rows, 0)
            self.stays = np.append(self.stays, 0)
            gap = np.zeros((1, len(self.columns)), np.int64)
            self.missing = np.concatenate([self.missing, gap])
        return self._code[name]

    def missing_share(self, name: str) -> float:
        """Share of all rows in which a column is missing."""
        return float(self.missing[:, self.columns.index(name)].sum() / max(self.rows.sum(), 1))

    def missing_shares(self, name: str) -> Shares:
        """Share of each site's rows in which a column is missing."""
        share: Shares = self.missing[:, self.columns.index(name)] / np.maximum(self.rows, 1)
        return share

    def is_constant(self, name: str) -> bool:
        """Whether a column holds one value, or none, in the whole table."""
        place = self.columns.index(name)
        return not self.least[place] < self.greatest[place]
