"""Hazards that a policy recommends, and what dynamics expect of its doses, beside the clinicians'.

Called by `ogsrl.evaluation.clinical`. Hazards are judged anew by their own rules on the doses that
are executed: that there are none is by construction, and measured all the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from ogsrl.constraints import HazardValues, hazards
from ogsrl.errors import EstimateError
from ogsrl.evaluation.clinical_parts import Decided
from ogsrl.evaluation.clustered import Beside, Steps, dotted
from ogsrl.evaluation.executed import BLOCK
from ogsrl.evaluation.rollouts import Model


@dataclass(frozen=True)
class HazardUse:
    """How often a hazard is recommended, and how often clinicians did it.

    Attributes:
        missing: Columns that the cohort lacks: then the hazard is not evaluable.
        steps: Share of steps.
        possible: Share of steps where the state does not rule it out, whatever is given.
        never: Whether the policy recommends it nowhere; None where that cannot be known.
    """

    missing: tuple[str, ...]
    steps: Beside
    possible: Beside
    never: bool | None

    def plain(self) -> dict[str, float | None]:
        """For JSON, dotted."""
        return {
            "evaluable": float(not self.missing),
            "never": None if self.never is None else float(self.never),
            **dotted(steps=self.steps.plain(), possible=self.possible.plain()),
        }


def hazard_use(decided: Decided) -> dict[str, HazardUse]:
    """Each hazard, by its own rule on the doses that are executed: no word of `Deployed`'s."""
    known, some = pd.DataFrame(decided.charted()), decided.recommended
    cohort = decided.history.preparation.cohort

    def judged(doses: Mapping[str, Any]) -> dict[str, HazardValues]:
        return hazards(known.assign(**doses), cohort)

    given = judged({name: dose.given.numpy() for name, dose in decided.doses.items()})
    unknown = judged(dict.fromkeys(decided.doses, np.nan))  # 0: met by no dose
    draws = [
        judged({name: dose.policy[k].numpy() for name, dose in decided.doses.items()})
        for k in range(len(decided.executed))
    ]
    return {
        name: _use([draw[name] for draw in draws], given[name], unknown[name], some)
        for name in given
    }


def _use(
    policy: Sequence[HazardValues], given: HazardValues, unknown: HazardValues, some: Steps
) -> HazardUse:
    if not given.evaluable:
        nobody = Beside.untold(some.level)
        return HazardUse(given.missing, nobody, nobody, None)
    mine = torch.stack([_flags(one) == 1 for one in policy])
    theirs, open_ = (_flags(given) == 1).double(), _flags(unknown) != 0
    offered = some.counts > 0
    return HazardUse(
        missing=(),
        steps=some.beside(mine, theirs),
        possible=some.among(open_).beside(mine, theirs),
        never=not bool((mine & offered).any()) if bool(offered.any()) else None,
    )


def _flags(found: HazardValues) -> torch.Tensor:
    assert found.values is not None  # it is evaluable
    return torch.from_numpy(found.values)


def predicted_unsafe(
    decided: Decided, model: Model, generator: torch.Generator
) -> dict[str, Beside]:
    """Chance that the next charted row is unsafe, under the policy's dose and under the given one.

    Of a patient who lives on: so a dose that kills does not seem safe. The last step has no next
    row. Both doses meet the same luck.
    """
    cohort, luck = decided.history.preparation.cohort, generator.get_state()
    if not cohort.constraints:
        return {}
    later = (decided.step < cohort.max_steps - 1) & (decided.recommended.counts > 0).any(0)
    row = later.nonzero().squeeze(1)

    def under(doses: torch.Tensor) -> torch.Tensor:
        generator.set_state(luck)
        made = torch.zeros(len(cohort.constraints), len(later), dtype=torch.float64)
        for some in torch.split(row, BLOCK):
            unsafe = model.step(decided.states[some], doses[some], generator).unsafe
            if unsafe is None:
                raise EstimateError("clinical: these dynamics know no chance of an unsafe row")
            made[:, some] = unsafe.double().T
        return made

    theirs = under(decided.given)
    mine: list[torch.Tensor] = []
    for k, doses in enumerate(decided.executed):
        same = k > 0 and torch.equal(doses, decided.executed[k - 1])
        mine.append(mine[-1] if same else under(doses))
    policy, some = torch.stack(mine, 1), decided.recommended.among(later)
    return {name: some.beside(policy[j], theirs[j]) for j, name in enumerate(cohort.constraints)}


def not_evaluable(found: Mapping[str, HazardUse]) -> dict[str, Sequence[str]]:
    """Hazards of which nothing is known, with the columns that are missing."""
    return {name: use.missing for name, use in found.items() if use.missing}
