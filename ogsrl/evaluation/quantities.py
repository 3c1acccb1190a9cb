"""What is estimated of a policy, as a sum over a stay's steps: mortality, value, costs, refusal.

Called by every estimator, so that all of them mean the same; it looks at what was logged alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from ogsrl.errors import ModelError
from ogsrl.preparation.tensors import StayTensors
from ogsrl.spec import Cohort

MORTALITY, VALUE, COST, REFUSAL = "mortality", "value", "cost:", "refusal"


@dataclass(frozen=True)
class Quantity:
    """One quantity: the expectation of sum_t discount^t paid_t over a stay.

    Attributes:
        name: mortality, value, cost:<constraint> or refusal.
        paid: (decisions,) what each logged step adds; of refusals nothing, for the clinicians
            refuse nothing: it is the policy's own.
        counts: (decisions,) whether the step still counts; not after an `ever` was met.
        discount: A step.
        low: The least that it can be.
        high: The most.
        once: Whether it is paid once a stay at most.
    """

    name: str
    paid: torch.Tensor
    counts: torch.Tensor
    discount: float
    low: float
    high: float
    once: bool = False


def primary(cohort: Cohort) -> str:
    """The quantity that decides: mortality, or the value of a cohort without deaths."""
    return MORTALITY if tells_deaths(cohort) else VALUE


def default_quantities(cohort: Cohort) -> tuple[str, ...]:
    """The primary one, each constraint's cost, refusal."""
    return (primary(cohort), *(COST + name for name in cohort.constraints), REFUSAL)


def tells_deaths(cohort: Cohort) -> bool:
    """Whether deaths are known: a death after the stay is told by what it pays."""
    paid = cohort.reward.terminal
    told = paid is not None and paid.death not in (paid.discharge, paid.horizon)
    return cohort.outcome is not None and told


def deaths(stays: StayTensors) -> torch.Tensor:
    """(rows,) whether the stay ended with this step and the patient died, then or later."""
    cohort = stays.history.preparation.cohort
    if not tells_deaths(cohort) or cohort.reward.terminal is None:
        raise ModelError(
            f"{cohort.name}: mortality is not known; the cohort needs `outcome`, and a death must "
            "pay another reward than other ends"
        )
    later = stays.terminal & (stays.rewards == cohort.reward.terminal.death)
    return stays.death | later


def quantities(stays: StayTensors, names: Sequence[str]) -> tuple[Quantity, ...]:
    """These quantities of the logged decisions."""
    return tuple(_quantity(stays, name) for name in names)


def to_go(stays: StayTensors, quantity: Quantity) -> tuple[torch.Tensor, torch.Tensor]:
    """(decisions,) what followed from each logged decision to the end, and whether that is known.

    It is not known in a censored stay.
    """
    row = stays.decision.nonzero().squeeze(1)
    place = torch.full((len(stays.step),), -1)
    place[row] = torch.arange(len(row))
    following = stays.next_row[row]
    after = torch.where(following >= 0, place[following.clip(min=0)], -1)
    total, known = quantity.paid.clone(), stays.terminal[row].clone()
    step = stays.step[row]
    for number in range(int(step.max()) if len(step) else 0, -1, -1):
        here = ((step == number) & (after >= 0)).nonzero().squeeze(1)
        total[here] = quantity.paid[here] + quantity.discount * total[after[here]]
        known[here] = known[after[here]]
    return total, known


def _quantity(stays: StayTensors, name: str) -> Quantity:
    cohort = stays.history.preparation.cohort
    row = stays.decision.nonzero().squeeze(1)
    everywhere = torch.ones(len(row), dtype=torch.bool)
    if name == MORTALITY:
        return Quantity(name, deaths(stays)[row].float(), everywhere, 1.0, 0.0, 1.0)
    if name == REFUSAL:
        return Quantity(name, torch.zeros(len(row)), everywhere, 1.0, 0.0, 1.0)
    if name == VALUE:
        plain = Quantity(name, stays.rewards[row], everywhere, cohort.discount, 0.0, 0.0)
        low, high = _range(stays, plain)
        return replace(plain, low=low, high=high)
    constraint = cohort.constraints.get(name.removeprefix(COST))
    if constraint is None or not name.startswith(COST):
        known_names = ", ".join((MORTALITY, VALUE, *default_quantities(cohort)[1:]))
        raise ModelError(f"quantity {name!r}: not known in this cohort; known: {known_names}")
    j = stays.cost_names.index(name.removeprefix(COST))
    paid = stays.costs[row, j]
    if constraint.kind == "share":
        return Quantity(name, paid, everywhere, 1.0, 0.0, 1.0)
    return Quantity(name, paid, ~_spent(stays, j)[row], 1.0, 0.0, 1.0, once=True)


def _range(stays: StayTensors, value: Quantity) -> tuple[float, float]:
    """The least and the most that a stay can be worth: by the reward, or as far as was seen."""
    paid = stays.history.preparation.cohort.reward
    if paid.terminal is not None and paid.step is None:
        ends = [paid.terminal.death, paid.terminal.discharge, paid.terminal.horizon]
    else:
        total, known = to_go(stays, value)
        ends = total[known].tolist()
    return float(min([0.0, *ends])), float(max([0.0, *ends]))


def _spent(stays: StayTensors, j: int) -> torch.Tensor:
    """Whether an `ever` was met at an earlier step of the stay."""
    spent = torch.zeros(len(stays.step), dtype=torch.bool)
    for number in range(int(stays.step.max()) if len(stays.step) else 0):
        here = ((stays.step == number) & (stays.next_row >= 0)).nonzero().squeeze(1)
        spent[stays.next_row[here]] = spent[here] | (stays.costs[here, j] > 0)
    return spent
