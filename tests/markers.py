"""Marker values and ids planted in every column, and the search that must not find them.

Used by every test that shows that no patient's value or id leaves data/ and private/. A later part
plants its own tables with `plant` and searches its outputs with `Markers.found_in`.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from safetensors.numpy import load_file

from ogsrl.spec import Cohort

#: Folders where patients may be: everything else is searched.
PRIVATE = ("data", "private", ".dvc/cache", ".dvc/tmp", ".git", ".venv")
_STAYS = 8  # fewer patients than a site needs to be named


@dataclass(frozen=True)
class Markers:
    """What was planted: texts (ids, names) and numbers that stand nowhere else."""

    texts: tuple[str, ...]
    numbers: tuple[float, ...]

    def in_text(self, text: str) -> list[str]:
        """Markers that a text shows, in any usual writing."""
        low = text.lower()
        return [mark for mark in self._written() if mark.lower() in low]

    def in_bytes(self, content: bytes) -> list[str]:
        """Markers in bytes: as UTF-8 or UTF-16 text, or as raw numbers."""
        low = content.lower()
        found = [
            mark
            for mark in self._written()
            if mark.lower().encode() in low or mark.lower().encode("utf-16-le") in low
        ]
        found += [f"raw {n}" for n in self.numbers if struct.pack("<d", n) in content]
        found += [f"raw {n} (SQLite)" for n in self.numbers if struct.pack(">d", n) in content]
        return found + [f"raw {n} (float32)" for n in self.numbers if _f4(n) in content]

    def in_file(self, path: Path) -> list[str]:
        """Markers in one file; a parquet file is also read, since it is compressed."""
        found = self.in_bytes(path.read_bytes())
        if path.suffix == ".parquet":
            found += self._in_table(path)
        return found

    def found_in(self, root: Path, private: Iterable[str] = PRIVATE) -> list[str]:
        """`file: marker` for every marker under a folder, but for its private folders."""
        hidden = [root / name for name in private]
        return [
            f"{path.relative_to(root)}: {mark}"
            for path in sorted(root.rglob("*"))
            if path.is_file() and not any(path.is_relative_to(folder) for folder in hidden)
            for mark in [*self.in_file(path), *self.in_text(str(path.relative_to(root)))]
        ]

    def _written(self) -> Iterator[str]:
        yield from self.texts
        for value in self.numbers:
            yield repr(value)
            yield f"{value:.7g}"

    def _in_table(self, path: Path) -> Iterator[str]:
        table = pq.read_table(path).to_pandas()
        for name in table:
            column = table[name]
            if pd.api.types.is_numeric_dtype(column):
                values = column.to_numpy(np.float64, na_value=np.nan)
                for value in self.numbers:
                    if np.isclose(values, value, rtol=1e-9, atol=0).any():
                        yield f"column {name}: {value}"
            else:
                seen = " ".join(str(value) for value in column.dropna().unique())
                yield from (f"column {name}: {mark}" for mark in self.in_text(seen))


def _f4(value: float) -> bytes:
    return struct.pack("<f", value)


def plant(frame: pd.DataFrame, cohort: Cohort, *, breaking: bool) -> tuple[pd.DataFrame, Markers]:
    """A copy of a table whose first stays carry markers in every column.

    Args:
        frame: A clean table of at least 8 stays.
        cohort: Its cohort.
        breaking: Whether the markers break the contract, or keep it (where a column allows).
    """
    planted = frame.copy()
    stays = planted["stay_id"].drop_duplicates().iloc[:_STAYS].tolist()
    mine = planted["stay_id"].isin(stays)
    planted.loc[mine, "stay_id"] = "MARKstay" + planted.loc[mine, "stay_id"]
    planted.loc[mine, "patient_id"] = "MARKpatient" + planted.loc[mine, "patient_id"]
    planted.loc[mine, "site"] = "MARKsite"
    ids = pd.concat([planted.loc[mine, name] for name in ("stay_id", "patient_id")])
    texts = ["MARKstay", "MARKpatient", "MARKsite", *ids.drop_duplicates()]
    numbers: list[float] = []
    rows = np.flatnonzero(mine)
    for place, (name, (low, high)) in enumerate(_ranges(cohort).items()):
        numeric = name not in cohort.states or _numeric(cohort, name)
        if not breaking and (not numeric or _is_sum(cohort, name)):
            continue
        value = (
            _odd(low, high, place)
            if not breaking
            else _odd(high * 10 + 1e4, high * 20 + 2e4, place)
        )
        numbers.append(value)
        if name in cohort.static and not breaking:
            stay = planted["stay_id"] == planted["stay_id"].iloc[rows[0]]
            planted.loc[stay, name] = value
        else:
            row = rows[place % len(rows)]
            if not (name in cohort.actions and planted["end"].iloc[row] == "censored"):
                planted.loc[planted.index[row], name] = value
    if breaking:
        numbers += [913.37119, 918273.0]
        planted.loc[planted.index[rows[1]], "hours"] = 913.37119
        planted.loc[planted.index[rows[2]], "step"] = 918273
        planted.loc[planted.index[rows[3]], "end"] = "MARKend"
        texts.append("MARKend")
    return planted, Markers(tuple(texts), tuple(numbers))


def plant_extremes(
    frame: pd.DataFrame, cohort: Cohort, patients: list[str]
) -> tuple[pd.DataFrame, dict[str, list[float]]]:
    """A copy in which two patients hold the least and the largest value of every numeric column.

    Returns:
        The table, and the values planted in each column.
    """
    planted = frame.copy()
    least, largest = (np.flatnonzero(planted["patient_id"] == one) for one in patients[:2])
    numbers: dict[str, list[float]] = {}
    for place, (name, (low, high)) in enumerate(_ranges(cohort).items()):
        if _is_sum(cohort, name) or (name in cohort.states and not _numeric(cohort, name)):
            continue
        off = (high - low) * (1e-3 + 1e-5 * place)
        # doses: the least is many patients' own, and the largest must be apart from the bound
        values = [0.91371 * high] * 2 if name in cohort.actions else [low + off, high - off]
        for rows, value in zip((least, largest), values, strict=True):
            mine = rows if name in cohort.static else rows[[place % len(rows)]]
            planted.loc[planted.index[mine], name] = value
        numbers[name] = values
    return planted, numbers


def numbers_near(root: Path, wanted: Iterable[float], rounded: float) -> list[str]:
    """`file: value` for every number in JSON or safetensors files under a folder that is one.

    Args:
        root: The folder.
        wanted: The numbers.
        rounded: By how much a number in JSON may be rounded.
    """
    found = []
    for path in sorted(root.rglob("*")):
        if path.suffix == ".json":
            held, within = np.array(list(_numbers(json.loads(path.read_text())))), rounded
        elif path.suffix == ".safetensors":
            arrays = [a.ravel().astype(float) for a in load_file(path).values()]
            held = np.concatenate([np.zeros(0), *arrays])  # who always defers has none
            within = 0.0  # single precision: weights are many, and near to anything
        else:
            continue
        found += [
            f"{path.relative_to(root)}: {value}"
            for value in wanted
            if np.isclose(held, value, rtol=2e-7, atol=within).any()
        ]
    return found


def _numbers(content: object) -> Iterator[float]:
    if isinstance(content, dict | list):
        for part in content.values() if isinstance(content, dict) else content:
            yield from _numbers(part)
    elif isinstance(content, int | float):
        yield float(content)


def _numeric(cohort: Cohort, name: str) -> bool:
    return cohort.states[name].kind == "numeric"


def _ranges(cohort: Cohort) -> dict[str, tuple[float, float]]:
    states = {name: column.range for name, column in cohort.states.items()}
    return states | {name: action.range for name, action in cohort.actions.items()}


def _is_sum(cohort: Cohort, name: str) -> bool:
    if name in cohort.observations and cohort.observations[name].cumulative_of is not None:
        return True
    return any(column.cumulative_of == name for column in cohort.observations.values())


def _odd(low: float, high: float, place: int) -> float:
    """A number between two others that nobody would write by chance."""
    share = 0.31415926 + 0.00718281 * place
    return math.floor((low + (high - low) * (share % 1)) * 1e6 + 1) / 1e6 + 7.3e-7
