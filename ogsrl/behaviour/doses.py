"""The distribution of one dose: masses at zero and at the maximum, a density of the log between.

Called by everything in this package, and by estimators that need parts and densities. Doses come
and go in [-1, 1]; it never rounds a dose to its increment.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ogsrl.behaviour.crowds import centres, crowds
from ogsrl.errors import ModelError
from ogsrl.preparation.transforms import DoseTransform
from ogsrl.spec import Action

#: How near a scaled dose must be to a bound, or to a level, to be it.
NEAR = 1e-5
#: Fewer different doses than this get hats of this share of the range.
FEW_DOSES, NARROW = 4, 0.02
#: Where no `min_dose` says it, a dose below this share of the largest is zero.
LEAST = 1e-6
#: Shares of an outermost crowd at which it is cut.
TAILS = (0.1, 0.3)
TEN = math.log(10)
PARTS = ("zero", "between", "maximum")
ZERO, BETWEEN, MAXIMUM = range(3)


class Place(NamedTuple):
    """Where doses lie: at most two components carry each; density = sum of weight x height."""

    component: torch.Tensor  # (rows, 2)
    height: torch.Tensor  # (rows, 2)


@dataclass(frozen=True)
class DoseGrid:
    """The components that a dose's distribution is made of.

    Continuous: `zero` (the lower bound, or below `min_dose`), `maximum` (the upper bound), and a
    hat around each knot x_k of the log dose in clinical units:

        h_k(x) rises linearly from 0 at x_{k-1} to 2 / (x_{k+1} - x_{k-1}) at x_k and falls to 0
        at x_{k+1}; the first and last hat have one side only. Each integrates to 1.

    Ordinal: one component a level. Knots are quantiles of training doses, so where doses are
    charted on a grid the hats are the masses of its points over their spacing.

    Attributes:
        name: The dose.
        kind: continuous or ordinal.
        transform: identity, sqrt or log1p, before scaling to [-1, 1].
        low: Least dose.
        high: Largest dose.
        min_dose: Below this a dose is zero.
        levels: Number of levels of an ordinal dose.
        knots: Knots of the log dose, rising; none for an ordinal dose.
    """

    name: str
    kind: Literal["continuous", "ordinal"]
    transform: str
    low: float
    high: float
    min_dose: float
    levels: int
    knots: tuple[float, ...]

    @classmethod
    def of(
        cls,
        action: Action,
        scaling: DoseTransform,
        doses: torch.Tensor,
        patient: torch.Tensor,
        knots: int,
    ) -> DoseGrid:
        """The grid of a dose from its training doses in [-1, 1], and whose they are."""
        empty = cls(
            name=scaling.name,
            kind=action.kind,
            transform=scaling.transform,
            low=scaling.low,
            high=scaling.high,
            min_dose=action.min_dose,
            levels=len(action.levels),
            knots=(),
        )
        if action.kind == "ordinal":
            return empty
        between = empty.part(doses) == BETWEEN
        found = empty._knots(doses[between], patient[between], knots)
        return cls(**{**empty.config(), "knots": found})

    def _knots(self, doses: torch.Tensor, patient: torch.Tensor, count: int) -> tuple[float, ...]:
        """Centres of crowds of ten patients, public round numbers beyond them, and the ends."""
        logs, who = self.log(doses.double()).numpy().round(5), patient.numpy()
        crowd = crowds(logs, who, _shares(count))
        inner = [] if (crowd < 0).any() else centres(logs, who, crowd).round(5).tolist()
        ends = [math.log(self.least), math.log(self.high)]
        span = ends[1] - ends[0]
        gap = 1e-3 * span
        if len(set(inner)) < FEW_DOSES:  # hats as wide as the range would blur them
            inner += [x + side * NARROW * span for x in set(inner) for side in (-1, 1)]
        low, high = min(inner, default=ends[1]), max(inner, default=ends[1])
        decades = range(math.ceil(ends[0] / TEN), math.ceil(ends[1] / TEN))
        inner += [k * TEN for k in decades if k * TEN < low or k * TEN > high]
        knots = [ends[0]]
        knots += [x for x in sorted(set(inner)) if ends[0] + gap < x < ends[1] - gap]
        apart = [x for x, before in zip(knots[1:], knots, strict=False) if x - before > gap]
        return (knots[0], *apart, ends[1])

    @property
    def least(self) -> float:
        """The least dose that is given: less is zero."""
        return max(self.low, self.min_dose, LEAST * self.high)

    def config(self) -> dict[str, Any]:
        """Plain values; `DoseGrid(**config)` is the same grid."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> DoseGrid:
        """Back from plain values."""
        return cls(**{**config, "knots": tuple(config["knots"])})

    @property
    def components(self) -> int:
        """Number of components: zero, maximum and knots; or levels."""
        return self.levels if self.kind == "ordinal" else 2 + len(self.knots)

    @cached_property
    def part_of_component(self) -> torch.Tensor:
        """The part of each component: zero, between, maximum; of an ordinal dose, its level."""
        if self.kind == "ordinal":
            return torch.arange(self.levels)
        return torch.tensor([ZERO, MAXIMUM] + [BETWEEN] * len(self.knots))

    @property
    def part_names(self) -> tuple[str, ...]:
        """Names of the parts; of an ordinal dose, its codes."""
        return PARTS if self.kind == "continuous" else tuple(str(i) for i in range(self.levels))

    @cached_property
    def _x(self) -> torch.Tensor:
        return torch.tensor(self.knots, dtype=torch.float32)

    @cached_property
    def _sides(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Widths of each hat to the left and to the right."""
        width = self._x.diff()
        none = self._x.new_zeros(1)
        return torch.cat([none, width]), torch.cat([width, none])

    @cached_property
    def _peak(self) -> torch.Tensor:
        left, right = self._sides
        return 2 / (left + right)

    @cached_property
    def centres(self) -> torch.Tensor:
        """The scaled dose at the centre of each component."""
        if self.kind == "ordinal":
            return torch.linspace(-1, 1, self.levels)
        return torch.cat([torch.tensor([-1.0, 1.0]), self.scaled(self._x)])

    @cached_property
    def means(self) -> torch.Tensor:
        """The mean scaled dose of each component."""
        if self.kind == "ordinal":
            return self.centres
        share = (torch.arange(200, dtype=torch.float32) + 0.5) / 200
        left, right = (side[:, None] * (1 - share.sqrt()) for side in self._sides)
        weight = self._sides[0] / (self._sides[0] + self._sides[1])
        down = self.scaled(self._x[:, None] - left).mean(1)
        up = self.scaled(self._x[:, None] + right).mean(1)
        return torch.cat([torch.tensor([-1.0, 1.0]), weight * down + (1 - weight) * up])

    def _clinical(self, doses: torch.Tensor) -> torch.Tensor:
        """Clinical units, differentiable."""
        return DoseTransform(self.name, self.transform, self.low, self.high).inverse_torch(doses)

    def log(self, doses: torch.Tensor) -> torch.Tensor:
        """Log of scaled doses in clinical units."""
        return self._clinical(doses).clamp(min=1e-12).log()

    def scaled(self, logs: torch.Tensor) -> torch.Tensor:
        """From the log dose in clinical units to [-1, 1]."""

        def move(dose: torch.Tensor) -> torch.Tensor:
            match self.transform:
                case "sqrt":
                    return dose.sqrt()
                case "log1p":
                    return dose.log1p()
            return dose

        low, high = (float(move(torch.tensor(end, dtype=torch.float64))) for end in self._bounds)
        return (2 * (move(logs.exp()) - low) / (high - low) - 1).clamp(-1, 1)

    @property
    def _bounds(self) -> tuple[float, float]:
        return self.low, self.high

    def checked(self, doses: torch.Tensor) -> torch.Tensor:
        """The doses, if each is a number in [-1, 1] and, if ordinal, a level."""
        wrong = ~(doses.detach().abs() <= 1 + NEAR)
        if bool(wrong.any()):
            raise ModelError(
                f"{self.name}: {int(wrong.sum())} doses are missing or outside -1 to 1; scale "
                "them with the cohort's transforms first"
            )
        if self.kind == "ordinal":
            code = (doses.detach() + 1) / 2 * (self.levels - 1)
            between = int(((code - code.round()).abs() > 1e-3).sum())
            if between:
                raise ModelError(f"{self.name}: {between} doses are no level; levels are codes")
        return doses

    def part(self, doses: torch.Tensor) -> torch.Tensor:
        """The part of each dose: an index into `part_names`."""
        if self.kind == "ordinal":
            return ((doses + 1) / 2 * (self.levels - 1)).round().long()
        doses = doses.detach()
        zero = doses <= -1 + NEAR / 10
        zero |= self._clinical(doses) < self.least * (1 - 1e-3)
        part = torch.full(doses.shape, BETWEEN)
        part[doses >= 1 - NEAR] = MAXIMUM
        part[zero] = ZERO
        return part

    def place(self, doses: torch.Tensor) -> Place:
        """The components that carry each dose, and their heights there; differentiable."""
        part = self.part(doses)
        if self.kind == "ordinal":
            height = torch.tensor([1.0, 0.0]).expand(len(doses), 2)
            return Place(torch.stack([part, part], 1), height)
        logs = self.log(doses)
        inside = (logs > self.knots[0] - 1e-3) & (logs < self.knots[-1] + 1e-3)
        at = torch.searchsorted(self._x, logs.detach()).clamp(1, len(self.knots) - 1)
        t = ((logs - self._x[at - 1]) / self._sides[0][at]).clamp(0, 1)
        between = torch.stack([(1 - t) * self._peak[at - 1], t * self._peak[at]], 1)
        middle = (part == BETWEEN)[:, None]
        height = torch.where(middle, between * inside[:, None], torch.tensor([1.0, 0.0]))
        atom = (part == MAXIMUM).long()[:, None].expand(-1, 2)
        return Place(torch.where(middle, torch.stack([at + 1, at + 2], 1), atom), height)

    def encode(self, doses: torch.Tensor) -> torch.Tensor:
        """What a later dose sees of this one: its value, and whether it is zero or the maximum."""
        part = self.part(doses)
        if self.kind == "ordinal":
            return torch.nn.functional.one_hot(part, self.levels).to(doses.dtype)
        return torch.stack([doses, (part == ZERO).float(), (part == MAXIMUM).float()], 1)

    @property
    def encoded(self) -> int:
        """Columns of `encode`."""
        return self.levels if self.kind == "ordinal" else 3


@dataclass(frozen=True)
class OneDose:
    """The distribution of one dose in each of many rows: log weights of the grid's components.

    Densities are with respect to the log dose in clinical units between zero and the maximum, and
    to counting at zero, at the maximum and at levels.
    """

    grid: DoseGrid
    log_weights: torch.Tensor

    def log_prob(self, doses: torch.Tensor) -> torch.Tensor:
        """Log mass at zero, maximum and levels, log density between; -inf where it is never."""
        component, height = self.grid.place(self.grid.checked(doses))
        density = (self.log_weights.gather(1, component).exp() * height).sum(1)
        logs = density.clamp(min=1e-38).log()
        return torch.where(density > 0, logs, -torch.inf)

    def parts(self) -> torch.Tensor:
        """(rows, parts) probability of each part."""
        part = self.grid.part_of_component
        weights = self.log_weights.exp()
        return weights.new_zeros(len(weights), len(self.grid.part_names)).index_add(
            1, part, weights
        )

    def log_density_between(self, doses: torch.Tensor) -> torch.Tensor:
        """Log density of the log dose, given that it lies between zero and the maximum."""
        between = self.parts()[:, BETWEEN].clamp(min=1e-38).log()
        inside = self.grid.part(doses) == BETWEEN
        return torch.where(inside, self.log_prob(doses) - between, -torch.inf)

    def cdf(self, doses: torch.Tensor) -> torch.Tensor:
        """Probability of at most this dose."""
        grid = self.grid
        weights = self.log_weights.exp()
        part = grid.part(grid.checked(doses))
        if grid.kind == "ordinal":
            return weights.cumsum(1).gather(1, part[:, None])[:, 0]
        hats = weights[:, 2:]
        logs = grid.log(doses)
        at = torch.searchsorted(grid._x, logs.detach()).clamp(1, len(grid.knots) - 1)
        t = ((logs - grid._x[at - 1]) / grid._sides[0][at]).clamp(0, 1)
        left, right = grid._sides
        share = left / (left + right)
        low, high = (hats.gather(1, i[:, None])[:, 0] for i in (at - 1, at))
        below = hats.cumsum(1).gather(1, (at - 1)[:, None])[:, 0] - low
        within = below + low * (share[at - 1] + (1 - share[at - 1]) * (1 - (1 - t) ** 2))
        within = weights[:, 0] + within + high * share[at] * t**2
        zero = torch.where(part == ZERO, weights[:, 0], within)
        return torch.where(part == MAXIMUM, torch.ones_like(zero), zero)

    def sample(self, generator: torch.Generator) -> torch.Tensor:
        """A dose a row, drawn."""
        return self.at(torch.rand(len(self.log_weights), 3, generator=generator))

    def at(self, drawn: torch.Tensor) -> torch.Tensor:
        """The dose of each row that these numbers in [0, 1) stand for, (rows, 3)."""
        cumulative = self.log_weights.double().exp().cumsum(1)
        target = drawn[:, :1] * cumulative[:, -1:]
        component = torch.searchsorted(cumulative, target.contiguous(), right=True)[:, 0]
        component = component.clamp(max=self.grid.components - 1)
        if self.grid.kind == "ordinal":
            return self.grid.centres[component]
        knot = (component - 2).clamp(min=0)
        left, right = (side[knot] for side in self.grid._sides)
        off = 1 - drawn[:, 1].sqrt()
        off = torch.where(drawn[:, 2] * (left + right) < left, -left * off, right * off)
        between = self.grid.scaled(self.grid._x[knot] + off)
        return torch.where(component < 2, self.grid.centres[component], between)

    def mode(self) -> torch.Tensor:
        """The likeliest part, and in it the knot of the highest density."""
        if self.grid.kind == "ordinal":
            return self.grid.centres[self.log_weights.argmax(1)]
        part = self.parts().argmax(1)
        knot = 2 + (self.log_weights[:, 2:] + self.grid._peak.log()).argmax(1)
        atom = (part == MAXIMUM).long()
        return self.grid.centres[torch.where(part == BETWEEN, knot, atom)]

    def mean(self) -> torch.Tensor:
        """The mean of the scaled dose."""
        return self.log_weights.exp() @ self.grid.means

    def tempered(self, power: float) -> OneDose:
        """Weights to this power, normalised: above 1 sharper, below 1 flatter."""
        logs = torch.where(self.log_weights > -torch.inf, power * self.log_weights, -torch.inf)
        return OneDose(self.grid, logs.log_softmax(1))


def grids_of(
    actions: Mapping[str, Action],
    scalings: Mapping[str, DoseTransform],
    doses: torch.Tensor,
    patient: torch.Tensor,
    knots: int,
) -> tuple[DoseGrid, ...]:
    """The grid of each dose from training doses (rows, doses) in [-1, 1], and whose they are."""
    return tuple(
        DoseGrid.of(actions[name], scalings[name], doses[:, j], patient, knots)
        for j, name in enumerate(scalings)
    )


def encode_doses(grids: Sequence[DoseGrid], doses: torch.Tensor) -> torch.Tensor:
    """What a later dose sees of the doses before it in the chain."""
    seen = [grid.encode(doses[:, j]) for j, grid in enumerate(grids)]
    return torch.cat(seen, 1) if seen else doses.new_zeros(len(doses), 0)


def _shares(count: int) -> NDArray[np.float64]:
    """Where crowds end: so many even shares, the outermost ones cut finer, as tails are long."""
    tail = np.array(TAILS) / count
    even = np.arange(1, count) / count
    return np.concatenate([tail, even, 1 - tail[::-1]])
