"""Prepared stays as tensors with names: states, doses, rewards, costs, and what follows what.

Called by everything that learns. Rewards and costs here add up to the table's, whatever way a
stay ended. Imported by name, not through the package, since it loads torch.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from ogsrl.errors import ModelError
from ogsrl.preparation.fitting import Preparation
from ogsrl.preparation.history import History
from ogsrl.trajectories import Stays


@dataclass(frozen=True)
class Transitions:
    """Decisions and what followed, one a row; `next_states` are zeros after a terminal step."""

    states: torch.Tensor
    doses: torch.Tensor
    rewards: torch.Tensor
    costs: torch.Tensor
    next_states: torch.Tensor
    terminal: torch.Tensor
    row: torch.Tensor


@dataclass(frozen=True)
class StayTensors:
    """All rows of whole stays; one tensor a role, one row a table row.

    A step is `terminal` at death, discharge and horizon: nothing follows it. A censored stay's
    last row is no decision: it is the next state of the row before, and its doses, reward and
    costs are 0. So there is one transition for each decision, and none is lost.

    Attributes:
        history: The layout of states.
        states: (rows, state columns), named by `state_names`.
        doses: (rows, doses) in [-1, 1], named by `dose_names`.
        given: (rows, doses) in clinical units.
        last_given: (rows, doses) in clinical units, the step before; 0 at a stay's first step.
        rewards: (rows,), shaping apart.
        shaping: (rows,); zeros where the cohort has none.
        costs: (rows, constraints), named by `cost_names`.
        decision: (rows,) whether a dose was chosen here.
        terminal: (rows,) whether the stay ended with this step.
        death: (rows,) whether it ended in death inside the window.
        next_row: (rows,) where the stay goes on; -1 after its last row.
        step: (rows,) the step's number.
        stay: (rows,) number of the stay, from 0.
        patient: (rows,) number of the patient, from 0.
    """

    history: History
    states: torch.Tensor
    doses: torch.Tensor
    given: torch.Tensor
    last_given: torch.Tensor
    rewards: torch.Tensor
    shaping: torch.Tensor
    costs: torch.Tensor
    decision: torch.Tensor
    terminal: torch.Tensor
    death: torch.Tensor
    next_row: torch.Tensor
    step: torch.Tensor
    stay: torch.Tensor
    patient: torch.Tensor

    @property
    def state_names(self) -> tuple[str, ...]:
        """Names of the columns of `states`."""
        return self.history.names

    @property
    def dose_names(self) -> tuple[str, ...]:
        """Names of the columns of `doses`, `given` and `last_given`."""
        return tuple(self.history.preparation.doses)

    @property
    def cost_names(self) -> tuple[str, ...]:
        """Names of the columns of `costs`: the constraints."""
        return tuple(self.history.preparation.cohort.constraints)

    def transitions(self) -> Transitions:
        """One row a decision, in the table's order."""
        row = self.decision.nonzero().squeeze(1)
        following = self.next_row[row]
        next_states = self.states[following.clip(min=0)]
        next_states[following < 0] = 0
        return Transitions(
            states=self.states[row],
            doses=self.doses[row],
            rewards=self.rewards[row],
            costs=self.costs[row],
            next_states=next_states,
            terminal=self.terminal[row],
            row=row,
        )

    def beside(self, others: StayTensors) -> StayTensors:
        """These, then others: none of the same patients, prepared alike."""
        if others.history.preparation.fingerprint != self.history.preparation.fingerprint:
            raise ModelError("patients prepared otherwise cannot stand beside these")
        apart = {
            "next_row": torch.where(others.next_row < 0, -1, others.next_row + len(self.states)),
            "stay": others.stay + int(self.stay.max()) + 1,
            "patient": others.patient + int(self.patient.max()) + 1,
        }
        made = {}
        for field in fields(self):
            if field.name != "history":
                theirs = apart.get(field.name, getattr(others, field.name))
                made[field.name] = torch.cat([getattr(self, field.name), theirs])
        return StayTensors(self.history, **made)


def stay_tensors(
    prepared: pd.DataFrame, preparation: Preparation, history: History | None = None
) -> StayTensors:
    """Prepared rows of whole stays as tensors."""
    history = history or History.of(preparation)
    stays = Stays.of(prepared["stay_id"])
    last = stays.last
    censored = _ended(prepared, "censored")
    death = _ended(prepared, "death")
    following = np.where(last, -1, np.arange(len(prepared)) + 1)
    given = _filled(prepared, preparation.names("given"))
    before = np.roll(given, 1, axis=0)
    before[stays.start] = 0
    shaping = _filled(prepared, preparation.names("shaping")).sum(axis=1)
    parts: dict[str, npt.NDArray[np.generic]] = {
        "states": history.build(prepared, stays),
        "doses": _filled(prepared, preparation.names("dose")).astype(np.float32),
        "given": given.astype(np.float32),
        "last_given": before.astype(np.float32),
        "rewards": _filled(prepared, ["reward"])[:, 0].astype(np.float32),
        "shaping": shaping.astype(np.float32),
        "costs": _filled(prepared, preparation.names("cost")).astype(np.float32),
        "decision": ~censored,
        "terminal": last & ~censored,
        "death": death,
        "next_row": following,
        "step": stays.step,
        "stay": stays.stay,
        "patient": pd.factorize(prepared["patient_id"])[0],
    }
    writable = {name: np.require(array, requirements="W") for name, array in parts.items()}
    return StayTensors(history, **{n: torch.from_numpy(array) for n, array in writable.items()})


@dataclass(frozen=True)
class LoggedArrays:
    """Stays as d3rlpy's MDPDataset takes them, so that it loses no reward and invents none.

    d3rlpy drops the last row of a time-out episode as having no successor. Only censored stays
    are time-outs here, and their last row is a state without a decision, so what is dropped is
    nothing. Horizon is terminal: the step is part of the state. Stays of one censored row hold no
    decision and are left out.
    """

    observations: npt.NDArray[np.float32]
    actions: npt.NDArray[np.float32]
    rewards: npt.NDArray[np.float32]
    terminals: npt.NDArray[np.float32]
    timeouts: npt.NDArray[np.float32]


def logged_arrays(tensors: StayTensors) -> LoggedArrays:
    """The arguments of d3rlpy's MDPDataset."""
    stays = np.asarray(tensors.stay)
    decision = np.asarray(tensors.decision)
    kept = np.bincount(stays, weights=decision)[stays] > 0
    timeout = (np.asarray(tensors.next_row) < 0) & ~decision
    return LoggedArrays(
        observations=tensors.states.numpy()[kept],
        actions=tensors.doses.numpy()[kept],
        rewards=tensors.rewards.numpy()[kept],
        terminals=tensors.terminal.numpy()[kept].astype(np.float32),
        timeouts=timeout[kept].astype(np.float32),
    )


def _ended(prepared: pd.DataFrame, end: str) -> npt.NDArray[np.bool_]:
    return (prepared["end"] == end).fillna(False).to_numpy(bool)


def _filled(prepared: pd.DataFrame, names: list[str]) -> npt.NDArray[np.float64]:
    """Columns as a matrix; what a censored last row does not have is 0."""
    values: npt.NDArray[np.float64] = np.nan_to_num(prepared[names].to_numpy(np.float64))
    return values
