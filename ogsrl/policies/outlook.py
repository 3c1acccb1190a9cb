"""What one model step is expected to pay and cost, and how surely the stay goes on.

Called by rollouts and by the actor's step. Ends are never drawn here: chances stand for them, so
that an estimate has less noise and a gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ogsrl.constraints import constraint_rules, step_cost
from ogsrl.dynamics.answers import Next
from ogsrl.errors import ModelError
from ogsrl.preparation.history import History
from ogsrl.spec.expressions import parse_expression


@dataclass(frozen=True)
class Outlook:
    """Expectations over how the step ends.

    Attributes:
        reward: r(s, x).
        costs: (rows, constraints) c_j(s, x).
        going: Chance that the stay goes on.
        death: Chance of a death that counts, in this step or after a stay that ends with it.
    """

    reward: torch.Tensor
    costs: torch.Tensor
    going: torch.Tensor
    death: torch.Tensor


def outlook(
    states: torch.Tensor,
    following: Next,
    history: History,
    offset: float = 0.0,
    *,
    number: int | None = None,
) -> Outlook:
    r"""Expected reward and costs of a step, p_d, p_q, p_h its chances of death, discharge, horizon.

        c_j = p_d (T - t) / T + (1 - p_d - p_q - p_h) u_j / T,   u_j the chance to be unsafe next,

    and the reward alike, a late death being paid as a death.

    Args:
        states: s.
        following: What the model answered.
        history: The layout of states.
        offset: Taken off what any end pays. A stay ends once, so that an undiscounted value moves
            by a constant; with what the best end pays, V is 0 for whom nothing threatens, and an
            error of V is not mistaken for a reason to end the stay.
        number: Of the step, where all rows are at the same one; none: states tell it.
    """
    cohort = history.preparation.cohort
    if following.unsafe is None:
        raise ModelError("dynamics: no member was asked for unsafe rows; set ensemble=True")
    step = steps_of(states, history) if number is None else states.new_full((len(states),), number)
    last = step >= cohort.max_steps - 1
    death, discharge = following.p_death, following.p_discharge
    horizon = (1 - death - discharge) * last
    going = (1 - death - discharge) * ~last
    late = (discharge + horizon) * following.p_late_death
    reward = torch.zeros_like(death)
    if cohort.reward.terminal is not None:
        paid = cohort.reward.terminal
        alive = 1 - following.p_late_death
        reward = paid.death * (death + late) + alive * (
            paid.discharge * discharge + paid.horizon * horizon
        )
        reward = reward - offset * (1 - going)
    if cohort.reward.step is not None:
        rule = parse_expression(cohort.reward.step)
        columns = history.preparation.states
        places = dict(zip(columns, history.place("current"), strict=True))
        known = {
            name: columns[name].inverse_torch(following.states[:, places[name]])
            for name in rule.columns
        }
        reward = reward + going * rule.torch(known).nan_to_num(0.0)
    costs = []
    for j, rule_ in enumerate(constraint_rules(cohort).values()):
        if rule_.kind == "ever":
            raise ModelError(
                f"constraints.{rule_.name}: training knows `kind: share` alone; a state holds no "
                "flag of an earlier violation"
            )
        unsafe = following.unsafe[:, j] * going / (1 - death).clip(min=1e-9)
        costs.append(step_cost(rule_.kind, unsafe, death, step, cohort.max_steps))
    stacked = torch.stack(costs, 1) if costs else states.new_zeros(len(states), 0)
    return Outlook(reward, stacked, going, death + late)


def steps_of(states: torch.Tensor, history: History) -> torch.Tensor:
    """The number of each row's step; without history a state does not know it, and is at 0."""
    places = history.place("step")
    if not places:
        return states.new_zeros(len(states))
    return (states[:, places[0]] * history.preparation.cohort.max_steps).round()
