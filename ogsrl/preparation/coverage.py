"""Which doses clinicians gave, how doses persist, and how widely they were tried per kind of state.

Called by quality.py on training rows. Everything that leaves here is a count over at least ten
patients; smaller cells are suppressed and counted together.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from ogsrl.preparation.rows import Floats, TrainingRows
from ogsrl.preparation.transforms import DoseTransform
from ogsrl.spec import Action

MIN_PATIENTS = 10
PLANE_BINS = 20
CLUSTERS = 50
Codes = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Cells:
    """Rows and distinct patients per cell; cells of too few patients hold nothing."""

    rows: Codes
    patients: Codes
    suppressed: frozenset[int]
    suppressed_rows: int

    @property
    def suppressed_cells(self) -> int:
        """How many cells hold too few patients."""
        return len(self.suppressed)


def cells(cell: Codes, patient: Codes, size: int, *, total_known: bool = False) -> Cells:
    """Count rows and patients per cell, and suppress cells of one to nine patients.

    Where the total is told too (`total_known`), a single suppressed cell could be found by
    subtraction: then the smallest of the others is suppressed with it.

    >>> cell, patient = np.repeat([0, 1], [12, 3]), np.arange(15)
    >>> counted = cells(cell, patient, 3)
    >>> counted.rows.tolist(), counted.suppressed_cells, counted.suppressed_rows
    ([12, 0, 0], 1, 3)
    """
    rows = np.bincount(cell, minlength=size)
    pairs = np.unique(cell * (patient.max(initial=0) + 1) + patient)
    patients = np.bincount(pairs // (patient.max(initial=0) + 1), minlength=size)
    small = (patients > 0) & (patients < MIN_PATIENTS)
    if total_known and small.sum() == 1 and (shown := np.flatnonzero((patients > 0) & ~small)).size:
        small[shown[patients[shown].argmin()]] = True
    return Cells(
        np.where(small, 0, rows),
        np.where(small, 0, patients),
        frozenset(np.flatnonzero(small).tolist()),
        int(rows[small].sum()),
    )


@dataclass(frozen=True)
class DoseAxis:
    """Bins of one dose: none given apart, then equal steps on the learner's scale."""

    name: str
    action: Action
    transform: DoseTransform

    @property
    def has_zero(self) -> bool:
        """Whether `none given` is a bin of its own."""
        return self.action.kind == "continuous" and self.action.zero_inflated

    @property
    def bins(self) -> int:
        """Number of bins, the zero bin included."""
        if self.action.kind == "ordinal":
            return len(self.action.levels)
        return PLANE_BINS + self.has_zero

    @property
    def edges(self) -> list[float]:
        """Edges of the bins after the zero bin, in clinical units."""
        if self.action.kind == "ordinal":
            return [i - 0.5 for i in range(len(self.action.levels) + 1)]
        return [float(x) for x in self.transform.inverse(np.linspace(-1, 1, PLANE_BINS + 1))]

    def place(self, doses: Floats) -> Codes:
        """The bin of each dose."""
        if self.action.kind == "ordinal":
            return doses.astype(np.int64)
        share = (self.transform.forward(doses).astype(np.float64) + 1) / 2
        place = np.clip((share * PLANE_BINS).astype(np.int64), 0, PLANE_BINS - 1)
        return np.where(doses == 0, 0, place + 1) if self.has_zero else place

    def as_dict(self) -> dict[str, Any]:
        """For dataset.json."""
        return {
            "dose": self.name,
            "label": self.action.label or self.name,
            "unit": self.action.unit,
            "transform": self.action.transform,
            "zero_bin": self.has_zero,
            "edges": self.edges,
            "levels": list(self.action.levels),
        }


def plane(x: tuple[DoseAxis, Floats], y: tuple[DoseAxis, Floats], patient: Codes) -> dict[str, Any]:
    """How often two doses go together; cells of fewer than ten patients are counted together."""
    one, other = x[0], y[0]
    size = one.bins * other.bins
    place = one.place(x[1]) * other.bins + other.place(y[1])
    counted = cells(place, patient, size)
    shown = np.flatnonzero(counted.rows)
    return {
        "x": one.as_dict(),
        "y": other.as_dict(),
        "cells": [
            {
                "x": int(cell // other.bins),
                "y": int(cell % other.bins),
                "steps": int(counted.rows[cell]),
                "patients": int(counted.patients[cell]),
            }
            for cell in shown
        ],
        "cells_possible": size if one.name != other.name else one.bins,
        "cells_suppressed": counted.suppressed_cells,
        "steps_suppressed": counted.suppressed_rows,
    }


class Doses:
    """The doses of training rows: of decisions, by name, with each row's patient."""

    def __init__(self, rows: TrainingRows, transforms: dict[str, DoseTransform]) -> None:
        actions = rows.cohort.actions
        self.stays = rows.stays
        self.axes = {name: DoseAxis(name, actions[name], transforms[name]) for name in actions}
        raw = {name: rows.numpy(name) for name in actions}
        self.decision = ~np.isnan(np.column_stack(list(raw.values()))).any(axis=1)
        self.raw = raw
        self.given = {name: values[self.decision] for name, values in raw.items()}
        self.patient = np.repeat(rows.patient, rows.stays.length)[self.decision]

    def planes(self) -> list[dict[str, Any]]:
        """How often each pair of doses was given together; one dose alone is its own plane."""
        names = list(self.axes)
        pairs = list(combinations(names, 2)) or [(names[0], names[0])]
        return [self._plane(x, y) for x, y in pairs]

    def _plane(self, x: str, y: str) -> dict[str, Any]:
        both = [(self.axes[name], self.given[name]) for name in (x, y)]
        return plane(both[0], both[1], self.patient)

    def summary(self) -> dict[str, Any]:
        """Per dose: how often none, and the quartiles and 95th percentile of what was given."""
        result = {}
        for name, given in self.given.items():
            positive = given[given > 0]
            enough = len(np.unique(self.patient[given > 0])) >= MIN_PATIENTS
            result[name] = {
                "unit": self.axes[name].action.unit,
                "none_share": _share(given == 0),
                "given_quantiles": dict(
                    zip(
                        ("25", "50", "75", "95"),
                        [
                            float(f"{quantile:.2g}")  # never one patient's own dose
                            for quantile in np.quantile(positive, [0.25, 0.5, 0.75, 0.95])
                        ],
                        strict=True,
                    )
                )
                if enough
                else None,
            }
        return result

    def bands(self, name: str) -> tuple[list[str], Codes]:
        """Names of a dose's bands, and each row's: none, and thirds of the doses given; levels."""
        action, doses = self.axes[name].action, self.raw[name]
        if action.kind == "ordinal":
            return list(action.levels), np.nan_to_num(doses).astype(np.int64)
        positive = self.given[name][self.given[name] > 0]
        if not len(positive):
            return ["none"], np.zeros(len(doses), np.int64)
        cuts = np.unique([float(f"{q:.2g}") for q in np.quantile(positive, [1 / 3, 2 / 3])])
        cuts = cuts[cuts < positive.max()]
        place = np.where(np.nan_to_num(doses) > 0, 1 + np.searchsorted(cuts, doses, "left"), 0)
        words = ["any"] if not len(cuts) else [f"up to {cut:.3g}" for cut in cuts]
        words += [f"above {cuts[-1]:.3g}"] if len(cuts) else []
        return ["none", *words], np.minimum(place, len(words))

    def persistence(self) -> dict[str, Any]:
        """Per dose: what follows what, how often it repeats, what the dose before explains."""
        later = self.decision & ~self.stays.first
        patient = np.zeros(len(later), np.int64)
        patient[self.decision] = self.patient
        result = {}
        for name, axis in self.axes.items():
            words, band = self.bands(name)
            before = self.stays.previous(band, 0)
            place = (before * len(words) + band)[later]
            table = cells(place, patient[later], len(words) ** 2)
            counts = table.rows.reshape(len(words), len(words))
            total = np.bincount(before[later], minlength=len(words))[:, None]
            shares = np.where(counts > 0, counts / np.maximum(total, 1), np.nan)
            now, past = self.raw[name][later], self.stays.previous(self.raw[name])[later]
            near = axis.action.increment or 1e-6 * (axis.transform.high - axis.transform.low)
            varied = len(now) > 1 and np.ptp(now) > 0 and np.ptp(past) > 0
            result[name] = {
                "label": axis.action.label or name,
                "unit": axis.action.unit,
                "bands": words,
                "next_given_previous": [
                    [None if np.isnan(share) else float(share) for share in row] for row in shares
                ],
                "same_share": _share(np.abs(now - past) < near * 0.999),
                "explained_by_previous": float(np.corrcoef(now, past)[0, 1] ** 2)
                if varied
                else None,
                "steps": int(later.sum()),
                "steps_suppressed": table.suppressed_rows,
            }
        return result

    def combined_band(self) -> Codes:
        """One number for the bands of all doses together, for each decision."""
        code = np.zeros(int(self.decision.sum()), np.int64)
        for name in self.axes:
            words, band = self.bands(name)
            code = code * len(words) + band[self.decision]
        return code


def state_clusters(states: Floats, generator: np.random.Generator) -> Codes:
    """Nearest of up to CLUSTERS centres (k-means, ten rounds) for each row of scaled states."""
    distinct = np.unique(states, axis=0)
    count = min(CLUSTERS, len(distinct))
    centers = distinct[generator.choice(len(distinct), count, replace=False)]
    place = np.zeros(len(states), np.int64)
    for _ in range(10):
        distance = (centers**2).sum(axis=1) - 2 * states @ centers.T
        place = distance.argmin(axis=1)
        size = np.bincount(place, minlength=count)
        for column in range(states.shape[1]):
            total = np.bincount(place, weights=states[:, column], minlength=count)
            centers[:, column] = np.where(size > 0, total / np.maximum(size, 1), centers[:, column])
    return place


def state_action_coverage(
    cluster: Codes, band: Codes, generator: np.random.Generator, rounds: int = 5
) -> float | None:
    """Distinct pairs of state cluster and dose bands seen, relative to doses dealt at random.

    After SACo of Schweighofer et al. (arXiv 2111.04714), which counts distinct state-action pairs
    relative to a reference data set. There is no reference data set for patients, so it is the
    same rows with their doses shuffled: 1 where clinicians give every kind of patient every dose
    that anyone gets, near 0 where the state decides the dose.
    """
    if not len(cluster):
        return None
    width = int(band.max()) + 1
    seen = len(np.unique(cluster * width + band))
    dealt = [len(np.unique(cluster * width + generator.permutation(band))) for _ in range(rounds)]
    return float(seen / np.mean(dealt))


def _share(flags: npt.NDArray[np.bool_]) -> float | None:
    return float(flags.mean()) if len(flags) else None
