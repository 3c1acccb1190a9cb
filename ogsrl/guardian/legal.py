"""What was ever seen of columns that hold levels or one value only, checked exactly.

Called by christoffel.py. A level never seen and a dose never given are no matter of degree: they
are refused whatever the score, and the distance says which way leads back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

#: Differences that float32 scaling alone can make.
SAME = 1e-4


@dataclass(frozen=True)
class Legal:
    """Columns as they may be, and as the polynomial and the cells see them.

    Attributes:
        kinds: Of each column read.
        seen: Values seen, of each column that holds levels or one value only; else empty.
        states: How many of the columns are states.

    >>> seen = torch.zeros(0), torch.tensor([0.0, 2.0, 3.0])
    >>> legal = Legal(("numeric", "categorical"), seen, 2)
    >>> legal.distance(torch.tensor([[9.0, 2.0], [9.0, 1.0]])).tolist()
    [0.0, 1.0]
    >>> legal.expand(torch.tensor([[9.0, 2.0], [8.0, 3.0], [7.0, 0.0]])).tolist()
    [[9.0, 1.0, 0.0], [8.0, 0.0, 1.0], [7.0, 0.0, 0.0]]
    """

    kinds: tuple[str, ...]
    seen: tuple[torch.Tensor, ...]
    states: int

    @cached_property
    def _checked(self) -> list[tuple[int, torch.Tensor]]:
        return [(i, values) for i, values in enumerate(self.seen) if len(values)]

    def distance(self, z: torch.Tensor) -> torch.Tensor:
        """How far each row is from the nearest values seen; 0 where all were seen."""
        far = torch.zeros_like(z[:, 0])
        for i, values in self._checked:
            gap = (z[:, i : i + 1] - values.to(z.dtype)).abs().amin(dim=1)
            far = far + torch.where(gap > SAME, gap, torch.zeros_like(gap))
        return far

    @cached_property
    def _parts(self) -> tuple[tuple[int, float | None], ...]:
        """What each expanded column is: a column itself, or whether it holds a level."""
        parts: list[tuple[int, float | None]] = []
        for i, (kind, values) in enumerate(zip(self.kinds, self.seen, strict=True)):
            if len(values) == 1:
                continue
            if kind == "categorical":
                parts += [(i, level) for level in values.tolist()[1:]]
            else:
                parts.append((i, None))
        return tuple(parts)

    @cached_property
    def _plain(self) -> bool:
        return all(level is None for _, level in self._parts)

    def expand(self, z: torch.Tensor) -> torch.Tensor:
        """Columns that vary, with one column a further level in place of codes."""
        if self._plain:
            kept = [i for i, _ in self._parts]
            return z if len(kept) == z.shape[1] else z[:, kept]
        columns = [
            z[:, i] if level is None else ((z[:, i] - level).abs() <= SAME).to(z.dtype)
            for i, level in self._parts
        ]
        return torch.stack(columns, dim=1)

    @property
    def expanded_states(self) -> int:
        """How many of the expanded columns are states."""
        return sum(i < self.states for i, _ in self._parts)

    @property
    def groups(self) -> tuple[frozenset[int], ...]:
        """Expanded columns of one column of levels: at most one of them is not 0."""
        place: dict[int, list[int]] = {}
        for position, (i, _) in enumerate(self._parts):
            if self.kinds[i] in ("binary", "categorical"):
                place.setdefault(i, []).append(position)
        return tuple(frozenset(group) for group in place.values())

    def scales(self, deviation: Sequence[float]) -> torch.Tensor:
        """What divides each expanded column: its deviation, or 1 for a level's."""
        return torch.tensor(
            [deviation[i] if level is None else 1.0 for i, level in self._parts],
            dtype=torch.float64,
        )

    def centers(self, mean: Sequence[float]) -> torch.Tensor:
        """What is taken from each expanded column."""
        return torch.tensor(
            [mean[i] if level is None else 0.0 for i, level in self._parts], dtype=torch.float64
        )
