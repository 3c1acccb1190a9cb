"""Calibrate an ensemble on patients it was not fitted on: noise, its correlation, ends, gaps.

Called by fitting. It changes scales and offsets only, never a network.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from ogsrl.dynamics.ensemble import Dynamics
from ogsrl.dynamics.fitted import Heads
from ogsrl.dynamics.outcomes import Outcomes

FEWEST_EVENTS = 20  # below, a slope says more about chance than about the model
_FEWEST_VALUES = 50


def correlate(dynamics: Dynamics, truth: Outcomes) -> Dynamics:
    """The same ensemble with noise correlated as it is on these patients; nothing else changes."""
    scores, known = normal_scores(dynamics, dynamics.heads(truth.states, truth.doses), truth)
    fitted = replace(dynamics.fitted, correlation=_factor(scores, known))
    return Dynamics(dynamics.layout, dynamics.params, fitted)


def calibrate(dynamics: Dynamics, truth: Outcomes) -> Dynamics:
    """The same ensemble with scales and offsets that fit these patients."""
    heads = dynamics.heads(truth.states, truth.doses)
    scores, known = normal_scores(dynamics, heads, truth)
    enough = known.sum(0) >= _FEWEST_VALUES
    spread = ((scores.square() * known).sum(0) / known.sum(0).clip(min=1)).sqrt()
    noise = torch.where(enough & (spread > 0), spread.clip(0.25, 4.0), torch.ones_like(spread))
    fitted = dynamics.fitted
    fitted = replace(
        fitted,
        noise=fitted.noise * noise,
        correlation=_factor(scores / noise, known),
        gap_calibration=_lines(heads.gaps, truth.gap, truth.follows[:, None]),
        end_calibration=_lines(heads.ends, truth.ends, truth.at_risk),
    )
    spread_well = Dynamics(dynamics.layout, dynamics.params, fitted)
    chances = spread_well.unsafe(truth.states, truth.doses).values()
    if chances:
        unsafe = torch.stack(list(chances), dim=1)[None]
        lines = _lines(unsafe, truth.unsafe, truth.follows[:, None])
        fitted = replace(fitted, unsafe_calibration=lines)
    return Dynamics(dynamics.layout, dynamics.params, fitted)


def normal_scores(
    dynamics: Dynamics, heads: Heads, truth: Outcomes
) -> tuple[torch.Tensor, torch.Tensor]:
    """How many deviations each charted value lies from the members' mean, and which are known."""
    known = truth.charted & (dynamics.fitted.moving > 0)
    scores = (truth.numeric - heads.mean.mean(0)) / heads.deviation.clip(min=1e-9)
    return torch.where(known, scores, torch.zeros_like(scores)), known


def _factor(scores: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Lower factor of the scores' correlation over rows where both columns were charted."""
    count = len(scores.T)
    if not count:
        return torch.eye(0)
    clipped = scores.clip(-4, 4).double()
    both = known.double().T @ known.double()
    moment = clipped.T @ clipped / both.clip(min=1)
    size = moment.diagonal().clip(min=1e-9).sqrt()
    correlation = moment / size / size[:, None]
    correlation = torch.where(both >= _FEWEST_VALUES, correlation, torch.zeros_like(correlation))
    correlation.fill_diagonal_(1.0)
    values, vectors = torch.linalg.eigh(correlation)
    positive = vectors @ torch.diag(values.clip(min=1e-3)) @ vectors.T
    size = positive.diagonal().sqrt()
    factor: torch.Tensor = torch.linalg.cholesky(positive / size / size[:, None])
    return factor.float()


def _lines(chances: torch.Tensor, truth: torch.Tensor, at_risk: torch.Tensor) -> torch.Tensor:
    """Slope and offset a column (Platt) of the logit of the members' mean chance."""
    mean = chances.mean(0)
    lines = [platt(mean[own, i], truth[own, i]) for i, own in enumerate(at_risk.expand_as(truth).T)]
    return torch.tensor(lines, dtype=torch.float32).reshape(len(lines), 2)


def platt(
    chance: torch.Tensor, truth: torch.Tensor, slope_sd: float = float("inf"), passes: int = 50
) -> tuple[float, float]:
    """Slope and offset by which the logit of a chance fits what came about; (1, 0) if too few.

    `slope_sd`: deviation of a normal prior of the slope around 1.
    """
    events = int(truth.sum())
    if min(events, len(truth) - events) < FEWEST_EVENTS:
        return 1.0, 0.0
    logit = torch.logit(chance.double().clip(1e-6, 1 - 1e-6))
    if float(logit.std()) < 1e-6:
        return 1.0, float(torch.logit(truth.double().mean()) - logit.mean())
    design = torch.stack([logit, torch.ones_like(logit)], dim=1)
    line = torch.tensor([1.0, 0.0], dtype=torch.float64)
    for _ in range(passes):
        p = torch.sigmoid(design @ line)
        slope = design.T @ (truth.double() - p)
        slope[0] -= (line[0] - 1) / slope_sd**2
        curve = (design * (p * (1 - p))[:, None]).T @ design + 1e-9 * torch.eye(2).double()
        curve[0, 0] += 1 / slope_sd**2
        move = torch.linalg.solve(curve, slope)
        line = line + move
        if float(move.abs().max()) < 1e-8:
            break
    return float(line[0]), float(line[1])
