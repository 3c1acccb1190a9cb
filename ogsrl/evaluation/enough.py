"""Whether patients are enough for anything to be said of what became of them.

Called by the stage evaluate and by `ogsrl evaluate`, before anything is fitted. A mean over few
who died, or lived, would tell of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ogsrl.evaluation.config import LEAST_PATIENTS
from ogsrl.evaluation.quantities import MORTALITY, primary, quantities, to_go
from ogsrl.preparation.coverage import MIN_PATIENTS
from ogsrl.preparation.tensors import StayTensors


@dataclass(frozen=True)
class Lacking:
    """Of whom there are too few.

    Attributes:
        whom: In words.
        needed: How many there should be.
    """

    whom: str
    needed: int

    def __str__(self) -> str:
        return f"fewer than {self.needed} {self.whom}"


def lacking(stays: StayTensors) -> Lacking | None:
    """What is missing; None where there are enough.

    Enough are 20 patients with a known end; and, where deaths decide, ten who died and ten who
    lived, or none: a share of one to nine would tell of them.
    """
    row = stays.decision.nonzero().squeeze(1)
    decisive = primary(stays.history.preparation.cohort)
    (wanted,) = quantities(stays, [decisive])
    followed, known = to_go(stays, wanted)
    begun = known & (stays.step[row] == 0)
    patient = stays.patient[row][begun]
    if len(torch.unique(patient)) < LEAST_PATIENTS:
        return Lacking("patients with a decision and a known end", LEAST_PATIENTS)
    if decisive == MORTALITY:
        died = followed[begun] > 0
        for those, whom in ((died, "who died"), (~died, "who lived")):
            if 0 < len(torch.unique(patient[those])) < MIN_PATIENTS:
                return Lacking(f"patients {whom}", MIN_PATIENTS)
    return None
