"""Rows a block at a time, so that memory does not grow with a query; several blocks at once.

Called by everything that asks a model about many rows. It never changes an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Part = TypeVar("Part")
Answer = TypeVar("Answer")

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


def side_by_side(ask: Callable[[Part], Answer], parts: Iterable[Part]) -> list[Answer]:
    """The answer to each part, in order; as many at once as torch has threads.

    A thread a part is faster than all threads on one after the other, where parts are many and
    small. What is asked must draw nothing, nor change what the others see.

    >>> side_by_side(lambda part: float(part.sum()), torch.ones(5).split(2))
    [2.0, 2.0, 1.0]
    """
    parts, threads, learning = list(parts), torch.get_num_threads(), torch.is_grad_enabled()
    if threads == 1 or len(parts) < 2:
        return [ask(part) for part in parts]

    def one(part: Part) -> Answer:
        with torch.set_grad_enabled(learning):  # a thread's own
            return ask(part)

    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(min(threads, len(parts))) as pool:
            return list(pool.map(one, parts))
    finally:
        torch.set_num_threads(threads)
