"""Rows of patients in a model are found by their values, in whatever form; lengths tell nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from safetensors.numpy import save_file

from ogsrl.audit.rows import with_rows

STAYS, STEPS = 90, 5
COLUMNS = ["map", "lactate"]


@cache
def part() -> pd.DataFrame:
    """90 stays of 5 steps, as prepare leaves them; `ill` and `level` are whole numbers."""
    rng, rows = np.random.default_rng(7), STAYS * STEPS
    stay = np.repeat(np.arange(STAYS), STEPS)
    return pd.DataFrame(
        {
            "patient_id": [f"P{i:04d}" for i in stay],
            "stay_id": [f"S{i:04d}" for i in stay],
            "step": np.tile(np.arange(STEPS), STAYS),
            "map": rng.normal(size=rows).round(2).astype(np.float32),
            "lactate": rng.normal(size=rows).astype(np.float32),
            "ill": rng.integers(0, 2, rows).astype(np.float32),
            "level": rng.integers(0, 40, rows).astype(np.float32),
        }
    )


def table() -> np.ndarray[Any, Any]:
    return part()[COLUMNS].to_numpy(np.float32)


def model(folder: Path, **arrays: np.ndarray[Any, Any]) -> Path:
    """A model of learned numbers, and these arrays."""
    rng = np.random.default_rng(0)
    learned = {
        "weights": rng.normal(size=(64, 64)).astype(np.float32),
        "bias": np.zeros(STAYS * STEPS, np.float32),
        "codes": np.arange(40, dtype=np.int64),
    }
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    save_file(learned | arrays, folder / "weights.safetensors")
    config = {"layout": {"columns": COLUMNS}, "threshold": 0.25, "knots": np.arange(30).tolist()}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def found(folder: Path) -> list[str]:
    return with_rows({"guardian": folder}, [part().iloc[:200], part().iloc[200:]])


def test_what_was_learned_is_no_patient(tmp_path: Path) -> None:
    assert found(model(tmp_path)) == []


def test_as_many_cells_as_stays_are_no_stays(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    cells = {
        "centers": rng.normal(size=(STAYS, 2)).astype(np.float32),
        "patients": rng.integers(10, 60, STAYS),
        "radius": rng.random(STAYS * STEPS).astype(np.float32),
    }
    assert found(model(tmp_path, **cells)) == []


@pytest.mark.parametrize(
    "form",
    [
        lambda rows: rows,
        lambda rows: rows.T,
        lambda rows: rows.ravel(),
        lambda rows: rows[:-1],
        lambda rows: np.random.default_rng(3).permutation(rows)[:25],
        lambda rows: rows.astype(np.float64).reshape(9, -1, 2),
        lambda rows: np.column_stack([rows, np.random.default_rng(3).normal(size=len(rows))]),
    ],
    ids=["a table", "on its side", "flat", "one short", "some, shuffled", "in blocks", "beside"],
)
def test_rows_are_found_in_any_form(
    tmp_path: Path, form: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]
) -> None:
    made = model(tmp_path, cells=form(table()))
    assert found(made) == ["guardian/weights.safetensors: cells"]


def test_a_whole_column_of_whole_numbers_is_found_and_a_mask_is_not(tmp_path: Path) -> None:
    levels = part().iloc[200:]["level"].to_numpy(np.int64)
    mask = part().iloc[200:]["ill"].to_numpy(np.int64)
    made = model(tmp_path, cells=np.sort(levels), mask=mask)
    assert found(made) == ["guardian/weights.safetensors: cells"]
    by_stay = part().iloc[200:].groupby("stay_id")["level"].last().to_numpy()
    assert found(model(tmp_path, cells=by_stay)) == ["guardian/weights.safetensors: cells"]


def test_a_whole_column_is_found_in_any_unit(tmp_path: Path) -> None:
    scaled = 1000 + 250 * table()[200:].astype(np.float64)
    assert found(model(tmp_path, cells=scaled)) == ["guardian/weights.safetensors: cells"]
    noisy = scaled + np.random.default_rng(2).normal(scale=25, size=scaled.shape)
    assert found(model(tmp_path, cells=noisy)) == []


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("rows.json", lambda frame: json.dumps(frame[COLUMNS].to_dict("records"))),
        ("rows.json", lambda frame: json.dumps({"a": {"b": frame[COLUMNS].values.tolist()}})),
        ("rows.json", lambda frame: json.dumps(frame["lactate"].iloc[1:].tolist())),
        ("rows.json", lambda frame: json.dumps(frame["lactate"].astype(str).tolist())),
        ("rows.yaml", lambda frame: yaml.safe_dump(frame["lactate"].tolist())),
        ("ids.json", lambda frame: json.dumps(frame["stay_id"].unique().tolist())),
        ("ids.json", lambda frame: json.dumps(dict.fromkeys(frame["patient_id"], 1))),
    ],
)
def test_rows_and_names_of_patients_are_found_in_text(
    tmp_path: Path, name: str, write: Callable[[pd.DataFrame], str]
) -> None:
    (model(tmp_path) / name).write_text(write(part().iloc[:200]))
    told = found(tmp_path)
    assert told
    assert all(one.startswith(f"guardian/{name}: ") for one in told)


@pytest.mark.parametrize("name", ["rows.parquet", "deeper/rows.npz", "rows.pkl", "rows"])
def test_a_file_of_no_known_kind_is_refused_by_name(tmp_path: Path, name: str) -> None:
    (model(tmp_path) / "deeper").mkdir()
    (tmp_path / name).write_bytes(b"")
    assert found(tmp_path) == [f"guardian/{name}: a file of no known kind"]
