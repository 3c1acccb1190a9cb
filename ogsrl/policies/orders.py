"""From what an actor proposes to a dose that can be ordered: zero, increments, bounds, change.

Called by `Deployed` alone, so that nothing is trained, measured or recommended but such doses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from ogsrl.errors import SpecError
from ogsrl.preparation import Preparation
from ogsrl.preparation.history import History
from ogsrl.preparation.transforms import DoseTransform
from ogsrl.spec import Action

#: Doses are counted in increments; a count this near to a whole number is that number.
NEAR = 1e-4


@dataclass(frozen=True)
class Order:
    """How one dose is ordered.

    A proposal is moved, in clinical units, inside the bounds and within `max_change` of the dose
    last given; below `min_dose` it is zero (or, where zero is too far from the last dose, the
    least dose that is not); then it is the nearest multiple of the increment that is still inside.

    Attributes:
        action: The dose in the cohort file.
        scale: Its scaling.

    >>> fluid = Action(unit="mL", bounds=(0, 1000), min_dose=50, increment=50, max_change=400)
    >>> order = Order(fluid, DoseTransform("fluid", "identity", 0.0, 1000.0))
    >>> order.clinical(torch.tensor([20.0, 260.0, 990.0, 30.0]), torch.tensor([0.0, 0, 0, 600]))
    tensor([  0., 250., 400., 200.], dtype=torch.float64)
    """

    action: Action
    scale: DoseTransform

    def clinical(self, proposed: torch.Tensor, last_given: torch.Tensor) -> torch.Tensor:
        """The dose in clinical units."""
        low, high = self.action.range
        last = last_given.double()
        reach = self.action.max_change
        if reach is None:
            least = torch.full_like(last, low)
            most = torch.full_like(last, high)
        else:  # the last dose itself may lie outside the bounds of this cohort
            least = (last - reach).clip(low, high)
            most = (last + reach).clip(low, high)
        dose = torch.minimum(torch.maximum(proposed.double(), least), most)
        step = 1.0 if self.action.kind == "ordinal" else self.action.increment
        if step is not None:
            first, final = (least / step - NEAR).ceil(), (most / step + NEAR).floor()
            # no whole increment within reach: the nearest end of reach
            inside = torch.minimum(torch.maximum((dose / step).round(), first), final) * step
            dose = torch.where(first <= final, inside, dose)
        if self.action.min_dose > 0:
            zero = torch.zeros_like(dose)
            small = dose < self.action.min_dose * (1 - NEAR)
            smallest = torch.full_like(dose, self.action.min_dose)
            dose = torch.where(small, torch.where(least <= 0, zero, smallest), dose)
        return dose

    def scaled(self, proposed: torch.Tensor, last_given: torch.Tensor) -> torch.Tensor:
        """Scaled proposals to scaled doses; the gradient passes straight through where inside."""
        proposed = proposed.clip(-1, 1)
        with torch.no_grad():
            dose = self.clinical(self.scale.inverse_torch(proposed.double()), last_given)
            ordered = torch.from_numpy(self.scale.forward(dose.cpu().numpy())).to(proposed.device)
        return proposed + (ordered - proposed).detach()


@dataclass(frozen=True)
class Orders:
    """How all doses of a cohort are ordered, and where states remember the last ones.

    Attributes:
        history: The layout of states.
        orders: By dose.
    """

    history: History
    orders: Mapping[str, Order]

    @classmethod
    def of(cls, history: History) -> Orders:
        """As the cohort file says."""
        preparation: Preparation = history.preparation
        actions = preparation.cohort.actions
        bound = [name for name, action in actions.items() if action.max_change is not None]
        if bound and not history.steps:
            raise SpecError(
                f"actions.{bound[0]}.max_change: the state holds no earlier dose; set "
                "prepare.history_steps to 1 or more, or take max_change out"
            )
        return cls(history, {n: Order(actions[n], s) for n, s in preparation.doses.items()})

    def last_given(self, states: torch.Tensor) -> torch.Tensor:
        """(rows, doses) in clinical units, as the state remembers them; 0 at the first step."""
        places = self.history.place("dose_lag", 1)
        if not places:
            return states.new_zeros((len(states), len(self.orders)))
        scales = [order.scale for order in self.orders.values()]
        given = torch.stack(
            [s.inverse_torch(states[:, i]) for s, i in zip(scales, places, strict=True)], 1
        )
        known = states[:, self.history.place("known", 1)] > 0
        return given * known

    def ordered(self, states: torch.Tensor, proposed: torch.Tensor) -> torch.Tensor:
        """Scaled doses as they can be ordered in each state."""
        last = self.last_given(states).detach()
        columns = [
            order.scaled(proposed[:, j], last[:, j]) for j, order in enumerate(self.orders.values())
        ]
        return torch.stack(columns, 1)
