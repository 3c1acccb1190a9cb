"""Who is trained on and who is tested on: patients to parts by a keyed hash of their id alone.

Called by the stage prepare on any shard of the table. Adding patients moves nobody, and neither
order nor shard matters. No id ever enters a message.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd

from ogsrl.errors import LeakageError, PreparationError
from ogsrl.preparation.config import PARTS, PrepareParams

SOURCE_PARTS = {"held_out": "test", "tuning": "validation", "train": "train"}


def hash_position(patient_ids: Iterable[str], key: str) -> npt.NDArray[np.float64]:
    """A number in [0, 1) for each id: its blake2b hash under the key.

    >>> hash_position(["P1", "P2", "P1"], "ogsrl").round(3).tolist()
    [0.521, 0.123, 0.521]
    """
    secret = key.encode()
    digests = b"".join(
        hashlib.blake2b(name.encode(), digest_size=8, key=secret).digest() for name in patient_ids
    )
    return (np.frombuffer(digests, ">u8") >> np.uint64(11)).astype(np.float64) / 2.0**53


def assign_parts(
    patient_ids: pd.Series, params: PrepareParams, source_split: pd.Series | None = None
) -> pd.Series:
    """The part of every row, from its patient's id alone.

    Args:
        patient_ids: One id a row.
        params: Shares, key, and whether the source's own split is honoured.
        source_split: The table's column `split` (train, tuning or held_out), if it has one.

    >>> ids = pd.Series(["P1", "P2", "P3", "P1"])
    >>> assign_parts(ids, PrepareParams()).tolist()
    ['calibration', 'train', 'train', 'calibration']
    """
    missing = int(patient_ids.isna().sum())
    if missing:
        raise PreparationError(f"patient_id: {missing} rows without one; validate the table first")
    codes, names = pd.factorize(patient_ids)
    place = hash_position(names.astype(str), params.split_key)
    shares = np.array([getattr(params.split, part) for part in PARTS])
    part = np.minimum(np.searchsorted(np.cumsum(shares), place, side="right"), len(PARTS) - 1)
    row_part = np.array(PARTS, object)[part[codes]]
    if params.honour_source_splits:
        row_part = _honour(place[codes], params, source_split)
    return pd.Series(row_part, index=patient_ids.index, dtype="str", name="part")


def _honour(
    place: npt.NDArray[np.float64], params: PrepareParams, source_split: pd.Series | None
) -> npt.NDArray[np.object_]:
    """held_out -> test, tuning -> validation, train -> train and calibration by hash."""
    if source_split is None:
        raise PreparationError(
            "prepare.honour_source_splits is on but the table has no column `split`; "
            "turn it off or let the source write the column"
        )
    named = source_split.map(SOURCE_PARTS)
    unknown = int(named.isna().sum())
    if unknown:
        raise PreparationError(
            f"split: {unknown} rows name none of {', '.join(SOURCE_PARTS)}; mend the source's "
            "splits or turn prepare.honour_source_splits off"
        )
    fitted = params.split.train / (params.split.train + params.split.calibration)
    part = named.to_numpy(object)
    part[(part == "train") & (place >= fitted)] = "calibration"
    return part


def check_disjoint(patients: Mapping[str, Iterable[str]]) -> None:
    """Raise if one patient is in two parts.

    >>> check_disjoint({"train": ["P1", "P2"], "test": ["P3"]})
    >>> check_disjoint({"train": ["P1", "P2"], "test": ["P2"]})
    Traceback (most recent call last):
    ...
    ogsrl.errors.LeakageError: patient_id: 1 patients are in two parts (train and test: 1); ...
    """
    sets = {part: set(ids) for part, ids in patients.items()}
    parts = list(sets)
    shared = {
        f"{one} and {other}": len(sets[one] & sets[other])
        for i, one in enumerate(parts)
        for other in parts[i + 1 :]
    }
    if any(shared.values()):
        where = ", ".join(f"{pair}: {count}" for pair, count in shared.items() if count)
        raise LeakageError(
            f"patient_id: {sum(shared.values())} patients are in two parts ({where}); "
            "a patient must have one id and one source split"
        )
