"""Fit an ensemble on training patients, and calibrate it on calibration patients.

Called by the stage dynamics, and by select for its second ensemble (on validation patients, not
calibrated). Validation and test patients of the stage never come here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from ogsrl.dynamics.calibration import calibrate, correlate
from ogsrl.dynamics.chart import Chart
from ogsrl.dynamics.config import NEEDED_PATIENTS, DynamicsParams, TooFewPatients
from ogsrl.dynamics.ensemble import Dynamics
from ogsrl.dynamics.fitted import Fitted
from ogsrl.dynamics.heads import EndLoss, ValueHeads, ValueLoss
from ogsrl.dynamics.layout import Layout
from ogsrl.dynamics.measures import FEWEST
from ogsrl.dynamics.network import Tensors, new_network
from ogsrl.dynamics.outcomes import ENDS, Outcomes, check_varied, outcomes
from ogsrl.dynamics.training import Bootstrap, linear_part, train
from ogsrl.preparation.tensors import StayTensors

_TOGETHER = 0.95  # agreement of gaps beyond chance, from which two columns are charted together


def fit(
    stays: StayTensors,
    calibration: StayTensors | None,
    params: DynamicsParams,
    generator: torch.Generator,
    progress: Callable[[int], None] | None = None,
) -> Dynamics:
    """Fit on the patients of `stays`; noise, ends and gaps are calibrated on others, if given.

    Args:
        stays: Whole stays of training patients.
        calibration: Whole stays of other patients; none, or fewer than 10: nothing is calibrated.
        params: Size and training.
        generator: Everything is drawn with it.
        progress: Called with 1 after each pass, at most 2 x max_epochs times.

    Raises:
        TooFewPatients: Fewer than NEEDED_PATIENTS have a next row.
        ModelError: All patients are the same.
    """
    layout = Layout(stays.history)
    known = outcomes(stays, layout)
    if known.patients < NEEDED_PATIENTS:
        raise TooFewPatients(NEEDED_PATIENTS)
    check_varied(stays)
    known = replace(known, patient=torch.unique(known.patient, return_inverse=True)[1])
    bootstrap = Bootstrap.draw(params.members, int(known.patient.max()) + 1, generator)
    fitted = _fit_values(layout, known, params, bootstrap, generator, progress)
    ends = _fit_ends(layout, known, params, bootstrap, generator, progress)
    dynamics = Dynamics(layout, params, Fitted(**fitted, **ends))
    held_out = None if calibration is None else outcomes(calibration, layout)
    if held_out is None or held_out.patients < FEWEST:
        return correlate(dynamics, known)
    return calibrate(dynamics, held_out)


def _fit_values(
    layout: Layout,
    known: Outcomes,
    params: DynamicsParams,
    bootstrap: Bootstrap,
    generator: torch.Generator,
    progress: Callable[[int], None] | None,
) -> dict[str, Any]:
    rows = known.take(known.follows.nonzero().squeeze(1))
    now = rows.states[:, [layout.current[name] for name in layout.numeric]]
    change = rows.numeric - now
    weights = bootstrap.weights(rows.patient)
    slopes, left = linear_part(rows.inputs, change, rows.charted, weights, params.ridge)
    moved = (change.abs() * rows.charted).amax(0) > 1e-6 if len(layout.numeric) else left > 0
    moving = (moved & (left > 1e-6)).float()
    left = torch.where(moving > 0, left, torch.ones_like(left))
    rest = (change - (rows.inputs @ slopes[:, :-1] + slopes[:, -1:])) / left
    rows = replace(rows, charted=rows.charted & (moving > 0))
    sizes = ValueHeads.sizes(layout)
    network = new_network(
        params.members, layout.width, params.hidden, sum(sizes), generator, skip=False
    )
    network["b3"][..., sum(sizes[:3]) :] = _log_odds(rows.gap.float().mean(0))
    loss = ValueLoss(layout, rows, rest, torch.arange(params.members)[:, None])
    network, _ = train(
        network, rows.inputs, rows.patient, loss, bootstrap, params, generator, progress
    )
    count = len(layout.numeric)
    return {
        "values": network,
        "slopes": slopes,
        "left": left,
        "moving": moving,
        "noise": torch.ones(count),
        "correlation": torch.eye(count),
        "gap_calibration": _unchanged(len(layout.gaps)),
        "gap_group": gap_groups(rows.gap),
        "chart": Chart.of(layout, rows.numeric, rows.charted),
    }


def _fit_ends(
    layout: Layout,
    known: Outcomes,
    params: DynamicsParams,
    bootstrap: Bootstrap,
    generator: torch.Generator,
    progress: Callable[[int], None] | None,
) -> dict[str, Any]:
    seen = (known.ends & known.at_risk).any(0).float()
    network: Tensors = new_network(
        params.members, layout.width, params.hidden_ends, len(ENDS), generator, skip=True
    )
    share = (known.ends & known.at_risk).float().sum(0) / known.at_risk.float().sum(0).clip(min=1)
    network["b3"] += _log_odds(share)
    truth = replace(known, at_risk=known.at_risk & (seen > 0))
    # ends are few: the network has learned them after a third of the passes, and falls to rest
    shorter = params.model_copy(update={"max_epochs": max(1, params.max_epochs // 3)})
    network, _ = train(
        network,
        known.inputs,
        known.patient,
        EndLoss(truth),
        bootstrap,
        shorter,
        generator,
        progress,
    )
    rules = layout.history.preparation.cohort.constraints
    return {
        "ends": network,
        "end_calibration": _unchanged(len(ENDS)),
        "seen_ends": seen,
        "unsafe_calibration": _unchanged(len(rules)),
    }


def gap_groups(gap: torch.Tensor) -> torch.Tensor:
    """Number of each column's group; columns of one group are charted together.

    >>> gas, chemistry = [1, 0, 1, 0], [1, 1, 0, 0]
    >>> gap_groups(torch.tensor([gas, gas, chemistry]).T > 0).tolist()
    [0, 0, 1]
    """
    values = gap.float() - gap.float().mean(0)
    together = values.T @ values
    size = together.diagonal().clip(min=1e-9).sqrt()
    agree = (together / size / size[:, None]) > _TOGETHER
    first = [int(row.nonzero()[0]) if bool(row.any()) else i for i, row in enumerate(agree)]
    group: torch.Tensor = torch.unique(torch.tensor(first, dtype=torch.long), return_inverse=True)[
        1
    ]
    return group


def _log_odds(share: torch.Tensor) -> torch.Tensor:
    return torch.logit(share.clip(1e-4, 1 - 1e-4))


def _unchanged(count: int) -> torch.Tensor:
    return torch.tensor([[1.0, 0.0]]).repeat(count, 1)
