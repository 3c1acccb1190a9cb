"""The loop without a model: TD3+BC and PRDC are d3rlpy's, and each setting of it binds."""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from ogsrl.guardian.christoffel import ChristoffelGuardian
from ogsrl.guardian.columns import Layout
from ogsrl.guardian.config import GuardianParams
from ogsrl.guardian.protocol import Rows
from ogsrl.policies.config import (
    OfflineParams,
    OgsrlParams,
)
from ogsrl.policies.offline import OfflineLearner
from ogsrl.policies.problem import Problem
from ogsrl.preparation.history import History
from ogsrl.preparation.tensors import Transitions
from tests.guardian.cohorts import simulated
from tests.policies.clinicians import behaviour
from tests.policies.problems import (
    best_dose,
    cloned_dose,
    one_decision,
    one_dose,
    td3bc_dose,
)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of packages that d3rlpy loads
    from ogsrl.policies.codes import StateCodes
    from ogsrl.policies.peers import actor_of, batch_of, fit_peer, fitted

PLAIN = OgsrlParams(model=False, guardian=False, constraints=False)
TD3BC = PLAIN.model_copy(update={"offline": OfflineParams(cloning=1.0)})
ASKED = torch.linspace(-0.95, 0.95, 50)[:, None]


def with_(params: OgsrlParams, **changed: Any) -> OgsrlParams:
    """The same settings but for these; of nested ones, `offline` and `dataset` as mappings."""
    for name in ("offline", "dataset"):
        if name in changed:
            changed[name] = getattr(params, name).model_copy(update=changed[name])
    return params.model_copy(update=changed)


PRDC = with_(PLAIN, dataset={"weight": 1.0, "beta": 2.0, "neighbours": 16})


def plain_problem(
    rows: Transitions, history: History, stay: torch.Tensor | None = None, **limits: float
) -> Problem:
    """Logged decisions of stays of one step, with nothing fitted on them."""
    count = len(rows.row)
    to_go = torch.cat([rows.rewards[:, None], rows.costs, torch.zeros(count, 1)], 1)
    nothing: Any = None  # the loop asks neither of these without guardian
    return Problem(
        history=history,
        behaviour=nothing,
        dynamics=nothing,
        guardian=nothing,
        rows=rows,
        stay=torch.arange(count) if stay is None else stay,
        after=torch.full((count,), -1),
        first=torch.arange(count),
        usual=torch.zeros_like(rows.doses),
        to_go=to_go,
        known=torch.arange(count),
        limits=limits,
    )


@cache
def sepsis() -> Problem:
    parts = simulated()[0]
    g = torch.Generator().manual_seed(0)
    layout, rows = Layout.of(parts["train"].history), Rows.of(parts["calibration"])
    guardian = ChristoffelGuardian.fit(
        [Rows.of(parts["train"])], layout, GuardianParams(degree=1), g
    ).calibrate(rows.states, rows.doses, rows.patient, 0.05)
    nothing: Any = None
    return Problem.of(parts["train"], behaviour(), nothing, guardian)


def trained(problem: Problem, params: OgsrlParams, steps: int, seed: int = 0) -> OfflineLearner:
    learner = OfflineLearner(problem, params, seed, steps)
    learner.begin()
    list(learner.train(steps))
    return learner


def proposed(learner: OfflineLearner, states: torch.Tensor) -> torch.Tensor:
    return learner.policy.propose(states, torch.Generator())


def far(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).abs().mean())


def test_td3bc_finds_the_dose_between_the_best_and_the_clinicians() -> None:
    found = proposed(trained(plain_problem(one_decision(), one_dose()), TD3BC, 500), ASKED)
    assert far(found, td3bc_dose(ASKED)) < 0.04
    assert far(best_dose(ASKED), td3bc_dose(ASKED)) > 0.1
    assert far(cloned_dose(ASKED), td3bc_dose(ASKED)) > 0.2


def test_prdc_finds_the_best_dose_where_such_pairs_were_logged() -> None:
    problem = plain_problem(one_decision(2_000), one_dose())
    assert far(proposed(trained(problem, PRDC, 500), ASKED), best_dose(ASKED)) < 0.05


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
    ours = proposed(trained(plain_problem(rows, history), params, 400), ASKED)
    theirs = fit_peer(name, rows, history, 400, 0).propose(ASKED, torch.Generator())
    assert far(ours, theirs) < 0.05
