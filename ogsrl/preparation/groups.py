"""Patients in groups: the cohort's subgroups, and numbers in bands.

Called by reports. A group's name never tells of fewer than ten patients.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from ogsrl.preparation import Preparation
from ogsrl.preparation.coverage import MIN_PATIENTS
from ogsrl.spec.model import Subgroup
from ogsrl.trajectories import Stays

Codes = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Grouping:
    """Rows in groups: the groups' names, and each row's group."""

    name: str
    label: str
    groups: tuple[str, ...]
    code: Codes


def subgroups(prepared: pd.DataFrame, preparation: Preparation) -> list[Grouping]:
    """The cohort's subgroups, by each stay's first row."""
    stays = Stays.of(prepared["stay_id"])
    first = prepared.iloc[stays.start]
    cohort = preparation.cohort
    found = []
    for name, entry in cohort.subgroups.items():
        if entry.column == "site":
            codes, names = pd.factorize(_named_sites(first), sort=True)
            groups = [str(value) for value in names]
            code = np.where(codes < 0, len(groups), codes)
        else:
            made = preparation.states[entry.column]
            values = made.inverse(first[entry.column].to_numpy())
            groups, code = _cut(values, entry, _levels(preparation, entry.column))
            if made.indicator:
                missing = first[f"missing_{entry.column}"].to_numpy() > 0
                code = np.where(missing, len(groups), code)
        groups.append("not charted")
        label = entry.label or name
        found.append(Grouping(name, label, tuple(groups), code.astype(np.int64)[stays.stay]))
    return found


def _named_sites(first: pd.DataFrame) -> pd.Series:
    """Sites; those of so few patients that the name would tell of them share one."""
    patients = first.groupby("site")["patient_id"].transform("nunique")
    return first["site"].where(first["site"].isna() | (patients >= MIN_PATIENTS), "smaller sites")


def bands(name: str, label: str, number: Codes, unit: str) -> Grouping:
    """Numbers in bands that double: 0, 1, 2 to 3, 4 to 7; the last is open, as its end is one's.

    >>> bands("step", "Step", np.array([0, 1, 3, 9]), "step").groups
    ('step 0', 'step 1', 'steps 2 to 3', 'steps 4 to 7', 'steps 8 and more')
    """
    top = int(number.max(initial=0))
    edges = [0, 1]
    while edges[-1] <= top:
        edges.append(2 * edges[-1])
    groups = [
        f"{unit} {a}" if b == a + 1 else f"{unit}s {a} to {b - 1}"
        for a, b in itertools.pairwise(edges)
    ]
    if top:
        groups[-1] = f"{unit}s {edges[-2]} and more"
    code = np.searchsorted(edges, number, side="right") - 1
    return Grouping(name, label, tuple(groups), code.astype(np.int64))


def _levels(preparation: Preparation, column: str) -> Sequence[str]:
    entry = preparation.cohort.states[column]
    label = entry.label or column
    return (f"{label}: no", f"{label}: yes") if entry.kind == "binary" else entry.levels


def _cut(
    values: npt.NDArray[np.float64], entry: Subgroup, levels: Sequence[str]
) -> tuple[list[str], Codes]:
    if entry.cuts:
        cuts = list(entry.cuts)
        ends = [f"{value:g}" for value in cuts]
        between = [f"{a} to {b}" for a, b in itertools.pairwise(ends)]
        return [f"below {ends[0]}", *between, f"{ends[-1]} and above"], np.searchsorted(
            cuts, values, side="right"
        )
    if levels:
        return list(levels), np.rint(values).astype(np.int64)
    shown, code = np.unique(values, return_inverse=True)
    return [f"{value:g}" for value in shown], code
