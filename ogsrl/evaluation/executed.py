"""What a policy executes in each row: its own doses, the clinicians' where it defers.

Called by every estimator that needs doses in states that were logged. It asks `Deployed` alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from ogsrl.policies.deployed import Deployed

#: Rows asked at a time.
BLOCK = 8_192


class Clinicians(Protocol):
    """The clinicians' policy as it is needed here: draws of b."""

    def sample(self, states: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Doses drawn, one set a row."""
        ...


@dataclass(frozen=True)
class Executed:
    """What is given in each row under a policy, several draws of it.

    Attributes:
        doses: (draws, rows, doses) as executed, the clinician's where deferred.
        deferred: (draws, rows).
    """

    doses: torch.Tensor
    deferred: torch.Tensor

    @classmethod
    @torch.no_grad()
    def of(
        cls,
        deployed: Deployed,
        behaviour: Clinicians,
        states: torch.Tensor,
        draws: int,
        generator: torch.Generator,
    ) -> Executed:
        """Ask the policy, and the clinicians where it defers."""
        decided: list[tuple[torch.Tensor, torch.Tensor]] = []
        for _ in range(draws):
            if len(decided) > 1 and all(map(torch.equal, decided[0], decided[1])):
                decided.append(decided[0])  # nothing is drawn: it need not be asked again
                continue
            parts = [deployed.decide(some, generator) for some in torch.split(states, BLOCK)]
            decided.append(
                (torch.cat([p.doses for p in parts]), torch.cat([p.deferred for p in parts]))
            )
        executed = []
        for doses, deferred in decided:
            given = doses.clone()
            if bool(deferred.any()):
                given[deferred] = behaviour.sample(states[deferred], generator)
            executed.append(given)
        return cls(torch.stack(executed), torch.stack([deferred for _, deferred in decided]))

    def first(self, rows: int) -> Executed:
        """In the first rows alone."""
        return Executed(self.doses[:, :rows], self.deferred[:, :rows])
