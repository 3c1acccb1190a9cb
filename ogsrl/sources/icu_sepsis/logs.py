"""Logged stays of ICU-Sepsis's clinicians, as the trajectory table; a patient has one stay.

Called by `open_source`, by tests and by benchmarks. Stays are drawn in blocks, so that the first n
never depend on how many follow.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.random import Generator, SeedSequence
from numpy.typing import NDArray

from ogsrl.errors import SourceError
from ogsrl.sources.icu_sepsis.published import LEVELS, STATES, Floats, Process, process
from ogsrl.sources.reading import Reading, SourceSettings, count
from ogsrl.spec import Cohort

#: Stays drawn together.
BLOCK: Final = 4096
#: Decisions in the longest stay. Of stays under clinicians 2e-7 are longer, under the best policy
#: 4e-6, under the one of longest stays 1e-3.
MAX_STEPS: Final = 150
HOURS: Final = 4.0
#: The table's own columns: the state, then the doses of a combination, fluid x 5 + vasopressor.
STATE: Final = "state"
DOSES: Final = ("fluid", "vasopressor")

Codes = NDArray[np.int64]


@dataclass(frozen=True)
class IcuSepsisOptions:
    """`source.options`.

    Attributes:
        patients: Stays logged.
        deadly: Whether what clinicians never give in a state kills at once.
    """

    patients: int = 17_000
    deadly: bool = False

    @classmethod
    def of(cls, cohort: Cohort) -> IcuSepsisOptions:
        """As the cohort file says."""
        given = cohort.source.options
        known = {item.name: item.type for item in fields(cls)}
        unknown = sorted(set(given) - set(known))
        if unknown:
            raise SourceError(
                f"source.options: unknown {', '.join(unknown)}; icu_sepsis knows "
                f"{', '.join(sorted(known))}"
            )
        made = cls(**given)
        if isinstance(made.patients, bool) or not isinstance(made.patients, int):
            raise SourceError("source.options.patients: needs a whole number, e.g. 17000")
        if made.patients < 1:
            raise SourceError(f"source.options.patients: {made.patients}; at least one is needed")
        if not isinstance(made.deadly, bool):
            raise SourceError("source.options.deadly: needs true or false")
        return made


def deadly_of(cohort: Cohort) -> bool:
    """Whether the cohort is the deadly variant."""
    return IcuSepsisOptions.of(cohort).deadly


def read(cohort: Cohort, settings: SourceSettings) -> Reading:
    """Log as many stays as `source.options`, or the parameter, asks for."""
    options = IcuSepsisOptions.of(cohort)
    patients = options.patients if settings.patients is None else settings.patients
    _check_columns(cohort)
    made = process(deadly=options.deadly)
    reading = Reading(
        parts=iter(()),
        provenance={
            "kind": "icu_sepsis",
            "seed": settings.seed,
            "patients": patients,
            "options": {"deadly": options.deadly},
            "shifted": [],
        },
    )
    reading.parts = _parts(cohort, made, patients, settings.seed, reading)
    return reading


def _check_columns(cohort: Cohort) -> None:
    """The file declares the one state and the two doses, with their levels, and nothing else."""
    levels: dict[str, int] = {n: len(c.levels) for n, c in cohort.states.items()}
    levels |= {n: len(action.levels) for n, action in cohort.actions.items()}
    wanted = {STATE: STATES, **dict.fromkeys(DOSES, LEVELS)}
    if levels != wanted:
        told = ", ".join(f"{name} of {count}" for name, count in wanted.items())
        raise SourceError(
            f"icu_sepsis has these columns with so many levels: {told}; mend observations and "
            f"actions in data_contracts/{cohort.name}.yaml"
        )


def _parts(
    cohort: Cohort, made: Process, patients: int, seed: int, reading: Reading
) -> Iterator[pd.DataFrame]:
    stays = rows = 0
    for part in logged_chunks(made, patients, seed, cohort.max_steps, cohort.time_step_hours):
        stays += part["stay_id"].nunique()
        rows += len(part)
        yield part[list(cohort.table_columns)]
    reading.attrition.append(count("logged", stays, stays, rows))


def logged(
    made: Process, patients: int, seed: int, max_steps: int = MAX_STEPS, hours: float = HOURS
) -> pd.DataFrame:
    """All of `logged_chunks`."""
    parts = list(logged_chunks(made, patients, seed, max_steps, hours))
    return pd.concat(parts, ignore_index=True)


def logged_chunks(
    made: Process, patients: int, seed: int, max_steps: int = MAX_STEPS, hours: float = HOURS
) -> Iterator[pd.DataFrame]:
    """The table in parts of up to `BLOCK` patients.

    A stay that is not over before its last possible decision is censored there, whatever that
    decision would have brought: that row is a state only.
    """
    sums = made.follows.cumsum(2), made.clinicians.cumsum(1), made.begun.cumsum()
    for block, first in enumerate(range(0, patients, BLOCK)):
        rng = np.random.Generator(np.random.SFC64(SeedSequence([seed, block])))
        drawn = _stays(sums, max_steps, rng)
        drawn = drawn[drawn[:, 0] < patients - first]
        yield _table(drawn, first, hours)


def _stays(sums: tuple[Floats, Floats, Floats], max_steps: int, rng: Generator) -> Codes:
    """(rows, 5): stay, step, state, combination (-1: none given), outcome (-1: not known)."""
    follows, clinicians, begun = sums
    state = np.minimum(np.searchsorted(begun, rng.random(BLOCK) * begun[-1], "right"), STATES - 1)
    stay, rows = np.arange(BLOCK), []
    for step in range(max_steps):
        luck = rng.random((2, BLOCK))[:, stay]
        given, outcome = np.full((2, len(stay)), -1)
        if step < max_steps - 1:
            given = _drawn(clinicians[state], luck[0])
            outcome = _drawn(follows[state, given], luck[1])
        rows.append(np.stack([stay, np.full(len(stay), step), state, given, outcome], axis=1))
        on = (outcome >= 0) & (outcome < STATES)
        stay, state = stay[on], outcome[on]
        if not len(stay):
            break
    table = np.concatenate(rows)
    return table[np.lexsort((table[:, 1], table[:, 0]))]


def _drawn(sums: Floats, luck: Floats) -> Codes:
    """One of each row, by its running sums; never one without a chance."""
    place: Codes = (sums <= (luck * sums[:, -1])[:, None]).sum(1)
    return place.clip(max=sums.shape[1] - 1)


def _table(drawn: Codes, first: int, hours: float) -> pd.DataFrame:
    stay, step, state, given, outcome = drawn.T
    last = np.append(stay[1:] != stay[:-1], True)
    end = np.full(len(stay), None, dtype=object)
    end[last] = np.select(
        [outcome[last] == STATES, outcome[last] == STATES + 1], ["death", "discharge"], "censored"
    )
    died = np.full(len(stay), None, dtype=object)
    known = last & (outcome >= STATES)
    died[known] = outcome[known] == STATES
    dose = np.where(given[:, None] < 0, np.nan, np.stack(np.divmod(given, LEVELS), axis=1))
    names = {letter: [f"{letter}{first + i:07d}" for i in range(BLOCK)] for letter in "PS"}
    columns: dict[str, Any] = {
        "patient_id": pd.array(np.array(names["P"], object)[stay], dtype="str"),
        "stay_id": pd.array(np.array(names["S"], object)[stay], dtype="str"),
        "step": step.astype(np.int32),
        "hours": step * hours,
        "site": pd.array(np.full(len(stay), None, dtype=object), dtype="str"),
        STATE: state.astype(np.float64),
        **{name: dose[:, j] for j, name in enumerate(DOSES)},
        "end": pd.array(end, dtype="str"),
        "died": pd.array(died, dtype="boolean"),
    }
    return pd.DataFrame(columns)
