"""An order is a dose that a nurse can give: whole increments, in bounds, near the last dose."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ogsrl.errors import SpecError
from ogsrl.policies.orders import Order, Orders
from ogsrl.preparation.transforms import DoseTransform
from ogsrl.spec import Action
from tests.guardian.cohorts import planted, simulated

FLUID = Action(unit="mL", bounds=(0, 2000), min_dose=50, increment=50, max_change=1000)
ORDER = Order(FLUID, DoseTransform("fluid", "sqrt", 0.0, 2000.0))
whole = st.integers(0, 40).map(lambda k: 50.0 * k)


def one(order: Order, proposed: float, last: float) -> float:
    return float(order.clinical(torch.tensor([proposed]), torch.tensor([last])))


@given(st.floats(-1, 1), whole)
def test_an_order_is_a_whole_increment_in_bounds_and_in_reach(proposed: float, last: float) -> None:
    scaled = ORDER.scaled(torch.tensor([proposed]), torch.tensor([last]))
    dose = float(ORDER.scale.inverse(scaled.numpy())[0])
    assert dose % 50 == 0
    assert 0 <= dose <= 2000
    assert abs(dose - last) <= 1000


@given(whole, whole)
def test_a_dose_that_can_be_given_is_ordered_as_it_is(dose: float, last: float) -> None:
    wanted = max(min(dose, last + 1000), last - 1000)
    assert one(ORDER, dose, last) == wanted


def test_below_the_least_dose_nothing_is_given() -> None:
    pressor = Action(unit="ug", bounds=(0, 1), min_dose=0.05, increment=0.01)
    order = Order(pressor, DoseTransform("pressor", "identity", 0.0, 1.0))
    assert one(order, 0.04, 0.3) == 0
    assert one(order, 0.06, 0.0) == pytest.approx(0.06)


def test_where_zero_is_too_far_the_least_dose_in_reach_is_given() -> None:
    assert one(ORDER, 0.0, 1800.0) == 800
    narrow = Order(FLUID.model_copy(update={"max_change": 10.0}), ORDER.scale)
    assert one(narrow, 0.0, 60.0) == 50


def test_a_last_dose_outside_the_bounds_moves_nothing_outside() -> None:
    assert one(ORDER, 2000.0, 3500.0) == 2000


def test_without_an_increment_only_bounds_and_change_bind() -> None:
    free = Order(
        Action(unit="1", bounds=(0, 1), max_change=0.25), DoseTransform("x", "identity", 0, 1)
    )
    assert one(free, 0.1234, 0.0) == pytest.approx(0.1234)
    assert one(free, 0.9, 0.1) == pytest.approx(0.35)


def test_a_level_is_a_whole_code() -> None:
    level = Action(unit="1", kind="ordinal", levels=("none", "low", "high"))
    order = Order(level, DoseTransform("x", "identity", 0.0, 2.0))
    assert [one(order, p, 0.0) for p in (0.4, 1.4, 1.6)] == [0, 1, 2]


def test_the_gradient_passes_straight_through() -> None:
    proposed = torch.tensor([0.3, -0.2], requires_grad=True)
    ORDER.scaled(proposed, torch.tensor([500.0, 0.0])).sum().backward()
    assert proposed.grad is not None
    assert proposed.grad.tolist() == [1.0, 1.0]


def test_states_remember_the_doses_last_given() -> None:
    stays = simulated()[0]["train"]
    last = Orders.of(stays.history).last_given(stays.states)
    assert torch.allclose(last, stays.last_given, rtol=1e-4, atol=1e-4)
    assert bool((last > 0).any())


def test_a_largest_change_needs_a_state_that_remembers() -> None:
    history = planted(
        {"x": {"plausible": [-1, 1]}}, {"fluid": {"bounds": [0, 1], "max_change": 0.5}}
    )
    with pytest.raises(SpecError, match=r"actions\.fluid\.max_change.*history_steps"):
        Orders.of(history)
