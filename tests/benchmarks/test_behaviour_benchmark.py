"""The behaviour benchmark writes every figure that the work package names."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks import behaviour


def test_the_quick_benchmark_writes_every_figure(tmp_path: Path) -> None:
    file = tmp_path / "behaviour.json"
    figures = behaviour.main(["--quick", "--json", str(file)])
    named = {
        *("ratio_min", "ratio_max", "ratio_steps_share", "gain_over_persistence"),
        *("gain_over_persistence_lo", "behaviour_ece", "fit_s"),
    }
    assert named <= set(figures)
    written = json.loads(file.read_text())["figures"]
    assert set(written) == set(figures)
    assert written["gain_over_persistence_lo"] > 0
    assert written["behaviour_ece"] < 0.15
