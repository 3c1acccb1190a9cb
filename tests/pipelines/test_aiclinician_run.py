"""The AI-Clinician's table through the stages that judge and split it."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipelines.stage import Stage
from tests.aiclinician_data import layout, named, simulated

REPOSITORY = Path(__file__).resolve().parents[2]


def test_it_is_judged_and_split_by_patient_and_its_defects_are_in_the_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data_contracts").mkdir()
    shutil.copy(REPOSITORY / "data_contracts" / "aiclinician.yaml", tmp_path / "data_contracts")
    shutil.copy(REPOSITORY / "params.yaml", tmp_path)
    home = tmp_path / "private" / "aiclinician"
    home.mkdir(parents=True)
    made = layout(simulated(600))
    named(made).to_csv(home / "sepsis_final_data_RAW_withTimes.csv", index=False)
    ids = sorted(made["stay"].unique())
    whose = pd.DataFrame({"SUBJECT_ID": np.arange(len(ids)) // 2, "ICUSTAY_ID": ids})
    whose.to_csv(home / "ICUSTAYS.csv", index=False)
    for name in ("source", "ingest", "validate", "prepare"):
        importlib.import_module(f"pipelines.{name}").run(Stage(name, "aiclinician", tmp_path))
    said = capsys.readouterr().out
    assert "validate: 0 of" in said
    assert "decided by what came later" in said
    told = json.loads((tmp_path / "reports" / "aiclinician" / "cohort.json").read_text())
    assert {one["rule"] for one in told["warnings"]} >= {"filled", "dose_in_state", "caveat"}
    seen = json.loads((tmp_path / "data" / "aiclinician" / "source.json").read_text())["files"]
    assert len(seen) == 2
    prepared = tmp_path / "data" / "aiclinician" / "prepared"
    parts = [
        set(pd.read_parquet(prepared / f"{part}.parquet")["patient_id"])
        for part in ("train", "calibration", "validation", "test")
    ]
    assert sum(map(len, parts)) == len(set().union(*parts)) == (len(ids) + 1) // 2
