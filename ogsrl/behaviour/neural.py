"""The neural kind: a network from the state, and earlier doses, to the weights of each dose.

Called by fitting. It stops by held-out training patients, never by calibration or validation ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from ogsrl.behaviour.config import NeuralParams
from ogsrl.behaviour.decisions import Decisions, Inputs
from ogsrl.behaviour.doses import DoseGrid, Place, encode_doses

BLOCK = 16_384
#: Small cohorts get smaller batches, so that a pass still has this many gradient steps.
LEAST_BATCHES, SMALLEST_BATCH = 40, 32
Progress = Callable[[int], None]


class NeuralBehaviour(nn.Module):
    r"""b(a|s) = prod_j b_j(a_j | s, a_1 .. a_{j-1}), weights w_j = softmax(head_j(trunk(s), e)).

    e are the earlier doses as `DoseGrid.encode` shows them. Loss, over decisions i:

        L = -mean_i sum_j log sum_k w_jk(s_i, e_ij) h_jk(a_ij)

    with h the heights of the grid's components at the dose given. A component of a part that
    training clinicians never used has no weight.
    """

    def __init__(
        self,
        inputs: Inputs,
        grids: Sequence[DoseGrid],
        log_marginal: Sequence[torch.Tensor],
        params: NeuralParams,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.inputs, self.grids = inputs, tuple(grids)
        width = params.hidden
        self.first = _Linear(len(inputs.numeric), width, generator)
        self.tables = nn.ParameterDict(
            {
                str(place): nn.Parameter(_drawn((levels, width), width, generator))
                for place, levels in inputs.categorical.items()
            }
        )
        self.second = _Linear(width, width, generator)
        self.heads, self.ends = nn.ModuleList(), nn.ModuleList()
        seen = 0
        for grid, marginal in zip(self.grids, log_marginal, strict=True):
            self.heads.append(_Linear(width + seen, params.head, generator))
            end = _Linear(params.head, grid.components, generator)
            end.weight.data.mul_(0.1)
            end.bias.data.copy_(marginal.clamp(min=-30))
            self.ends.append(end)
            seen += grid.encoded
        never = [torch.where(m > -torch.inf, 0.0, -torch.inf) for m in log_marginal]
        self.never = never

    def context(self, states: torch.Tensor) -> torch.Tensor:
        """What the heads see of each state."""
        hidden: torch.Tensor = self.first(self.inputs.scaled(states))
        for place, code in self.inputs.codes(states).items():
            hidden = hidden + nn.functional.embedding(code, self.tables[str(place)])
        hidden = nn.functional.silu(hidden)
        return nn.functional.silu(self.second(hidden))

    def log_weights(self, j: int, context: torch.Tensor, earlier: torch.Tensor) -> torch.Tensor:
        """Log weights of the components of dose j, given the doses before it."""
        seen = torch.cat([context, encode_doses(self.grids[:j], earlier)], 1)
        hidden = nn.functional.silu(self.heads[j](seen))
        logits: torch.Tensor = self.ends[j](hidden) + self.never[j]
        return logits.log_softmax(1)

    def loss(self, states: torch.Tensor, doses: torch.Tensor, places: list[Place]) -> torch.Tensor:
        """L of the class docstring over these decisions."""
        context = self.context(states)
        total = states.new_zeros(())
        for j, place in enumerate(places):
            weights = self.log_weights(j, context, doses[:, :j]).gather(1, place.component)
            density = (weights.exp() * place.height).sum(1)
            total = total - density.clamp(min=1e-30).log().mean()
        return total

    def arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        """All weights, and which components are never used."""
        found = {f"net.{name}": p.detach().numpy() for name, p in self.named_parameters()}
        return found | {f"never.{j}": never.numpy() for j, never in enumerate(self.never)}

    @classmethod
    def from_arrays(
        cls,
        inputs: Inputs,
        grids: Sequence[DoseGrid],
        params: NeuralParams,
        arrays: Mapping[str, Any],
    ) -> NeuralBehaviour:
        """Back from `arrays`."""
        never = [torch.tensor(arrays[f"never.{j}"]) for j in range(len(grids))]
        made = cls(inputs, grids, never, params, torch.Generator())
        made.load_state_dict({n: torch.tensor(arrays[f"net.{n}"]) for n in made.state_dict()})
        made.requires_grad_(requires_grad=False)
        return made


def fit_neural(
    train: Decisions,
    inputs: Inputs,
    grids: Sequence[DoseGrid],
    log_marginal: Sequence[torch.Tensor],
    params: NeuralParams,
    generator: torch.Generator,
    progress: Progress = lambda _: None,
) -> NeuralBehaviour:
    """Fit on training decisions; keeps the weights that held-out training patients like best."""
    held, used = train.split(params.held_out, generator)
    net = NeuralBehaviour(inputs, grids, log_marginal, params, generator)
    places = [grid.place(used.doses[:, j]) for j, grid in enumerate(grids)]
    decayed = [p for p in net.parameters() if p.ndim > 1]
    plain = [p for p in net.parameters() if p.ndim < 2]
    groups = [
        {"params": decayed, "weight_decay": params.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, lr=params.learning_rate, foreach=True)
    size = min(params.batch_size, max(SMALLEST_BATCH, len(used) // LEAST_BATCHES))
    batches = max(1, len(used) // size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, params.learning_rate, total_steps=batches * params.max_epochs, pct_start=0.15
    )
    best, kept, waited = _held_loss(net, held), _copy(net), 0
    for _ in range(params.max_epochs):
        order = torch.randperm(len(used), generator=generator)
        for batch in order.tensor_split(batches):
            rows = [Place(p.component[batch], p.height[batch]) for p in places]
            loss = net.loss(used.states[batch], used.doses[batch], rows)
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(net.parameters(), 5.0)
            optimiser.step()
            schedule.step()
        progress(1)
        now = _held_loss(net, held)
        if now < best:
            best, kept, waited = now, _copy(net), 0
        elif (waited := waited + 1) >= params.patience:
            break
    net.load_state_dict(kept)
    net.requires_grad_(requires_grad=False)
    return net


@torch.no_grad()
def _held_loss(net: NeuralBehaviour, held: Decisions) -> float:
    total = 0.0
    for rows in torch.split(torch.arange(len(held)), BLOCK):
        part = held.where(rows)
        places = [grid.place(part.doses[:, j]) for j, grid in enumerate(net.grids)]
        total += float(net.loss(part.states, part.doses, places)) * len(rows)
    return total / len(held)


def _copy(net: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in net.state_dict().items()}


def _drawn(shape: tuple[int, int], fan: int, generator: torch.Generator) -> torch.Tensor:
    return torch.randn(shape, generator=generator) / math.sqrt(max(fan, 1))


class _Linear(nn.Module):
    """A linear layer drawn from a given generator; torch's own draws from the global one."""

    def __init__(self, inward: int, outward: int, generator: torch.Generator) -> None:
        super().__init__()
        self.weight = nn.Parameter(_drawn((outward, inward), inward, generator))
        self.bias = nn.Parameter(torch.zeros(outward))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        moved: torch.Tensor = nn.functional.linear(rows, self.weight, self.bias)
        return moved
