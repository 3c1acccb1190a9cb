"""Multipliers of constraints: what breaking a limit costs, raised and lowered by a PI rule.

Called by training alone. Starts where it is told, never below 0, and never winds up.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass
class Multipliers:
    r"""mu_j for V_j <= d_j.

        e_j = clip((V_j - d_j) / d_j, -1, 2),  I_j <- clip(I_j + k_i e_j, 0, most),
        mu_j = max(0, I_j + k_p e_j)

    The integral stays in [0, most], so that a limit long met (or long broken) is not remembered
    for longer than it took: anti-windup.

    Attributes:
        limits: d_j.
        integral: I_j.
        proportional: k_p.
        rate: k_i.
        updates: How often it was updated.
        positive: How often each was then above 0.

    >>> m = Multipliers.at(torch.tensor([0.1]), 0.0, proportional=0.0, rate=0.5)
    >>> [round(float(m.update(torch.tensor([v]))), 2) for v in (0.2, 0.2, 0.05, 0.05, 0.0, 0.0)]
    [0.5, 1.0, 0.75, 0.5, 0.0, 0.0]
    """

    limits: torch.Tensor
    integral: torch.Tensor
    proportional: float
    rate: float
    values: torch.Tensor
    positive: torch.Tensor
    updates: int = 0
    most: float = 50.0

    @classmethod
    def at(
        cls, limits: torch.Tensor, start: float, *, proportional: float, rate: float
    ) -> Multipliers:
        """All at `start`."""
        values = torch.full_like(limits, start)
        return cls(limits, values.clone(), proportional, rate, values, torch.zeros_like(limits))

    def update(self, estimates: torch.Tensor) -> torch.Tensor:
        """The multipliers after V_j was estimated anew."""
        error = ((estimates - self.limits) / self.limits.clip(min=1e-9)).clip(-1, 2)
        self.integral = (self.integral + self.rate * error).clip(0, self.most)
        self.values = (self.integral + self.proportional * error).clip(min=0)
        self.positive = self.positive + (self.values > 0)
        self.updates += 1
        return self.values

    @property
    def active(self) -> torch.Tensor:
        """Share of updates after which each was positive."""
        return self.positive / max(self.updates, 1)

    def tensors(self) -> dict[str, torch.Tensor]:
        """What a checkpoint must hold."""
        count = torch.tensor(float(self.updates))
        return {
            "integral": self.integral,
            "values": self.values,
            "positive": self.positive,
            "updates": count,
        }

    def restore(self, tensors: dict[str, torch.Tensor]) -> None:
        """Take them back."""
        self.integral, self.values = tensors["integral"], tensors["values"]
        self.positive, self.updates = tensors["positive"], int(tensors["updates"])


@dataclass
class ExactMultipliers:
    """Multipliers where V_j is known without noise: steps by the sign of what is broken alone.

    A step grows while its limit stays broken (or met) and halves when that turns, so that each
    comes down on where its limit begins to bind, however small an excess is there.

    Attributes:
        limits: d_j.
        values: mu_j.
        steps: How far each moves next.
        turned: The sign of its last move.
        positive: How often each was above 0 after an update.
        updates: How often it was updated.

    >>> m = ExactMultipliers.at(torch.tensor([0.1]), 0.0, 1.0)
    >>> [round(float(m.update(torch.tensor([v]))), 2) for v in (0.2, 0.2, 0.05, 0.05)]
    [1.0, 2.5, 1.75, 0.62]
    """

    limits: torch.Tensor
    values: torch.Tensor
    steps: torch.Tensor
    turned: torch.Tensor
    positive: torch.Tensor
    updates: int = 0
    most: float = 1e6

    @classmethod
    def at(cls, limits: torch.Tensor, start: float, step: float) -> ExactMultipliers:
        """All at `start`."""
        none = torch.zeros_like(limits)
        return cls(
            limits, torch.full_like(limits, start), torch.full_like(limits, step), none, none
        )

    def update(self, values: torch.Tensor) -> torch.Tensor:
        """The multipliers after V_j was found anew."""
        sign = torch.where(values > self.limits, 1.0, -1.0)
        factor = torch.where(self.turned == 0, 1.0, torch.where(sign == self.turned, 1.5, 0.5))
        self.steps = self.steps * factor
        # at 0 a met limit changes nothing: it stays ready to bind
        resting = (sign < 0) & (self.values <= 0)
        self.turned = torch.where(resting, 0.0, sign)
        self.values = (self.values + sign * self.steps).clip(0, self.most)
        self.positive = self.positive + (self.values > 0)
        self.updates += 1
        return self.values

    @property
    def active(self) -> torch.Tensor:
        """Share of updates after which each was positive."""
        return self.positive / max(self.updates, 1)

    def tensors(self) -> dict[str, torch.Tensor]:
        """What a checkpoint must hold."""
        names = ("values", "steps", "turned", "positive")
        return {n: getattr(self, n) for n in names} | {"updates": torch.tensor(self.updates)}

    def restore(self, tensors: dict[str, torch.Tensor]) -> None:
        """Take them back."""
        for name in ("values", "steps", "turned", "positive"):
            setattr(self, name, tensors[name].clone())
        self.updates = int(tensors["updates"])
