"""OGSRL for ordinal doses in a fitted model: the same critics, an actor that chooses among levels.

Called by training for cohorts whose doses are all ordinal and whose states are more than one code
(those have `DiscreteOGSRL`). Nothing here is rounded: each combination of levels is tried.
"""

from __future__ import annotations

import torch

from ogsrl.errors import ModelError
from ogsrl.policies.actors import LevelsActor
from ogsrl.policies.codes import DoseLevels
from ogsrl.policies.config import OgsrlParams
from ogsrl.policies.deployed import Deployed
from ogsrl.policies.learner import Learner, Real
from ogsrl.policies.loop import COPY_RATE
from ogsrl.policies.networks import Adam, Perceptrons, Shape
from ogsrl.policies.problem import Problem
from ogsrl.policies.rollouts import Rows, World
from ogsrl.preparation.history import History

#: More combinations than this are too many to be tried one by one in every row.
MOST_TRIED = 64


def all_ordinal(history: History) -> bool:
    """Whether every dose of the cohort is ordinal."""
    return all(a.kind == "ordinal" for a in history.preparation.cohort.actions.values())


class LevelsLearner(Learner):
    r"""One seed; critics, rollouts and multipliers are `Learner`'s.

    With p(a|s) the softmax of f(s) over combinations of levels, and Q those of the model with its
    guardian: where a is deferred, a clinician's dose is drawn and the refusal costs,

        L_pi = mean_s sum_a p(a|s) [ -Q_r / R + sum_j mu_j Q_j + mu_g Q_g ](s, a)
               - w_c mean log p(a_logged|s) - w_dc mean log p(a~|s)

    a~ the dose of the logged pair of another stay that is nearest to (s, argmax f(s)). Saved,
    rolled out and valued is argmax_a f(s). The sum over a is exact, so that no slope has to pass
    through a level, and nothing is masked.
    """

    def __init__(self, problem: Problem, params: OgsrlParams, seed: int, steps: int) -> None:
        """Nothing is trained yet; `steps` is how many there will be, for the falling rate."""
        super().__init__(problem, params, seed, steps)
        self.levels = DoseLevels.of(problem.history)
        if len(self.levels) > MOST_TRIED:
            raise ModelError(
                f"{', '.join(self.levels.names)}: {len(self.levels)} combinations of levels, at "
                f"most {MOST_TRIED} can be tried in every row; join levels"
            )
        shape = Shape(1, self.codes.width, params.hidden, len(self.levels))
        self.actor = Perceptrons.drawn(shape, self.generator)
        self._learn_in(params.products)
        self.actor_adam = Adam(self.actor, COPY_RATE)
        acting = LevelsActor(self.actor, self.levels, self.codes)
        self.deployed = Deployed.of(acting, self.deployed.guardian, problem.history)

    @property
    def policy(self) -> LevelsActor:
        """The actor as it is now, apart from what training does next."""
        return LevelsActor(self.actor.twin(), self.levels, self.codes)

    def _copy(self, states: torch.Tensor, wanted: torch.Tensor) -> None:
        chance = self.actor.forward(self.codes.inputs(states))[0].softmax(1)
        self._step_levels((chance - self._given(wanted)) / len(states))

    def _learn_actor(self, rows: Rows, real: Real | None = None) -> None:
        real, states = self._batch(rows, real)
        cost = self._cost_of_levels(states)
        self._finite("what levels cost", cost)
        chance = self.actor.forward(self.codes.inputs(states))[0].softmax(1)
        slope = chance * (cost - (chance * cost).sum(1, keepdim=True)) / len(states)
        count = len(real.states)
        likely = self.levels.levels[chance[:count].argmax(1)]
        towards = [(self.params.clinicians, real.doses)]
        if self.params.dataset.weight:
            towards.append((self.params.dataset.weight, self._nearest(real, likely)))
        for weight, doses in towards:
            slope[:count] += weight * (chance[:count] - self._given(doses)) / count
        self._step_levels(slope)

    @torch.no_grad()
    def _cost_of_levels(self, states: torch.Tensor) -> torch.Tensor:
        """(rows, combinations) what is minimised, a step of the model each."""
        problem, stops = self.problem, self.params.on_refusal == "stop"
        world = World(self.deployed, problem.behaviour, problem.dynamics, self._offset, stops)
        count = len(self.levels)
        tried = self.levels.levels.to(states.dtype).repeat(len(states), 1)
        rows, _ = world.act(states.repeat_interleave(count, 0), tried, self.generator)
        rows = self._doubted(rows)
        after = self.targets.answer(self.codes.inputs(rows.next_states))[..., 0].T
        worth = rows.now + rows.going[:, None] * self._discounts * after
        return (worth * self._weights()).sum(1).reshape(len(states), count)

    def _given(self, doses: torch.Tensor) -> torch.Tensor:
        """(rows, combinations) 1 for the combination of these doses."""
        cells = self.levels.codes(doses)
        return torch.nn.functional.one_hot(cells, len(self.levels)).to(doses.dtype)

    def _step_levels(self, slope: torch.Tensor) -> None:
        self.actor.backward(slope[None])
        self.actor_adam.step()
