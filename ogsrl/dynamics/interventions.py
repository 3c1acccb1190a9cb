"""The same patient, another dose: questions whose answer the simulator knows.

Called by the reports of dynamics and guardian and by benchmarks, on simulated cohorts only. The
true answer comes from the ward's latent body: nothing that is fitted may ever see it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from ogsrl.errors import ModelError
from ogsrl.preparation.history import History
from ogsrl.sources.simulator import MAX_STEPS, Clinicians, SimulatorConfig, Ward
from ogsrl.sources.simulator.clinicians import BEDSIDE
from ogsrl.spec import Cohort
from ogsrl.trajectories import Stays

Floats = npt.NDArray[np.float64]
Doses = Mapping[str, Floats]
#: Asks another dose of everybody: the clinicians' doses now, and a generator -> doses.
Ask = Callable[[Doses, Cohort, np.random.Generator], dict[str, Floats]]


@dataclass(frozen=True)
class Questions:
    """One question a row: this state, this dose, and what it would truly do on average.

    Attributes:
        states: Prepared states, named by the history's columns.
        doses: The doses asked about, scaled, in the cohort's order.
        given: The same in clinical units.
        last_given: Doses given the step before, in clinical units.
        logged: What the clinicians gave in this state, in clinical units.
        expected: Per observation, the mean of the next measured value, charted or not.
        death: True risk of death in this step.
        stay: Number of the stay.
        step: Number of the step.
    """

    states: torch.Tensor
    doses: torch.Tensor
    given: torch.Tensor
    last_given: torch.Tensor
    logged: torch.Tensor
    expected: dict[str, torch.Tensor]
    death: torch.Tensor
    stay: torch.Tensor
    step: torch.Tensor

    def __len__(self) -> int:
        return len(self.states)

    def take(self, rows: torch.Tensor) -> Questions:
        """Some of the questions."""
        tensors = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "expected"}
        expected = {name: values[rows] for name, values in self.expected.items()}
        return Questions(expected=expected, **{n: t[rows] for n, t in tensors.items()})


def as_logged(doses: Doses, cohort: Cohort, rng: np.random.Generator) -> dict[str, Floats]:
    """What the clinicians give: the question whose answer is in the data."""
    del cohort, rng
    return dict(doses)


def scaled_by(factor: float) -> Ask:
    """The clinicians' doses times a factor, within bounds."""

    def ask(doses: Doses, cohort: Cohort, rng: np.random.Generator) -> dict[str, Floats]:
        del rng
        return {n: np.clip(factor * d, *cohort.actions[n].range) for n, d in doses.items()}

    return ask


def at_random(doses: Doses, cohort: Cohort, rng: np.random.Generator) -> dict[str, Floats]:
    """Each dose anywhere within its bounds."""
    return {n: rng.uniform(*cohort.actions[n].range, len(d)) for n, d in doses.items()}


def of_another(doses: Doses, cohort: Cohort, rng: np.random.Generator) -> dict[str, Floats]:
    """The doses of another patient at the same step, all of one patient."""
    del cohort
    order = rng.permutation(len(next(iter(doses.values()))))
    return {name: dose[order] for name, dose in doses.items()}


#: What is asked of everybody, by name.
ASKS: Mapping[str, Ask] = {
    "logged": as_logged,
    "none": scaled_by(0.0),
    "half": scaled_by(0.5),
    "double": scaled_by(2.0),
    "another patient's": of_another,
    "random": at_random,
}


def is_simulated(cohort: Cohort) -> bool:
    """Whether the truth about other doses is known."""
    return cohort.source.kind == "simulator"


def simulator_config(cohort: Cohort) -> SimulatorConfig:
    """The settings of the cohort's simulator."""
    if not is_simulated(cohort):
        raise ModelError(
            f"source.kind: {cohort.source.kind}; what another dose would have done is known for "
            "simulated cohorts alone"
        )
    options = {key: value for key, value in cohort.source.options.items() if key != "patients"}
    return SimulatorConfig(**options)


def questions(
    history: History,
    patients: int,
    rng: np.random.Generator,
    *,
    asks: Mapping[str, Ask] = ASKS,
    steps: Sequence[int] | None = None,
    draws: int = 16,
) -> dict[str, Questions]:
    """Ask other doses of fresh patients under the clinicians; the same rows for every ask.

    Args:
        history: Layout of states; its preparation knows cohort and columns.
        patients: Fresh patients, simulated to the end of their first stay.
        rng: Patients, clinicians and asks are drawn with it.
        asks: By name, which doses are asked about.
        steps: At which steps; none: at every one.
        draws: Draws of noise over which the truth is a mean.
    """
    cohort = history.preparation.cohort
    asked_at = range(cohort.max_steps) if steps is None else sorted(set(steps))
    first, second = (int(seed) for seed in rng.integers(0, 2**31, size=2))
    ward = Ward(patients, first, simulator_config(cohort))
    walk = _Walk(history, patients)
    clinicians = Clinicians(ward.config)
    clinicians.reset(patients)
    for step in range(min(cohort.max_steps, MAX_STEPS)):
        if not ward.alive.any():
            break
        seen = {**ward.charted, BEDSIDE: ward.bedside} if ward.config.tilt > 0 else ward.charted
        logged = clinicians.act(step, seen, ward.previous_doses, rng)
        walk.note(ward, logged)
        if step in asked_at:
            alive = np.flatnonzero(ward.alive)
            among = {name: dose[alive] for name, dose in logged.items()}
            for name, ask in asks.items():
                asked = {dose: np.zeros(patients) for dose in logged}
                for dose, values in ask(among, cohort, rng).items():
                    asked[dose][alive] = _recorded(cohort, dose, values)
                truth = ward.expected(asked, draws, second + step)
                walk.answer(name, step, alive, asked, truth)
        ward.step(logged)
    return walk.questions()


@dataclass(frozen=True)
class Courses:
    """Stays that go on from a state under doses that nobody chose for them.

    Attributes:
        states: Prepared states at the start.
        doses: (rows, steps, doses) scaled doses of each step.
        measured: Per observation, (rows, steps) values as measured after each step.
        alive: (rows, steps) whether the stay still goes on then.
        stay: Number of the stay.
    """

    states: torch.Tensor
    doses: torch.Tensor
    measured: dict[str, torch.Tensor]
    alive: torch.Tensor
    stay: torch.Tensor


def courses_of_another(
    history: History, patients: int, rng: np.random.Generator, *, start: int, steps: int
) -> Courses:
    """From step `start` on, everybody is given what the clinicians gave to another patient.

    Such doses tell nothing of whom they are given to: what follows them is what they do.
    """
    cohort = history.preparation.cohort
    ward = Ward(patients, int(rng.integers(2**31)), simulator_config(cohort))
    walk, clinicians = _Walk(history, patients), Clinicians(ward.config)
    clinicians.reset(patients)

    def decide(which: Ward) -> dict[str, Floats]:
        severity = {BEDSIDE: which.bedside} if which.config.tilt > 0 else {}
        seen = {**which.charted, **severity}
        return clinicians.act(which.step_index, seen, which.previous_doses, rng)

    while True:
        logged = decide(ward)
        walk.note(ward, logged)
        if ward.step_index == start:
            break
        ward.step(logged)
    alive = np.flatnonzero(ward.alive)
    twin = ward.copy()
    given = [ward.step(logged).given]  # what the clinicians go on to give
    given += [ward.step(decide(ward)).given for _ in range(steps - 1)]
    order = alive[rng.permutation(len(alive))]
    measured, going = [], []
    for doses in given:
        exchanged = {name: np.zeros(patients) for name in doses}
        for name, dose in doses.items():
            exchanged[name][alive] = dose[order]
        twin.step(exchanged)
        measured.append(twin.measured)
        going.append(twin.alive[alive])
    scale = history.preparation.doses
    return Courses(
        states=walk.states_at(start),
        doses=torch.stack(
            [_stacked([scale[n].forward(d[n][order]) for n in scale]) for d in given], 1
        ),
        measured={
            name: _stacked([values[name][alive] for values in measured])
            for name in cohort.observations
        },
        alive=torch.from_numpy(np.stack(going, axis=1)),
        stay=torch.from_numpy(alive),
    )


class _Walk:
    """What was charted, given and asked so far, by step and then by patient."""

    def __init__(self, history: History, patients: int) -> None:
        self.history = history
        self.patients = patients
        self.cohort = history.preparation.cohort
        self.rows: list[pd.DataFrame] = []
        self.answers: dict[str, list[pd.DataFrame]] = {}

    def note(self, ward: Ward, logged: Doses) -> None:
        alive = np.flatnonzero(ward.alive)
        columns = {name: ward.charted[name][alive] for name in self.cohort.states}
        columns |= {_LOGGED + name: dose[alive] for name, dose in logged.items()}
        columns |= {_BEFORE + name: dose[alive] for name, dose in ward.previous_doses.items()}
        self.rows.append(pd.DataFrame({"stay_id": alive, "step": ward.step_index, **columns}))

    def answer(
        self,
        name: str,
        step: int,
        alive: npt.NDArray[np.int64],
        asked: Doses,
        truth: Mapping[str, Floats],
    ) -> None:
        columns = {_ASKED + dose: values[alive] for dose, values in asked.items()}
        columns |= {column: values[alive] for column, values in truth.items()}
        frame = pd.DataFrame({"stay_id": alive, "step": step, **columns})
        self.answers.setdefault(name, []).append(frame)

    def states_at(self, step: int) -> torch.Tensor:
        """States of those who are there at this step, by stay."""
        frame, states = self._states()
        return torch.from_numpy(states[(frame["step"] == step).to_numpy()])

    def questions(self) -> dict[str, Questions]:
        """The same rows for every ask, sorted by stay and step."""
        frame, states = self._states()
        found = {name: _sorted(answers) for name, answers in self.answers.items()}
        return {name: self._one(frame, states, answers) for name, answers in found.items()}

    def _states(self) -> tuple[pd.DataFrame, npt.NDArray[np.float32]]:
        frame = _sorted(self.rows)
        prepared = self.history.preparation.state_columns(frame, Stays.of(frame["stay_id"]))
        for dose, transform in self.history.preparation.doses.items():
            prepared[dose] = transform.forward(frame[_LOGGED + dose].to_numpy(np.float64))
        states = self.history.build(pd.concat([frame[["stay_id", "step"]], prepared], axis=1))
        return frame, states

    def _one(
        self, frame: pd.DataFrame, states: npt.NDArray[np.float32], answers: pd.DataFrame
    ) -> Questions:
        place = pd.MultiIndex.from_frame(frame[["stay_id", "step"]])
        row = place.get_indexer(pd.MultiIndex.from_frame(answers[["stay_id", "step"]]))
        doses = self.history.preparation.doses
        asked = {name: answers[_ASKED + name].to_numpy(np.float64) for name in doses}
        observed = [name for name in self.cohort.observations if name in answers]
        return Questions(
            states=torch.from_numpy(states[row]),
            doses=_stacked([doses[name].forward(values) for name, values in asked.items()]),
            given=_stacked(list(asked.values())),
            last_given=_stacked([frame[_BEFORE + name].to_numpy()[row] for name in doses]),
            logged=_stacked([frame[_LOGGED + name].to_numpy()[row] for name in doses]),
            expected={name: torch.tensor(answers[name].to_numpy(np.float32)) for name in observed},
            death=torch.tensor(answers["death"].to_numpy(np.float32)),
            stay=torch.tensor(answers["stay_id"].to_numpy(np.int64)),
            step=torch.tensor(answers["step"].to_numpy(np.int64)),
        )


_LOGGED, _BEFORE, _ASKED = "logged ", "before ", "asked "


def _recorded(cohort: Cohort, dose: str, values: Floats) -> Floats:
    """A dose as it can be given: within bounds, in whole increments."""
    action = cohort.actions[dose]
    if action.increment is not None:
        values = np.round(np.round(values / action.increment) * action.increment, 6)
    return np.clip(values, *action.range)


def _sorted(frames: list[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(frames).sort_values(["stay_id", "step"], kind="stable", ignore_index=True)


def _stacked(columns: Sequence[npt.NDArray[Any]]) -> torch.Tensor:
    return torch.tensor(np.stack(columns, axis=1), dtype=torch.float32)
