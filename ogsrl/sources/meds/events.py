"""Events of a MEDS dataset that a mapping knows, whole subjects at a time, in our units.

Called by the MEDS source. Shards are read batch by batch, in three to five columns, and what no
code of the mapping names is left out at once: memory does not grow with the export. Subjects are
never shown, nor told by their numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ogsrl.errors import SourceError
from ogsrl.sources.meds.mapping import Code, CodeMap, Meaning

#: Rows read at a time, and known events handed on at once.
BATCH_ROWS, CHUNK_ROWS = 131_072, 400_000
#: Columns that every shard has, and those that some exports add.
NEEDED, MORE = ("subject_id", "time", "code", "numeric_value"), ("unit", "order_id")
MINUTE = 60_000_000  # microseconds
BEFORE = -1e15  # a minute before all others: of what has no time
Places = npt.NDArray[np.int64]
_DAMAGED = "not a whole parquet file; copy it again"


@dataclass(frozen=True)
class Dataset:
    """Shards of an export, in order of their names.

    Attributes:
        root: Its folder.
        shards: Below data/.
        columns: Those read.
        meanings: What each code, with its unit, stands for.
    """

    root: Path
    shards: tuple[Path, ...]
    columns: tuple[str, ...]
    meanings: tuple[Meaning, ...]
    of_code: Mapping[Code, Sequence[int]]

    def label(self, shard: Path) -> str:
        """A shard as it is told of: by its number, since a name may be a patient's."""
        return f"shard {self.shards.index(shard) + 1} of {len(self.shards)}"


def open_dataset(root: Path, mapping: CodeMap, threads: int = 2) -> Dataset:
    """Find the shards, check their form, and what their codes mean.

    Raises:
        SourceError: Of a folder without shards, a shard that is not whole or lacks a column, a
            subject in several shards, units that the mapping does not name.
    """
    shards = tuple(sorted((root / "data").rglob("*.parquet")))
    if not shards:
        raise SourceError(f"source.path: no .parquet file below {root.name}/data/, as MEDS has it")
    unlabelled = Dataset(root, shards, (), (), {})
    columns: set[str] = {*NEEDED, *MORE}
    for shard in shards:
        columns &= _columns(shard, unlabelled.label(shard))
    found = _codes(shards, "unit" in columns, threads)
    known = mapping.meanings(found)
    meanings = tuple(dict.fromkeys(one for each in known.values() for one in each))
    place = {meaning: i for i, meaning in enumerate(meanings)}
    of_code = {code: [place[one] for one in each] for code, each in known.items()}
    if not of_code:
        raise SourceError(
            f"source.options.mapping: mappings/{mapping.name}.yaml names no code of this dataset"
        )
    ordered = tuple(name for name in (*NEEDED, *MORE) if name in columns)
    return Dataset(root, shards, ordered, meanings, of_code)


def _columns(shard: Path, label: str) -> set[str]:
    """Names of a shard's columns, if it has those needed, of their types."""
    try:
        schema = pq.read_schema(shard)
    except (pa.ArrowInvalid, OSError):
        raise SourceError(f"{label}: {_DAMAGED}") from None
    types = {name: schema.field(name).type for name in schema.names}
    missing = sorted({*NEEDED} - {*types})
    if missing:
        raise SourceError(f"{label}: no column {', '.join(missing)}; MEDS 0.4 has all of them")
    sound = {
        "subject_id": pa.types.is_integer(types["subject_id"]),
        "time": pa.types.is_timestamp(types["time"]),
        "code": pa.types.is_string(_plain(types["code"]))
        or pa.types.is_large_string(_plain(types["code"])),
        "numeric_value": pa.types.is_floating(types["numeric_value"]),
    }
    wrong = [f"{name} ({types[name]})" for name, fine in sound.items() if not fine]
    if wrong:
        raise SourceError(
            f"{label}: columns of another type than MEDS 0.4 has: {', '.join(wrong)}; they are "
            "int64, timestamp[us], string and float32"
        )
    return {*types}


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _codes(shards: Sequence[Path], units: bool, threads: int) -> list[Code]:
    """Every code there is, with every unit beside it; subjects are looked at on the way."""
    files = [str(shard) for shard in shards]
    unit = "unit" if units else "NULL"
    try:
        with duckdb.connect() as database:
            database.execute(f"SET threads={threads}; SET enable_progress_bar=false")
            _check_subjects(database, files)
            return database.execute(
                f"SELECT DISTINCT code, {unit} FROM read_parquet(?, union_by_name=true) "
                "WHERE code IS NOT NULL ORDER BY ALL",
                [files],
            ).fetchall()
    except duckdb.Error:  # it quotes what it found
        raise SourceError(f"a shard of source.path: {_DAMAGED}") from None


def _check_subjects(database: duckdb.DuckDBPyConnection, files: Sequence[str]) -> None:
    torn, nobody = database.execute(
        "SELECT count(*) FILTER (WHERE files > 1), count(*) FILTER (WHERE subject_id IS NULL) FROM "
        "(SELECT subject_id, count(DISTINCT filename) AS files "
        "FROM read_parquet(?, filename=true, union_by_name=true) GROUP BY subject_id)",
        [files],
    ).fetchone() or (0, 0)
    if torn:
        raise SourceError(
            f"subject_id: {torn} subjects are in several shards; MEDS keeps each in one, by time"
        )
    if nobody:
        raise SourceError("subject_id: events of nobody (null); say whose they are, or remove them")


def subjects(dataset: Dataset) -> list[int]:
    """Everybody's number."""
    files = [str(shard) for shard in dataset.shards]
    with duckdb.connect() as database:
        found = database.execute(
            "SELECT DISTINCT subject_id FROM read_parquet(?, union_by_name=true)", [files]
        ).fetchall()
    return [int(row[0]) for row in found]


def read_events(dataset: Dataset) -> Iterator[pd.DataFrame]:
    """Events of whole subjects, by subject and time as in the shards.

    Columns: `subject` (int64), `minute` since 1970 (float64, NaN: static), `meaning` (its place in
    `dataset.meanings`), `value` in our unit (NaN: none), `order` (text or None).
    """
    waiting: list[pd.DataFrame] = []
    rows = 0
    for shard in dataset.shards:
        for part in _whole_subjects(_batches(dataset, shard), dataset.label(shard)):
            waiting.append(_in_our_units(part, dataset))
            rows += len(part)
            if rows >= CHUNK_ROWS:
                yield pd.concat(waiting, ignore_index=True)
                waiting, rows = [], 0
    if waiting:
        yield pd.concat(waiting, ignore_index=True)


def _batches(dataset: Dataset, shard: Path) -> Iterator[pd.DataFrame]:
    """Known events of a shard, in its order."""
    texts = [name for name in ("code", "unit") if name in dataset.columns]
    label = dataset.label(shard)
    try:
        file = pq.ParquetFile(shard, read_dictionary=texts)
        for batch in file.iter_batches(BATCH_ROWS, columns=list(dataset.columns)):
            yield _known(batch, dataset)
    except (pa.ArrowInvalid, OSError):
        raise SourceError(f"{label}: {_DAMAGED}") from None


def _known(batch: pa.RecordBatch, dataset: Dataset) -> pd.DataFrame:
    """One row an event and meaning."""
    codes, names = _coded(batch.column("code"))
    units = np.zeros(len(batch), np.int64)
    tellings: list[str | None] = [None]
    if "unit" in dataset.columns:
        units, tellings = _coded(batch.column("unit"))
    both = codes * len(tellings) + units
    present, place = np.unique(both, return_inverse=True)
    meant = [
        dataset.of_code.get((names[one // len(tellings)], tellings[one % len(tellings)]), ())
        for one in present.tolist()
    ]
    count = np.array([len(each) for each in meant], np.int64)
    first = np.cumsum(count) - count
    flat = np.array([one for each in meant for one in each], np.int64)
    row = np.repeat(np.arange(len(batch)), count[place])
    turn = np.arange(len(row)) - np.repeat(np.cumsum(count[place]) - count[place], count[place])
    time = batch.column("time").cast(pa.timestamp("us"))
    micro = time.cast(pa.int64()).to_numpy(zero_copy_only=False)
    order = batch.column("order_id").cast(pa.string()) if "order_id" in dataset.columns else None
    frame: dict[str, Any] = {
        "subject": batch.column("subject_id").to_numpy(zero_copy_only=False)[row],
        "minute": micro.astype(np.float64)[row] / MINUTE,
        "meaning": flat[first[place[row]] + turn],
        "value": batch.column("numeric_value").to_numpy(zero_copy_only=False)[row],
        "order": None if order is None else order.take(pa.array(row)).to_pandas(),
    }
    return pd.DataFrame(frame)


def _coded(column: pa.Array) -> tuple[Places, list[str | None]]:
    """Places in the list of its texts, of which the last is none."""
    coded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    names = [*coded.dictionary.to_pylist(), None]
    return coded.indices.fill_null(len(names) - 1).to_numpy().astype(np.int64), names


def _whole_subjects(batches: Iterator[pd.DataFrame], label: str) -> Iterator[pd.DataFrame]:
    """The same rows, cut only between subjects, if they are in order."""
    seen: set[int] = set()
    rest: pd.DataFrame | None = None
    for batch in batches:
        some = batch if rest is None else pd.concat([rest, batch], ignore_index=True)
        if some.empty:
            continue
        subject = some["subject"].to_numpy()
        changes = np.flatnonzero(np.diff(subject)) + 1
        begin = int(changes[-1]) if len(changes) else 0
        rest = some.iloc[begin:]
        if begin:
            yield _ordered(some.iloc[:begin], seen, label)
    if rest is not None and len(rest):
        yield _ordered(rest, seen, label)


def _ordered(part: pd.DataFrame, seen: set[int], label: str) -> pd.DataFrame:
    subject, minute = part["subject"].to_numpy(), part["minute"].to_numpy()
    starts = subject[np.flatnonzero(np.diff(subject, prepend=subject[0] - 1))]
    again = len(starts) - len({*starts.tolist()}) + len(seen & {*starts.tolist()})
    same = np.diff(subject) == 0
    backwards = same & (np.diff(np.nan_to_num(minute, nan=BEFORE)) < 0)
    unsorted = len(np.unique(subject[1:][backwards]))
    if again or unsorted:
        raise SourceError(
            f"{label}: {max(again, unsorted)} subjects' events are not in order of time, or not "
            "together; sort each shard by subject_id and time, nulls first"
        )
    seen.update(starts.tolist())
    return part


def _in_our_units(part: pd.DataFrame, dataset: Dataset) -> pd.DataFrame:
    conversions = [one.conversion for one in dataset.meanings]
    factor = np.array([one.factor for one in conversions])
    offset = np.array([one.offset for one in conversions])
    meaning = part["meaning"].to_numpy()
    value = part["value"].to_numpy(np.float64) * factor[meaning] + offset[meaning]
    value[~np.isfinite(value)] = np.nan
    return part.assign(value=value)
