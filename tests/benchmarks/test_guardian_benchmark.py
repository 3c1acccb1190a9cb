"""The guardian's benchmark runs as documented, and a finished part is not done again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import _guardian_seeds
from benchmarks._guardian_seeds import SeedSettings, false_alarms, figures

ROOT = Path(__file__).parents[2]
ASKED = {
    "speedup_blocked_kde",
    "speedup_paper",
    "power_margin_doses",
    "power_margin_states",
    "power_margin_noise",
    "fit_time_growth",
    "fit_peak_mb_growth",
    "false_alarm_mean",
    "false_alarm_excess_se",
    "false_alarm_outliers",
}


def test_the_quick_benchmark_writes_every_figure(tmp_path: Path) -> None:
    file = tmp_path / "guardian.json"
    command = [sys.executable, "-m", "benchmarks.guardian", "--quick", "--json", str(file)]
    subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    written = json.loads(file.read_text())
    assert written["command"] == "python -m benchmarks.guardian --quick"
    assert set(written["figures"]) >= ASKED
    assert str(tmp_path) not in file.read_text()


def test_a_finished_seed_is_read_and_not_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = []

    def one(seed: int, settings: SeedSettings) -> dict[str, float | str]:
        done.append(seed)
        if seed == 3 and done.count(3) == 1:
            raise KeyboardInterrupt
        return {
            "mean": 0.04 + 0.01 * (seed == 2),
            "bound": 0.045,
            "alpha": 0.05,
            "power_random_doses": 0.5,
            "degree": 2,
            "usual": "ratio",
        }

    monkeypatch.setattr(_guardian_seeds, "one_seed", one)
    settings = SeedSettings(10, 10)
    with pytest.raises(KeyboardInterrupt):
        false_alarms(range(1, 4), settings, tmp_path)
    parts = false_alarms(range(1, 4), settings, tmp_path)
    assert done == [1, 2, 3, 3]
    found = figures(parts)
    assert found["false_alarm_mean"] == pytest.approx(0.13 / 3)
    assert found["false_alarm_outliers"] == 1
    assert found["false_alarm_excess_se"] < 0
