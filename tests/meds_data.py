"""A MEDS dataset of a few invented subjects, for tests to write and to spoil."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

SCHEMA = pa.schema(
    [
        ("subject_id", pa.int64()),
        ("time", pa.timestamp("us")),
        ("code", pa.string()),
        ("numeric_value", pa.float32()),
    ]
)
NIGHT = pd.Timestamp("2150-01-01")


def events(subject: int, *charted: tuple[float | None, str, float | None]) -> pd.DataFrame:
    """Of a subject: hours since a night (None: static), code, value; in the order given."""
    hours = [None if hour is None else NIGHT + pd.Timedelta(hours=hour) for hour, _, _ in charted]
    return pd.DataFrame(
        {
            "subject_id": subject,
            "time": pd.Series(hours, dtype="datetime64[us]"),
            "code": [code for _, code, _ in charted],
            "numeric_value": [value for _, _, value in charted],
        }
    )


def write_shard(path: Path, frame: pd.DataFrame) -> Path:
    """One file, with columns beyond MEDS' own if the frame has any."""
    path.parent.mkdir(parents=True, exist_ok=True)
    more = [pa.field(name, pa.string()) for name in frame if name not in SCHEMA.names]
    schema = pa.schema([SCHEMA.field(name) for name in SCHEMA.names if name in frame] + more)
    table = pa.Table.from_pandas(frame, schema=schema, preserve_index=False)
    pq.write_table(table, path, row_group_size=50)
    return path


def write_meds(root: Path, shards: Mapping[str, pd.DataFrame], **metadata: Any) -> Path:
    """A whole dataset: `train/0` and so on below data/, and dataset.json."""
    for name, frame in shards.items():
        write_shard(root / "data" / f"{name}.parquet", frame)
    (root / "metadata").mkdir(parents=True, exist_ok=True)
    told = {"dataset_name": "invented", "meds_version": "0.4.0", **metadata}
    (root / "metadata" / "dataset.json").write_text(json.dumps(told), encoding="utf-8")
    return root
