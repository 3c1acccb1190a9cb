"""What a confounder could do is what the best one of its Gamma does, and nothing at Gamma 1."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog

from ogsrl.errors import EstimateError
from ogsrl.evaluation.panel import Panel
from ogsrl.evaluation.sensitivity import FirstDose, Widening, recorded, tipping, widened
from ogsrl.preparation.history import History
from ogsrl.preparation.tensors import StayTensors
from tests.guardian.cohorts import numeric, planted

Floats = npt.NDArray[np.float64]
GAMMAS = st.floats(1, 8)


def acting(values: torch.Tensor) -> FirstDose:
    """Of a policy that defers for nobody."""
    return FirstDose.of(values, torch.zeros(values.shape[1]) > 0, 0, 1)


def shares(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1))


def bound(q: Floats, gamma: float) -> tuple[float, float]:
    """Least and greatest mean of patients whose dose was followed by q."""
    made = acting(torch.tensor(q)[None]).widening(gamma)
    return float(q.mean()) - made.down, float(q.mean()) + made.up


@dataclass(frozen=True)
class Hidden:
    """Two states, two doses, a hidden u of several values, an outcome of 0 or 1.

    `state`: (s,); `hidden`: (s, u) chances; `dosed`: (s, u) chance of the dose; `harm`: (s, u) of
    the outcome where it was given.
    """

    state: Floats
    hidden: Floats
    dosed: Floats
    harm: Floats

    @property
    def seen(self) -> Floats:
        """(s,) mean outcome of those who were given the dose."""
        share = self.hidden * self.dosed
        return (share * self.harm).sum(1) / share.sum(1)

    @property
    def truth(self) -> float:
        """Were everybody given it."""
        return float(self.state @ (self.hidden * self.harm).sum(1))

    @property
    def gamma(self) -> float:
        """Of the dose given and of the other one."""
        mean = (self.hidden * self.dosed).sum(1, keepdims=True)
        ratio = np.concatenate([mean / self.dosed, (1 - mean) / (1 - self.dosed)])
        return float(np.maximum(ratio, 1 / ratio).max())


def drawn(seed: int) -> Hidden:
    rng = np.random.default_rng(seed)
    hidden = rng.dirichlet(np.ones(3), 2)
    state = rng.dirichlet(np.ones(2))
    return Hidden(state, hidden, rng.uniform(0.2, 0.8, (2, 3)), rng.integers(0, 2, (2, 3)) * 1.0)


@given(st.integers(0, 10_000))
def test_the_truth_lies_inside_for_every_confounder_of_that_gamma(seed: int) -> None:
    made = drawn(seed)
    of_state = [bound(made.seen[[s]], made.gamma) for s in (0, 1)]
    low, high = (float(made.state @ np.array(side)) for side in zip(*of_state, strict=True))
    assert low - 1e-9 <= made.truth <= high + 1e-9


@pytest.mark.parametrize("gamma", [1.2, 1.8, 3.0])
@pytest.mark.parametrize("sign", [-1, 1])
def test_the_worst_confounder_attains_it(gamma: float, sign: int) -> None:
    # u is what the dose will do; those whom it will harm are given it less often, or more often
    seen, dosed = np.array([0.15, 0.7]), 0.25
    truth = np.array([bound(seen[[s]], gamma)[(1 + sign) // 2] for s in (0, 1)])
    hidden = np.stack([1 - truth, truth], 1)
    weight = hidden / np.stack([1 - seen, seen], 1)  # m = p(u|s) / p(u|s,a)
    made = Hidden(np.array([0.4, 0.6]), hidden, dosed / weight, np.array([[0.0, 1.0]] * 2))
    assert made.seen == pytest.approx(seen)
    assert (dosed / weight).max() < 1
    assert np.maximum(weight, 1 / weight).max() == pytest.approx(gamma)
    assert float(made.state @ truth) == pytest.approx(made.truth)


@given(st.integers(0, 10_000), GAMMAS)
def test_it_is_the_linear_programme_of_an_outcome_of_0_or_1(seed: int, gamma: float) -> None:
    q = float(np.random.default_rng(seed).uniform(0.01, 0.99))
    chance = np.array([1 - q, q])
    for sign, side in zip((1, -1), bound(np.array([q]), gamma), strict=True):
        best = linprog(
            sign * chance * [0, 1],
            A_eq=chance[None],
            b_eq=[1],
            bounds=(1 / gamma, gamma),
        )
        assert side == pytest.approx(sign * best.fun, abs=1e-7)


@given(st.integers(0, 10_000), GAMMAS)
def test_it_holds_for_an_outcome_between(seed: int, gamma: float) -> None:
    rng = np.random.default_rng(seed)
    outcome, chance = rng.random(6), rng.dirichlet(np.ones(6))
    low, high = bound(np.array([chance @ outcome]), gamma)
    for sign, side in ((1, low), (-1, high)):
        best = linprog(
            sign * chance * outcome, A_eq=chance[None], b_eq=[1], bounds=(1 / gamma, gamma)
        )
        assert sign * (side - sign * best.fun) <= 1e-7


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), GAMMAS, st.floats(1, 2))
def test_it_grows_with_gamma_and_stays_within_the_range(
    q: list[float], gamma: float, times: float
) -> None:
    low, high = bound(np.array(q), gamma)
    lower, higher = bound(np.array(q), gamma * times)
    assert -1e-9 <= lower <= low + 1e-9
    assert high - 1e-9 <= higher <= 1 + 1e-9


def test_at_gamma_1_it_is_the_panel_and_at_others_not_everything() -> None:
    told = Panel(0.21, 0.19, 0.23, 0.95, ("fqe",), "")
    made = acting(shares(3, 50) / 2)
    assert widened(told, made.widening(1.0), 0, 1) == told
    wide = widened(told, made.widening(1.35), 0, 1)
    assert 0.05 < wide.low < told.low
    assert told.high < wide.high < 0.4
    everything = widened(told, made.widening(1e9), 0, 1)
    assert everything.low == 0
    assert 0.9 < everything.high <= 1


def test_who_defers_is_not_widened_and_any_draw_that_acts_counts() -> None:
    q = torch.full((2, 4), 0.3)
    never = FirstDose.of(q, torch.ones(4) > 0, 0, 1).widening(2.0)
    assert (never.down, never.up) == (0, 0)
    half = FirstDose.of(q, torch.tensor([True, True, False, False]), 0, 1).widening(2.0)
    whole = acting(q).widening(2.0)
    assert half.up == pytest.approx(whole.up / 2)
    draws = torch.tensor([[True, False, True, False], [True, True, True, True]])
    assert int(FirstDose.of(q, draws, 0, 1).acts.sum()) == 2


def test_a_quantity_of_another_range_is_widened_in_its_own_unit() -> None:
    q = shares(2, 30)
    plain = acting(q).widening(1.5)
    wide = FirstDose.of(4 * q - 3, torch.zeros(30) > 0, -3, 1).widening(1.5)
    assert wide.down == pytest.approx(4 * plain.down, rel=1e-5)
    assert wide.up == pytest.approx(4 * plain.up, rel=1e-5)


def test_noise_of_fits_costs_width_only_at_the_bend_and_less_of_their_mean() -> None:
    rng, gamma = np.random.default_rng(0), 1.35
    for q, most in ((0.2, 0.0005), (1 / (1 + gamma), 0.02)):
        exact = bound(np.full(20_000, q), gamma)
        fits = q + rng.normal(0, 0.05, (10, 20_000))
        one, ten = (bound(x, gamma) for x in (fits[0].clip(0, 1), fits.mean(0).clip(0, 1)))
        # E|noise| (gamma - 1 / gamma) / 2 at the bend, in closed form
        lost = 0.05 * np.sqrt(2 / np.pi) * (gamma - 1 / gamma) / 2
        assert exact[1] - one[1] < most
        if q > 0.3:
            assert exact[1] - one[1] == pytest.approx(lost, rel=0.1)
        assert exact[1] - ten[1] == pytest.approx((exact[1] - one[1]) / np.sqrt(10), abs=0.001)


def test_a_gamma_below_1_and_unequal_patients_are_refused() -> None:
    made = acting(shares(1, 5))
    for gamma in (0.9, float("nan"), float("inf")):
        with pytest.raises(EstimateError, match="gamma"):
            made.widening(gamma)
    with pytest.raises(EstimateError, match="same first decisions"):
        FirstDose.of(shares(1, 5), torch.zeros(4) > 0, 0, 1)


def test_a_word_tips_where_its_interval_meets_none() -> None:
    made = acting(torch.full((1, 9), 0.2))
    gain = Panel(-0.05, -0.07, -0.03, 0.95, ("fqe",), "")
    found = tipping(made.widening, gain, -1)
    # less mortality is no longer said once .2 (gamma - 1) >= .03
    assert (found.word, found.withstood, found.gamma) == ("better", 1.14, 1.15)
    # and more of it, of a gain, once .2 (1 - 1 / gamma) >= .03
    worse = Panel(0.05, 0.03, 0.07, 0.95, ("fqe",), "")
    assert tipping(made.widening, worse, -1).withstood == 1.17
    nothing = tipping(made.widening, Panel(0.0, -0.1, 0.1, 0.95, ("fqe",), ""), -1)
    assert (nothing.word, nothing.withstood, nothing.gamma) == ("cannot tell", None, None)
    sure = tipping(lambda gamma: Widening(0, 0), gain, -1, most=3)
    assert (sure.word, sure.withstood, sure.gamma, sure.asked) == ("better", 3, None, 3)


@dataclass(frozen=True)
class Linear:
    """b(a|s) = normal around weights . s, a scaled dose without bounds."""

    weights: tuple[float, ...]

    def log_prob(self, states: torch.Tensor, doses: torch.Tensor) -> torch.Tensor:
        mean = states @ torch.tensor(self.weights)
        return -(doses[:, 0] - mean).square() / 2


def planted_stays(history: History, states: Floats, doses: Floats) -> StayTensors:
    """Stays of one decision."""
    n = len(states)
    each, none = torch.arange(n), torch.zeros(n)
    return StayTensors(
        history,
        states=torch.tensor(states, dtype=torch.float32),
        doses=torch.tensor(doses, dtype=torch.float32)[:, None],
        given=none[:, None],
        last_given=none[:, None],
        rewards=none,
        shaping=none,
        costs=none[:, None],
        decision=none == 0,
        terminal=none == 0,
        death=none > 0,
        next_row=torch.full((n,), -1),
        step=torch.zeros(n, dtype=torch.int64),
        stay=each,
        patient=each,
    )


WEIGHTS = (0.2, 0.0, 0.8)


@pytest.fixture(scope="module")
def logged() -> tuple[StayTensors, StayTensors]:
    rng = np.random.default_rng(5)

    def stays(n: int) -> StayTensors:
        x = rng.normal(size=(n, 3))
        x[:, 0] = 0.6 * x[:, 2] + 0.8 * x[:, 0]  # what x2 says, x0 says in part
        return planted_stays(numeric(3), x, x @ WEIGHTS + rng.normal(size=n))

    return stays(3_000), stays(1_500)


def test_the_gamma_of_a_dropped_column_is_that_of_the_closed_form(
    logged: tuple[StayTensors, StayTensors],
) -> None:
    train, test = logged
    made = recorded(Linear(WEIGHTS), train, test, torch.Generator().manual_seed(0), draws=200)
    assert [one.column for one in made.columns] == ["x2", "x0", "x1"]
    x, a = test.states.double().numpy(), test.doses[:, 0].double().numpy()
    # without x2: x2 | x0 is normal around .6 x0, deviation .8
    mean, variance = x[:, 0] * (0.2 + 0.8 * 0.6), 1 + (0.8 * 0.8) ** 2
    without = -((a - mean) ** 2) / 2 / variance - np.log(variance) / 2
    ratio = np.exp(np.abs(-((a - x @ WEIGHTS) ** 2) / 2 - without))
    assert made.columns[0].gamma == pytest.approx(np.quantile(ratio, 0.95), rel=0.15)
    assert made.columns[0].median == pytest.approx(np.quantile(ratio, 0.5), rel=0.05)
    assert made.columns[-1].gamma == pytest.approx(1, abs=1e-6)
    assert (made.decisions, made.reason) == (1_500, None)


def test_only_the_strongest_are_told_and_the_same_seed_says_the_same(
    logged: tuple[StayTensors, StayTensors],
) -> None:
    ask = partial(recorded, Linear(WEIGHTS), *logged, decisions=200, draws=4, strongest=1)
    one, two = (ask(torch.Generator().manual_seed(3)) for _ in range(2))
    assert one == two
    assert [column.column for column in one.columns] == ["x2"]


def test_what_has_few_values_keeps_to_them_when_it_is_redrawn() -> None:
    history = planted(
        {"x": {"plausible": [-9, 9]}, "sick": {"kind": "binary"}}, {"a": {"bounds": [-1, 1]}}
    )
    rng = np.random.default_rng(1)
    states = np.stack([rng.normal(size=400), rng.choice([-1.0, 1.0], 400)], 1)
    stays = planted_stays(history, states, rng.normal(size=400))
    asked: list[torch.Tensor] = []

    class Watched(Linear):
        def log_prob(self, states: torch.Tensor, doses: torch.Tensor) -> torch.Tensor:
            asked.append(states)
            return super().log_prob(states, doses)

    recorded(Watched((0.5, 0.5)), stays, stays, torch.Generator().manual_seed(0), draws=3)
    seen = torch.cat(asked)
    assert set(seen[:, 1].tolist()) == {-1.0, 1.0}
    assert float(seen[:, 0].abs().max()) <= float(stays.states[:, 0].abs().max())


def test_one_categorical_state_has_nothing_to_drop() -> None:
    history = planted(
        {"state": {"kind": "categorical", "levels": ["a", "b", "c"]}}, {"a": {"bounds": [-1, 1]}}
    )
    stays = planted_stays(history, np.zeros((5, 1)), np.zeros(5))
    made = recorded(Linear((1.0,)), stays, stays, torch.Generator().manual_seed(0))
    assert made.columns == ()
    assert made.reason is not None
    assert "one recorded column" in made.reason
