"""The simulator's benchmark runs as its documentation says and writes the common format."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_quick_benchmark_writes_every_figure(tmp_path: Path) -> None:
    file = tmp_path / "simulator.json"
    command = [sys.executable, "-m", "benchmarks.simulator", "--quick", "--json", str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    written = json.loads(file.read_text())
    assert list(written) == ["name", "date", "machine", "command", "revision", "figures"]
    assert written["command"] == "python -m benchmarks.simulator --quick"
    assert str(tmp_path) not in file.read_text()
    figures = written["figures"]
    assert {"gap", "gap_se", "denoising_gain", "sim_steps_per_s", "restarts_spread"} <= set(figures)
    assert all(isinstance(value, float) for value in figures.values())
    assert "mortality_clinicians" in done.stdout
