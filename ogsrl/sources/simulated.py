"""Simulated cohorts as a source: the simulator's stays, as the cohort file declares them.

Called by `open_source`. It checks that the cohort file and the simulator agree on columns.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pandas as pd

from ogsrl.errors import SourceError
from ogsrl.sources.reading import Reading, SourceSettings, count
from ogsrl.sources.simulator import SimulatorConfig, simulate_chunks
from ogsrl.spec import Cohort

DEFAULT_PATIENTS = 20_000


def read(cohort: Cohort, settings: SourceSettings) -> Reading:
    """Simulate the cohort that `source.options` describes."""
    options = dict(cohort.source.options)
    patients = int(options.pop("patients", DEFAULT_PATIENTS))
    patients = settings.patients if settings.patients is not None else patients
    known = {item.name for item in dataclasses.fields(SimulatorConfig)}
    unknown = sorted(set(options) - known)
    if unknown:
        raise SourceError(
            f"source.options: unknown {', '.join(unknown)}; the simulator knows "
            f"{', '.join(sorted({'patients', *known}))}"
        )
    try:
        config = SimulatorConfig(**options)
    except (TypeError, ValueError) as error:
        raise SourceError(f"source.options: {error}") from None
    reading = Reading(
        parts=iter(()),
        provenance={
            "kind": "simulator",
            "seed": settings.seed,
            "patients": patients,
            "options": {key: value for key, value in sorted(options.items())},
            "shifted": [],
        },
    )
    reading.parts = _parts(cohort, patients, settings.seed, config, reading)
    return reading


def _parts(
    cohort: Cohort, patients: int, seed: int, config: SimulatorConfig, reading: Reading
) -> Iterator[pd.DataFrame]:
    people: set[int] = set()
    stays = rows = 0
    for part in simulate_chunks(patients, seed, config):
        missing = [name for name in cohort.table_columns if name not in part]
        if missing:
            raise SourceError(
                f"the simulator has no column {', '.join(missing)}; "
                f"remove it from data_contracts/{cohort.name}.yaml"
            )
        people.update(pd.util.hash_array(part["patient_id"].unique()).tolist())
        stays += part["stay_id"].nunique()
        rows += len(part)
        yield part[list(cohort.table_columns)]
    reading.attrition.append(count("simulated", len(people), stays, rows))
