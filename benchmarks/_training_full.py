"""The whole loop on the default simulated cohort, and its matrix products alone.

What is fitted here is fitted briefly: a step takes as long on a poor model as on a good one.
"""

from __future__ import annotations

import time
from itertools import pairwise

import torch

from benchmarks._guardian_cohort import calibrated, prepared
from ogsrl.behaviour.config import BehaviourParams, NeuralParams
from ogsrl.behaviour.fitting import fit as fit_behaviour
from ogsrl.dynamics.config import DynamicsParams
from ogsrl.dynamics.fitting import fit as fit_dynamics
from ogsrl.guardian.christoffel import ChristoffelGuardian
from ogsrl.guardian.columns import Layout
from ogsrl.guardian.config import GuardianParams
from ogsrl.guardian.protocol import Rows
from ogsrl.policies.config import OgsrlParams
from ogsrl.policies.learner import Learner
from ogsrl.policies.networks import LARGE, shorter
from ogsrl.policies.problem import Problem


def full_problem(patients: int, seed: int, *, small: bool) -> Problem:
    """The default cohort with everything that training needs, of the shapes it always has."""
    _, parts = prepared(patients, seed)
    g = torch.Generator().manual_seed(seed)
    neural = NeuralParams(max_epochs=1)
    dynamics = DynamicsParams(max_epochs=1)
    if small:
        neural = NeuralParams(hidden=32, head=16, max_epochs=1)
        dynamics = DynamicsParams(members=2, hidden=16, hidden_ends=8, max_epochs=1)
    behaviour = fit_behaviour(
        parts["train"],
        parts["calibration"],
        parts["validation"],
        BehaviourParams(kinds=("neural",), neural=neural),
        g,
    )
    model = fit_dynamics(parts["train"], parts["calibration"], dynamics, g)
    layout = Layout.of(parts["train"].history)
    guardian = ChristoffelGuardian.fit([Rows.of(parts["train"])], layout, GuardianParams(), g)
    return Problem.of(parts["train"], behaviour, model, calibrated(guardian, parts))


def begun(problem: Problem, params: OgsrlParams) -> Learner:
    """A learner a few steps after its start."""
    learner = Learner(problem, params, 0, 10_000)
    learner.begin()
    list(learner.train(params.refresh))
    return learner


def refresh_of(learner: Learner, steps: int) -> tuple[float, float]:
    """Seconds a gradient step, of so many: with the rollouts that it needs, and without them."""
    start = time.perf_counter()
    learner.refresh()
    rolled = time.perf_counter() - start
    if learner.step % learner.params.refresh == 0:
        learner.step += 1  # rollouts were just made
    start = time.perf_counter()
    list(learner.train(steps))
    alone = (time.perf_counter() - start) / steps
    learner.step = 0
    return alone + rolled / learner.params.refresh, alone


class Floor:
    """The matrix products of one gradient step of the whole loop, and nothing else.

    Forward and backward products of the actor and the critics, of the target critics through which
    the actor's slope comes, and of the dynamics ensemble in the actor's step; each with factors of
    the length that the loop gives it.
    """

    def __init__(self, learner: Learner) -> None:
        params, fitted = learner.params, learner.problem.dynamics.fitted
        columns, doses = learner.actor.shape.inputs, learner.actor.shape.outputs
        hidden, critics = params.hidden, learner.critics.shape.networks
        g = torch.Generator().manual_seed(0)

        half = params.products == "bfloat16"

        def stack(
            networks: int, rows: int, sizes: list[int], passes: str, half: bool = half
        ) -> None:
            for i, (n_in, n_out) in enumerate(pairwise(sizes)):
                short = half and min(n_in, n_out) >= LARGE
                x = torch.randn(networks, rows, n_in, generator=g)
                w = torch.randn(networks, n_in, n_out, generator=g)
                d = torch.randn(networks, rows, n_out, generator=g)
                self.products.append((x, w, short))
                if "w" in passes:
                    self.products.append((x.transpose(1, 2), d, short))
                if "x" in passes or ("w" in passes and i):
                    self.products.append((d, w.transpose(1, 2), short))

        self.products: list[tuple[torch.Tensor, torch.Tensor, bool]] = []
        values, rows = [columns, hidden, hidden, 1], params.batch_size
        stack(critics, params.value_batch, values, "")  # targets
        stack(critics, params.value_batch, values, "w")  # critics
        stack(1, rows, [columns, hidden, hidden, doses], "w")  # the actor
        stack(critics, rows, values, "x")  # targets of the actor's next states
        for network in (fitted.values, fitted.ends):
            members, wide, narrow = network["w1"].shape
            stack(members, rows, [wide, narrow, narrow, network["w3"].shape[2]], "x", half=False)
        members, wide, moved = fitted.slopes.shape
        stack(members, rows, [wide - 1, moved], "x", half=False)

    def seconds(self, times: int) -> float:
        """A step's, on average."""
        start = time.perf_counter()
        for _ in range(times):
            for a, b, short in self.products:
                with shorter(short):
                    torch.bmm(a, b)
        return (time.perf_counter() - start) / times
