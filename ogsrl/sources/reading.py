"""What every source hands to ingest: parts of the table, attrition, warnings, provenance.

Called by the ingest stage through `open_source`. A new source is a module beside this one and a
line in `open_source`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from ogsrl.errors import SourceError
from ogsrl.spec import Cohort


@dataclass(frozen=True)
class SourceSettings:
    """What a source may be told beyond the cohort file."""

    root: Path = field(default_factory=Path)
    """Relative paths start here."""
    scratch: Path | None = None
    """Folder for files of a sort that does not fit in memory."""
    patients: int | None = None
    """Simulated patients, or this many of a table's (chosen by a hash of their id)."""
    seed: int = 0
    threads: int = 2


@dataclass(frozen=True)
class Warned:
    """Something that a person should know; rule, column and count, never a value."""

    rule: str
    column: str | None
    count: int
    message: str


@dataclass
class Reading:
    """A source being read. `attrition` and `warnings` are complete once `parts` is exhausted."""

    parts: Iterator[pd.DataFrame]
    provenance: dict[str, Any]
    attrition: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[Warned] = field(default_factory=list)


def count(name: str, patients: int, stays: int, rows: int) -> dict[str, Any]:
    """One line of the attrition table: what is left after the step of this name."""
    return {"step": name, "patients": patients, "stays": stays, "rows": rows}


def some_of(patients: Iterable[str], wanted: int) -> list[str]:
    """This many patients, by a hash of their ids: the same ones in any order."""

    def order(patient_id: str) -> bytes:
        return hashlib.blake2b(patient_id.encode(), digest_size=16).digest()

    return sorted(patients, key=order)[:wanted]


def open_source(cohort: Cohort, settings: SourceSettings) -> Reading:
    """Open the source that the cohort names."""
    from ogsrl.sources import aiclinician, icu_sepsis, meds, simulated, table  # noqa: PLC0415 - a source's imports are its own

    readers: dict[str, Callable[[Cohort, SourceSettings], Reading]] = {
        "aiclinician": aiclinician.read,
        "icu_sepsis": icu_sepsis.read,
        "meds": meds.read,
        "simulator": simulated.read,
        "table": table.read,
    }
    return readers[cohort.source.kind](cohort, settings)


def source_files(cohort: Cohort, root: Path) -> list[Path]:
    """Files that the cohort's source consists of, sorted by name; none for a simulator."""
    if cohort.source.path is None:
        return []
    options = cohort.source.options
    mapping, patients = options.get("mapping"), options.get("patients")
    named = [] if mapping is None else [root / "mappings" / f"{mapping}.yaml"]
    named += [root / patients] if isinstance(patients, str) else []
    return [*_data_files(cohort, root / cohort.source.path), *filter(Path.is_file, named)]


def _data_files(cohort: Cohort, path: Path) -> list[Path]:
    if path.is_dir():
        found = sorted(
            file
            for file in path.rglob("*")
            if file.suffix in {".parquet", ".csv"} and not file.name.startswith(".")
        )
        if not found:
            raise SourceError(f"source.path: no .parquet or .csv file in the folder {path.name}/")
        return found
    if not path.exists():
        raise SourceError(
            f"source.path: {cohort.source.path} does not exist; put the file there or mend "
            f"source.path in data_contracts/{cohort.name}.yaml"
        )
    return [path]


def file_hash(path: Path) -> str:
    """The sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
