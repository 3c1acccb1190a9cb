"""How members are trained: bootstraps of patients, a linear part, and early stopping.

Called by `fitting`. The only place where a network's weights change; losses only compute.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ogsrl.dynamics.config import DynamicsParams
from ogsrl.dynamics.network import Tensors, forward
from ogsrl.errors import ModelError

#: Of outputs (members, rows, outputs) for these rows (members, rows): a loss a member.
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
_JUDGED_ROWS = 12_000  # out of bag, per member and pass
_LEAST_STEPS = 40  # in a pass, however few the rows


@dataclass(frozen=True)
class Bootstrap:
    """How often each member drew each patient; a patient is never both in and out of bag."""

    counts: torch.Tensor  # (members, patients)

    @classmethod
    def draw(cls, members: int, patients: int, generator: torch.Generator) -> Bootstrap:
        """Draw as many patients as there are, with replacement, for each member."""
        drawn = torch.randint(patients, (members, patients), generator=generator)
        counts = torch.zeros((members, patients), dtype=torch.long)
        return cls(counts.scatter_add_(1, drawn, torch.ones_like(drawn)))

    def bags(self, patient: torch.Tensor) -> list[torch.Tensor]:
        """Per member the rows drawn, as often as their patient was."""
        rows = torch.arange(len(patient))
        return [torch.repeat_interleave(rows, count[patient]) for count in self.counts]

    def out_of_bag(self, patient: torch.Tensor) -> list[torch.Tensor]:
        """Per member the rows of the patients it did not draw."""
        return [(count[patient] == 0).nonzero().squeeze(1) for count in self.counts]

    def weights(self, patient: torch.Tensor) -> torch.Tensor:
        """How often each member (rows) has each row (columns)."""
        return self.counts[:, patient].float()


def linear_part(
    inputs: torch.Tensor,
    targets: torch.Tensor,
    known: torch.Tensor,
    weights: torch.Tensor,
    ridge: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weighted ridge regression of each column on its known rows, for every member.

    Unknown targets are filled with their prediction and solved again until that settles: all
    columns share one factorisation. Returns slopes (members, inputs + 1, columns), the last row
    the intercept, and the deviation of what is left (columns).
    """
    extended = torch.cat([inputs, torch.ones(len(inputs), 1)], dim=1)
    width = extended.shape[1]
    slopes, squares = [], []
    for weight in weights:
        weighted = extended * weight[:, None]
        moment = weighted.T @ extended
        penalty = torch.full((width,), ridge * float(weight.sum()))
        penalty[-1] = 0
        factor = torch.linalg.cholesky(
            (moment + torch.diag(penalty + 1e-6 * moment.diagonal().mean())).double()
        )
        filled = targets * known
        slope = torch.cholesky_solve((weighted.T @ filled).double(), factor).float()
        for _ in range(0 if bool(known.all()) else 8):
            filled = torch.where(known, targets, extended @ slope)
            slope = torch.cholesky_solve((weighted.T @ filled).double(), factor).float()
        slopes.append(slope)
        squares.append((targets - extended @ slope).square().double())
    left = torch.stack(squares).mean(0) * known
    return torch.stack(slopes), (left.sum(0) / known.sum(0).clip(min=1)).sqrt().float()


def train(
    weights: Tensors,
    inputs: torch.Tensor,
    patient: torch.Tensor,
    loss: Loss,
    bootstrap: Bootstrap,
    params: DynamicsParams,
    generator: torch.Generator,
    progress: Callable[[int], None] | None = None,
) -> tuple[Tensors, list[float]]:
    """Train all members at once; each keeps the weights of its best pass on its out-of-bag rows.

    Returns the weights and each member's best out-of-bag loss.
    """
    bags, judged = bootstrap.bags(patient), bootstrap.out_of_bag(patient)
    shortest = min(len(bag) for bag in bags)
    batch = min(params.batch_size, max(16, shortest // _LEAST_STEPS))
    steps = max(1, shortest // batch)
    judge = _judged(judged, generator)
    weights = {name: tensor.clone().requires_grad_() for name, tensor in weights.items()}
    matrices = [w for name, w in weights.items() if name.startswith("w")]
    offsets = [w for name, w in weights.items() if name.startswith("b")]
    groups: list[dict[str, Any]] = [
        {"params": matrices},
        {"params": offsets, "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(
        groups,
        lr=params.learning_rate,
        weight_decay=params.weight_decay,
        foreach=True,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser,
        params.learning_rate,
        total_steps=params.max_epochs * steps + 1,
        pct_start=0.1,
        cycle_momentum=False,
    )
    members = len(bags)
    best = _losses(weights, inputs, judge, loss)
    kept = {name: tensor.detach().clone() for name, tensor in weights.items()}
    waited = torch.zeros(members)
    for _ in range(params.max_epochs):
        order = torch.stack(
            [bag[torch.randperm(len(bag), generator=generator)[: steps * batch]] for bag in bags]
        )
        for start in range(0, steps * batch, batch):
            rows = order[:, start : start + batch]
            optimiser.zero_grad(set_to_none=True)
            torch.autograd.backward(loss(forward(weights, inputs[rows]), rows).sum())
            optimiser.step()
            schedule.step()
        now = _losses(weights, inputs, judge, loss)
        if not bool(torch.isfinite(now).all()):
            raise ModelError(
                "dynamics: the loss is no longer a number; lower dynamics.learning_rate"
            )
        better = now < best
        best = torch.where(better, now, best)
        for name, tensor in weights.items():
            kept[name][better] = tensor.detach()[better]
        waited = torch.where(better, torch.zeros(members), waited + 1)
        if progress is not None:
            progress(1)
        if bool((waited >= params.patience).all()):
            break
    return kept, best.tolist()


def _judged(rows: list[torch.Tensor], generator: torch.Generator) -> torch.Tensor:
    """As many out-of-bag rows for every member, drawn at random."""
    count = min([_JUDGED_ROWS, *(len(own) for own in rows)])
    chosen = [own[torch.randperm(len(own), generator=generator)[:count]] for own in rows]
    return torch.stack(chosen)


@torch.no_grad()
def _losses(weights: Tensors, inputs: torch.Tensor, rows: torch.Tensor, loss: Loss) -> torch.Tensor:
    parts = torch.split(rows, 4096, dim=1)
    values = [loss(forward(weights, inputs[part]), part) * part.shape[1] for part in parts]
    total: torch.Tensor = torch.stack(values).sum(0) / rows.shape[1]
    return total
