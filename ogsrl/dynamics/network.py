"""Members of an ensemble as one network: every weight has a leading axis of members.

Called by training and by the ensemble. A member's output is the same alone as among the others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch.nn import functional

Tensors = dict[str, torch.Tensor]


def new_network(
    members: int,
    inputs: int,
    hidden: int,
    outputs: int,
    generator: torch.Generator,
    *,
    skip: bool,
) -> Tensors:
    """Two hidden layers of random weights; the last layer (and the skip) are 0."""

    def random(rows: int, columns: int) -> torch.Tensor:
        bound = 1 / math.sqrt(rows)
        drawn = torch.rand((members, rows, columns), generator=generator)
        return (2 * drawn - 1) * bound

    weights = {
        "w1": random(inputs, hidden),
        "b1": torch.zeros(members, 1, hidden),
        "w2": random(hidden, hidden),
        "b2": torch.zeros(members, 1, hidden),
        "w3": torch.zeros(members, hidden, outputs),
        "b3": torch.zeros(members, 1, outputs),
    }
    if skip:
        weights["w0"] = torch.zeros(members, inputs, outputs)
    return weights


def forward(weights: Mapping[str, torch.Tensor], inputs: torch.Tensor) -> torch.Tensor:
    """Outputs (members, rows, outputs) of inputs (members, rows, inputs), or (rows, inputs)."""
    if inputs.dim() == 2:
        inputs = inputs.expand(len(weights["w1"]), -1, -1)
    hidden = functional.silu(torch.baddbmm(weights["b1"], inputs, weights["w1"]))
    hidden = hidden + functional.silu(torch.baddbmm(weights["b2"], hidden, weights["w2"]))
    outputs = torch.baddbmm(weights["b3"], hidden, weights["w3"])
    return outputs + torch.bmm(inputs, weights["w0"]) if "w0" in weights else outputs


def take(weights: Mapping[str, torch.Tensor], members: torch.Tensor | list[int]) -> Tensors:
    """Some of the members."""
    return {name: values[members] for name, values in weights.items()}
