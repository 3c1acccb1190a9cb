"""Rows a block at a time, so that memory does not grow with a query.

Called by every module here that scores many rows. It never changes an answer.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

#: Rows at once: bounds the memory of a query.
BLOCK = 4096
#: Rows whose monomials, or distances to all cells, stay in a processor's cache.
CACHED = 512


def blocks(*tensors: torch.Tensor, size: int = BLOCK) -> Iterator[tuple[torch.Tensor, ...]]:
    """The same rows of each tensor; one empty block where there are none.

    >>> [len(part) for (part,) in blocks(torch.zeros(5), size=2)]
    [2, 2, 1]
    """
    for start in range(0, max(len(tensors[0]), 1), size):
        yield tuple(tensor[start : start + size] for tensor in tensors)
