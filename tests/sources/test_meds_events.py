"""Reading a MEDS dataset: whole subjects in order, our units, and exports that are spoiled."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ogsrl.errors import SourceError
from ogsrl.sources.meds import events as reading
from ogsrl.sources.meds.events import Dataset, open_dataset, read_events
from ogsrl.sources.meds.mapping import CodeMap, load_mapping
from tests.demo import DEMO, demo_events, needs_demo
from tests.meds_data import NIGHT, events, write_meds, write_shard
from tests.sources.test_meds_mapping import MAPPINGS, SMALL

MARKER = 8_123_457


@pytest.fixture
def small() -> CodeMap:
    return CodeMap.model_validate(SMALL)


def two() -> dict[str, pd.DataFrame]:
    first = events(
        1, (None, "GENDER//F", None), (0, "T//F", 98.6), (1, "T//C", 37.5), (2, "x", 3.0)
    )
    second = events(MARKER, (0, "START//1", 0.1), (1, "END//1", 0.5), (1, "T//C", None))
    return {"train/0": first, "held_out/deep/7": second}


def whole(dataset: Dataset) -> pd.DataFrame:
    return pd.concat(list(read_events(dataset)), ignore_index=True)


def test_shards_at_any_depth_give_known_events_in_our_units(small: CodeMap, tmp_path: Path) -> None:
    dataset = open_dataset(write_meds(tmp_path, two()), small)
    found = whole(dataset)
    names = [dataset.meanings[i].name for i in found["meaning"]]
    assert names == ["norepinephrine", "norepinephrine", "temperature", *["temperature"] * 2]
    assert found["subject"].tolist() == [MARKER] * 3 + [1] * 2
    assert found["value"].iloc[:2].tolist() == pytest.approx([0.1, 0.5])
    assert np.isnan(found["value"].iloc[2])
    assert found["value"].iloc[3:].tolist() == pytest.approx([37.0, 37.5], abs=1e-5)
    night = NIGHT.timestamp() / 60
    assert found["minute"].tolist() == [night, night + 60, night + 60, night, night + 60]


def test_extra_columns_tell_units_and_orders(small: CodeMap, tmp_path: Path) -> None:
    frame = events(1, (0, "T", 98.6), (1, "T//C", 99.5), (2, "START//1", 7.0))
    frame["unit"], frame["order_id"] = ["F", "F", "ug/min"], [None, None, "77"]
    dataset = open_dataset(write_meds(tmp_path, {"0": frame}), small)
    found = whole(dataset)
    assert found["value"].iloc[:2].tolist() == pytest.approx([37.0, 37.5], abs=1e-4)
    assert dataset.meanings[found["meaning"].iloc[2]].conversion.per_kg
    assert found["order"].tolist()[2] == "77"


@pytest.mark.parametrize("rows", [1, 3, 1_000])
def test_a_subject_is_never_torn_whatever_is_read_at_a_time(
    small: CodeMap, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    frame = pd.concat(
        [events(s, *[(h, "T//C", 36.0 + h / 10) for h in range(s % 7 + 1)]) for s in range(1, 40)]
    )
    dataset = open_dataset(write_meds(tmp_path, {"0": frame}), small)
    monkeypatch.setattr(reading, "BATCH_ROWS", rows)
    monkeypatch.setattr(reading, "CHUNK_ROWS", 10)
    parts = list(read_events(dataset))
    subjects = [set(part["subject"]) for part in parts]
    assert len(parts) > 5 or rows == 1_000
    assert sum(map(len, subjects)) == len(set().union(*subjects)) == 39
    assert sum(map(len, parts)) == len(frame)


def spoiled(tmp_path: Path, kind: str) -> None:
    made = two()
    first = made["train/0"]
    if kind == "shuffled time":
        made["train/0"] = first.iloc[[0, 2, 1, 3]]
    elif kind == "a subject in two pieces":
        made["train/0"] = pd.concat([first, events(5, (0, "T//C", 37.0)), first])
    elif kind == "a subject in two shards":
        made["tuning/0"] = events(MARKER, (9, "T//C", 37.0))
    elif kind == "an unknown unit":
        made["tuning/0"] = events(3, (9, "T//K", 310.0))
    elif kind == "no column":
        made["train/0"] = first.drop(columns="numeric_value")
    elif kind == "none of our codes":
        made = {"0": events(1, (0, "x", 1.0))}
    root = write_meds(tmp_path, made)
    if kind == "a truncated shard":
        shard = root / "data" / "train" / "0.parquet"
        shard.write_bytes(shard.read_bytes()[:-40])
    elif kind == "a damaged page":
        shard = write_shard(
            root / "data" / "train" / "0.parquet",
            pd.concat([events(s, (0, "T//C", 37.0 + s / 1e4)) for s in range(2_000)]),
        )
        told = bytearray(shard.read_bytes())
        told[len(told) // 3 : len(told) // 3 + 400] = b"\xff" * 400
        shard.write_bytes(told)
    elif kind == "nothing":
        (root / "data" / "train" / "0.parquet").unlink()
        (root / "data" / "held_out" / "deep" / "7.parquet").unlink()
    elif kind == "another type":
        frame = first.assign(subject_id=first["subject_id"].astype("str"))
        frame.to_parquet(root / "data" / "train" / "0.parquet")


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("shuffled time", "1 subjects' events are not in order of time"),
        ("a subject in two pieces", "not together"),
        ("a subject in two shards", "1 subjects are in several shards"),
        ("an unknown unit", "temperature: K"),
        ("no column", "no column numeric_value"),
        ("none of our codes", "names no code of this dataset"),
        ("a truncated shard", "not a whole parquet file"),
        ("a damaged page", "not a whole parquet file"),
        ("nothing", "no .parquet file below"),
        ("another type", "subject_id ("),
    ],
)
def test_a_spoiled_export_is_told_without_showing_anybody(
    small: CodeMap, tmp_path: Path, kind: str, said: str
) -> None:
    spoiled(tmp_path, kind)
    with pytest.raises(SourceError) as error:
        whole(open_dataset(tmp_path, small))
    assert said in str(error.value)
    assert str(MARKER) not in str(error.value)


@needs_demo
def test_of_the_demo_every_known_event_is_read_once() -> None:
    dataset = open_dataset(DEMO, load_mapping(MAPPINGS / "mimic_iv.yaml"))
    found = whole(dataset)
    seen = demo_events()
    known = seen["code"].isin([code for code, _ in dataset.of_code])
    twice = seen["code"].eq("HOSPITAL_DISCHARGE//DIED").sum()
    assert len(found) == known.sum() + twice
    rates = [
        i for i, m in enumerate(dataset.meanings) if (m.kind, m.name) == ("rate", "norepinephrine")
    ]
    value = found.loc[found["meaning"].isin(rates), "value"]
    assert value.sum() == pytest.approx(
        seen.loc[seen["code"].eq("INFUSION_START//221906"), "numeric_value"].sum(), rel=1e-5
    )
