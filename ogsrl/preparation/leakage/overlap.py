"""Overlap in time and between parts: shared patients, copied stays, bins that overlap.

`Parts` is filled by the stage, a frame at a time, as it writes the parts. It keeps ids and hashes
in memory while the stage runs, and gives out counts alone.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pandas as pd

from ogsrl.constraints import constraint_rules
from ogsrl.preparation.leakage.findings import Finding, Flags, Floats, Sample, not_run, worst
from ogsrl.preparation.leakage.measures import MIN_ROWS
from ogsrl.spec import Cohort
from ogsrl.trajectories import Stays

AHEAD = 0.95
FILLED = 0.8
MIN_NUMERIC = 3
#: Fewer levels repeat by themselves; of a constraint's column fewer are looked at.
MIN_LEVELS, MIN_COSTED = 30, 5


class Parts:
    """Who is in which part, and what their stays look like."""

    def __init__(self, cohort: Cohort) -> None:
        self.cohort = cohort
        self._patients: dict[str, set[str]] = defaultdict(set)
        self._stays: dict[str, set[str]] = defaultdict(set)
        self._contents: dict[str, list[npt.NDArray[np.uint64]]] = defaultdict(list)

    def add(self, part: str, frame: pd.DataFrame) -> None:
        """Note a frame of whole stays (clinical units) that went into a part."""
        stays = Stays.of(frame["stay_id"])
        self._patients[part].update(frame["patient_id"].iloc[stays.start])
        self._stays[part].update(frame["stay_id"].iloc[stays.start])
        self._contents[part].append(_contents(frame, stays, self.cohort))

    def patients(self) -> dict[str, set[str]]:
        """Patient ids of each part."""
        return dict(self._patients)

    def findings(self) -> list[Finding]:
        """Patients, stays and copies of stays that are in two parts."""
        if len(self._patients) < 2:
            why = "there are no two parts to compare"
            return [
                not_run("temporal_overlap", check, why)
                for check in ("patients_in_two_parts", "stays_in_two_parts", "copied_stays")
            ]
        numeric = [c for c in self.cohort.observations.values() if c.kind == "numeric"]
        contents = {
            part: set(np.concatenate(list_of).tolist()) for part, list_of in self._contents.items()
        }
        found = [
            _shared("patients_in_two_parts", self._patients, "patients are in two parts"),
            _shared("stays_in_two_parts", self._stays, "stays are in two parts"),
        ]
        if len(numeric) < MIN_NUMERIC:
            why = f"fewer than {MIN_NUMERIC} numeric columns: equal stays may be different patients"
            found.append(not_run("temporal_overlap", "copied_stays", why))
        else:
            found.append(_shared("copied_stays", contents, "stays are copied into another part"))
        return found


def _shared(check: str, members: dict[str, set[str]], message: str) -> Finding:
    count = sum(len(one & other) for one, other in combinations(members.values(), 2))
    return Finding(
        "temporal_overlap",
        check,
        "leak" if count else "clean",
        f"{count} {message}" + ("; give each patient one id" if count else ""),
        float(count),
        0.0,
    )


def _contents(frame: pd.DataFrame, stays: Stays, cohort: Cohort) -> npt.NDArray[np.uint64]:
    """One hash a stay of its observations and doses, step by step; ids and site are left out."""
    row = np.zeros(len(frame), np.uint64)
    with np.errstate(over="ignore"):
        for name in (*cohort.observations, *cohort.actions):
            values = frame[name].to_numpy(np.float64, na_value=np.nan)
            row = row * np.uint64(1099511628211) + pd.util.hash_array(values)
        row *= (stays.step.astype(np.uint64) + np.uint64(1)) * np.uint64(2) + np.uint64(1)
    return np.add.reduceat(row, stays.start)


def bins(sample: Sample) -> Finding:
    """Do rows lie a time step apart, so that no bin reaches into the next?"""
    hours = sample.numpy("hours")
    apart = hours - sample.stays.previous(hours)
    rows = ~sample.stays.first
    step = sample.cohort.time_step_hours
    short = float((apart[rows] < step * (1 - 1e-6)).mean()) if rows.any() else 0.0
    other = float((apart[rows] > step * (1 + 1e-6)).mean()) if rows.any() else 0.0
    if short:
        message = "rows lie less than a time step apart: bins overlap; bin the source again"
        return Finding("temporal_overlap", "bins", "leak", message, short, 0.0, ("hours",))
    if other:
        message = "rows lie more than a time step apart; a step is not always as long as declared"
        return Finding("temporal_overlap", "bins", "warning", message, other, 0.0, ("hours",))
    return Finding("temporal_overlap", "bins", "clean", "rows lie a time step apart", 0.0, 0.0)


def ahead(sample: Sample) -> Finding:
    """Does a column hold what another column shows only on the next row?"""
    names = [n for n in sample.cohort.observations if n in sample.filled]
    values = np.column_stack([sample.numpy(name) for name in names])
    scores: dict[tuple[str, ...], float] = {}
    for name in names:
        now, following = sample.numpy(name), sample.stays.next(sample.numpy(name))
        rows = np.flatnonzero((now != following) & ~np.isnan(now) & ~np.isnan(following))
        if len(rows) < MIN_ROWS:
            continue
        charted = (~np.isnan(values[rows])).sum(axis=0)
        equal = (values[rows] == following[rows, None]).sum(axis=0)
        for other, count, of in zip(names, equal, charted, strict=True):
            if other != name and of >= MIN_ROWS:
                scores[other, name] = float(count / of)
    return worst(
        "temporal_overlap",
        "next_value",
        scores,
        AHEAD,
        "hold the same values a row apart: the first knows what the second shows only later",
        "no column holds another's next value",
    )


def filled_before(sample: Sample) -> Finding:
    """Was a column filled before it came here? Then it may have been filled backwards.

    A cost of filled values is none: of a constraint's column it is a leak.
    """
    shares: dict[str, float] = {}
    rules = constraint_rules(sample.cohort).values()
    costs = {name for rule in rules for name in rule.columns}
    for name, column in sample.cohort.observations.items():
        values = sample.numpy(name)
        fewest = MIN_COSTED if name in costs else MIN_LEVELS
        if column.cumulative_of or len(np.unique(values[~np.isnan(values)])) < fewest:
            continue
        following = sample.stays.next(values)
        rows: Flags = ~np.isnan(values) & ~np.isnan(following)
        if rows.sum() >= MIN_ROWS:
            shares[name] = _equal(values[rows], following[rows])
    if not shares:
        return not_run("temporal_overlap", "filled_before", "no column with enough levels")
    found = tuple(name for name, share in shares.items() if share >= FILLED)
    message = (
        "hardly ever change from a row to the next: filled before they came here, forwards or "
        "backwards; hand over what was charted, with gaps"
        if found
        else "columns change from row to row"
    )
    return Finding(
        "temporal_overlap",
        "filled_before",
        "leak" if costs.intersection(found) else "warning" if found else "clean",
        message,
        max(shares.values()),
        FILLED,
        found,
    )


def _equal(one: Floats, other: Floats) -> float:
    return float((one == other).mean())
