"""What the networks' outputs mean, and the losses that they are trained on.

Called by fitting and by the ensemble. Losses compute and return; nothing here steps or draws.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional

from ogsrl.dynamics.layout import Layout
from ogsrl.dynamics.outcomes import ENDS, Outcomes

_LARGEST_LOG_SD = 3.0  # around the deviation that the linear part leaves


@dataclass(frozen=True)
class ValueHeads:
    """The next row as members see it; leading axes are members and rows.

    Attributes:
        shift: Mean of each numeric column beyond the linear part, in deviations of what it leaves.
        log_sd: Log deviation, in the same unit.
        codes: Logits: one of a binary column, one a level of a categorical one.
        gaps: Logits of not being charted.
    """

    shift: torch.Tensor
    log_sd: torch.Tensor
    codes: torch.Tensor
    gaps: torch.Tensor

    @staticmethod
    def sizes(layout: Layout) -> tuple[int, int, int, int]:
        """How many outputs each head has."""
        codes = len(layout.binary) + sum(layout.categorical.values())
        return len(layout.numeric), len(layout.numeric), codes, len(layout.gaps)

    @classmethod
    def of(cls, layout: Layout, outputs: torch.Tensor) -> ValueHeads:
        """Name the outputs of the network of values."""
        shift, log_sd, codes, gaps = torch.split(outputs, list(cls.sizes(layout)), dim=-1)
        bounded = _LARGEST_LOG_SD * torch.tanh(log_sd / _LARGEST_LOG_SD)
        return cls(shift, bounded, codes, gaps)


def split_codes(layout: Layout, logits: torch.Tensor) -> dict[str, torch.Tensor]:
    """Chance of each level of each binary and categorical column, by name."""
    binary = len(layout.binary)
    ones = torch.sigmoid(logits[..., :binary])
    chances = {
        name: torch.stack([1 - ones[..., i], ones[..., i]], dim=-1)
        for i, name in enumerate(layout.binary)
    }
    sizes = list(layout.categorical.values()) or [0]
    rest = torch.split(logits[..., binary:], sizes, dim=-1)
    for name, part in zip(layout.categorical, rest, strict=False):
        chances[name] = torch.softmax(part, dim=-1)
    return chances


def value_loss(layout: Layout, truth: Outcomes, left: torch.Tensor) -> ValueLoss:
    """The loss of next values; `left` (members, rows, numeric) is what the linear part leaves."""
    return ValueLoss(layout, truth, left, torch.arange(len(left))[:, None])


@dataclass(frozen=True)
class ValueLoss:
    r"""Mean over charted rows, summed over columns.

    L = sum_c mean_i [ (z_ic - m_ic)^2 exp(-2 l_ic) / 2 + l_ic ] + sum_k CE(code_ik, logits_ik)
        + sum_g BCE(gap_ig, logit_ig)

    z: what the linear part leaves, in its own deviations; m: `shift`; l: `log_sd`.
    """

    layout: Layout
    truth: Outcomes
    left: torch.Tensor
    member: torch.Tensor

    def __call__(self, outputs: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """A loss a member, of outputs for these rows."""
        heads = ValueHeads.of(self.layout, outputs)
        error = (self.left[self.member, rows] - heads.shift) * torch.exp(-heads.log_sd)
        total = _mean_known(0.5 * error.square() + heads.log_sd, self.truth.charted[rows])
        total = total + self._codes(heads.codes, rows)
        gap = self.truth.gap[rows].to(outputs.dtype)
        if gap.shape[-1]:
            missed = functional.binary_cross_entropy_with_logits(heads.gaps, gap, reduction="none")
            total = total + missed.mean(1).sum(-1)
        return total

    def _codes(self, logits: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        binary = len(self.layout.binary)
        known, codes = self.truth.codes_charted[rows], self.truth.codes[rows]
        missed = functional.binary_cross_entropy_with_logits(
            logits[..., :binary], codes[..., :binary].to(logits.dtype), reduction="none"
        )
        total = _mean_known(missed, known[..., :binary])
        levels = list(self.layout.categorical.values())
        rest = torch.split(logits[..., binary:], levels, dim=-1) if levels else ()
        for i, part in enumerate(rest):
            code = codes[..., binary + i, None]
            missed = -torch.log_softmax(part, dim=-1).gather(-1, code)
            total = total + _mean_known(missed, known[..., binary + i, None])
        return total


@dataclass(frozen=True)
class EndLoss:
    """Mean over rows of the log-likelihood: BCE of each end that a row was at risk of, summed."""

    truth: Outcomes

    def __call__(self, outputs: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """A loss a member, of outputs for these rows."""
        ends, known = self.truth.ends[rows].to(outputs.dtype), self.truth.at_risk[rows]
        missed = functional.binary_cross_entropy_with_logits(outputs, ends, reduction="none")
        total: torch.Tensor = (missed * known).mean(1).sum(-1)
        return total


def end_names(seen: torch.Tensor) -> tuple[str, ...]:
    """The ends that were seen at all."""
    return tuple(name for name, any_ in zip(ENDS, seen.tolist(), strict=True) if any_)


def _mean_known(values: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Mean over known rows, summed over columns; a member a row."""
    return ((values * known).sum(1) / known.sum(1).clip(min=1)).sum(-1)
