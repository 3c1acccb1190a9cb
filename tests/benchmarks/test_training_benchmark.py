"""The benchmark of training runs as documented, and its peers answer alike."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import torch

from benchmarks._training_rows import STEPS, problem, vitals

ROOT = Path(__file__).parents[2]
ASKED = {
    "steps_vs_prdc",
    "steps_vs_td3bc",
    "full_vs_prdc",
    "floor_share",
    "index_speedup",
    "index_certified",
    "own_row_share",
    "index_mb",
    "matrix_s",
    "steps_vs_td3bc_float32",
}


def test_the_quick_benchmark_writes_every_figure_and_its_index_is_never_wrong(
    tmp_path: Path,
) -> None:
    file = tmp_path / "training.json"
    command = [sys.executable, "-m", "benchmarks.training", "--quick", "--json", str(file)]
    subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    written = json.loads(file.read_text())
    assert written["command"] == "python -m benchmarks.training --quick"
    assert set(written["figures"]) >= ASKED
    assert written["figures"]["index_wrong"] == 0
    assert written["figures"]["index_worst_gap"] < 1e-4
    assert str(tmp_path) not in file.read_text()


def test_rows_of_a_stay_lie_nearer_to_each_other_than_to_others() -> None:
    made = vitals(3_000, 0)
    within = (made.states[1:] - made.states[:-1])[made.stay.diff() == 0].norm(dim=1).median()
    between = (made.states[STEPS:] - made.states[:-STEPS]).norm(dim=1).median()
    assert within < 0.8 * between
    assert torch.allclose(made.states.std(0), torch.ones(13))


def test_stays_end_where_their_last_step_is_and_nowhere_else() -> None:
    made = problem(600, 0)
    assert torch.equal(made.rows.terminal, made.after < 0)
    assert int(made.rows.terminal.sum()) == len(made.first) == 600 // STEPS
    going = ~made.rows.terminal
    assert torch.equal(made.rows.next_states[going], made.rows.states[made.after[going]])
