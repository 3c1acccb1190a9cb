"""The trajectory table is written whole or not at all, and read back in whole stays."""

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks._tables import random_table, wide_cohort
from ogsrl import trajectories
from ogsrl.errors import SourceError

COHORT = wide_cohort(16)
SCHEMA = trajectories.schema(COHORT)


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return random_table(COHORT, 200, 1)


@given(cuts=st.lists(st.integers(0, 2000), max_size=6), rows=st.integers(1, 3000))
@settings(max_examples=25, deadline=None)
def test_bytes_do_not_depend_on_the_parts_and_parts_hold_whole_stays(
    cuts: list[int], rows: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("parts")
    table = random_table(COHORT, 120, 2)
    trajectories.write(table, folder / "whole.parquet", SCHEMA)
    edges = sorted({0, len(table), *(min(cut, len(table)) for cut in cuts)})
    with trajectories.TableWriter(folder / "parts.parquet", SCHEMA) as writer:
        for low, high in itertools.pairwise(edges):
            writer.write(table.iloc[low:high])
    assert writer.written == len(table)
    assert (folder / "whole.parquet").read_bytes() == (folder / "parts.parquet").read_bytes()
    parts = list(trajectories.read_parts(folder / "parts.parquet", rows=rows))
    assert sum(part["stay_id"].nunique() for part in parts) == 120
    pd.testing.assert_frame_equal(pd.concat(parts, ignore_index=True), table)


def test_row_groups_do_not_depend_on_the_parts_of_a_large_table(
    table: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trajectories, "ROW_GROUP", 100)
    trajectories.write(table, tmp_path / "a.parquet", SCHEMA)
    with trajectories.TableWriter(tmp_path / "b.parquet", SCHEMA) as writer:
        for low in range(0, len(table), 37):
            writer.write(table.iloc[low : low + 37])
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_nothing_half_written_is_left_when_a_part_fails(
    table: pd.DataFrame, tmp_path: Path
) -> None:
    path = tmp_path / "a.parquet"

    def fail_in_the_second_part() -> None:
        with trajectories.TableWriter(path, SCHEMA) as writer:
            writer.write(table)
            writer.write(table.drop(columns="lab_00"))

    with pytest.raises(KeyError):
        fail_in_the_second_part()
    assert list(tmp_path.iterdir()) == []


def test_a_missing_and_a_torn_file_are_named_without_their_content(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no such file"):
        trajectories.read(tmp_path / "none.parquet")
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 marker-8891")
    with pytest.raises(SourceError, match="not a readable parquet") as caught:
        trajectories.read(tmp_path / "torn.parquet")
    assert "8891" not in str(caught.value)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=30))
def test_starts_are_the_first_rows_of_stays(lengths: list[int]) -> None:
    ids = pd.Series(np.repeat([f"s{i}" for i in range(len(lengths))], lengths))
    expected = np.cumsum([0, *lengths[:-1]])
    assert trajectories.starts(ids).tolist() == expected.tolist()
