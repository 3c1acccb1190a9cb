"""Codes of categorical states and ordinal doses, as tensors hold them.

Called by `layout` and `counts`. An unknown code is an error here, never the nearest one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ogsrl.errors import ModelError

_OFF = 1e-2  # what scaling to [-1, 1] and back may leave


def check_codes(values: torch.Tensor, names: Sequence[str], levels: Sequence[int]) -> None:
    """Raise unless each column (rows, columns) holds whole codes below its number of levels.

    >>> check_codes(torch.tensor([[0.0], [2.0]]), ["ward"], [3])
    """
    highest = torch.tensor(levels, dtype=values.dtype) - 1
    unknown = (values - values.round().clip(min=0).minimum(highest)).abs() > _OFF
    if not bool(unknown.any()):
        return
    told = [
        f"{name}: {count} values that are no code from 0 to {level - 1}"
        for name, level, count in zip(names, levels, unknown.sum(0).tolist(), strict=True)
        if count
    ]
    raise ModelError(
        f"{'; '.join(told)}; the dynamics know only the levels in the cohort file: prepare the "
        "rows first, and scale doses as the preparation does"
    )
