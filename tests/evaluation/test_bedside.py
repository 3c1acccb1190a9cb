"""At the bedside a policy sees what the chart holds, and its deferrals are the clinician's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from numpy.random import SeedSequence

from ogsrl.evaluation.bedside import Bedside
from ogsrl.policies.deployed import Deployed
from ogsrl.preparation.tensors import stay_tensors
from ogsrl.sources.simulator import Clinicians, Ward, paired_difference, rollout, true_value
from tests.guardian.cohorts import simulated

Floats = npt.NDArray[np.float64]
ROOT = Path(__file__).parents[2]


class Watching(Bedside):
    """Keeps the states that it saw, and always defers."""

    def __init__(self, deployed: Deployed) -> None:
        super().__init__(deployed)
        self.seen: list[torch.Tensor] = []

    def act(
        self,
        step: int,
        charted: Mapping[str, Floats],
        previous: Mapping[str, Floats],
        rng: np.random.Generator,
    ) -> dict[str, Floats]:
        answer = super().act(step, charted, previous, rng)
        assert self._states is not None
        self.seen.append(self._states)
        return answer


def test_states_at_the_bedside_are_those_of_the_prepared_table() -> None:
    history = simulated()[0]["train"].history
    preparation = history.preparation
    watching = Watching(Deployed.of(None, None, history))
    ward = Ward(60, 5)
    rows = []
    for step in rollout(watching, ward, SeedSequence(6)):
        alive = np.flatnonzero(step.alive)
        columns = {name: step.charted[name][alive] for name in preparation.states}
        columns |= {name: dose[alive] for name, dose in step.outcome.given.items()}
        rows.append(pd.DataFrame({"stay_id": alive, "step": step.index, **columns}))
    table = pd.concat(rows).sort_values(["stay_id", "step"], ignore_index=True)
    table = table.assign(patient_id=table["stay_id"], end=None, died=pd.NA, site="A")
    built = stay_tensors(preparation.apply(table), preparation)
    for stay, step, state in zip(table["stay_id"], table["step"], built.states, strict=True):
        assert torch.allclose(watching.seen[step][stay], state, atol=1e-5), (stay, step)


def test_who_always_defers_does_exactly_as_the_clinicians_do() -> None:
    history = simulated()[0]["train"].history
    nobody = true_value(Bedside(Deployed.of(None, None, history)), 300, 7)
    clinicians = true_value(Clinicians(), 300, 7)
    assert nobody.steps_deferred == 1
    assert paired_difference(nobody, clinicians)[0] == 0
