"""One dose's distribution is a distribution, whatever its weights, and its parts agree."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ogsrl.behaviour.distribution import DoseDistribution, Marginal, Supported
from ogsrl.behaviour.doses import BETWEEN, MAXIMUM, ZERO, DoseGrid, OneDose
from ogsrl.errors import ModelError
from ogsrl.preparation import DoseTransform

KNOTS = tuple(float(x) for x in np.log([20.0, 30.0, 55.0, 60.0, 150.0, 400.0]))


def grid(transform: str = "sqrt", knots: tuple[float, ...] = KNOTS) -> DoseGrid:
    return DoseGrid("fluid", "continuous", transform, 0.0, 400.0, 20.0, 0, knots)


LEVELS = DoseGrid("care", "ordinal", "identity", 0.0, 2.0, 0.0, 3, ())


def some(seed: int, of: DoseGrid, rows: int = 1) -> OneDose:
    logits = 2 * torch.randn(1, of.components, generator=torch.Generator().manual_seed(seed))
    return OneDose(of, logits.log_softmax(1).expand(rows, -1))


def line(of: DoseGrid, points: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Scaled doses evenly spread over the log dose, and the spacing."""
    logs = torch.linspace(of.knots[0], of.knots[-1], points + 1, dtype=torch.float64)
    middle = (logs[1:] + logs[:-1]) / 2
    return of.scaled(middle.float()), logs.diff()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), transform=st.sampled_from(["identity", "sqrt", "log1p"]))
def test_masses_and_density_add_up_to_one(seed: int, transform: str) -> None:
    of = grid(transform)
    doses, width = line(of, 4000)
    one = some(seed, of, len(doses))
    between = float((one.log_prob(doses).double().exp() * width).sum())
    ends = float(some(seed, of, 2).log_prob(torch.tensor([-1.0, 1.0])).exp().sum())
    assert between + ends == pytest.approx(1, abs=2e-4)
    assert between == pytest.approx(float(one.parts()[0, BETWEEN]), abs=2e-4)


def test_the_cumulative_probability_is_the_integral_of_the_density() -> None:
    of = grid()
    doses, width = line(of, 4000)
    one = some(3, of, len(doses))
    sums = (one.log_prob(doses).double().exp() * width).cumsum(0) + float(one.parts()[0, ZERO])
    assert torch.allclose(one.cdf(doses).double(), sums, atol=2e-3)
    ends = some(3, of, 2).cdf(torch.tensor([-1.0, 1.0]))
    assert ends.tolist() == pytest.approx([float(one.parts()[0, ZERO]), 1.0], abs=1e-6)


@pytest.mark.parametrize("of", [grid(), LEVELS], ids=["continuous", "ordinal"])
def test_samples_follow_the_distribution(of: DoseGrid) -> None:
    rows = 40_000
    one = some(5, of, rows)
    doses = one.sample(torch.Generator().manual_seed(1))
    parts = torch.bincount(of.part(doses), minlength=len(of.part_names)) / rows
    assert torch.allclose(parts, one.parts()[0], atol=0.01)
    assert float(doses.mean()) == pytest.approx(float(one.mean()[0]), abs=0.01)
    below = one.cdf(doses)
    if of.kind == "continuous":  # the probability transform of what lies between is uniform
        inside = below[of.part(doses) == BETWEEN]
        zero, top = float(one.parts()[0, ZERO]), float(one.parts()[0, MAXIMUM])
        uniform = ((inside - zero) / (1 - zero - top)).sort().values
        assert float((uniform - torch.linspace(0, 1, len(uniform))).abs().max()) < 0.012


def test_mean_weights_of_another_policy_are_one_in_closed_form() -> None:
    of = grid()
    doses, width = line(of, 4000)
    b, pi = some(1, of, len(doses)), some(2, of, len(doses))
    ratio = (pi.log_prob(doses) - b.log_prob(doses)).double().exp()
    between = float((b.log_prob(doses).double().exp() * ratio * width).sum())
    ends = torch.tensor([-1.0, 1.0])
    b, pi = some(1, of, 2), some(2, of, 2)
    masses = float((b.log_prob(ends).exp() * (pi.log_prob(ends) - b.log_prob(ends)).exp()).sum())
    assert between + masses == pytest.approx(1, abs=1e-3)


def test_a_part_that_never_happens_is_impossible() -> None:
    of = grid()
    logits = torch.zeros(5000, of.components)
    logits[:, 1] = -torch.inf
    one = OneDose(of, logits.log_softmax(1))
    assert torch.equal(one.parts()[:, MAXIMUM], torch.zeros(5000))
    assert float(one.log_prob(torch.ones(5000)).max()) == -torch.inf
    drawn = one.sample(torch.Generator().manual_seed(0))
    assert not bool((of.part(drawn) == MAXIMUM).any())
    assert not bool((one.tempered(0.3).log_prob(torch.ones(5000)) > -torch.inf).any())


def test_a_dose_outside_the_knots_is_impossible() -> None:
    of = grid(knots=tuple(float(x) for x in np.log([100.0, 200.0, 300.0])))
    doses = torch.from_numpy(
        DoseTransform("fluid", "sqrt", 0.0, 400.0).forward(np.array([50.0, 150.0, 350.0]))
    )
    logs = some(0, of, 3).log_prob(doses)
    assert (logs > -torch.inf).tolist() == [False, True, False]


def test_below_the_least_dose_nothing_is_given() -> None:
    clinical = np.array([0.0, 5.0, 19.9, 20.0, 399.0, 400.0])
    doses = torch.from_numpy(DoseTransform("fluid", "sqrt", 0.0, 400.0).forward(clinical))
    assert grid().part(doses).tolist() == [ZERO, ZERO, ZERO, BETWEEN, BETWEEN, MAXIMUM]


def test_gradients_with_respect_to_doses_are_those_of_the_density() -> None:
    of = grid()
    logs = torch.tensor(np.log([25.0, 40.0, 58.0, 100.0, 300.0]), dtype=torch.float32)
    doses = of.scaled(logs).requires_grad_()
    one = some(4, of, 5)
    one.log_prob(doses).sum().backward()
    step = 1e-3
    with torch.no_grad():
        moved = (one.log_prob(doses + step) - one.log_prob(doses - step)) / (2 * step)
    assert doses.grad is not None
    assert torch.allclose(doses.grad, moved, rtol=0.05, atol=0.05)


def test_the_mode_is_the_likeliest_part_and_its_highest_density() -> None:
    of = grid()
    weights = torch.tensor([[0.3, 0.1, 0.05, 0.05, 0.1, 0.25, 0.1, 0.05], [0.6, 0.1, *[0.05] * 6]])
    one = OneDose(of, weights.log())
    assert float(one.mode()[0]) == pytest.approx(float(of.scaled(torch.tensor(KNOTS[3]))))
    assert float(one.mode()[1]) == -1.0


@pytest.mark.parametrize(("wrong", "of"), [(float("nan"), grid()), (1.5, grid()), (0.4, LEVELS)])
def test_a_dose_that_is_none_is_refused(wrong: float, of: DoseGrid) -> None:
    with pytest.raises(ModelError, match=rf"{of.name}: 1 doses"):
        some(0, of, 2).log_prob(torch.tensor([1.0, wrong]))


def test_a_policy_kept_to_support_gives_nothing_that_b_hardly_gives() -> None:
    of = grid()
    rare = torch.tensor([0.0, -12.0, *[0.0] * len(KNOTS)]).log_softmax(0)
    even = torch.zeros(of.components).log_softmax(0)
    kept = Supported(Marginal((of,), (even,)), Marginal((of,), (rare,)), 0.2)
    states = torch.zeros(1, 0)
    assert float(kept.distribution(states).log_prob(torch.ones(1, 1))) == -torch.inf
    parts = kept.distribution(states).parts(torch.ones(1, 1))["fluid"]
    assert float(parts.sum()) == pytest.approx(1, abs=1e-6)
    nothing = Supported(Marginal((of,), (even,)), Marginal((of,), (rare,)), 1e9)
    back = nothing.distribution(states).conditional(0, torch.zeros(1, 0)).log_weights
    assert torch.allclose(back, rare[None], atol=1e-6)


def test_the_wrong_number_of_doses_is_refused() -> None:
    joint = DoseDistribution((grid(),), 3, lambda j, earlier: some(0, grid(), 3))
    with pytest.raises(ModelError, match="expected \\(3, 1\\) for fluid"):
        joint.log_prob(torch.zeros(3, 2))
