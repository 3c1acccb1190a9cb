"""The loop without a model: TD3+BC and PRDC are d3rlpy's, and each setting of it binds."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from ogsrl.policies.codes import StateCodes
from ogsrl.policies.dataset import dataset_index
from ogsrl.policies.offline import OfflineLearner
from ogsrl.policies.problem import Problem
from ogsrl.preparation.tensors import Transitions
from tests.policies.offline_problems import (
    ASKED,
    PLAIN,
    PRDC,
    QUICK,
    TD3BC,
    far,
    plain_problem,
    proposed,
    sepsis,
    trained,
    with_,
)
from tests.policies.problems import best_dose, cloned_dose, one_decision, one_dose, td3bc_dose

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of packages that d3rlpy loads
    from ogsrl.policies.peers import actor_of, batch_of, fit_peer, fitted


def test_td3bc_finds_the_dose_between_the_best_and_the_clinicians() -> None:
    td3bc = with_(QUICK, offline={"cloning": 1.0})
    found = proposed(trained(plain_problem(one_decision(), one_dose()), td3bc, 500), ASKED)
    assert far(found, td3bc_dose(ASKED)) < 0.04
    assert far(best_dose(ASKED), td3bc_dose(ASKED)) > 0.1
    assert far(cloned_dose(ASKED), td3bc_dose(ASKED)) > 0.2


def test_prdc_finds_the_best_dose_where_such_pairs_were_logged() -> None:
    problem = plain_problem(one_decision(2_000), one_dose())
    prdc = with_(QUICK, dataset={"weight": 1.0, "beta": 2.0, "neighbours": 16})
    assert far(proposed(trained(problem, prdc, 500), ASKED), best_dose(ASKED)) < 0.05


def same_start(ours: OfflineLearner, theirs: Any) -> None:
    """d3rlpy's first weights become ours."""
    modules = theirs.impl.modules
    kept = [actor_of(theirs, ours.problem.history).networks.flat]
    stacks = [[m for m in q.modules() if isinstance(m, torch.nn.Linear)] for q in modules.q_funcs]
    layers = [
        torch.stack([(stack[i].weight.T, stack[i].bias[None])[part] for stack in stacks])
        for i in range(3)
        for part in (0, 1)
    ]
    kept.append(torch.cat([layer.detach().flatten() for layer in layers]))
    for flat, vectors in zip(
        kept, ((ours.actor, ours.slow_actor), (ours.critics, ours.slow_critics)), strict=True
    ):
        for networks in vectors:
            networks.flat.copy_(flat)


def twice(rows: Transitions) -> Transitions:
    """Every stay a second time, so that each row's nearest row of another stay is its copy."""
    doubled = {n: torch.cat([getattr(rows, n)] * 2) for n in Transitions.__dataclass_fields__}
    return Transitions(**{**doubled, "row": torch.arange(2 * len(rows.row))})


@pytest.mark.parametrize("name", ["d3rlpy_td3bc", "d3rlpy_prdc"])
def test_step_by_step_it_is_d3rlpys(name: str) -> None:
    """The same weights on the same rows of whole stays, without the noise of targets."""
    made = sepsis()
    params = with_(TD3BC if name == "d3rlpy_td3bc" else PRDC, offline={"noise": 0.0})
    params = with_(params, dataset={"metric": "all"})
    count = len(made.rows.row)
    problem = replace(
        made, rows=twice(made.rows), stay=torch.cat([made.stay, made.stay + made.stay.max() + 1])
    )
    theirs = fitted(name, problem.rows, problem.history, 0, torch.Generator().manual_seed(1))
    theirs.impl._target_smoothing_sigma = 0.0
    ours = OfflineLearner(problem, params, 0, 0)
    same_start(ours, theirs)
    codes, g = StateCodes.of(problem.history), torch.Generator().manual_seed(2)
    before = proposed(ours, problem.rows.states)
    for _ in range(30):
        rows = torch.randint(count, (256,), generator=g)
        ours.learn(rows)
        theirs.update(batch_of(problem.rows, rows, codes, None))
    after = proposed(ours, problem.rows.states)
    predicted = theirs.predict(problem.rows.states.numpy())
    assert np.abs(after.numpy() - predicted).max() < 2e-4
    assert float((after - before).abs().max()) > 0.05
    values = theirs.predict_value(problem.rows.states.numpy(), problem.rows.doses.numpy())
    pairs = torch.cat([problem.rows.states, problem.rows.doses], 1)
    said = ours.critics.answer(pairs)[:, :, 0].mean(0).numpy()
    assert np.abs(said - values).max() < 2e-4
    assert values.std() > 1e-3


@pytest.mark.parametrize("name", ["d3rlpy_td3bc", "d3rlpy_prdc"])
def test_to_the_end_it_is_d3rlpys_within_what_seeds_differ_by(name: str) -> None:
    rows, history = one_decision(2_000), one_dose()
    params = TD3BC if name == "d3rlpy_td3bc" else PRDC
    ours = proposed(trained(plain_problem(rows, history), params, 300), ASKED)
    theirs = fit_peer(name, rows, history, 300, 0).propose(ASKED, torch.Generator())
    assert far(ours, theirs) < 0.05


def test_a_value_is_what_the_end_pays_wherever_the_stay_is() -> None:
    """Stays of three steps that pay 1 at their end: no terminal step is dropped, none goes on."""
    stays, g = 400, torch.Generator().manual_seed(0)
    step = torch.arange(3).repeat(stays)
    states = step[:, None] / 2.0 - 0.5
    after = torch.where(step < 2, torch.arange(3 * stays) + 1, -1)
    rows = Transitions(
        states=states,
        doses=2 * torch.rand(3 * stays, 1, generator=g) - 1,
        rewards=(step == 2).float(),
        costs=torch.zeros(3 * stays, 0),
        next_states=torch.where(step[:, None] < 2, states[after], 0.0),
        terminal=step == 2,
        row=torch.arange(3 * stays),
    )
    problem = replace(
        plain_problem(rows, one_dose(), torch.arange(stays).repeat_interleave(3)), after=after
    )
    quick = with_(TD3BC, hidden=32, offline={"critic_rate": 3e-3, "target_rate": 0.05})
    learner = trained(problem, quick, 400)
    said = learner.critics.answer(torch.cat([states[:3], torch.zeros(3, 1)], 1))[..., 0]
    assert torch.allclose(said, torch.ones(2, 3), atol=0.05)


def rising_cost(rows: int = 3_000) -> Transitions:
    """One decision; a dose costs (a + 1) / 2 and is best at `best_dose`."""
    made = one_decision(rows)
    return replace(made, costs=(made.doses + 1) / 2)


def true_cost(learner: OfflineLearner) -> float:
    return float((proposed(learner, ASKED) + 1).mean() / 2)


def test_a_fixed_multiplier_moves_the_dose_as_far_as_it_pays() -> None:
    """a = best - mu q / (4 alpha), where q = 1 - (that distance)^2 scales the reward."""
    mu = 2.0
    fixed = with_(QUICK, constraints=True, multipliers="fixed", fixed_multiplier=mu)
    learner = trained(plain_problem(rising_cost(), one_dose(), cost=0.25), fixed, 500)
    q = 1.0
    for _ in range(20):
        q = 1 - (mu * q / (4 * fixed.offline.alpha)) ** 2
    apart = mu * q / (4 * fixed.offline.alpha)
    assert far(proposed(learner, ASKED), best_dose(ASKED) - apart) < 0.05
    assert apart > 0.15
    assert learner.measured()["active_cost"] == 1.0


def test_a_limit_at_half_of_cloning_s_cost_binds_and_the_true_cost_falls_to_it() -> None:
    problem = plain_problem(rising_cost(), one_dose(), cost=0.25)
    adapted = with_(QUICK, constraints=True, integral=0.3, offline={"update_every": 10})
    learner = trained(problem, adapted, 900)
    said = learner.measured()
    assert said["mu_cost"] > 0.5
    assert said["active_cost"] > 0.5
    assert said["limit_cost"] == 0.25
    assert said["cost_cost"] == pytest.approx(true_cost(learner), abs=0.05)
    assert true_cost(learner) < 0.3
    free = trained(replace(problem, limits={"cost": 0.9}), adapted, 300)
    assert free.measured()["mu_cost"] == 0.0
    assert true_cost(free) == pytest.approx(0.5, abs=0.05)


def test_the_dataset_constraint_pulls_to_doses_that_somebody_gave() -> None:
    """The best dose was never given: without the constraint it is proposed, with it not."""
    made = one_decision(2_000)
    doses = torch.where(made.doses > 0, 0.9, -0.9) + 0.02 * made.doses
    rows = replace(made, doses=doses, rewards=1 - 0.5 * (doses - best_dose(made.states))[:, 0] ** 2)
    problem, asked = plain_problem(rows, one_dose()), torch.linspace(-0.4, 0.4, 41)[:, None]
    near = dataset_index(problem, PRDC.dataset)
    distance = {}
    for weight in (0.0, 30.0):
        learner = trained(problem, with_(QUICK, dataset={"weight": weight, "beta": 2.0}), 300)
        found = proposed(learner, asked)
        distance[weight] = float(near.of_states(asked, found, 2.0).distance.mean())
    assert distance[30.0] < 0.15
    assert distance[0.0] > 2 * distance[30.0]


def test_a_row_is_pulled_to_another_stay_s_dose_and_never_to_its_own() -> None:
    """Two stays in each place: learned from are those given .5; the others were given -.9."""
    places = 10
    states = (torch.arange(places) - 4.5).repeat_interleave(2)[:, None]
    doses = torch.tensor([[0.5], [-0.9]]).repeat(places, 1)
    rows = Transitions(
        states=states,
        doses=doses,
        rewards=torch.zeros(2 * places),
        costs=torch.zeros(2 * places, 0),
        next_states=torch.zeros_like(states),
        terminal=torch.ones(2 * places, dtype=torch.bool),
        row=torch.arange(2 * places),
    )
    params = with_(PRDC, offline={"alpha": 0.0}, dataset={"beta": 100.0, "neighbours": 4})
    learner = OfflineLearner(plain_problem(rows, one_dose()), params, 0, 0)
    mine = torch.arange(0, 2 * places, 2)
    for _ in range(300):
        learner.learn(mine)
    assert far(proposed(learner, states), torch.full((1,), -0.9)) < 0.1
    said = learner.measured()
    assert said["own_row"] > 0.45  # what it would be pulled to, were its own stay not apart
    assert said["certified"] == 1.0


def refusing_all(made: Problem) -> Problem:
    threshold = made.guardian.threshold
    assert threshold is not None
    refuses = replace(made.guardian, threshold=replace(threshold, value=-1.0))
    return replace(made, guardian=refuses)


def test_where_everything_is_refused_values_are_the_clinicians_and_refusals_are_counted() -> None:
    made = refusing_all(sepsis())
    params = with_(
        PLAIN,
        guardian=True,
        constraints=True,
        hidden=64,
        margin_weight=0.0,
        offline={
            "discount": 1.0,
            "critic_rate": 2e-3,
            "target_rate": 0.1,
            "delay": 1,
            "critic_start_steps": 300,
        },
    )
    learner = OfflineLearner(made, params, 0, 0)
    learner.begin()
    before = learner.actor.flat.clone()
    list(learner.train(300))
    assert torch.equal(learner.actor.flat, before)  # rows without its doses teach it nothing
    said, first = learner.measured(), torch.isin(made.known, made.first)
    truth = made.to_go[made.known[first]].mean(0)
    for j, name in enumerate(made.limits):
        assert said[f"cost_{name}"] == pytest.approx(float(truth[1 + j]), abs=0.03)
    steps = torch.bincount(made.stay)[made.stay[made.known[first]]].float().mean()
    assert said["refusal"] == pytest.approx(float(steps) / made.max_steps, abs=0.05)
    assert said["deferred"] == 1.0
    assert said["mu_refusal"] > params.refusal_start


def test_with_the_guardian_fewer_proposals_are_refused() -> None:
    shares = {}
    for guardian in (False, True):
        params = with_(QUICK, guardian=guardian, refusal_start=10.0)
        shares[guardian] = trained(sepsis(), params, 250).measured()["deferred"]
    assert shares[True] < 0.6 * shares[False]
