"""Problems and settings of the loop without a model, shared by its tests."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch

from ogsrl.guardian.christoffel import ChristoffelGuardian
from ogsrl.guardian.columns import Layout
from ogsrl.guardian.config import GuardianParams
from ogsrl.guardian.protocol import Rows
from ogsrl.policies.config import (
    DatasetParams,
    OfflineParams,
    OgsrlParams,
)
from ogsrl.policies.offline import OfflineLearner
from ogsrl.policies.problem import Problem
from ogsrl.preparation.history import History
from ogsrl.preparation.tensors import Transitions
from tests.guardian.cohorts import simulated
from tests.policies.clinicians import behaviour

#: The published rate, which is not this loop's default.
PLAIN = OgsrlParams(
    model=False,
    products="float32",
    actor_rate=3e-4,
    guardian=False,
    constraints=False,
    dataset=DatasetParams(),
)
TD3BC = PLAIN.model_copy(update={"offline": OfflineParams(cloning=1.0)})


def with_(params: OgsrlParams, **changed: Any) -> OgsrlParams:
    """The same settings but for these; of nested ones, `offline` and `dataset` as mappings."""
    for name in ("offline", "dataset"):
        if name in changed:
            changed[name] = getattr(params, name).model_copy(update=changed[name])
    return params.model_copy(update=changed)


#: Smaller and faster, where it is not compared with d3rlpy.
QUICK = with_(PLAIN, hidden=64, actor_rate=1e-3, offline={"critic_rate": 1e-3})
ASKED = torch.linspace(-0.95, 0.95, 50)[:, None]


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
