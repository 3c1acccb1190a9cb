"""What the dynamics answer: a drawn step, or a prediction.

Made by the ensemble (and by its peers), read by policies, reports and query. Holds no model.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Next:
    """What a step of every row drew, and the chances it was drawn from.

    Attributes:
        states: The next states; of those whose stay ended, what they would have been.
        observed: Scaled statics and observations of the next row, in the cohort's order.
        expected: Their mean under the row's own member, had they been charted.
        missing: Indicators of the next row, in the preparation's order.
        p_death: Chance of death in this step, the mean of the members asked.
        p_discharge: Chance of leaving alive in this step.
        p_late_death: Chance that a stay which ends alive now is followed by a death that counts.
        died: Drawn.
        discharged: Drawn.
        horizon: Alive at the last step.
        unsafe: Per constraint, the chance that the next charted row violates it, if it goes on.
        disagreement: How far members are apart, in deviations of the noise.
    """

    states: torch.Tensor
    observed: torch.Tensor
    expected: torch.Tensor
    missing: torch.Tensor
    p_death: torch.Tensor
    p_discharge: torch.Tensor
    p_late_death: torch.Tensor
    died: torch.Tensor
    discharged: torch.Tensor
    horizon: torch.Tensor
    unsafe: torch.Tensor | None
    disagreement: torch.Tensor | None

    @property
    def ended(self) -> torch.Tensor:
        """Whether the stay is over."""
        return self.died | self.discharged | self.horizon


@dataclass(frozen=True)
class Prediction:
    """What to expect of each row; columns are the observations, in the cohort's order.

    Attributes:
        names: The observations.
        mean: Mean of the next charted value, in clinical units (a code's: its mean).
        low: Lower end of the interval for the next charted value.
        high: Upper end.
        scaled_mean: Mean of the next value in scaled units.
        scaled_sd: Its deviation, noise and members' differences together.
        p_death: Chance of death in this step.
        p_discharge: Chance of leaving alive in this step.
        p_late_death: Chance of a later death of those who leave alive now.
        unsafe: Per constraint, the chance that the next charted row violates it.
        disagreement: How far members are apart, in deviations of the noise.
    """

    names: tuple[str, ...]
    mean: torch.Tensor
    low: torch.Tensor
    high: torch.Tensor
    scaled_mean: torch.Tensor
    scaled_sd: torch.Tensor
    p_death: torch.Tensor
    p_discharge: torch.Tensor
    p_late_death: torch.Tensor
    unsafe: dict[str, torch.Tensor]
    disagreement: torch.Tensor


def on_line(chance: torch.Tensor, line: torch.Tensor) -> torch.Tensor:
    """A chance on a calibrated line of its logit; a line of slope 1 and offset 0 changes nothing.

    >>> on_line(torch.tensor([0.2, 0.5]), torch.tensor([1.0, 0.0]))
    tensor([0.2000, 0.5000])
    """
    if float(line[0]) == 1.0 and float(line[1]) == 0.0:
        return chance
    logit = torch.logit(chance.double().clip(1e-9, 1 - 1e-9))
    return torch.sigmoid(logit * line[0] + line[1]).to(chance.dtype)


def of_codes(chances: torch.Tensor, level: float, binary: bool) -> list[torch.Tensor]:
    """Mean, interval, scaled mean and scaled deviation of a code."""
    levels = torch.arange(chances.shape[-1], dtype=chances.dtype)
    mean = (chances * levels).sum(-1)
    spread = ((chances * levels.square()).sum(-1) - mean.square()).clip(min=0).sqrt()
    below = chances.cumsum(-1)[:, :-1]
    low = (below < (1 - level) / 2).sum(-1).to(chances.dtype)
    high = (below < (1 + level) / 2).sum(-1).to(chances.dtype)
    factor, shift = (2.0, -1.0) if binary else (1.0, 0.0)
    return [mean, low, high, factor * mean + shift, factor * spread]
