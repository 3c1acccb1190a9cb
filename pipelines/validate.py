"""Stage validate: the contract -> data/NAME/validated/, validation.json, Data Docs.

The report and Data Docs are written whatever the verdict; the validated table only if it passed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pyarrow as pa

from ogsrl.contracts import Contract
from ogsrl.contracts.data_docs import write_data_docs
from ogsrl.errors import SpecError
from ogsrl.trajectories import TableWriter, read_parts, table_schema, write
from pipelines.stage import Stage, write_json

QUARANTINE = pa.schema([("stay_id", pa.string()), ("rule", pa.string())])


def run(stage: Stage) -> None:
    """Judge the raw table; put aside the stays that break the contract."""
    params = stage.params.validate_
    stage.remove("validated")  # a verdict of no must not leave an older table to be used
    raw = stage.data("raw", "trajectories.parquet")
    reference = _table_of(stage, params.reference, "reference") if params.reference else None
    others = {name: _table_of(stage, name, "disjoint_with") for name in params.disjoint_with}
    with stage.progress("rows judged") as update:
        verdict = Contract(stage.cohort).check(
            _counted(raw, update),
            reference=read_parts(reference) if reference else None,
            others={name: _patients(path) for name, path in others.items()},
            max_quarantine_share=params.max_quarantine_share,
        )
    write_json(stage.report("validation.json"), verdict.summary)
    write_data_docs(verdict, stage.report("data_docs"))
    for result in verdict.failing:
        stage.say(f"{result.severity}: {result.key}: {result.message}")
    verdict.raise_if_failed()
    write(verdict.quarantine, stage.data("validated", "quarantine.parquet"), QUARANTINE)
    path = stage.data("validated", "trajectories.parquet")
    with TableWriter(path, table_schema(raw)) as writer:
        for part in read_parts(raw):
            writer.write(verdict.keep(part))
    stage.say(f"{verdict.quarantined_stays:,} of {verdict.stays:,} stays in quarantine")


def _counted(path: Path, update: Callable[[int], None]) -> Iterator[pd.DataFrame]:
    for part in read_parts(path):
        yield part
        update(len(part))


def _patients(path: Path) -> Iterator[pd.Series]:
    for part in read_parts(path, ["patient_id"]):
        yield part["patient_id"]


def _table_of(stage: Stage, cohort: str, key: str) -> Path:
    path = stage.validated_table(cohort)
    if not path.exists():
        raise SpecError(
            f"validate.{key}: cohort {cohort} has no validated table; "
            f"run `make repro COHORT={cohort}` first, or take it out of params.yaml"
        )
    return path
