"""From a drawn number to what a chart would show of it: rounded as charted, within range.

Called by the ensemble on every draw. A charted 91.6 shows as 92, so that `spo2 < 92` is right.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
import torch

from ogsrl.dynamics.layout import Layout
from ogsrl.preparation.transforms import ColumnTransform

#: Steps in which values are charted, coarse first: as many to one, or one in so many.
_STEPS = ((100, 1), (50, 1), (20, 1), (10, 1), (5, 1), (2, 1), (1, 1), (1, 2), (1, 4), (1, 5))
STEPS = (*_STEPS, (1, 10), (1, 20), (1, 50), (1, 100), (1, 200), (1, 500), (1, 1000))
FINEST = (1, 1_000_000)  # no step found: six decimals
_SHARE_ON_STEP = 0.995  # some values were clipped or converted
_FEWEST_VALUES = 5  # different ones; fewer tell no step


def charted_step(values: npt.NDArray[np.float64]) -> tuple[int, int]:
    """The coarsest step of which nearly all values are a multiple, as numerator, denominator.

    >>> charted_step(np.array([91.0, 92.0, 97.0, 98.0, 99.0]))
    (1, 1)
    >>> charted_step(np.array([0.3, 0.35, 0.4, 0.5, 0.75]))
    (1, 20)
    >>> charted_step(np.array([0.1234, 2.3456, 3.4561, 4.0123, 5.1236]))
    (1, 1000000)
    """
    if len(np.unique(values)) < _FEWEST_VALUES:
        return FINEST
    for up, down in STEPS:
        multiple = values * down / up
        if (np.abs(multiple - np.round(multiple)) < 1e-3).mean() >= _SHARE_ON_STEP:
            return up, down
    return FINEST


@dataclass(frozen=True)
class Chart:
    """How each learned number is charted; one entry a column, in the layout's order.

    Attributes:
        low: Least value: of the plausible range, or what ten training values lie at or below (the
            very least is one patient's).
        high: Greatest value, alike.
        up: Numerator of the step in which values are charted.
        down: Its denominator.
    """

    low: torch.Tensor
    high: torch.Tensor
    up: torch.Tensor
    down: torch.Tensor

    @classmethod
    def of(cls, layout: Layout, numeric: torch.Tensor, charted: torch.Tensor) -> Chart:
        """Find range and step of each column among its charted values."""
        found = []
        for i, name in enumerate(layout.numeric):
            column = layout.history.preparation.states[name]
            values = column.inverse(numeric[charted[:, i], i].numpy())
            found.append([column.low, column.high, *charted_step(values)])
        table = torch.tensor(found, dtype=torch.float32).reshape(len(found), 4)
        return cls(*table.unbind(1))

    def show(self, values: torch.Tensor) -> torch.Tensor:
        """Clinical values (..., columns) as charted."""
        rounded = torch.round(values * self.down / self.up) * self.up / self.down
        return rounded.clip(self.low, self.high)

    def one(self, column: int, values: torch.Tensor) -> torch.Tensor:
        """Clinical values of one column as charted."""
        up, down = self.up[column], self.down[column]
        return (torch.round(values * down / up) * up / down).clip(
            self.low[column], self.high[column]
        )

    def arrays(self) -> dict[str, torch.Tensor]:
        """The tensors by name."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


class Scaling:
    """Scaled values to clinical units and back, for many columns at once."""

    def __init__(self, columns: list[ColumnTransform]) -> None:
        """Columns of one transform must lie side by side."""
        self.center = torch.tensor([c.center for c in columns])
        self.scale = torch.tensor([c.scale for c in columns])
        self._runs: list[tuple[str, slice]] = []
        for i, column in enumerate(columns):
            if self._runs and self._runs[-1][0] == column.transform:
                self._runs[-1] = column.transform, slice(self._runs[-1][1].start, i + 1)
            else:
                self._runs.append((column.transform, slice(i, i + 1)))

    def clinical(self, scaled: torch.Tensor) -> torch.Tensor:
        """(..., columns) in clinical units, unrounded."""
        moved = scaled * self.scale + self.center
        for transform, run in self._runs:
            part = moved[..., run]
            match transform:
                case "log":
                    part.exp_()
                case "log1p":
                    part.expm1_()
                case "sqrt":
                    part.clip_(min=0).square_()
        return moved

    def scaled(self, clinical: torch.Tensor) -> torch.Tensor:
        """(..., columns) as learners see them."""
        moved = clinical.clone()
        for transform, run in self._runs:
            part = moved[..., run]
            match transform:
                case "log":
                    part.log_()
                case "log1p":
                    part.log1p_()
                case "sqrt":
                    part.sqrt_()
        return (moved - self.center) / self.scale


def running_sums(
    layout: Layout, states: torch.Tensor, doses: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Next running sums of doses, scaled: the last value plus the dose given now."""
    preparation, sums = layout.history.preparation, {}
    names = list(preparation.doses)
    for name, dose in layout.cumulative.items():
        column, transform = preparation.states[name], preparation.doses[dose]
        before = column.inverse_torch(states[:, layout.current[name]].double())
        given = transform.inverse_torch(doses[:, names.index(dose)].double())
        # to a hundredth of an increment: what single precision adds must not add up
        grid = (preparation.cohort.actions[dose].increment or transform.high * 1e-3) / 100
        exact = before + given.clip(transform.low, transform.high)
        rounded = torch.round(exact.detach() / grid) * grid
        total = rounded + (exact - exact.detach())  # the gradient passes the rounding
        # at the least sum a root has no slope: none is passed on there
        total = torch.where(total > column.low, total, total.detach())
        total = total.clip(column.low, column.high)[:, None]
        sums[name] = Scaling([column]).scaled(total)[:, 0].to(states.dtype)
    return sums
