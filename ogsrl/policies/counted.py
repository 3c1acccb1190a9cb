"""What training patients' transitions come to in a table, exactly: for planning alone.

Called by `table`. It holds what few patients tell, so it never leaves training: saved is only the
plan that was made of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ogsrl.dynamics.counts import transitions
from ogsrl.guardian.cells import distinct_patients
from ogsrl.preparation.tensors import StayTensors


@dataclass(frozen=True)
class Counted:
    """Counts of a table.

    Attributes:
        outcomes: (codes, combinations, codes and 2) transitions: to a code, death, discharge.
        patients: (codes, combinations) patients to whom the combination was given in the code.
    """

    outcomes: torch.Tensor
    patients: torch.Tensor

    @classmethod
    def of(cls, train: StayTensors, codes: int, combinations: int) -> Counted:
        """Of these patients; horizons tell nothing of what follows."""
        keys, patient = transitions(train)
        state, cell, outcome = keys.unbind(1)
        size = codes, combinations, codes + 2
        place = (state * combinations + cell) * (codes + 2) + outcome
        count = torch.bincount(place, minlength=codes * combinations * (codes + 2))
        pairs = codes * combinations
        patients = distinct_patients(state * combinations + cell, patient, pairs)
        return cls(count.reshape(size).double(), patients.reshape(size[:2]))

    def chances(self, k: float) -> torch.Tensor:
        r"""P(o|s,a) = (n(s,a,o) + k m(o|s)) / (n(s,a) + k), m(o|s) what follows s.

        m is shrunk by one count to what follows any state, where nothing is impossible.

        >>> count = torch.zeros(1, 2, 3).double()
        >>> count[0, 0] = torch.tensor([3.0, 1.0, 0.0])
        >>> Counted(count, count.sum(2)).chances(4.0)[0, 0].round(decimals=3).tolist()
        [0.744, 0.248, 0.008]
        """
        everywhere = self.outcomes.sum((0, 1))
        everywhere = everywhere.clip(min=1 / len(everywhere))
        everywhere = everywhere / everywhere.sum()
        here = self.outcomes.sum(1)
        mean = (here + everywhere) / (here.sum(1, keepdim=True) + 1)
        total = self.outcomes.sum(2, keepdim=True)
        return (self.outcomes + k * mean[:, None]) / (total + k)
