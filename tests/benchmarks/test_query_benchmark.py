"""The benchmark of queries runs whole on small numbers, and writes down no path."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks._report import ROOT


@pytest.mark.slow
def test_a_quick_run_answers_every_request(tmp_path: Path) -> None:
    file = tmp_path / "query.json"
    command = [sys.executable, "-m", "benchmarks.query", "--quick", "--json", str(file)]
    work = ["--work", str(tmp_path / "parts")]
    subprocess.run([*command, *work], cwd=ROOT, capture_output=True, text=True, check=True)
    written = json.loads(file.read_text())
    assert written["command"] == "python -m benchmarks.query --quick"
    assert written["figures"]["server_errors"] == 0
    assert written["figures"]["rows_per_s"] > 0
    assert str(tmp_path) not in file.read_text()
