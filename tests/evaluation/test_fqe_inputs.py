"""What networks of fitted Q see: doses less what is usual in the state, codes by look-ups."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ogsrl.evaluation.executed import Executed
from ogsrl.evaluation.fqe_parts import LEAST_APART, Inputs, Task
from ogsrl.evaluation.quantities import quantities, to_go
from tests.evaluation.ward import Ward, WardClinicians, acting
from tests.policies.tables import table_frames


def test_what_networks_see_of_doses_says_nothing_of_the_state_and_has_the_weight() -> None:
    made = Ward.draw(2_000, 3).stays
    rows = made.transitions()
    assert (
        float(torch.corrcoef(torch.stack([rows.states[:, 0], rows.doses[:, 0]]))[0, 1].abs()) > 0.05
    )
    inputs = Inputs.of(made, 3.0)
    seen = inputs(rows.states, rows.doses).numbers
    rest = seen[:, rows.states.shape[1] :]
    assert float(rest.std()) == pytest.approx(3.0, rel=0.02)
    for column in rows.states.T:
        if float(column.std()) > 0:
            both = torch.stack([column, rest[:, 0]])
            assert abs(float(torch.corrcoef(both)[0, 1])) < 0.01
    other = inputs(rows.states, rows.doses + 1).numbers[:, rows.states.shape[1] :]
    assert torch.allclose(other - rest, inputs.width.expand_as(rest), atol=1e-4)


def test_of_codes_what_is_usual_is_looked_up_and_an_unknown_one_says_nothing() -> None:
    stays = table_frames(200, 1)[0]
    inputs, rows = Inputs.of(stays, 4.0), stays.transitions()
    states = rows.states.clone()
    states[0, 0] = 9.0  # no level of it
    seen = inputs(states, rows.doses)
    assert seen.codes is not None
    dense = torch.cat([inputs.codes.inputs(states), torch.ones(len(states), 1)], 1) @ inputs.usual
    wanted = (rows.doses - dense) * inputs.width
    got = seen.numbers[:, -rows.doses.shape[1] :]
    assert torch.allclose(got, wanted, atol=1e-4)
    stacked = inputs(states, torch.stack([rows.doses, rows.doses + 0.1])).numbers
    assert torch.allclose(stacked[0], seen.numbers)


def test_errors_count_by_how_little_patients_differ_within_bounds() -> None:
    stays = Ward.draw(500, 3).stays
    nothing = replace(stays, costs=torch.zeros_like(stays.costs))
    names = ("mortality", "value", "cost:ill")
    for made in (stays, nothing):
        generator = torch.Generator().manual_seed(0)
        treats = acting(1.0, made.history)
        executed = {"treats": Executed.of(treats, WardClinicians(), made.states, 1, generator)}
        wanted = quantities(made, names)
        weights = Task.of(made, executed, wanted).weights().tolist()
        for one, weight in zip(wanted, weights, strict=True):
            apart = float(to_go(made, one)[0].std(correction=0)) / (one.high - one.low)
            assert weight == pytest.approx(1 / max(apart, LEAST_APART), rel=1e-4), one.name
    assert weights[2] == pytest.approx(1 / LEAST_APART)
