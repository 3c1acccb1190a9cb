"""The logged cohort: what clinicians charted and gave, as the table of stays.

Called by the ingest stage and by tests. It is the only place where stays are censored; in truth
nobody is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
from numpy.random import Generator, SeedSequence
from numpy.typing import NDArray

from ogsrl.sources.simulator.charting import OBSERVATIONS, STATICS
from ogsrl.sources.simulator.clinicians import Clinicians
from ogsrl.sources.simulator.config import (
    DOSE_BOUNDS,
    MAX_STEPS,
    STEP_HOURS,
    Codes,
    Flags,
    SimulatorConfig,
)
from ogsrl.sources.simulator.truth import rollout
from ogsrl.sources.simulator.ward import Ward

#: Patients are drawn in blocks of this size, so that the first n never depend on how many follow.
BLOCK: Final = 4096

#: Columns of the table, in order.
COLUMNS: Final = (
    *("patient_id", "stay_id", "step", "hours", "site"),
    *STATICS,
    *OBSERVATIONS,
    *DOSE_BOUNDS,
    *("end", "died"),
)
_FLOATS: Final = (*STATICS, *OBSERVATIONS, *DOSE_BOUNDS)
_ENDS: Final = np.array(["death", "discharge", "horizon", "censored", ""], dtype=object)
_DEATH, _DISCHARGE, _HORIZON, _CENSORED, _NO_END = range(5)


@dataclass
class _Stays:
    """Stays of one ward as (stay, step) arrays, with what is true of each stay."""

    values: dict[str, NDArray[np.float64]]
    site: Codes
    patient: Codes  # index within the block
    length: Codes  # rows
    end: Codes
    died: Flags
    died_known: Flags


def simulate(patients: int, seed: int, config: SimulatorConfig | None = None) -> pd.DataFrame:
    """The logged cohort of `patients` patients, sorted by stay and step.

    >>> table = simulate(3, seed=1)
    >>> list(table.columns[:5])
    ['patient_id', 'stay_id', 'step', 'hours', 'site']
    >>> table.patient_id.nunique()
    3
    """
    return pd.concat(list(simulate_chunks(patients, seed, config)), ignore_index=True)


def simulate_chunks(
    patients: int, seed: int, config: SimulatorConfig | None = None
) -> Iterator[pd.DataFrame]:
    """The same table in parts of up to `BLOCK` patients, whole patients each."""
    if patients < 1:
        raise ValueError(f"patients is {patients}; at least one is needed")
    settings = config or SimulatorConfig()
    stays = 0
    for block, start in enumerate(range(0, patients, BLOCK)):
        table = _block(SeedSequence([seed, block]), settings, start, stays, patients - start)
        stays += table["stay_id"].nunique()
        yield table


def _block(
    seed: SeedSequence, config: SimulatorConfig, first_patient: int, first_stay: int, wanted: int
) -> pd.DataFrame:
    body, luck, body_again, luck_again, paper = seed.spawn(5)
    rng = np.random.Generator(np.random.SFC64(paper))
    ward = Ward(BLOCK, body, config)
    first = _log(ward, luck, np.arange(BLOCK), rng)
    # those known or bound to be dead do not come back, nor those lost to another hospital
    back = rng.random(BLOCK) < config.readmission
    back &= first.died_known & ~first.died
    parts = [first]
    if back.any():
        again = Ward(int(back.sum()), body_again, config, ward.patients.take(back))
        parts.append(_log(again, luck_again, np.flatnonzero(back), rng))
    return _table(parts, config, first_patient, first_stay, wanted)


def _log(ward: Ward, luck: SeedSequence, patient: Codes, rng: Generator) -> _Stays:
    """Let clinicians treat the ward, then lose some stays to follow-up."""
    n = ward.n
    values = {name: np.full((n, MAX_STEPS), np.nan) for name in _FLOATS}
    length = np.zeros(n, dtype=np.int64)
    end = np.full(n, _HORIZON)
    late = np.zeros(n)
    for step in rollout(Clinicians(ward.config), ward, luck):
        alive, at, outcome = step.alive, step.index, step.outcome
        for name in (*STATICS, *OBSERVATIONS):
            values[name][:, at] = step.charted[name]
        for name, dose in outcome.given.items():
            values[name][:, at] = dose
        length[alive] = at + 1
        end[outcome.died] = _DEATH
        end[outcome.discharged] = _DISCHARGE
        late = np.where(outcome.late_death > 0.0, outcome.late_death, late)
    died = (end == _DEATH) | (rng.random(n) < late)
    # transferred away before the dose of step `lost`: that row is a state only
    rare = max(ward.config.censoring, 1e-300)  # 0, or too small to divide by: nobody is lost
    lost = 1 + np.floor(np.log(1.0 - rng.random(n)) / np.log1p(-rare))
    censored = lost < length
    length = np.where(censored, lost + 1, length).astype(np.int64)
    end[censored] = _CENSORED
    for name in DOSE_BOUNDS:
        values[name][np.flatnonzero(censored), length[censored] - 1] = np.nan
    return _Stays(values, ward.sites, patient, length, end, died, ~censored)


def _table(
    parts: list[_Stays], config: SimulatorConfig, first_patient: int, first_stay: int, wanted: int
) -> pd.DataFrame:
    patient = np.concatenate([part.patient for part in parts])
    order = np.argsort(patient, kind="stable")
    order = order[patient[order] < wanted]
    length = np.concatenate([part.length for part in parts])[order]
    row = np.repeat(order, length)
    starts = np.cumsum(length) - length
    step = np.arange(len(row)) - np.repeat(starts, length)
    last = starts + length - 1
    stay_names = [f"S{first_stay + i:07d}" for i in range(len(order))]
    patient_names = [f"P{first_patient + i:07d}" for i in patient[order]]
    columns: dict[str, object] = {
        "patient_id": pd.array(np.repeat(np.array(patient_names, object), length), dtype="str"),
        "stay_id": pd.array(np.repeat(np.array(stay_names, object), length), dtype="str"),
        "step": step.astype(np.int32),
        "hours": step * float(STEP_HOURS),
        "site": pd.array(
            np.array(config.sites, object)[np.concatenate([p.site for p in parts])[row]],
            dtype="str",
        ),
    }
    for name in _FLOATS:
        columns[name] = np.concatenate([part.values[name] for part in parts])[row, step]
    end = np.full(len(row), None, dtype=object)
    end[last] = _ENDS[np.concatenate([part.end for part in parts])[order]]
    died = np.full(len(row), None, dtype=object)
    known = np.concatenate([part.died_known for part in parts])[order]
    died[last[known]] = np.concatenate([part.died for part in parts])[order][known]
    columns["end"] = pd.array(end, dtype="str")
    columns["died"] = pd.array(died, dtype="boolean")
    return pd.DataFrame({name: columns[name] for name in COLUMNS})
