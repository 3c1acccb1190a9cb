"""The trajectory table: its columns and types, and how it is read and written a part at a time.

Every stage reads and writes stays through this module. A table is one parquet file, sorted by
stay and step; a stay is never torn between two parts. Nothing here knows what a column means.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ogsrl.errors import SourceError
from ogsrl.spec import Cohort

PART_ROWS = 250_000
ROW_GROUP = 65_536


def schema(cohort: Cohort, *, split: bool = False) -> pa.Schema:
    """Types of the table's columns, in their order."""
    types = {
        "patient_id": pa.string(),
        "stay_id": pa.string(),
        "step": pa.int32(),
        "site": pa.string(),
        "end": pa.string(),
        "died": pa.bool_(),
    }
    names = (*cohort.table_columns, "split") if split else cohort.table_columns
    return pa.schema(
        [
            (name, pa.string() if name == "split" else types.get(name, pa.float64()))
            for name in names
        ]
    )


def starts(stay_ids: pd.Series) -> npt.NDArray[np.int64]:
    """Position of each stay's first row, in a table sorted by stay.

    >>> starts(pd.Series(["a", "a", "b", "c", "c"])).tolist()
    [0, 2, 3]
    """
    if len(stay_ids) == 0:
        return np.zeros(0, np.int64)
    codes = pd.factorize(stay_ids)[0]
    return np.concatenate([[0], np.flatnonzero(np.diff(codes)) + 1]).astype(np.int64)


@dataclass(frozen=True, eq=False)
class Stays:
    """Where each stay lies in a table of whole stays, and what can be done stay by stay.

    Every method takes one value a row and never lets a value pass from one stay to another.

    >>> stays = Stays.of(pd.Series(["a", "a", "a", "b", "b"]))
    >>> stays.carry(np.array([np.nan, 7.0, np.nan, np.nan, 2.0])).tolist()
    [nan, 7.0, 7.0, nan, 2.0]
    >>> stays.next(np.arange(5.0)).tolist()
    [1.0, 2.0, nan, 4.0, nan]
    >>> stays.sum(np.ones(5)).tolist()
    [3.0, 2.0]
    """

    start: npt.NDArray[np.int64]
    length: npt.NDArray[np.int64]

    @classmethod
    def of(cls, stay_ids: pd.Series) -> Stays:
        """Find the stays, or say how many are torn apart."""
        codes, names = pd.factorize(stay_ids)
        start = np.flatnonzero(np.diff(codes, prepend=-2))
        if len(start) != len(names):
            torn = len(start) - len(names)
            raise SourceError(f"stay_id: {torn} stays are not in one piece; sort by stay and step")
        return cls(start, np.diff(start, append=len(codes)))

    @property
    def rows(self) -> int:
        """Number of rows."""
        return int(self.length.sum())

    @cached_property
    def stay(self) -> npt.NDArray[np.int64]:
        """Number of each row's stay, from 0."""
        return np.repeat(np.arange(len(self.start)), self.length)

    @cached_property
    def step(self) -> npt.NDArray[np.int64]:
        """Number of each row within its stay, from 0."""
        return np.arange(self.rows) - np.repeat(self.start, self.length)

    @cached_property
    def first(self) -> npt.NDArray[np.bool_]:
        """Whether a row is its stay's first."""
        mask: npt.NDArray[np.bool_] = self.step == 0
        return mask

    @cached_property
    def last(self) -> npt.NDArray[np.bool_]:
        """Whether a row is its stay's last."""
        mask = np.zeros(self.rows, bool)
        mask[self.start + self.length - 1] = True
        return mask

    def next(self, values: npt.NDArray[Any], fill: float = np.nan) -> npt.NDArray[Any]:
        """The value of the stay's next row; `fill` on its last."""
        shifted = np.empty(len(values), np.result_type(values, type(fill)))
        shifted[:-1] = values[1:]
        shifted[self.last] = fill
        return shifted

    def previous(self, values: npt.NDArray[Any], fill: float = np.nan) -> npt.NDArray[Any]:
        """The value of the stay's row before; `fill` on its first."""
        shifted = np.empty(len(values), np.result_type(values, type(fill)))
        shifted[1:] = values[:-1]
        shifted[self.start] = fill
        return shifted

    def carry(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """The last known value up to and including the row; NaN where none is known yet."""
        known = np.where(np.isnan(values), np.repeat(self.start, self.length), np.arange(self.rows))
        return values[np.maximum.accumulate(known)] if len(values) else values

    def sum(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Sum over each stay."""
        return np.add.reduceat(values, self.start) if len(values) else values


class TableWriter:
    """Writes a table in parts, beside its final name, and renames it when all is written.

    Row groups have a fixed size whatever the parts were, so the same rows give the same bytes.
    """

    def __init__(self, path: Path, table_schema: pa.Schema) -> None:
        self.path = path
        self.schema = table_schema
        self._beside = path.with_name(f".{path.name}.partial")
        self._waiting: list[pa.Table] = []
        self._rows = 0
        self.written = 0

    def __enter__(self) -> TableWriter:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._writer = pq.ParquetWriter(self._beside, self.schema, compression="zstd")
        return self

    def write(self, frame: pd.DataFrame) -> None:
        """Add whole rows; columns are taken by name."""
        table = pa.Table.from_pandas(frame, schema=self.schema, preserve_index=False)
        self._waiting.append(table.replace_schema_metadata(None))
        self._rows += table.num_rows
        if self._rows >= ROW_GROUP:
            joined = pa.concat_tables(self._waiting)
            full = self._rows - self._rows % ROW_GROUP
            self._flush(joined.slice(0, full))
            self._waiting = [joined.slice(full)]
            self._rows -= full

    def _flush(self, table: pa.Table) -> None:
        self._writer.write_table(table, row_group_size=ROW_GROUP)
        self.written += table.num_rows

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None and self._rows:
            self._flush(pa.concat_tables(self._waiting))
        self._writer.close()
        if kind is None:
            self._beside.replace(self.path)
        else:
            self._beside.unlink(missing_ok=True)


def write(frame: pd.DataFrame, path: Path, table_schema: pa.Schema) -> None:
    """Write a whole table at once."""
    with TableWriter(path, table_schema) as writer:
        writer.write(frame)


def open_table(path: Path) -> pq.ParquetFile:
    """Open a parquet file, or say what is wrong with it without showing what is in it."""
    try:
        return pq.ParquetFile(path)
    except FileNotFoundError:
        raise SourceError(f"{path}: no such file; run the stage that writes it") from None
    except (pa.ArrowInvalid, OSError):
        raise SourceError(
            f"{path}: not a readable parquet file (truncated or of another kind); write it again"
        ) from None


def table_schema(path: Path) -> pa.Schema:
    """The schema of a table that is there."""
    with open_table(path) as file:
        return file.schema_arrow


def read(path: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Read a whole table, or only some of its columns."""
    with open_table(path) as file:
        return _frame(file.read(columns=list(columns) if columns is not None else None))


def read_parts(
    path: Path, columns: Sequence[str] | None = None, rows: int = PART_ROWS
) -> Iterator[pd.DataFrame]:
    """Read a table sorted by stay in parts of about `rows` rows, each of whole stays."""
    wanted = list(columns) if columns is not None else None
    if wanted is not None and "stay_id" not in wanted:
        wanted.append("stay_id")
    with open_table(path) as file:
        batches = file.iter_batches(batch_size=rows, columns=wanted)
        yield from whole_stays(_frame(pa.Table.from_batches([batch])) for batch in batches)


def whole_stays(frames: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
    """The same rows, sorted by stay, cut so that no stay is torn between two parts.

    >>> torn = [pd.DataFrame({"stay_id": list(text)}) for text in ("aab", "bb", "bcc")]
    >>> ["".join(part["stay_id"]) for part in whole_stays(torn)]
    ['aa', 'bbbb', 'cc']
    """
    carried: pd.DataFrame | None = None
    for frame in frames:
        if frame.empty:
            continue
        joined = frame if carried is None else pd.concat([carried, frame], ignore_index=True)
        last = int(starts(joined["stay_id"])[-1])
        carried = joined.iloc[last:]
        if last:
            yield joined.iloc[:last].reset_index(drop=True)
    if carried is not None and len(carried):
        yield carried.reset_index(drop=True)


def _frame(table: pa.Table) -> pd.DataFrame:
    frame: pd.DataFrame = table.to_pandas()
    if "died" in frame:
        frame["died"] = frame["died"].astype("boolean")
    return frame
