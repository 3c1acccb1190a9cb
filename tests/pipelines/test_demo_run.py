"""Real patients through every stage: of a hundred nothing can be learned, and it is said so."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from pipelines.stage import Stage
from tests.demo import DEMO, needs_demo

REPOSITORY = Path(__file__).resolve().parents[2]
STAGES = (
    *("source", "ingest", "validate", "prepare", "behaviour", "dynamics", "guardian"),
    *("train", "select", "evaluate", "audit"),
)


def made(tmp_path: Path) -> Path:
    """A repository with the demo beside it."""
    (tmp_path / "shared").symlink_to(DEMO.parents[1])
    root = tmp_path / "repository"
    shutil.copytree(REPOSITORY / "mappings", root / "mappings")
    (root / "data_contracts").mkdir()
    contract = "data_contracts/mimic_meds.yaml"
    shutil.copy(REPOSITORY / contract, root / contract)
    shutil.copy(REPOSITORY / "params.yaml", root)
    return root


@needs_demo
def test_the_datasets_own_parts_are_kept_when_asked(tmp_path: Path) -> None:
    root = made(tmp_path)
    params = root / "params.yaml"
    text = params.read_text()
    assert "honour_source_splits: false" in text
    params.write_text(text.replace("honour_source_splits: false", "honour_source_splits: true"))
    for name in ("ingest", "validate", "prepare"):
        importlib.import_module(f"pipelines.{name}").run(Stage(name, "mimic_meds", root))
    told = pd.read_parquet(DEMO / "metadata" / "subject_splits.parquet")
    source = dict(zip(told["subject_id"].astype("str"), told["split"], strict=True))
    of_part = {
        "train": {"train"},
        "calibration": {"train"},
        "validation": {"tuning"},
        "test": {"held_out"},
    }
    for part, of_source in of_part.items():
        frame = pd.read_parquet(root / "data" / "mimic_meds" / "prepared" / f"{part}.parquet")
        assert {source[one] for one in frame["patient_id"]} == of_source, part


@needs_demo
def test_of_a_hundred_patients_too_few_is_what_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = made(tmp_path)
    said = {}
    for name in STAGES:
        stage = Stage(name, "mimic_meds", root)
        importlib.import_module(f"pipelines.{name}").run(stage)
        said[name] = capsys.readouterr().out
    assert "0 of 90 stays in quarantine" in said["validate"]
    first = next(name for name in STAGES if "too few patients" in said[name])
    assert first == "behaviour"  # nothing before it needs more
    assert "; too few patients" in said["audit"].partition("\n")[0]
    assert (root / "ledger" / "mimic_meds.jsonl").read_text() == ""  # audit depends on it
    seen = json.loads((root / "data" / "mimic_meds" / "source.json").read_text())["files"]
    assert len(seen) == len([*DEMO.rglob("*.parquet")]) + 1  # the mapping is one of them
    card = (root / "reports" / "mimic_meds" / "card.md").read_text()
    assert "Nothing: nobody was put forward: too few patients to learn from" in card
    assert "antibiotics alone: weaker than Sepsis-3" in card
