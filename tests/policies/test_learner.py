"""OGSRL's loop: its slopes are right, its limits bind, and a stopped run goes on bit for bit."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch

from ogsrl.dynamics.config import DynamicsParams
from ogsrl.dynamics.fitting import fit
from ogsrl.errors import ModelError, SpecError
from ogsrl.policies.config import AlgorithmParams, DatasetParams, OgsrlParams, TrainParams
from ogsrl.policies.learner import Learner, Real
from ogsrl.policies.loop import cost_multipliers
from ogsrl.policies.outlook import outlook
from ogsrl.policies.problem import Problem
from ogsrl.policies.rollouts import World
from ogsrl.policies.saved import load_policy
from ogsrl.policies.training import Place, check, train_seed
from tests.guardian.cohorts import guarded, simulated
from tests.policies.clinicians import behaviour

SMALL = OgsrlParams(
    hidden=16,
    start_steps=150,
    critic_start_steps=60,
    refresh=20,
    starts=120,
    first_decisions=60,
    horizon=3,
    batch_size=64,
    value_batch=64,
)

COHORT = simulated()[0]["train"].history.preparation.cohort


@cache
def problem() -> Problem:
    parts = simulated()[0]
    g = torch.Generator().manual_seed(0)
    small = DynamicsParams(members=2, hidden=16, hidden_ends=8, max_epochs=4)
    dynamics = fit(parts["train"], parts["calibration"], small, g)
    return Problem.of(parts["train"], behaviour(), dynamics, guarded())


def place(folder: Path) -> Place:
    return Place(folder / "policies", folder / "checkpoint", "these data")


def test_expected_ends_are_the_mean_of_drawn_ones() -> None:
    made, g = problem(), torch.Generator().manual_seed(1)
    states = made.rows.states[:200].repeat(60, 1)
    doses = made.rows.doses[:200].repeat(60, 1)
    following = made.dynamics.step(states, doses, g, draws=4)
    seen = outlook(states, following, made.history)
    on = (~following.ended).float()
    assert seen.going.mean() == pytest.approx(float(on.mean()), abs=0.01)
    drawn = following.died | (following.ended & ~following.died) & (
        torch.rand(len(states), generator=g) < following.p_late_death
    )
    assert seen.death.mean() == pytest.approx(float(drawn.float().mean()), abs=0.01)


def test_a_death_costs_all_the_steps_that_are_left() -> None:
    made, g = problem(), torch.Generator().manual_seed(1)
    states, doses = made.rows.states[made.first[:50]], made.rows.doses[made.first[:50]]
    following = made.dynamics.step(states, doses, g, draws=4)
    certain = replace(following, p_death=torch.ones(50), p_discharge=torch.zeros(50))
    assert outlook(states, certain, made.history).costs.allclose(torch.ones(50, 2))


def test_an_offset_moves_an_undiscounted_value_by_a_constant_whoever_acts() -> None:
    made, values = problem(), []
    for offset in (0.0, 1.0):
        learner = Learner(made, SMALL, 0, 10)
        world = World(learner.deployed, made.behaviour, made.dynamics, offset)
        states, g = made.rows.states[made.first[:80]], torch.Generator().manual_seed(2)
        values.append(float(world.follow(states, torch.ones(len(made.quantities)), g)[1].totals[0]))
    assert values[0] - values[1] == pytest.approx(1.0, abs=1e-4)


def test_the_model_s_slope_in_the_dose_is_its_finite_difference() -> None:
    made = problem()
    states, doses = made.rows.states[:200], made.rows.doses[:200].clip(-0.8, 0.8)

    def death(at: torch.Tensor) -> torch.Tensor:
        g = torch.Generator().manual_seed(5)
        return outlook(states, made.dynamics.step_with_gradient(states, at, g), made.history).death

    free = doses.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(death(free).sum(), free)
    for j in range(doses.shape[1]):
        aside = torch.zeros_like(doses)
        aside[:, j] = 1e-2
        with torch.no_grad():
            measured = (death(doses + aside) - death(doses - aside)) / 2e-2
        assert torch.allclose(slope[:, j], measured, atol=2e-4, rtol=2e-2)


def test_a_limit_at_half_of_cloning_s_cost_binds_and_the_cost_falls() -> None:
    made, ends = problem(), {}
    name = next(iter(made.limits))
    for kind in ("free", "bound"):
        learner = Learner(made, SMALL, 0, 60)
        learner.begin()
        cloned = learner.refresh().totals[1]
        limit = 10.0 if kind == "free" else float(cloned) / 2
        limited = replace(made, limits={**dict.fromkeys(made.limits, 10.0), name: limit})
        heavier = SMALL.model_copy(update={"integral": 2.0, "proportional": 4.0, "clinicians": 0.0})
        learner = Learner(limited, heavier, 0, 60)
        learner.begin()
        list(learner.train(60))
        world = World(learner.deployed, made.behaviour, made.dynamics)
        g = torch.Generator().manual_seed(3)
        states = made.rows.states[made.first[:300]]
        ends[kind] = float(world.follow(states, torch.ones(len(made.quantities)), g)[1].totals[1])
        active = float(learner.costs.active[0])
        assert active == 0 if kind == "free" else active > 0.5
    assert ends["bound"] < ends["free"]


def test_multipliers_answer_before_the_limit_itself_is_reached() -> None:
    made = problem()
    spent = torch.tensor(list(made.limits.values())) * 0.95
    near, at = (Learner(made, SMALL.model_copy(update={"aim": aim}), 0, 1) for aim in (0.9, 1.0))
    for learner in (near, at):
        learner.costs.update(spent)
    assert bool((near.costs.values > 0).all())
    assert bool((at.costs.values == 0).all())


def constrained(weight: float, **changed: object) -> OgsrlParams:
    dataset = DatasetParams(weight=weight, neighbours=16, listed=300)
    return SMALL.model_copy(update={"clinicians": 0.0, "dataset": dataset, **changed})


def test_the_dataset_constraint_draws_proposals_to_logged_pairs_of_other_stays() -> None:
    made, ends = problem(), {}
    for weight in (1e-6, 100.0):
        learner = Learner(made, constrained(weight, actor_rate=2e-3), 0, 80)
        learner.begin()
        rows = list(learner.train(80))
        ends[weight] = learner.measured()
        near = learner.index
        asked = near.listed[:200]
        proposed = learner.policy.propose(made.rows.states[asked], torch.Generator())
        found = near.of_rows(asked, proposed)
        assert bool((made.stay[found.row] != made.stay[asked]).all())
    assert ends[100.0]["dataset_distance"] < 0.9 * ends[1e-6]["dataset_distance"]
    assert 0 <= ends[100.0]["own_row"] <= 1
    assert {"certified", "own_row", "dataset_distance"} <= rows[0].keys()


def test_the_slope_of_the_dataset_constraint_is_that_of_the_squared_distance() -> None:
    made = problem()
    learner = Learner(made, constrained(2.0), 0, 10)
    i = learner.index.listed[:64]
    proposed = made.rows.doses[i].roll(1, 0)
    slope = learner._to_data(Real(made.rows.states[i], made.rows.doses[i], i), proposed)
    free = proposed.clone().requires_grad_(True)
    near = learner.index.doses[learner.index.of_rows(i, proposed).row]
    ((2.0 * (free - near).square().sum(1)).mean()).backward()
    assert free.grad is not None
    assert torch.allclose(slope, free.grad, atol=1e-7)


def test_decisions_from_outside_are_found_by_their_states_and_strangers_are_refused() -> None:
    made = problem()
    learner = Learner(made, constrained(1.0), 0, 10)
    i = torch.tensor([5, 70, 211])
    known = Real(made.rows.states[i], made.rows.doses[i], i)
    looked_up = replace(known, rows=None)
    assert torch.equal(
        learner._nearest(known, known.doses), learner._nearest(looked_up, known.doses)
    )
    moved = known.states + torch.tensor([[0.0], [1.0], [0.0]])
    with pytest.raises(ModelError, match=r"dataset\.weight: 1 of 3 states given are no training"):
        learner._nearest(replace(looked_up, states=moved), known.doses)


def test_what_members_disagree_on_beyond_the_usual_costs_reward() -> None:
    made, rewards = problem(), {}
    for weight in (0.0, 10.0):
        learner = Learner(made, SMALL.model_copy(update={"disagreement": weight}), 0, 10)
        learner.begin()
        rewards[weight] = (learner.refresh(), learner._known_rows())
    (told, plain), (same, doubted) = rewards.values()
    assert torch.equal(told.totals, same.totals), "what is told of a policy stays the model's"
    beyond = (plain.disagreement - made.usual_disagreement).clip(min=0)
    assert 0 < float((beyond > 0).float().mean()) < 0.5
    taken = plain.now[:, 0] - doubted.now[:, 0]
    assert torch.allclose(taken, 10.0 * made.spread * beyond, atol=1e-5)
    assert torch.equal(plain.now[:, 1:], doubted.now[:, 1:])


def test_a_refusal_that_ends_the_stay_counts_as_a_death() -> None:
    made, told = problem(), {}
    for kind in ("go_on", "stop"):
        learner = Learner(made, SMALL.model_copy(update={"on_refusal": kind}), 0, 10)
        told[kind] = learner.refresh()  # an actor that copied nobody is refused often
    assert told["go_on"].deferred > 0.2
    assert told["stop"].deaths > told["go_on"].deaths + 0.1
    assert float(told["stop"].totals[1]) > float(told["go_on"].totals[1])


def test_the_margin_narrows_with_the_steps_and_stays_narrow() -> None:
    settings = SMALL.model_copy(update={"margin": 0.03, "last_margin": 0.01})
    learner = Learner(problem(), settings, 0, 100)
    told = []
    for learner.step in (0, 40, 80, 100, 500):
        told.append(learner.margin)
    assert told == pytest.approx([0.03, 0.02, 0.01, 0.01, 0.01])


def test_a_quadratic_penalty_rises_with_the_excess_and_forgets_it() -> None:
    limits = torch.tensor([0.1])
    held = cost_multipliers(limits, SMALL.model_copy(update={"multipliers": "quadratic", "aim": 1}))
    told = [float(held.update(torch.tensor([v]))) for v in (0.12, 0.12, 0.11, 0.09, 0.12)]
    assert told == pytest.approx([4.0, 4.0, 2.0, 0.0, 4.0], abs=1e-5)


def test_a_stopped_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    algorithm = AlgorithmParams(name="ogsrl", ogsrl=SMALL)
    train = TrainParams(steps=60, checkpoint_every=20)
    whole = train_seed(problem(), algorithm, train, 3, place(tmp_path / "whole"))

    class Stopped(KeyboardInterrupt):
        pass

    def stop(steps: int) -> None:
        seen.append(steps)
        if sum(seen) >= 40:
            raise Stopped

    seen: list[int] = []
    with pytest.raises(Stopped):
        train_seed(problem(), algorithm, train, 3, place(tmp_path / "parts"), stop)
    parts = train_seed(problem(), algorithm, train, 3, place(tmp_path / "parts"))
    assert parts == whole
    assert whole.steps == [20, 40, 60]
    for step in whole.steps:
        files = [
            (tmp_path / run / "policies" / f"step_{step}" / "weights.safetensors").read_bytes()
            for run in ("whole", "parts")
        ]
        assert files[0] == files[1]


def test_a_finished_seed_is_not_trained_again_before_its_policies_are_moved(tmp_path: Path) -> None:
    algorithm, train = (
        AlgorithmParams(name="ogsrl", ogsrl=SMALL),
        TrainParams(steps=20, checkpoint_every=20),
    )
    first = train_seed(problem(), algorithm, train, 3, place(tmp_path))
    told: list[int] = []
    assert train_seed(problem(), algorithm, train, 3, place(tmp_path), told.append) == first
    assert told == [20], "all of its steps at once"


def test_a_protocol_that_the_cohort_lacks_ends_its_seed_with_a_word(tmp_path: Path) -> None:
    algorithm = AlgorithmParams(name="protocol", plain="protocol")
    done = train_seed(problem(), algorithm, TrainParams(), 3, place(tmp_path))
    assert done.steps == []
    assert "names none; add `protocol:`" in done.status


def test_another_run_s_checkpoint_is_not_gone_on_from(tmp_path: Path) -> None:
    algorithm = AlgorithmParams(name="ogsrl", ogsrl=SMALL)
    train = TrainParams(steps=40, checkpoint_every=20)

    def stop(steps: int) -> None:
        if steps:  # once one checkpoint is saved
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_seed(problem(), algorithm, train, 3, place(tmp_path), stop)
    other = replace(place(tmp_path), made_of="other data")
    left = place(tmp_path).policy(999)
    left.mkdir()
    assert [row["step"] for row in train_seed(problem(), algorithm, train, 3, other).log] == [0, 20]
    assert not left.exists(), "a policy of the other run would be mistaken for one of this"


def test_settings_that_do_not_go_together_are_named(tmp_path: Path) -> None:
    odd = AlgorithmParams(name="ogsrl", ogsrl=SMALL)
    with pytest.raises(SpecError, match=r"train\.checkpoint_every: 30 .*algorithms\.ogsrl\.ogsrl"):
        check(odd, TrainParams(steps=60, checkpoint_every=30), COHORT)
    with pytest.raises(SpecError, match=r"algorithms\.x\.peer: d3rlpy_sac is not known; there are"):
        check(AlgorithmParams(name="x", peer="d3rlpy_sac"), TrainParams(), COHORT)


def test_a_key_that_the_loop_does_not_read_is_named() -> None:
    offline = OgsrlParams(model=False, refresh=10, clinicians=0.1)
    with pytest.raises(SpecError, match=r"algorithms\.x\.ogsrl: clinicians, refresh: not read"):
        check(AlgorithmParams(name="x", ogsrl=offline), TrainParams(), COHORT)
    online = AlgorithmParams.model_validate({"name": "x", "ogsrl": {"offline": {"alpha": 1.0}}})
    with pytest.raises(SpecError, match=r"ogsrl: offline: not read by the loop in the model"):
        check(online, TrainParams(), COHORT)


def test_states_that_do_not_know_their_step_are_refused() -> None:
    stays = simulated()[0]["train"]
    blind = replace(stays, history=replace(stays.history, steps=0, summaries=False))
    with pytest.raises(ModelError, match=r"set prepare\.history_steps to 1 or more"):
        Problem.of(blind, behaviour(), problem().dynamics, guarded())


def test_a_number_that_is_none_ends_its_seed_alone_and_says_where(tmp_path: Path) -> None:
    made = problem()
    wild = replace(made, to_go=made.to_go * torch.nan)
    algorithm = AlgorithmParams(name="ogsrl", ogsrl=SMALL)
    done = train_seed(
        wild, algorithm, TrainParams(steps=40, checkpoint_every=20), 3, place(tmp_path)
    )
    assert done.status == "training: the critics' error is not finite at step 0"
    assert done.steps == []


@pytest.mark.parametrize("model", [True, False])
def test_cloning_copies_the_logged_doses(model: bool, tmp_path: Path) -> None:
    cloning = SMALL.model_copy(update={"cloning_only": True, "start": "logged", "model": model})
    algorithm = AlgorithmParams(name="bc", ogsrl=cloning)
    made = problem()
    done = train_seed(made, algorithm, TrainParams(), 0, place(tmp_path))
    actor, about = load_policy(place(tmp_path).policy(done.steps[-1]), made.history)
    assert about == {"algorithm": "bc", "seed": 0, "step": SMALL.start_steps}
    assert actor is not None
    proposed = actor.propose(made.rows.states, torch.Generator())
    error = (proposed - made.rows.doses).square().mean()
    assert error < 0.9 * made.rows.doses.var(0).mean()
    told: list[int] = []
    again = train_seed(made, algorithm, TrainParams(), 0, place(tmp_path), told.append)
    assert again == done
    assert told == [SMALL.start_steps], "a finished clone is not trained again"
