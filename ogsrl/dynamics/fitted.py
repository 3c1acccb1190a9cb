"""Everything that is fitted of an ensemble, as named tensors, and what its members say.

Made by fitting and by load; read by the ensemble. It computes next to nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch

from ogsrl.dynamics.chart import Chart
from ogsrl.dynamics.network import Tensors


@dataclass(frozen=True)
class Heads:
    """The next row as members see it: (members, rows, columns of the layout)."""

    mean: torch.Tensor
    sd: torch.Tensor
    codes: dict[str, torch.Tensor]
    gaps: torch.Tensor
    ends: torch.Tensor

    @property
    def deviation(self) -> torch.Tensor:
        """(rows, columns): of the members' noise and of their means around the mean of all."""
        apart = (self.mean - self.mean.mean(0)).square().mean(0)
        return (self.sd.square().mean(0) + apart).sqrt()

    @classmethod
    def joined(cls, parts: Sequence[Heads]) -> Heads:
        """One after the other along the rows."""
        if len(parts) == 1:
            return parts[0]
        return cls(
            mean=torch.cat([p.mean for p in parts], 1),
            sd=torch.cat([p.sd for p in parts], 1),
            codes={n: torch.cat([p.codes[n] for p in parts], 1) for n in parts[0].codes},
            gaps=torch.cat([p.gaps for p in parts], 1),
            ends=torch.cat([p.ends for p in parts], 1),
        )

    def own(self, member: torch.Tensor) -> Heads:
        """The heads of one member a row, with a leading axis of one."""
        row = torch.arange(len(member))

        def pick(values: torch.Tensor) -> torch.Tensor:
            return values[member, row][None]

        codes = {name: pick(chances) for name, chances in self.codes.items()}
        return Heads(pick(self.mean), pick(self.sd), codes, pick(self.gaps), pick(self.ends))


@dataclass(frozen=True)
class Fitted:
    """Everything fitted, as tensors.

    Attributes:
        values: Weights of the network of next values.
        ends: Weights of the network of ends.
        slopes: The linear part (members, inputs + 1, numeric).
        left: Deviation of what the linear part leaves, per numeric column.
        moving: Whether a numeric column ever changed; others keep their value.
        noise: Factor of each column's deviation, from calibration.
        correlation: Lower factor of the correlation of the columns' noise.
        gap_calibration: Slope and offset of each gap's logit.
        end_calibration: Slope and offset of each end's logit.
        unsafe_calibration: Slope and offset of each constraint's logit.
        seen_ends: Whether each of ENDS was seen in training; others have chance 0.
        gap_group: Columns charted together share a group.
        chart: How values are charted.
    """

    values: Tensors
    ends: Tensors
    slopes: torch.Tensor
    left: torch.Tensor
    moving: torch.Tensor
    noise: torch.Tensor
    correlation: torch.Tensor
    gap_calibration: torch.Tensor
    end_calibration: torch.Tensor
    unsafe_calibration: torch.Tensor
    seen_ends: torch.Tensor
    gap_group: torch.Tensor
    chart: Chart

    def arrays(self) -> dict[str, Any]:
        """All tensors as arrays with flat names."""
        flat: dict[str, torch.Tensor] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, torch.Tensor):
                flat[field.name] = value
            else:
                parts = value.arrays() if isinstance(value, Chart) else value
                flat |= {f"{field.name}.{name}": part for name, part in parts.items()}
        return {name: tensor.detach().numpy() for name, tensor in flat.items()}

    @classmethod
    def of(cls, arrays: Mapping[str, Any]) -> Fitted:
        """The way back."""
        nested: dict[str, Any] = {}
        for name, array in arrays.items():
            whole, _, part = name.partition(".")
            tensor = torch.from_numpy(array.copy())
            if part:
                nested.setdefault(whole, {})[part] = tensor
            else:
                nested[whole] = tensor
        nested["chart"] = Chart(**nested["chart"])
        return cls(**nested)
