"""Real patients through every stage: of a hundred nothing can be learned, and it is said so."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path

import pytest

from pipelines.stage import Stage
from tests.demo import DEMO, needs_demo

REPOSITORY = Path(__file__).resolve().parents[2]
STAGES = (
    *("source", "ingest", "validate", "prepare", "behaviour", "dynamics", "guardian"),
    *("train", "select", "evaluate", "audit"),
)


@needs_demo
def test_of_a_hundred_patients_too_few_is_what_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "shared").symlink_to(DEMO.parents[1])
    root = tmp_path / "repository"
    shutil.copytree(REPOSITORY / "mappings", root / "mappings")
    (root / "data_contracts").mkdir()
    contract = "data_contracts/mimic_meds.yaml"
    shutil.copy(REPOSITORY / contract, root / contract)
    shutil.copy(REPOSITORY / "params.yaml", root)
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
