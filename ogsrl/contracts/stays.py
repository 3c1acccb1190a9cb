"""One small record a stay, kept over the whole table: who it is by hash, what it holds by hash.

Called by `contract` part by part; gives the frame that the stay rules are judged on, and the stays
of a quarantine. Hashes live in memory only and are never written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from ogsrl.contracts.rules import flag
from ogsrl.contracts.structure import Hashes, Ints, Layout, places_in_groups
from ogsrl.spec import Cohort

_PRIME: Final = np.uint64(0x9E3779B97F4A7C15)
_MIX: Final = np.uint64(0xBF58476D1CE4E5B9)
_NAN: Final = np.uint64(0x7FF8000000000000)

#: Stays with fewer charted numbers, repeats not counted, may be equal by chance.
_MIN_NUMBERS: Final = 10


def text_hashes(values: pd.Series) -> Hashes:
    """A 64-bit hash of each text; the same text has the same hash in every table."""
    codes, names = pd.factorize(values, use_na_sentinel=False)
    texts = np.array(["" if pd.isna(name) else str(name) for name in names], object)
    return pd.util.hash_array(texts, categorize=False)[codes]


def content_hashes(frame: pd.DataFrame, names: Iterable[str], layout: Layout) -> Hashes:
    """A hash of what the named columns hold over each stay, in the order of its rows.

    >>> twins = pd.DataFrame({"stay_id": ["a", "a", "b", "b"], "map": [60.0, None, 60.0, None]})
    >>> one, other = content_hashes(twins, ["map"], Layout.of(twins))
    >>> one == other
    np.True_
    """
    row = layout.position.astype(np.uint64) * _MIX
    for name in names:
        value = frame[name].to_numpy(np.float64, na_value=np.nan) + 0.0  # so that -0 equals 0
        bits = value.view(np.uint64)
        row = (row ^ np.where(np.isnan(value), _NAN, bits)) * _PRIME
        row ^= row >> np.uint64(29)
    return np.add.reduceat(row * _MIX, layout.first)


def earlier_copies(hashes: npt.NDArray[np.uint64]) -> Ints:
    """How many earlier entries hold the same hash.

    >>> earlier_copies(np.array([7, 5, 7, 7], np.uint64)).tolist()
    [0, 0, 1, 2]
    """
    order = np.argsort(hashes, kind="stable")
    copies = np.empty(len(hashes), np.int64)
    copies[order] = places_in_groups(hashes[order])
    return copies


class StayBook:
    """What is remembered of every stay while the table streams by."""

    def __init__(self, cohort: Cohort, others: Mapping[str, Iterable[pd.Series]]) -> None:
        self._cohort = cohort
        self._others = {
            name: np.unique(np.concatenate([text_hashes(part) for part in parts] or [_none()]))
            for name, parts in others.items()
        }
        self._ids: list[pd.Series] = []
        self._stay: list[Hashes] = []
        self._patient: list[Hashes] = []
        self._content: list[Hashes] = []
        self._numbers: list[Ints] = []
        self.rows = 0

    def add(self, frame: pd.DataFrame, layout: Layout, usable: set[str]) -> Ints:
        """Remember a part's stays; gives their numbers over the whole table."""
        begin = len(self)
        firsts = frame.iloc[layout.first]
        self._ids.append(firsts["stay_id"].astype("str").reset_index(drop=True))
        self._stay.append(text_hashes(firsts["stay_id"]))
        self._patient.append(text_hashes(firsts["patient_id"]))
        told = [
            name for name in (*self._cohort.observations, *self._cohort.actions) if name in usable
        ]
        self._content.append(content_hashes(frame, told, layout))
        numeric = [
            name
            for name, column in self._cohort.observations.items()
            if name in usable and column.kind == "numeric" and column.cumulative_of is None
        ]
        charted = np.zeros(len(frame), np.int64)
        for name in numeric:
            value = frame[name].to_numpy(np.float64, na_value=np.nan)
            fresh = (value != layout.before(value)) | ~layout.later
            charted += fresh & ~np.isnan(value)
        self._numbers.append(layout.total(charted))
        self.rows += len(frame)
        return np.arange(begin, begin + layout.stays)

    def __len__(self) -> int:
        return sum(len(part) for part in self._stay)

    @property
    def patients(self) -> Hashes:
        """The hash of each stay's patient."""
        return np.concatenate([_none(), *self._patient])

    @property
    def hashes(self) -> Hashes:
        """The hash of each stay's id."""
        return np.concatenate([_none(), *self._stay])

    def ids(self, stays: Ints) -> pd.Series:
        """The ids of these stays."""
        if not self._ids:
            return pd.Series([], dtype="str")
        return pd.concat(self._ids, ignore_index=True).iloc[stays].reset_index(drop=True)

    def judged_stays(self) -> pd.DataFrame:
        """The frame that the stay rules are judged on: one row a stay, counts only."""
        content = np.concatenate([_none(), *self._content])
        numbers = np.concatenate([np.zeros(0, np.int64), *self._numbers])
        stay = self.hashes
        _, place, times = np.unique(stay, return_inverse=True, return_counts=True)
        again = times[place] - 1
        copied = np.where(numbers >= _MIN_NUMBERS, earlier_copies(content), 0)
        copied = np.where(again > 0, 0, copied)  # the same id twice has a rule of its own
        measures = {"stay_id_unique": again, "stay_not_copied": copied}
        for name, theirs in self._others.items():
            known = np.isin(self.patients, theirs)
            measures[flag("patients_disjoint", name)] = known.astype(np.int64)
        return pd.DataFrame(measures)


def _none() -> Hashes:
    return np.zeros(0, np.uint64)
