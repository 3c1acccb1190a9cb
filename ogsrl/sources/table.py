"""A table of stays (parquet file, folder of shards, or CSV) as a source.

Called by `open_source`. DuckDB reads, casts and sorts out of memory; what needs whole stays
(binning, ends, shifts) is done on parts of whole stays in `table_stays`. Values are never judged
here and never shown: DuckDB's own messages, which quote cells, are replaced by ours.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow.parquet as pq

from ogsrl.errors import SourceError
from ogsrl.sources.reading import (
    Reading,
    SourceSettings,
    Warned,
    file_hash,
    some_of,
    source_files,
)
from ogsrl.sources.table_columns import Mapping, map_columns
from ogsrl.sources.table_stays import StayBuilder
from ogsrl.spec import Cohort
from ogsrl.trajectories import PART_ROWS, whole_stays

_MEMORY = "1GB"


@dataclass(frozen=True)
class _Foreign:
    """The foreign table as DuckDB sees it: how to select from it, and its columns' types."""

    relation: str
    types: dict[str, str]
    is_text: bool


def read(cohort: Cohort, settings: SourceSettings) -> Reading:
    """Open the table at `source.path` and map it onto the cohort's columns."""
    files = source_files(cohort, settings.root)
    database = duckdb.connect()
    database.execute(f"SET memory_limit='{_MEMORY}'; SET threads={settings.threads}")
    database.execute("SET enable_progress_bar=false")
    database.execute("SET TimeZone='UTC'")
    if settings.scratch is not None:
        settings.scratch.mkdir(parents=True, exist_ok=True)
        database.execute(f"SET temp_directory={_quoted(str(settings.scratch))}")
    foreign = _foreign(database, files, _expected(cohort))
    warnings: list[Warned] = []
    mapping = map_columns(cohort, foreign.types, warnings)
    _check_casts(database, foreign, mapping, warnings)
    builder = StayBuilder(cohort, mapping)
    provenance = {
        "kind": "table",
        "files": {_label(file, files): file_hash(file) for file in files},
        "columns": mapping.provenance(),
        "derived": mapping.derived(),
        "shifted": [n for n, c in cohort.observations.items() if not c.known_before_dose],
    }
    reading = Reading(iter(()), provenance, builder.attrition, warnings)
    some = None
    if settings.patients is not None:
        some = _some_patients(database, foreign, mapping, settings.patients)
    reading.parts = _parts(database, foreign, mapping, builder, reading, some)
    return reading


def _some_patients(
    database: duckdb.DuckDBPyConnection, foreign: _Foreign, mapping: Mapping, wanted: int
) -> str:
    """A condition that keeps this many patients, the same ones in any order of the rows."""
    patient = next(item for item in mapping.items if item.name == "patient_id")
    found = database.execute(
        f"SELECT DISTINCT {patient.sql(foreign.is_text)} FROM {foreign.relation}"
    ).fetchall()
    chosen = some_of((row[0] for row in found), wanted)
    database.execute("CREATE TEMP TABLE chosen (patient_id VARCHAR)")
    database.executemany("INSERT INTO chosen VALUES (?)", [(patient_id,) for patient_id in chosen])
    return "patient_id IN (SELECT patient_id FROM chosen)"


def _label(file: Path, files: list[Path]) -> str:
    """A shard is told by its number: some exports write a file a patient, under their name."""
    return file.name if len(files) == 1 else f"file {files.index(file) + 1} of {len(files)}"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _expected(cohort: Cohort) -> set[str]:
    death = {cohort.outcome.death} if cohort.outcome is not None else set()
    names = (*cohort.table_columns, "time", "split")
    return {cohort.source.columns.get(name, name) for name in names} | death


def _foreign(
    database: duckdb.DuckDBPyConnection, files: list[Path], expected: set[str]
) -> _Foreign:
    kinds = {file.suffix.lower() for file in files}
    if kinds - {".parquet", ".csv"} or len(kinds) != 1:
        raise SourceError(
            "source.path: must be .parquet or .csv (or a folder of one of the two); "
            f"found {', '.join(sorted(kinds))}"
        )
    names = "[" + ", ".join(_quoted(str(file)) for file in files) + "]"
    if kinds == {".parquet"}:
        _check_shards(files)
        relation = f"read_parquet({names}, union_by_name=true)"
    else:
        separators = {_check_csv(file, _label(file, files), expected) for file in files}
        delimiter = f", delim={_quoted(separators.pop())}" if len(separators) == 1 else ""
        options = f"all_varchar=true, header=true, union_by_name=true{delimiter}"
        relation = f"read_csv({names}, {options})"
    try:
        described = database.execute(f"DESCRIBE SELECT * FROM {relation}").fetchall()
    except duckdb.Error:
        raise SourceError(
            f"source.path: {len(files)} file(s) could not be read as {kinds.pop()[1:]}; check that "
            "they are complete, in UTF-8, and have one header line (rule truncated_file)"
        ) from None
    types = {str(row[0]): str(row[1]) for row in described}
    return _Foreign(relation, types, kinds == {".csv"})


def _check_csv(file: Path, label: str, expected: set[str]) -> str:
    """Complain of what DuckDB would misread; gives the separator. Never quotes an unknown name."""
    if file.stat().st_size == 0:
        raise SourceError(f"{label}: empty file (rule empty_file); export it again")
    with file.open("rb") as stream:
        head = stream.read(1 << 16)
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
        is_text = b"\x00" not in head
    except UnicodeDecodeError:
        is_text = False
    if not is_text:
        raise SourceError(f"{label}: not text in UTF-8 (rule encoding); save it as CSV in UTF-8")
    names = head.splitlines()[0].decode("utf-8", "replace").lstrip("\ufeff")
    separator = max(",;\t|", key=names.count)
    columns = [name.strip().strip('"') for name in names.split(separator)]
    if not expected & set(columns):
        raise SourceError(
            f"{label}: none of {len(columns)} names in its first line is a column of the "
            "cohort (rule no_header); add the header line, or name the columns in source.columns"
        )
    repeated = sorted({name for name in columns if columns.count(name) > 1 and name in expected})
    if repeated:
        raise SourceError(
            f"{label}: column {', '.join(repeated)} stands more than once in the header "
            "(rule repeated_column); rename or remove one"
        )
    return separator


def _check_shards(files: list[Path]) -> None:
    seen: dict[str, str] = {}
    names: set[str] | None = None
    for file in files:
        if file.stat().st_size == 0:
            raise SourceError(
                f"{_label(file, files)}: empty file (rule empty_file); export it again"
            )
        try:
            found = pq.read_schema(file)
        except Exception:
            raise SourceError(
                f"{_label(file, files)}: not a readable parquet file, truncated or of another kind "
                "(rule truncated_file); export it again"
            ) from None
        for column in found:
            kind = str(column.type).replace("large_string", "string")
            if seen.setdefault(column.name, kind) != kind:
                raise SourceError(
                    f"{column.name}: type {kind} in {_label(file, files)} and "
                    f"{seen[column.name]} in another (rule mixed_types); export all shards alike"
                )
        if names is not None and names != set(found.names):
            differing = ", ".join(sorted(names ^ set(found.names)))
            raise SourceError(
                f"{differing}: in some of the {len(files)} files only (rule mixed_columns); "
                "export all shards alike"
            )
        names = set(found.names)


def _check_casts(
    database: duckdb.DuckDBPyConnection,
    foreign: _Foreign,
    mapping: Mapping,
    warnings: list[Warned],
) -> None:
    """Count, in one pass, the cells that cannot be what the cohort file says; then complain."""
    checks = [check for item in mapping.items for check in item.checks(foreign.is_text)]
    if not checks:
        return
    sums = ", ".join(check.sql for check in checks)
    try:
        row = database.execute(f"SELECT {sums}, count(*) FROM {foreign.relation}").fetchall()[0]
    except duckdb.Error:
        raise SourceError(
            "source.path: the file is damaged or has rows of different lengths "
            "(rule truncated_file); export it again"
        ) from None
    if row[-1] == 0:
        raise SourceError("source.path: the table has no rows (rule no_rows); nothing to ingest")
    wrong = []
    for check, found in zip(checks, row[:-1], strict=True):
        if not check.is_wrong(int(found), int(row[-1])):
            continue
        message = f"{check.column}: {found} of {row[-1]} cells {check.message} (rule {check.rule})"
        if check.severity == "warning":
            warnings.append(Warned(check.rule, check.column, int(found), message))
        else:
            wrong.append(message)
    if wrong:
        raise SourceError("\n".join(wrong))


def _parts(
    database: duckdb.DuckDBPyConnection,
    foreign: _Foreign,
    mapping: Mapping,
    builder: StayBuilder,
    reading: Reading,
    condition: str | None,
) -> Iterator[pd.DataFrame]:
    query = f"SELECT {mapping.select(foreign.is_text)} FROM {foreign.relation}"
    tie = "hash(" + ", ".join(f'"{item.name}"' for item in mapping.items) + ")"
    where = f"WHERE {condition}" if condition else ""
    query = f"SELECT * FROM ({query}) {where} ORDER BY stay_id, {mapping.clock}, {tie}"
    try:
        batches = database.sql(query).to_arrow_reader(PART_ROWS)
        for stays in whole_stays(batch.to_pandas() for batch in batches):
            yield builder.build(stays)
    except duckdb.Error:
        raise SourceError(
            "source.path: reading stopped within the table (rule truncated_file); the file is "
            "damaged, or the disk for sorting is full"
        ) from None
    finally:
        database.close()
    builder.finish(reading.warnings)
