"""How good a prediction was, with a standard error over patients.

Called by the report and the benchmark. Every number that is None could not be told: too few
patients or events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from scipy.stats import rankdata

from ogsrl.dynamics.calibration import FEWEST_EVENTS, platt

FEWEST = 10  # patients in a cell that is shown
CONSTANT = 1e-6  # chances that differ by less rank nobody


def by_patient(values: torch.Tensor, patient: torch.Tensor) -> torch.Tensor:
    """Sum of the rows of each patient."""
    count = int(patient.max()) + 1 if len(patient) else 0
    total = torch.zeros((count, *values.shape[1:]), dtype=torch.float64)
    return total.index_add_(0, patient, values.double())


@dataclass(frozen=True)
class Gain:
    """How much smaller a root mean square error is than a peer's, relative, and its error."""

    gain: float
    se: float


def gain(ours: torch.Tensor, peers: torch.Tensor, patient: torch.Tensor) -> Gain:
    """1 - RMSE / peer's RMSE of squared errors a row; the error by the delta method.

    >>> one = torch.tensor([1.0, 1.0, 4.0, 4.0])
    >>> gain(one, 4 * one, torch.arange(4))
    Gain(gain=0.5, se=0.0)
    """
    a, b = by_patient(ours, patient), by_patient(peers, patient)
    total = float(b.sum())
    if total <= 0:
        return Gain(0.0, 0.0)
    ratio = float(a.sum()) / total
    spread = float((a - ratio * b).square().sum().sqrt()) / total
    return Gain(1 - ratio**0.5, spread / (2 * max(ratio, 1e-12) ** 0.5))


def share(hits: torch.Tensor, patient: torch.Tensor) -> dict[str, float]:
    """Share of rows, with its standard error over patients."""
    a, n = by_patient(hits.double(), patient), by_patient(torch.ones(len(hits)), patient)
    total = float(n.sum())
    mean = float(a.sum()) / max(total, 1)
    return {"estimate": mean, "se": float((a - mean * n).square().sum().sqrt()) / max(total, 1)}


def of_many(patient: torch.Tensor) -> bool:
    """Whether these rows are of so many patients that they may be shown."""
    return len(torch.unique(patient)) >= FEWEST


def tellable(hits: torch.Tensor, patient: torch.Tensor) -> bool:
    """Whether a share of rows may be shown: hits and misses are each of nobody or of many.

    >>> tellable(torch.arange(40) < 15, torch.arange(40))
    True
    >>> tellable(torch.arange(40) < 15, torch.arange(40) // 15)  # all fifteen of one patient
    False
    """
    sides = patient[hits], patient[~hits]
    return of_many(patient) and all(len(side) == 0 or of_many(side) for side in sides)


def pooled(
    cells: Iterable[torch.Tensor], shown: Callable[[torch.Tensor], bool]
) -> list[torch.Tensor]:
    """Neighbouring cells (of row numbers) put together until each may be shown; none if none may.

    Nothing is left out, so that no cell is known as what is missing from the whole.
    """
    found: list[torch.Tensor] = []
    held = torch.zeros(0, dtype=torch.long)
    for rows in cells:
        held = torch.cat([held, rows])
        if shown(held):
            found.append(held)
            held = held[:0]
    while len(held) and found:
        held = torch.cat([found.pop(), held])
        if shown(held):
            return [*found, held]
    return found


def auroc(chance: torch.Tensor, truth: torch.Tensor) -> dict[str, float] | None:
    """Area under the curve; the error of Hanley and McNeil (1982)."""
    yes, no = int(truth.sum()), int((~truth).sum())
    if min(yes, no) < FEWEST:
        return None
    ranks = torch.from_numpy(rankdata(chance.double().numpy()))
    area = (float(ranks[truth].sum()) - yes * (yes + 1) / 2) / (yes * no)
    one, two = area / (2 - area), 2 * area * area / (1 + area)
    variance = area * (1 - area) + (yes - 1) * (one - area * area) + (no - 1) * (two - area * area)
    return {"estimate": area, "se": (variance / (yes * no)) ** 0.5}


def chance_report(
    chance: torch.Tensor, truth: torch.Tensor, patient: torch.Tensor
) -> dict[str, Any]:
    """AUROC, Brier score, calibration slope and offset, and a reliability curve of ten bins.

    Told only where rows with the event are of nobody or of ten patients, and those without too.
    """
    truth = truth.bool()
    events = int(truth.sum())
    told = tellable(truth, patient)
    enough = told and min(events, len(truth) - events) >= FEWEST_EVENTS
    varied = len(truth) > 0 and float(chance.max() - chance.min()) > CONSTANT
    squares = (chance.double() - truth.double()).square()
    found: dict[str, Any] = {
        "events": events if told else None,
        "auroc": auroc(chance, truth) if told else None,
        "brier": share(squares, patient) if told else None,
        "predicted": float(chance.double().mean()) if of_many(patient) else None,
        "observed": share(truth, patient) if told else None,
        "slope": None,
        "offset": None,
        "curve": [],
    }
    if enough and varied:  # the slope of a constant chance would be 1 by convention
        line = platt(chance, truth)
        errors = _line_errors(chance, truth, patient, line)
        found["slope"] = {"estimate": line[0], "se": errors[0]}
        found["offset"] = {"estimate": line[1], "se": errors[1]}
        found["curve"] = _curve(chance, truth, patient)
    return found


def _line_errors(
    chance: torch.Tensor, truth: torch.Tensor, patient: torch.Tensor, line: tuple[float, float]
) -> tuple[float, float]:
    """Standard errors of slope and offset, patients being independent (sandwich)."""
    logit = torch.logit(chance.double().clip(1e-6, 1 - 1e-6))
    design = torch.stack([logit, torch.ones_like(logit)], dim=1)
    p = torch.sigmoid(design @ torch.tensor(line, dtype=torch.float64))
    curve = (design * (p * (1 - p))[:, None]).T @ design
    scores = by_patient(design * (truth.double() - p)[:, None], patient)
    bread = torch.linalg.inv(curve + 1e-9 * torch.eye(2).double())
    spread = (bread @ (scores.T @ scores) @ bread).diagonal().clip(min=0).sqrt()
    return float(spread[0]), float(spread[1])


def _curve(
    chance: torch.Tensor, truth: torch.Tensor, patient: torch.Tensor
) -> list[dict[str, float]]:
    """Predicted and observed share in ten bins of equally many rows, small ones put together."""
    bins = torch.argsort(chance, stable=True).tensor_split(10)
    return [
        {"predicted": float(chance[rows].double().mean()), **share(truth[rows], patient[rows])}
        for rows in pooled(bins, lambda rows: tellable(truth[rows], patient[rows]))
    ]
