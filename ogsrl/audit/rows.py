"""Whether the files of a model hold rows of patients.

Called by the stage audit. Lengths tell nothing: tables of learned cells are as long as some part by
chance, and rows may lack one, lie flat or stand in JSON. So values are compared: a learned number
hardly ever equals a patient's to the last digit of a float32, and a row's numbers all do. Whole
numbers are everywhere (counts, codes, orders); they, and values that were scaled anew, are seen
where a complete column of a part is there, in any order. What this cannot see: rows that were
rounded or encoded as text, some of them scaled anew, what a network memorised (embeddings), and
fewer than `LEAST` values.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import yaml
from safetensors.numpy import load_file

from ogsrl.trajectories import Stays

#: So many different values, and such a share of an array's, are no coincidence: networks and means
#: over ten patients share at most .07 of their values with the default cohort, rows all.
LEAST, SHARE = 20, 0.2
#: A column of fewer different values is any mask or count.
FEW_VALUES = 3
#: In deviations: sorted columns of different things are further apart.
NEAR = 1e-4

Array = npt.NDArray[np.float32]


def with_rows(directories: Mapping[str, Path], parts: Sequence[pd.DataFrame]) -> list[str]:
    """`<model>/<file>: <array>` for all that holds rows, and each file that cannot be read.

    >>> with_rows({}, [pd.DataFrame({"stay_id": ["S1"], "map": [0.5]})])
    []

    Args:
        directories: Of the models, by name.
        parts: Prepared rows of all patients.
    """
    patients = _Patients.of(parts)
    found = []
    for name, directory in directories.items():
        for file in sorted(one for one in directory.rglob("*") if one.is_file()):
            at = f"{name}/{file.relative_to(directory).as_posix()}"
            read = READERS.get(file.suffix)
            if read is None:
                found.append(f"{at}: a file of no known kind")
                continue
            found += [f"{at}: {what}" for what, held in read(file) if patients.are_in(held)]
    return found


class _Patients:
    """What is known of patients, to be looked for."""

    def __init__(
        self, values: Array, columns: Mapping[int, Sequence[Array]], names: frozenset[str]
    ) -> None:
        self.values, self.columns, self.names = values, columns, names

    @classmethod
    def of(cls, parts: Sequence[pd.DataFrame]) -> _Patients:
        values, columns = [np.empty(0, np.float32)], defaultdict(list)
        names: set[str] = set()
        for part in parts:
            ids = [name for name in ("patient_id", "stay_id") if name in part]
            names.update(*(part[name].astype(str) for name in ids))
            stays = Stays.of(part["stay_id"])
            for name in part.select_dtypes("number"):
                column = part[name].to_numpy(np.float32)
                different = np.unique(column)
                values.append(_fractions(different))
                last = stays.start + stays.length - 1
                for rows in (column, column[stays.start], column[last]):
                    if len(np.unique(rows)) >= FEW_VALUES:
                        columns[len(rows)].append(_shape(rows[:, None]))
        return cls(np.unique(np.concatenate(values)), columns, frozenset(names))

    def are_in(self, held: Array | frozenset[str]) -> bool:
        """Whether these are patients' values, or their names."""
        if isinstance(held, frozenset):
            return len(held & self.names) >= LEAST
        different = _fractions(np.unique(held))
        same = int(np.isin(different, self.values).sum())
        if same >= LEAST and same >= SHARE * len(different):
            return True
        return any(self._complete(held, axis) for axis in range(held.ndim))

    def _complete(self, held: Array, axis: int) -> bool:
        """Whether a column along this axis is one of a part, in any order."""
        known = self.columns.get(held.shape[axis], ()) if held.shape[axis] >= LEAST else ()
        if not known:
            return False
        sides = _shape(np.moveaxis(held, axis, 0).reshape(held.shape[axis], -1))
        return any(bool((np.abs(sides - one) < NEAR).all(0).any()) for one in known)


def _shape(columns: Array) -> Array:
    """Each column sorted, whatever its unit."""
    ordered = np.sort(columns, axis=0).astype(np.float64)
    spread = ordered.std(0)
    shape = (ordered - ordered.mean(0)) / np.where(spread > 0, spread, 1.0)
    return np.asarray(shape, np.float32)


def _fractions(values: Array) -> Array:
    """Those that are finite and not whole."""
    known: Array = values[np.isfinite(values)]
    fractions: Array = known[known != np.round(known)]
    return fractions


def _tensors(file: Path) -> Iterator[tuple[str, Array]]:
    for name, array in load_file(file).items():
        yield name, array.astype(np.float32)


def _text(file: Path) -> Iterator[tuple[str, Array | frozenset[str]]]:
    """All names, all numbers (rows may be a mapping each), and every list of numbers."""
    text = file.read_text(encoding="utf-8")
    told = json.loads(text) if file.suffix == ".json" else yaml.safe_load(text)
    leaves = list(_leaves(told))
    yield "names", frozenset(one for one in leaves if isinstance(one, str))
    numbers = [one for one in leaves if isinstance(one, int | float)]
    yield "numbers", np.asarray(numbers, np.float32)
    yield from (("a list", one) for one in _lists(told))


def _leaves(told: Any) -> Iterator[Any]:
    if isinstance(told, dict):
        yield from told
    if isinstance(told, dict | list):
        for one in told.values() if isinstance(told, dict) else told:
            yield from _leaves(one)
    else:
        yield told


def _lists(told: Any) -> Iterator[Array]:
    if isinstance(told, list):
        try:
            yield np.asarray(told, np.float32)
        except (TypeError, ValueError):  # ragged, or of other things
            pass
        else:
            return
    if isinstance(told, dict | list):
        for one in told.values() if isinstance(told, dict) else told:
            yield from _lists(one)


#: The kinds of files that a model is made of; no other is let pass.
READERS = {".safetensors": _tensors, ".json": _text, ".yaml": _text}
