"""How good a policy of clinicians is: likelihood, reliability by dose band, E_b[pi/b] by step.

Called by the report and by the benchmark, with patients that fitted nothing. Numbers come with
intervals over patients; what fewer than ten patients share is not told.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ogsrl.behaviour.decisions import Decisions
from ogsrl.behaviour.distribution import DosePolicy
from ogsrl.behaviour.doses import BETWEEN, MAXIMUM, ZERO, DoseGrid, OneDose
from ogsrl.behaviour.policy import BLOCK
from ogsrl.preparation.coverage import MIN_PATIENTS

Z = 1.959964  # two-sided 95 %
BINS = 10


def over_patients(values: torch.Tensor, patient: torch.Tensor) -> dict[str, float | int | None]:
    """The mean of rows, and its interval: rows of a patient are not independent.

    >>> found = over_patients(torch.tensor([1.0, 3.0, 2.0]), torch.tensor([0, 0, 1]))
    >>> {name: round(value, 3) for name, value in found.items()}
    {'estimate': 2.0, 'se': 0.0, 'lo': 2.0, 'hi': 2.0, 'patients': 2}
    """
    _, who = torch.unique(patient, return_inverse=True)
    people = int(who.max()) + 1 if len(who) else 0
    if people < 2:
        return {"estimate": None, "se": None, "lo": None, "hi": None, "patients": people}
    values = values.double()
    mean = float(values.mean())
    off = torch.zeros(people, dtype=torch.float64).index_add(0, who, values - mean)
    se = float((off**2).sum().sqrt()) / len(values) * (people / (people - 1)) ** 0.5
    return {
        "estimate": mean,
        "se": se,
        "lo": mean - Z * se,
        "hi": mean + Z * se,
        "patients": people,
    }


@torch.no_grad()
def log_probs(policy: DosePolicy, decisions: Decisions) -> torch.Tensor:
    """Log probability of the doses given, row by row."""
    pairs = zip(
        torch.split(decisions.states, BLOCK), torch.split(decisions.doses, BLOCK), strict=True
    )
    return torch.cat([policy.distribution(s).log_prob(d) for s, d in pairs])


def ratio_by_step(
    policy: torch.Tensor, logged: torch.Tensor, decisions: Decisions
) -> list[dict[str, Any]]:
    """E_b[pi/b] of each step, over doses that clinicians gave; 1 where b is right.

    Args:
        policy: log pi of the doses given; -inf where pi never gives them.
        logged: log b of the same; a row that b calls impossible has no ratio and is left out.
        decisions: Whose they are.
    """
    ratio = torch.where(policy > -torch.inf, (policy - logged).double().exp(), 0.0)
    found = []
    for step in range(int(decisions.step.max()) + 1):
        rows = (decisions.step == step) & (logged > -torch.inf)
        here = ratio[rows]
        told = over_patients(here, decisions.patient[rows])
        known = told["patients"] is not None and told["patients"] >= MIN_PATIENTS
        effective = float(here.sum() ** 2 / (here**2).sum()) if float(here.sum()) > 0 else 0.0
        found.append(
            {
                "step": step,
                "rows": len(here) if known or not len(here) else None,
                **(told if known else dict.fromkeys(told)),
                "effective": effective if known else None,
            }
        )
    return found


@dataclass(frozen=True)
class Band:
    """A range of doses: a part, a stretch between, or a level; `label` in clinical units."""

    label: str
    part: int
    low: float = -1.0  # scaled; between only
    high: float = 1.0

    def probability(self, one: OneDose) -> torch.Tensor:
        """Probability of the band in each row."""
        if one.grid.kind == "ordinal" or self.part != BETWEEN:
            return one.parts()[:, self.part]
        rows = len(one.log_weights)
        parts = one.parts()
        ends = []
        for end, whole in ((self.low, parts[:, ZERO]), (self.high, 1 - parts[:, MAXIMUM])):
            inner = -1 < end < 1
            ends.append(one.cdf(torch.full((rows,), end)) if inner else whole)
        return ends[1] - ends[0]

    def contains(self, grid: DoseGrid, doses: torch.Tensor) -> torch.Tensor:
        """Whether each dose lies in the band."""
        inside = grid.part(doses) == self.part
        if grid.kind == "ordinal" or self.part != BETWEEN:
            return inside
        return inside & (doses > self.low) & (doses <= self.high)


def bands_of(grid: DoseGrid, log_marginal: torch.Tensor, levels: Sequence[str]) -> tuple[Band, ...]:
    """Bands of a dose that training clinicians ever gave: parts, and thirds of what is between."""
    weights = log_marginal.exp()
    if grid.kind == "ordinal":
        return tuple(Band(levels[i], i) for i in range(grid.levels) if weights[i] > 0)
    zero = "none" if grid.low == 0 else f"{grid.low:g}"
    bands = [Band(zero, ZERO)] if weights[0] > 0 else []
    hats = weights[2:]
    if float(hats.sum()) > 0:
        below = hats.cumsum(0) / hats.sum()
        cuts = sorted({int((below - share).abs().argmin()) for share in (1 / 3, 2 / 3)})
        cuts = [k for k in cuts if k < len(grid.knots) - 1]
        walls = [(grid.knots[k] + grid.knots[k + 1]) / 2 for k in cuts]
        scaled = [-1.0, *(float(x) for x in grid.scaled(torch.tensor(walls))), 1.0]
        clinical = [
            f"{float(f'{math.exp(x):.3g}'):g}" for x in (grid.knots[0], *walls, grid.knots[-1])
        ]
        bands += [
            Band(f"{clinical[i]} to {clinical[i + 1]}", BETWEEN, scaled[i], scaled[i + 1])
            for i in range(len(scaled) - 1)
        ]
    return (*bands, Band(f"{grid.high:g}", MAXIMUM)) if weights[1] > 0 else tuple(bands)


def reliability(
    predicted: torch.Tensor, happened: torch.Tensor, patient: torch.Tensor
) -> dict[str, Any]:
    """Predicted against observed frequency in bins of equal counts, and their mean distance.

    error = sum over bins of (rows in the bin / rows) |mean predicted - share that happened|.
    A bin that may not be told joins the next.
    """
    bins, error, told = [], 0.0, 0
    for rows in _bins(predicted, happened, patient):
        seen = over_patients(happened[rows].double(), patient[rows])
        mean, share = float(predicted[rows].double().mean()), float(happened[rows].double().mean())
        error += len(rows) * abs(mean - share)
        told += len(rows)
        bins.append({"predicted": mean, "rows": len(rows), **seen})
    return {
        "error": error / told if told else None,
        "rows": told,
        "rows_suppressed": len(predicted) - told,
        "bins": bins,
    }


def _bins(
    predicted: torch.Tensor, happened: torch.Tensor, patient: torch.Tensor
) -> list[torch.Tensor]:
    """Rows of each bin: ten patients or more; and ten, or none, to whom it happened or did not."""

    def may_be_told(rows: torch.Tensor) -> bool:
        people = [len(torch.unique(patient[rows][happened[rows] == yes])) for yes in (False, True)]
        enough = len(torch.unique(patient[rows])) >= MIN_PATIENTS
        return enough and not any(0 < count < MIN_PATIENTS for count in people)

    bins: list[torch.Tensor] = []
    waiting = torch.zeros(0, dtype=torch.long)
    for rows in predicted.double().argsort(stable=True).tensor_split(BINS):
        waiting = torch.cat([waiting, rows])
        if may_be_told(waiting):
            bins.append(waiting)
            waiting = waiting[:0]
    while len(waiting) and bins:
        waiting = torch.cat([bins.pop(), waiting])
        if may_be_told(waiting):
            return [*bins, waiting]
    return bins


@torch.no_grad()
def reliability_by_band(
    policy: DosePolicy,
    decisions: Decisions,
    bands: Mapping[str, Sequence[Band]],
) -> dict[str, list[dict[str, Any]]]:
    """Reliability of each dose's bands, given the doses before it in the chain."""
    predicted: dict[str, list[list[torch.Tensor]]] = {n: [[] for _ in b] for n, b in bands.items()}
    happened: dict[str, list[list[torch.Tensor]]] = {n: [[] for _ in b] for n, b in bands.items()}
    pairs = zip(
        torch.split(decisions.states, BLOCK), torch.split(decisions.doses, BLOCK), strict=True
    )
    for states, doses in pairs:
        for j, (name, one) in enumerate(policy.distribution(states).given(doses).items()):
            for i, band in enumerate(bands[name]):
                predicted[name][i].append(band.probability(one))
                happened[name][i].append(band.contains(one.grid, doses[:, j]))
    return {
        name: [
            {
                "band": band.label,
                **reliability(
                    torch.cat(predicted[name][i]), torch.cat(happened[name][i]), decisions.patient
                ),
            }
            for i, band in enumerate(each)
        ]
        for name, each in bands.items()
    }
