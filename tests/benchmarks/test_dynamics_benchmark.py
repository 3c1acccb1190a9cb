"""The dynamics' benchmark runs as its documentation says and writes every figure of the issue."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
ASKED = {
    "worst_gain_over_persistence",
    "worst_gain_over_linear",
    "interventional_ratio",
    "interventional_error",
    "fit_s",
    "death_slope",
    "death_auroc",
    "hypoxia_slope",
    "oliguria_slope",
    "worst_gain_over_linear_se",
    "worst_gain_over_linear_low",
    "worst_gain_over_linear_high",
    "worst_gain_over_linear_holds_0",
}


def test_the_quick_benchmark_writes_every_figure(tmp_path: Path) -> None:
    file = tmp_path / "dynamics.json"
    command = [sys.executable, "-m", "benchmarks.dynamics", "--quick", "--json", str(file)]
    subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    written = json.loads(file.read_text())
    assert written["command"] == "python -m benchmarks.dynamics --quick"
    assert set(written["figures"]) >= ASKED
    low, high = (written["figures"][f"worst_gain_over_linear_{side}"] for side in ("low", "high"))
    assert low < written["figures"]["worst_gain_over_linear"] < high
    assert written["figures"]["worst_gain_over_linear_holds_0"] == float(low <= 0 <= high)
    assert all(isinstance(value, float) for value in written["figures"].values())
