"""What a MEDS dataset says of itself: its name, and which subjects are for what.

Called by the MEDS source. Both files are optional; one that is there must be whole.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ogsrl.errors import SourceError

#: Parts of subject_splits.parquet.
SPLITS = ("train", "tuning", "held_out")


def name_and_version(root: Path) -> dict[str, str]:
    """Of dataset.json: `dataset_name` and `meds_version`, or that they are not told."""
    file = root / "metadata" / "dataset.json"
    told: Any = {}
    if file.is_file():
        try:
            told = json.loads(file.read_text(encoding="utf-8"))
        except ValueError:
            told = None
        if not isinstance(told, dict):
            raise SourceError("metadata/dataset.json: no JSON object; mend it, or remove it")
    return {key: str(told.get(key, "not told")) for key in ("dataset_name", "meds_version")}


def subject_splits(root: Path) -> dict[int, str] | None:
    """By subject: train, tuning or held_out; None where the dataset does not say.

    Raises:
        SourceError: It is not whole, names another part, or puts a subject into two.
    """
    file, label = root / "metadata" / "subject_splits.parquet", "metadata/subject_splits.parquet"
    if not file.is_file():
        return None
    try:
        told = pq.read_table(file, columns=["subject_id", "split"]).to_pandas()
    except (pa.ArrowInvalid, OSError):
        raise SourceError(
            f"{label}: not a whole parquet file with subject_id and split; copy it again, or "
            "remove it to split by a hash of the subject"
        ) from None
    told = pd.DataFrame({name: told[name] for name in ("subject_id", "split")}).drop_duplicates()
    other = int((~told["split"].isin(SPLITS)).sum())
    if other:
        raise SourceError(f"{label}: {other} subjects are in none of {', '.join(SPLITS)}")
    twice = int(told["subject_id"].duplicated().sum())
    if twice:
        raise SourceError(f"{label}: {twice} subjects are in two parts; each belongs in one")
    return dict(zip(told["subject_id"].tolist(), told["split"].tolist(), strict=True))
