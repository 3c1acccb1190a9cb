"""Errors one and several steps ahead, per column, beside persistence and linear models.

Called by the report and the benchmark. Doses are those that were logged.

Two linear models answer two questions. `linear` is a dynamics model like ours: one step at a time
under doses that are set. `direct` regresses the value k steps ahead on all doses given until then
and so reads them as evidence: clinicians answer to what happens meanwhile, a later dose tells of
it. It predicts logged stays better and other doses far worse (benchmarks.dynamics measures both);
no model that asks what a dose would do can copy that, so it is shown and not raced.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ogsrl.dynamics.ensemble import Dynamics
from ogsrl.dynamics.measures import FEWEST, gain
from ogsrl.dynamics.peers import LinearDynamics, horizon, ridge_predict
from ogsrl.dynamics.rollouts import expected_ahead
from ogsrl.preparation.tensors import StayTensors

HORIZONS = (1, 3, 6, 12)
PARTICLES = 20
#: A column has signal where the better linear model explains this share of its variance k steps on.
SIGNAL = 0.05
LINEAR = ("linear", "direct")
PEERS = ("persistence", *LINEAR)


@dataclass(frozen=True)
class Ahead:
    """Squared errors `steps` ahead of the ensemble and its peers, (rows, numeric columns)."""

    steps: int
    known: torch.Tensor
    patient: torch.Tensor
    targets: torch.Tensor
    squares: dict[str, torch.Tensor]


def errors_ahead(
    dynamics: Dynamics,
    linear: LinearDynamics,
    stays: StayTensors,
    starts: torch.Tensor,
    generator: torch.Generator,
    horizons: Sequence[int] = HORIZONS,
    particles: int = PARTICLES,
) -> dict[int, Ahead]:
    """Errors on stays that still go on; each start is rolled out as far as its stay was."""
    layout = dynamics.layout
    pairs = {k: horizon(stays, layout, k, starts) for k in horizons}
    reach = torch.zeros(len(stays.stay), dtype=torch.long)
    for k in sorted(horizons):
        reach[pairs[k].start] = k
    # by row of the stays' tensors and horizon: what each expects
    shape = len(stays.stay), len(layout.numeric)
    ours, theirs = ({k: torch.zeros(shape) for k in horizons} for _ in range(2))
    for k in sorted(horizons):
        rows = starts[reach[starts] == k]
        if not len(rows):
            continue
        states = stays.states[rows]
        doses = torch.stack([stays.doses[rows + i] for i in range(k)], dim=1)
        upto = [one for one in horizons if one <= k]
        drawn = expected_ahead(dynamics, states, doses, upto, generator, particles)
        lines = linear.ahead(states, doses, upto)
        for one in upto:
            ours[one][rows], theirs[one][rows] = drawn[one], lines[one]
    found = {}
    numeric = [layout.current[name] for name in layout.numeric]
    for k, pair in pairs.items():
        guesses = {
            "ours": ours[k][pair.start],
            "persistence": stays.states[pair.start][:, numeric],
            "linear": theirs[k][pair.start],
            "direct": ridge_predict(linear.direct[k], pair.inputs),
        }
        found[k] = Ahead(
            steps=k,
            known=pair.known,
            patient=stays.patient[pair.start],
            targets=pair.targets,
            squares={name: (pair.targets - g).square() for name, g in guesses.items()},
        )
    return found


def ahead_report(dynamics: Dynamics, errors: dict[int, Ahead]) -> dict[str, dict[str, Any]]:
    """Per column and horizon: errors in training deviations, gains, whether there is signal."""
    report: dict[str, dict[str, Any]] = {}
    for i, name in enumerate(dynamics.layout.numeric):
        if not dynamics.fitted.moving[i]:
            continue
        report[name] = {str(k): _one(ahead, i) for k, ahead in errors.items()}
    return report


def _one(ahead: Ahead, column: int) -> dict[str, Any] | None:
    own = ahead.known[:, column]
    patient = ahead.patient[own]
    if len(torch.unique(patient)) < FEWEST:
        return None
    squares = {name: values[own, column] for name, values in ahead.squares.items()}
    variance = float(ahead.targets[own, column].double().var(correction=0))
    least = min(float(squares[name].double().mean()) for name in LINEAR)
    explained = 1 - least / variance if variance > 0 else 0.0
    gains = {name: gain(squares["ours"], squares[name], patient) for name in PEERS}
    return {
        "rows": int(own.sum()),
        "rmse": {name: float(values.double().mean().sqrt()) for name, values in squares.items()},
        "gain": {name: {"estimate": g.gain, "se": g.se} for name, g in gains.items()},
        "better_linear_explains": explained,
        "signal": explained >= SIGNAL,
    }


def worst_gain(report: dict[str, dict[str, Any]], peer: str) -> dict[str, Any] | None:
    """The least relative reduction of error over columns with signal and horizons."""
    cells = [
        (cell["gain"][peer]["estimate"], cell["gain"][peer]["se"], name, k)
        for name, column in report.items()
        for k, cell in column.items()
        if cell is not None and cell["signal"]
    ]
    if not cells:
        return None
    estimate, se, name, k = min(cells)
    return {"estimate": estimate, "se": se, "column": name, "steps": int(k)}
