"""What all estimators together say: one estimate, the union of the voters' intervals, one word.

Called by evaluation, and by everything that quotes it. Where nobody may vote, anything is possible.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch

from ogsrl.evaluation.estimators.base import Estimate

Word = Literal["better", "worse", "cannot tell"]
#: Whose number the panel's is.
SPEAKER = "fqe"
#: Never counted: one rests on the model that the policy was trained in, the interval of the other
#: is wide by design and would drown what the voters say.
INFORMS = ("rollouts", "pdis_clipped")
#: Power at which the smallest effect is told.
POWER = 0.8


@dataclass(frozen=True)
class Panel:
    """One quantity of one policy.

    Attributes:
        estimate: The mean of the cold fits; None where even they say nothing.
        low: Of the union of the voters' intervals.
        high: The same.
        level: Of each of them.
        voters: Who was counted.
        diagnosis: In words.
    """

    estimate: float | None
    low: float
    high: float
    level: float
    voters: tuple[str, ...]
    diagnosis: str

    def word(self, sign: int) -> Word:
        """Of a difference from the clinicians.

        Args:
            sign: 1 where more is better, -1 where less is.

        >>> Panel(-0.03, -0.05, -0.01, 0.95, ("fqe",), "").word(-1)
        'better'
        >>> Panel(-0.03, -0.05, 0.01, 0.95, ("fqe",), "").word(-1)
        'cannot tell'
        """
        if not self.voters:
            return "cannot tell"
        low, high = sorted((sign * self.low, sign * self.high))
        if low > 0:
            return "better"
        return "worse" if high < 0 else "cannot tell"

    @property
    def smallest_effect(self) -> float | None:
        """The true difference that an interval this wide would have found in 8 of 10 cohorts.

        None where nobody votes: no difference is found then.
        """
        if not self.voters:
            return None
        shares = torch.tensor([(1 + self.level) / 2, POWER], dtype=torch.float64)
        sure, found = torch.special.ndtri(shares).tolist()
        se = (self.high - self.low) / 2 / sure
        return float(se * (sure + found))


def panel(estimates: Mapping[str, Estimate], low: float, high: float, level: float) -> Panel:
    """The panel's answer; `low` and `high` are what is possible."""
    voters = tuple(n for n, one in estimates.items() if one.votes and n not in INFORMS)
    speaker = estimates.get(SPEAKER)
    said = None if speaker is None else speaker.estimate
    if not voters:
        return Panel(said, low, high, level, (), "nobody may vote: anything is possible")
    counted = [estimates[name] for name in voters]
    union = min(one.low for one in counted), max(one.high for one in counted)
    apart = max(one.low for one in counted) > min(one.high for one in counted)
    told = f"{', '.join(voters)} voted" + (", and their intervals do not meet" if apart else "")
    if said is not None and not union[0] <= said <= union[1]:
        told += f"; {SPEAKER}, which may not vote, is outside"
    return Panel(said, *union, level, voters, told)
