"""Codes as networks take and give them: categorical states, and all combinations of ordinal doses.

Called by actors, by training and by the peers. An unknown code is no code, never the nearest one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from ogsrl.errors import ModelError
from ogsrl.preparation.history import History

#: More combinations of ordinal doses than this are not a grid that a network can answer for.
MOST_LEVELS = 1_024
#: How far a dose may lie from its level, in levels.
NEAR = 1e-3


@dataclass(frozen=True)
class StateCodes:
    """Where a state holds codes: they are no numbers to a network, so it sees a column a level.

    A cohort without codes has states that go in as they are.

    Attributes:
        columns: Number of columns of a state.
        levels: Number of levels of each column of codes, by its place.
    """

    columns: int
    levels: dict[int, int]

    @classmethod
    def of(cls, history: History) -> StateCodes:
        """The codes of this layout, now and at earlier steps."""
        columns = history.preparation.cohort.states
        levels = {
            i: len(columns[column.of].levels)
            for i, column in enumerate(history.columns)
            if column.role in ("current", "lag") and columns[column.of].kind == "categorical"
        }
        return cls(len(history.columns), levels)

    @cached_property
    def width(self) -> int:
        """Number of inputs of a network."""
        return self.columns - len(self.levels) + sum(self.levels.values())

    @cached_property
    def _plain(self) -> list[int]:
        return [i for i in range(self.columns) if i not in self.levels]

    def numbers(self, states: torch.Tensor) -> torch.Tensor:
        """(rows, columns) without codes: the first columns of `inputs`."""
        return states[:, self._plain] if self.levels else states

    def codes(self, states: torch.Tensor) -> torch.Tensor | None:
        """(rows, codes) the place of each code's column after the numbers in `inputs`; -1: unknown.

        None where the cohort has none.

        >>> StateCodes(2, {0: 3}).codes(torch.tensor([[2.0, 0.5], [7.0, 0.5]]))
        tensor([[ 2],
                [-1]])
        """
        if not self.levels:
            return None
        begun, found = 0, []
        for place, levels in self.levels.items():
            code = states[:, place].nan_to_num(-1.0)
            known = (code == code.round()) & (code >= 0) & (code < levels)
            found.append(torch.where(known, code + begun, -1.0).long())
            begun += levels
        return torch.stack(found, 1)

    def inputs(self, states: torch.Tensor) -> torch.Tensor:
        """(rows, width): numbers, then one column a level; an unknown code has none of them.

        >>> StateCodes(2, {0: 3}).inputs(torch.tensor([[2.0, 0.5], [7.0, 0.5]]))
        tensor([[0.5000, 0.0000, 0.0000, 1.0000],
                [0.5000, 0.0000, 0.0000, 0.0000]])
        """
        if not self.levels:
            return states
        parts = [self.numbers(states)]
        for place, levels in self.levels.items():
            known = torch.arange(levels, dtype=states.dtype, device=states.device)
            parts.append((states[:, place, None] == known).to(states.dtype))
        return torch.cat(parts, 1)


@dataclass(frozen=True)
class DoseLevels:
    """Every combination of the levels of ordinal doses, as one code.

    The last dose's level runs fastest: code = level_1 x L_2 x ... + ... + level_m.

    Attributes:
        names: The doses.
        levels: (codes, doses) in [-1, 1], as prepared doses are.
        counts: Number of levels of each dose.
    """

    names: tuple[str, ...]
    levels: torch.Tensor
    counts: tuple[int, ...]

    @classmethod
    def of(cls, history: History) -> DoseLevels:
        """As the cohort file says."""
        preparation = history.preparation
        actions = preparation.cohort.actions
        others = [name for name, action in actions.items() if action.kind != "ordinal"]
        if others:
            raise ModelError(
                f"{', '.join(others)}: a continuous dose; only a cohort whose doses are all "
                "ordinal has levels to choose from"
            )
        counts = tuple(len(action.levels) for action in actions.values())
        if math.prod(counts) > MOST_LEVELS:
            raise ModelError(
                f"{', '.join(actions)}: {math.prod(counts)} combinations of levels, at most "
                f"{MOST_LEVELS} can be chosen from; join levels, or make a dose continuous"
            )
        each = [
            torch.as_tensor(scale.forward(np.arange(count, dtype=np.float64)))
            for scale, count in zip(preparation.doses.values(), counts, strict=True)
        ]
        grid = torch.meshgrid(*each, indexing="ij")
        return cls(tuple(actions), torch.stack([axis.flatten() for axis in grid], 1), counts)

    def __len__(self) -> int:
        return len(self.levels)

    def codes(self, doses: torch.Tensor) -> torch.Tensor:
        """(rows,) the code of each row of scaled doses."""
        code = torch.zeros(len(doses), dtype=torch.int64)
        for j, (name, count) in enumerate(zip(self.names, self.counts, strict=True)):
            place = (doses[:, j].double() + 1) / 2 * (count - 1)
            level = place.round()
            known = ((place - level).abs() <= NEAR) & (level >= 0) & (level < count)
            if not bool(known.all()):
                raise ModelError(
                    f"{name}: {int((~known).sum())} doses are no level; scale codes with the "
                    "cohort's transforms first"
                )
            code = code * count + level.long()
        return code
