"""The demo multiplied: new ids, the same stays so often, and nothing of it left behind."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from benchmarks import meds
from ogsrl.sources.meds.events import open_dataset, read_events
from ogsrl.sources.meds.mapping import load_mapping
from tests.demo import DEMO, needs_demo
from tests.sources.test_meds_mapping import MAPPINGS


@needs_demo
def test_so_many_copies_as_stays_ask_for_each_with_ids_of_its_own(tmp_path: Path) -> None:
    events = meds.multiply(tmp_path / "export", 141)
    once = sum(pq.read_metadata(path).num_rows for path in DEMO.glob("data/*/*.parquet"))
    assert events == 2 * once
    dataset = open_dataset(tmp_path / "export", load_mapping(MAPPINGS / "mimic_iv.yaml"))
    seen = [subject for part in read_events(dataset) for subject in part["subject"].unique()]
    assert len(seen) == len(set(seen)) == 200


@needs_demo
def test_a_quick_run_reads_it_and_tells_figures_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(meds.tempfile, "tempdir", str(tmp_path))
    made = meds.main(["--quick", "--scale", "1", "--json", str(tmp_path / "meds.json")])
    assert made["events_large"] == pytest.approx(5 * made["events_small"], rel=0.4)
    assert made["events_per_s"] > 0
    assert [path.name for path in tmp_path.iterdir()] == ["meds.json"]
