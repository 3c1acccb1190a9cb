"""Boosted trees as plain arrays: scikit-learn fits them, torch asks them, nothing is pickled.

Called by boosted.py. Equal to scikit-learn's own predictions to the last rounding of a sum.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

Boosted: TypeAlias = HistGradientBoostingClassifier | HistGradientBoostingRegressor


@dataclass(frozen=True)
class Trees:
    """Trees of one depth, each a heap: node i has children 2i+1 (x <= threshold) and 2i+2.

    Attributes:
        feature: (trees, 2^depth - 1) column that each node looks at.
        threshold: The same shape; infinite below a leaf, so that its left end is reached, and
            where a split of too few patients was taken out.
        value: (trees, 2^depth) what each end adds, in double precision.
        output: (trees,) the output that a tree adds to.
        base: (outputs,) what each output starts from.
    """

    feature: torch.Tensor
    threshold: torch.Tensor
    value: torch.Tensor
    output: torch.Tensor
    base: torch.Tensor

    @property
    def depth(self) -> int:
        """Splits from the root to an end."""
        return self.value.shape[1].bit_length() - 1

    @classmethod
    def of(cls, fitted: Boosted, depth: int) -> Trees:
        """The trees of a fitted scikit-learn model; `depth` is its max_depth."""
        base = np.asarray(fitted._baseline_prediction, np.float64).reshape(-1)
        trees = [(k, tree.nodes) for each in fitted._predictors for k, tree in enumerate(each)]
        inner = (len(trees), 2**depth - 1)
        feature, threshold = np.zeros(inner, np.int64), np.full(inner, np.inf, np.float32)
        value = np.zeros((len(trees), 2**depth))
        for i, (_, nodes) in enumerate(trees):
            _lay_out(nodes, feature[i], threshold[i], value[i])
        return cls(
            torch.from_numpy(feature),
            torch.from_numpy(threshold),
            torch.from_numpy(value),
            torch.tensor([k for k, _ in trees]),
            torch.from_numpy(base.copy()),
        )

    @classmethod
    def constant(cls, values: list[float], depth: int) -> Trees:
        """No trees: the same outputs whatever the row."""
        return cls(
            torch.zeros(0, 2**depth - 1, dtype=torch.long),
            torch.zeros(0, 2**depth - 1),
            torch.zeros(0, 2**depth, dtype=torch.float64),
            torch.zeros(0, dtype=torch.long),
            torch.tensor(values, dtype=torch.float64),
        )

    def predict(self, rows: torch.Tensor) -> torch.Tensor:
        """(rows, outputs): the base and what each tree adds."""
        total = self.base.expand(len(rows), -1)
        trees, ends = self.value.shape
        if not trees:
            return total
        added = self.value.reshape(-1)[self.ends(rows) + torch.arange(trees) * ends]
        if len(self.base) == 1:
            return total + added.sum(1, keepdim=True)
        return total.clone().index_add(1, self.output, added)

    def ends(self, rows: torch.Tensor) -> torch.Tensor:
        """(rows, trees): the end of each tree that each row comes to."""
        trees, inner = self.feature.shape
        first = torch.arange(trees) * inner
        feature, threshold = self.feature.reshape(-1), self.threshold.reshape(-1)
        node = torch.zeros(len(rows), trees, dtype=torch.long)
        for _ in range(self.depth):
            at = node + first
            right = rows.gather(1, feature[at]) > threshold[at]
            node = 2 * node + 1 + right
        return node - inner

    def arrays(self, prefix: str) -> dict[str, npt.NDArray[Any]]:
        """What is saved."""
        kinds: dict[str, Any] = {"feature": np.int32, "output": np.int32}
        names = ("feature", "threshold", "value", "output", "base")
        found = {name: getattr(self, name).numpy() for name in names}
        return {f"{prefix}.{n}": a.astype(kinds.get(n, a.dtype)) for n, a in found.items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any], prefix: str) -> Trees:
        """Back from `arrays`."""
        made = {n: torch.tensor(arrays[f"{prefix}.{n}"]) for n in cls.__dataclass_fields__}
        return cls(**{n: t.long() if n in ("feature", "output") else t for n, t in made.items()})


def _lay_out(
    nodes: npt.NDArray[Any],
    feature: npt.NDArray[np.int64],
    threshold: npt.NDArray[np.float32],
    value: npt.NDArray[np.float64],
) -> None:
    """Copy one of scikit-learn's trees into a heap."""
    inner = len(feature)
    below = np.nextafter(nodes["num_threshold"].astype(np.float32), np.float32(-np.inf))
    single = nodes["num_threshold"].astype(np.float32)
    # the largest single-precision number at or below: x <= threshold means the same for both
    single = np.where(single > nodes["num_threshold"], below, single)
    waiting = [(0, 0)]
    while waiting:
        node, place = waiting.pop()
        if nodes["is_leaf"][node]:
            while place < inner:
                place = 2 * place + 1
            value[place - inner] = nodes["value"][node]
            continue
        feature[place], threshold[place] = nodes["feature_idx"][node], single[node]
        waiting.append((int(nodes["left"][node]), 2 * place + 1))
        waiting.append((int(nodes["right"][node]), 2 * place + 2))
