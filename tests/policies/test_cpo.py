"""The guarded CPO: it finds the best dose, keeps every limit, and repeats no known defect."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ogsrl.errors import ModelError
from ogsrl.policies.config import AlgorithmParams, CpoParams, TrainParams
from ogsrl.policies.cpo import Cpo, Gaussian
from ogsrl.policies.episodes import Episodes
from ogsrl.policies.networks import Perceptrons, Shape
from ogsrl.policies.problem import Problem
from ogsrl.policies.rollouts import Rows, World
from ogsrl.policies.saved import load_policy
from ogsrl.policies.training import Place, train_seed
from ogsrl.policies.trust import conjugate_gradient, trust_step
from tests.policies.problems import best_dose
from tests.policies.steered import ASKED, DEADLY, STEPS, X, generator, problem

SMALL = CpoParams(
    hidden=16,
    start_steps=150,
    critic_start_steps=0,
    critic_steps=20,
    critic_rate=1e-2,
    value_batch=128,
    stays=300,
    steps_per_update=1,
    deviation=0.3,
    curvature_rows=1000,
    damping=1e-2,
    radius=0.06,
)


def trained(made: Problem, updates: int, seed: int = 0, **settings: Any) -> Cpo:
    learner = Cpo(made, SMALL.model_copy(update=settings), seed, updates)
    learner.begin()
    list(learner.train(updates))
    return learner


def dosed(learner: Cpo) -> torch.Tensor:
    return learner.policy.propose(ASKED, generator())


def value(learner: Cpo, *, stops: bool = False) -> dict[str, float]:
    """Of what it saves, in the place itself."""
    made = learner.problem
    world = World(learner.deployed, made.behaviour, made.dynamics, stops=stops)
    _, shares = world.follow(made.rows.states, torch.ones(3), generator(9))
    found = dict(zip(made.quantities, shares.totals.tolist(), strict=True))
    return {**found, "deaths": shares.deaths}


# the step within the trust region


def solved(h: torch.Tensor) -> Any:
    return lambda v: torch.linalg.solve(h, v)


def drawn_step(seed: int, constraints: int) -> tuple[Any, ...]:
    g = generator(seed)
    root = torch.randn(6, 6, generator=g, dtype=torch.float64)
    gain = torch.randn(6, generator=g, dtype=torch.float64)
    slopes = torch.randn(constraints, 6, generator=g, dtype=torch.float64)
    excess = 0.3 * torch.randn(constraints, generator=g, dtype=torch.float64)
    return root @ root.T + torch.eye(6).double(), gain, slopes, excess


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("constraints", [0, 1, 3])
def test_no_direction_within_region_and_limits_gains_more(seed: int, constraints: int) -> None:
    h, gain, slopes, excess = drawn_step(seed, constraints)
    step, radius = trust_step(gain, slopes, excess, solved(h), 0.1), 0.1
    d = step.direction
    assert float(d @ h @ d) / 2 <= radius * (1 + 1e-6)
    g = generator(seed + 100)
    others = torch.randn(60_000, 6, generator=g, dtype=torch.float64)
    size = (2 * radius / torch.einsum("ni,ij,nj->n", others, h, others)).sqrt()
    others *= (size * torch.rand(60_000, generator=g).double() ** (1 / 6))[:, None]
    near = d + 0.02 * torch.randn(60_000, 6, generator=g, dtype=torch.float64)
    inside = torch.einsum("ni,ij,nj->n", near, h, near) / 2 <= radius
    others = torch.cat([others, near[inside]])
    allowed = others[((others @ slopes.T + excess) <= 0).all(1)]
    if step.feasible:
        assert bool((slopes @ d + excess <= 1e-5).all())
        assert not len(allowed) or float((allowed @ gain).max()) <= float(gain @ d) + 1e-6
        # what binds has a multiplier, what does not has none
        slack = slopes @ d + excess < -1e-5
        assert bool((step.multipliers[slack] == 0).all())
    else:
        assert not len(allowed)
        assert bool((step.multipliers == 0).all())


def test_where_limits_cannot_be_met_the_step_lowers_what_is_broken() -> None:
    h, gain, slopes, _ = drawn_step(0, 2)
    step = trust_step(gain, slopes, torch.tensor([50.0, -50.0]).double(), solved(h), 0.1)
    assert not step.feasible
    best = -((2 * 0.1 * slopes[0] @ torch.linalg.solve(h, slopes[0])) ** 0.5)
    assert float(slopes[0] @ step.direction) == pytest.approx(float(best))


def test_conjugate_gradient_solves() -> None:
    h, gain, _, _ = drawn_step(3, 0)
    assert torch.allclose(conjugate_gradient(lambda v: h @ v, gain, 6), torch.linalg.solve(h, gain))
    assert not conjugate_gradient(lambda v: h @ v, torch.zeros(6).double(), 6).any()


def test_divergence_and_its_curvature_are_those_of_the_normal_distribution() -> None:
    shape = Shape(1, 2, 8, 2)
    flat = Perceptrons.drawn(shape, generator()).flat
    flat = torch.cat([flat, torch.tensor([-1.0, -2.0])])
    old = Gaussian.of(shape, flat, ASKED)
    new = Gaussian.of(shape, flat + 0.1 * torch.randn(len(flat), generator=generator(1)), ASKED)
    p = torch.distributions.Normal(old.mean, old.log_deviation.exp())
    q = torch.distributions.Normal(new.mean, new.log_deviation.exp())
    known = torch.distributions.kl_divergence(p, q).sum(1)
    assert torch.allclose(old.divergence(new), known, atol=1e-5)
    assert old.divergence(new).min() > 0
    assert torch.allclose(
        old.log_density(new.mean) - old.log_density(old.mean),
        (p.log_prob(new.mean) - p.log_prob(old.mean)).sum(1),
        atol=1e-5,
    )


def test_the_curvature_is_the_second_derivative_of_the_divergence() -> None:
    learner = Cpo(problem(), SMALL.model_copy(update={"hidden": 4, "damping": 0.0}), 0, 1)
    learner.begin()
    learner.update()
    assert learner.last is not None
    seen, shape = learner.last[0], learner.actor.shape
    flat = torch.cat([learner.actor.flat, learner.log_deviation])
    old = Gaussian.of(shape, flat, seen.rows.states)

    def mean(at: torch.Tensor) -> torch.Tensor:
        far = old.divergence(Gaussian.of(shape, at, seen.rows.states))
        return (seen.weight * far).sum() / seen.weight.sum()

    whole = torch.autograd.functional.hessian(mean, flat)
    product = learner.curvature(flat, seen, rows=torch.arange(len(seen.weight)))
    for i in range(3):
        v = torch.randn(len(flat), generator=generator(i))
        assert torch.allclose(product(v), whole @ v, atol=2e-3, rtol=1e-3)
        assert float((whole @ v).abs().max()) > 0.1


# stays and advantages


def planted_episodes(stays: int, seed: int = 0) -> Episodes:
    """Stays of different lengths, step by step."""
    g = generator(seed)
    length = torch.randint(1, 5, (stays,), generator=g)
    pairs = [(k, i) for k in range(4) for i in range(stays) if k < length[i]]
    step, stay = torch.tensor(pairs).T
    going = torch.rand(len(step), generator=g) * (step < length[stay] - 1)
    now = torch.randn(len(step), 2, generator=g)
    nothing = torch.zeros(len(step), 1)
    rows = Rows(nothing, now, going, nothing, nothing[:, 0], nothing[:, 0])
    return Episodes(rows, nothing, stay, step, torch.ones(len(step)), 0.0, stays)


def test_an_advantage_knows_its_own_stay_alone() -> None:
    whole, g = planted_episodes(9), generator(5)
    values = torch.randn(len(whole.stay), 2, generator=g)
    after = torch.randn(len(whole.stay), 2, generator=g)
    discounts = torch.tensor([0.9, 1.0])
    told = whole.advantages(values, after, discounts, 0.8)
    # by hand, stay after stay
    for i in range(9):
        mine = (whole.stay == i).nonzero().squeeze(1)
        ahead = torch.zeros(2)
        for row in reversed(mine.tolist()):
            on = whole.rows.going[row] * discounts
            delta = whole.rows.now[row] + on * after[row] - values[row]
            ahead = delta + 0.8 * on * ahead
            assert torch.allclose(told[row], ahead, atol=1e-5)
    # another stay's fortune is nothing to the rest
    wild = whole.rows.now.clone()
    wild[whole.stay == 4] = 1e6
    moved = replace(whole, rows=replace(whole.rows, now=wild))
    others = whole.stay != 4
    assert torch.equal(moved.advantages(values, after, discounts, 0.8)[others], told[others])
    # and what lies after a certain end counts nothing
    over = whole.rows.going == 0
    assert torch.allclose(told[over], (whole.rows.now - values)[over], atol=1e-5)


def test_shares_of_steps_are_those_that_rollouts_count_and_in_the_units_of_limits() -> None:
    made = problem()
    world = World(Cpo(made, SMALL, 0, 1).deployed, made.behaviour, made.dynamics)
    seen = Episodes.follow(
        world, made.rows.states, lambda s: torch.full((len(s), 1), -0.25), generator(1)
    )
    totals = dict(zip(made.quantities, seen.totals(torch.ones(3)).tolist(), strict=True))
    assert totals["unsafe"] == pytest.approx(0.375)
    assert totals["refusal"] == 0
    assert totals["reward"] == pytest.approx(STEPS * (1 - 0.25**2 - 0.64 / 3), abs=0.1)
    assert seen.deaths == 0


def test_a_dead_patient_costs_a_whole_stay_and_is_followed_no_further() -> None:
    made = problem(deadly=True)
    world = World(Cpo(made, SMALL, 0, 1).deployed, made.behaviour, made.dynamics)
    seen = Episodes.follow(
        world, made.rows.states, lambda s: torch.full((len(s), 1), 0.5), generator(1)
    )
    p, unsafe = DEADLY * 0.75, 0.9 / STEPS
    wanted = sum((1 - p) ** k * (p + (1 - p) * unsafe) for k in range(STEPS))
    assert float(seen.totals(torch.ones(3))[1]) == pytest.approx(wanted, abs=1e-4)
    assert seen.deaths == pytest.approx(1 - (1 - p) ** STEPS, abs=1e-4)


def test_every_first_decision_is_followed_also_where_the_guardian_refuses() -> None:
    made = problem(most=-2.0)
    learner = Cpo(made, SMALL, 0, 1)
    learner.begin()
    learner.update()
    assert learner.last is not None
    seen = learner.last[0]
    assert int((seen.step == 0).sum()) == SMALL.stays
    assert seen.deferred == 1
    assert int(seen.step.max()) == STEPS - 1  # and the stay went on
    totals = seen.totals(torch.ones(3))
    assert float(totals[2]) == pytest.approx(1)


# learning


def test_it_finds_the_best_dose() -> None:
    learner = trained(problem(), 50)
    far = (dosed(learner) - best_dose(X)).abs().mean()
    assert far < 0.12
    assert best_dose(X).abs().mean() > 0.3  # what cloning is off by
    assert value(learner)["reward"] > 0.97 * STEPS


def test_a_limit_at_half_of_cloning_s_cost_binds_whether_or_not_the_start_meets_it() -> None:
    cloned = value(trained(problem(), 0))["unsafe"]
    free = trained(problem(), 50)
    assert value(free)["unsafe"] > cloned / 2
    assert free.measured()["active_unsafe"] == 0
    half = trained(problem(limit=cloned / 2), 50)
    assert half.measured()["active_unsafe"] > 0.3
    assert value(half)["unsafe"] < cloned / 2 * 1.05
    assert value(half)["reward"] < value(free)["reward"]
    # from where the limit is met it stays met, and the reward still rises
    low = replace(problem(limit=cloned / 2), usual=torch.full((1_000, 1), -0.7))
    begun, done = trained(low, 0), trained(low, 50)
    assert value(begun)["unsafe"] < cloned / 2
    assert value(done)["unsafe"] < cloned / 2 * 1.05
    assert value(done)["reward"] > value(begun)["reward"]


def test_every_update_stays_within_the_trust_region() -> None:
    learner = Cpo(problem(limit=0.4), SMALL, 0, 10)
    learner.begin()
    taken = 0
    for _ in range(10):
        before = torch.cat([learner.actor.flat, learner.log_deviation])
        made = learner.update()
        after = torch.cat([learner.actor.flat, learner.log_deviation])
        assert made.divergence <= SMALL.radius
        assert learner.last is not None
        seen = learner.last[0]
        old, new = (Gaussian.of(learner.actor.shape, f, seen.rows.states) for f in (before, after))
        there = seen.weight / seen.weight.sum()
        assert float((there * old.divergence(new)).sum()) == pytest.approx(
            made.divergence, abs=1e-4
        )
        taken += made.share > 0
    assert taken >= 8


def test_death_never_buys_safety() -> None:
    """All who live are unsafe: only the dead would not be, and a high dose kills."""
    deadly = problem(limit=0.4, reward="y > 5", deadly=True)
    begun, done = trained(deadly, 0), trained(deadly, 60)
    assert value(begun)["deaths"] > 0.5
    assert value(done)["deaths"] < 0.25 * value(begun)["deaths"]


def test_refusals_are_limited_too_and_a_guardian_is_not_run_into() -> None:
    """The best doses lie beyond the guardian for a half of patients; refused, they fare worse."""
    tight, loose = (trained(problem(most=0.1), 50, refusal_limit=limit) for limit in (0.05, 0.9))
    assert value(tight)["refusal"] < 0.08
    free = trained(problem(most=0.1), 50, guardian=False)
    assert float(free.policy.propose(ASKED, generator()).max()) > 0.4
    assert tight.measured()["mu_refusal"] >= 0
    assert value(loose)["reward"] >= value(tight)["reward"] - 0.05


def test_without_limits_it_is_trpo_and_without_a_guardian_nothing_is_refused() -> None:
    learner = trained(problem(limit=0.01, most=-0.5), 3, guardian=False, constraints=False)
    assert learner.limits == {}
    told = learner.measured()
    assert told["refusal"] == 0
    assert told["feasible"] == 1


def test_stopping_at_a_refusal_counts_as_a_death() -> None:
    made = problem(most=-2.0)
    learner = Cpo(made, SMALL, 0, 1)
    stopped = value(learner, stops=True)
    assert stopped["deaths"] == pytest.approx(1)
    assert stopped["unsafe"] == pytest.approx(1)
    assert stopped["reward"] == 0
    assert value(learner)["deaths"] == 0
    avoiding = trained(problem(most=0.1), 50, on_refusal="stop", refusal_limit=0.9)
    assert float((dosed(avoiding) > 0.1).float().mean()) < 0.15


# stopping and going on


def test_a_stopped_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    algorithm = AlgorithmParams(name="cpo", cpo=SMALL.model_copy(update={"steps_per_update": 2}))
    train, made = TrainParams(steps=12, checkpoint_every=4), problem(limit=0.4)

    def place(name: str) -> Place:
        return Place(tmp_path / name / "policies", tmp_path / name / "checkpoint", "these")

    whole = train_seed(made, algorithm, train, 3, place("whole"))
    seen: list[int] = []

    def stop(steps: int) -> None:
        seen.append(steps)
        if sum(seen) >= 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_seed(made, algorithm, train, 3, place("parts"), stop)
    parts = train_seed(made, algorithm, train, 3, place("parts"))
    assert parts == whole
    assert whole.status == "done"
    assert whole.steps == [4, 8, 12]
    assert [row["step"] for row in whole.log] == [0, 2, 4, 6, 8, 10]
    last = [
        (tmp_path / run / "policies" / "step_12" / "weights.safetensors").read_bytes()
        for run in ("whole", "parts")
    ]
    assert last[0] == last[1]
    actor, about = load_policy(place("whole").policy(12), made.history)
    assert about["algorithm"] == "cpo"
    assert actor is not None


def test_a_number_that_is_none_ends_its_seed_and_says_where(tmp_path: Path) -> None:
    made = problem()
    wild = replace(made, to_go=torch.full_like(made.to_go, torch.nan))
    settings = SMALL.model_copy(update={"critic_start_steps": 2})
    place = Place(tmp_path / "policies", tmp_path / "checkpoint", "these")
    done = train_seed(wild, AlgorithmParams(name="cpo", cpo=settings), TrainParams(), 0, place)
    assert done.status == "training: the critics' error is not finite at step 0"
    with pytest.raises(ModelError, match="nothing was rolled out yet"):
        Cpo(made, SMALL, 0, 1).measured()


def test_an_entry_is_one_algorithm() -> None:
    with pytest.raises(ValueError, match="cpo and peer: one of them"):
        AlgorithmParams(cpo=SMALL, peer="d3rlpy_td3bc")
