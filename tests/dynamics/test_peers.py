"""The peers are fair: fitted on training patients, exact where they can be."""

from __future__ import annotations

import pytest
import torch

from ogsrl.dynamics.errors_ahead import Ahead, ahead_report, errors_ahead, worst_gain
from ogsrl.dynamics.outcomes import outcomes
from ogsrl.dynamics.peers import LinearDynamics, NeighbourDynamics, horizon
from tests.dynamics.conftest import Line


def test_the_neighbour_holds_training_rows_and_no_others(line: Line) -> None:
    layout = line.dynamics.layout
    train, fresh = (outcomes(s, layout) for s in (line.train, line.fresh))
    peer = NeighbourDynamics.of(layout, train)
    width = len(layout.current)
    rows = {tuple(row) for row in torch.cat([train.states[:, :width], train.doses], 1).tolist()}
    assert all(tuple(key) in rows for key in peer.keys.tolist())
    others = torch.cat([fresh.states[:, :width], fresh.doses], 1).tolist()
    kept = {tuple(key) for key in peer.keys.tolist()}
    assert not any(tuple(row) in kept for row in others)


def test_the_nearest_row_of_a_training_row_is_itself(line: Line) -> None:
    train = outcomes(line.train, line.dynamics.layout)
    peer = NeighbourDynamics.of(line.dynamics.layout, train)
    own = (train.follows | train.ends[:, 0]).nonzero().squeeze(1)[:300]
    nearest = peer.nearest(train.states[own], train.doses[own])[:, 0]
    assert nearest.tolist() == list(range(300))
    mean, death = peer.mean(train.states[own], train.doses[own])
    charted = train.charted[own]
    assert torch.equal(mean[charted], train.numeric[own][charted])
    assert torch.equal(death > 0, train.ends[own, 0])


def test_the_neighbour_tells_one_dose_from_another(line: Line) -> None:
    train = outcomes(line.train, line.dynamics.layout)
    peer = NeighbourDynamics.of(line.dynamics.layout, train, 10)
    states = train.states[:200]
    i = line.dynamics.layout.numeric.index("x")
    none, much = (peer.mean(states, torch.full((200, 1), dose))[0][:, i] for dose in (-1.0, 0.2))
    assert float(much.mean()) > float(none.mean()) + 0.3


def test_pairs_ahead_stay_within_a_stay(line: Line) -> None:
    starts = line.fresh.decision.nonzero().squeeze(1)
    pairs = horizon(line.fresh, line.dynamics.layout, 3, starts)
    assert torch.equal(line.fresh.stay[pairs.start], line.fresh.stay[pairs.start + 3])
    assert torch.equal(line.fresh.step[pairs.start] + 3, line.fresh.step[pairs.start + 3])
    assert len(pairs.start) == int((line.fresh.next_row >= 0).sum()) - 2 * int(
        ((line.fresh.next_row < 0) & (line.fresh.step >= 2)).sum()
    ) - int(((line.fresh.next_row < 0) & (line.fresh.step == 1)).sum())


def test_the_ensemble_beats_persistence_and_equals_the_linear_model_of_a_linear_world(
    line: Line,
) -> None:
    steps = (1, 3)
    linear = LinearDynamics.of(line.train, line.dynamics.layout, steps)
    starts = line.fresh.decision.nonzero().squeeze(1)[::4]
    generator = torch.Generator().manual_seed(0)
    errors = errors_ahead(line.dynamics, linear, line.fresh, starts, generator, steps)
    report = ahead_report(line.dynamics, errors)
    assert set(report) == {"x", "lab", "twin"}  # the constant column has no error to tell
    cell = report["x"]["1"]
    assert cell["signal"]
    assert cell["gain"]["persistence"]["estimate"] > 0.15
    assert abs(cell["gain"]["linear"]["estimate"]) < 0.03
    assert cell["better_linear_explains"] > 0.5
    worst = worst_gain(report, "linear")
    assert worst is not None
    assert worst["estimate"] <= cell["gain"]["linear"]["estimate"]


@pytest.mark.parametrize("knows", ["linear", "direct"])
def test_a_column_that_either_linear_model_explains_has_signal(line: Line, knows: str) -> None:
    numeric = len(line.dynamics.layout.numeric)
    targets = torch.randn((200, numeric), generator=torch.Generator().manual_seed(0))
    squares = {name: targets.square() for name in ("ours", "persistence", "linear", "direct")}
    known = torch.ones_like(targets, dtype=torch.bool)
    none = Ahead(1, known, torch.arange(200), targets, squares)
    some = Ahead(3, known, torch.arange(200), targets, {**squares, knows: 0.5 * targets.square()})
    cells = ahead_report(line.dynamics, {1: none, 3: some})["x"]
    assert [cells[k]["signal"] for k in ("1", "3")] == [False, True]
