"""How a stage runs and fails: locked, watched, silent about values, never half-written."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from ogsrl.errors import ContractError, OgsrlError, SpecError
from pipelines import repro
from pipelines.stage import Stage, run_stage, write_json

REPOSITORY = Path(__file__).resolve().parents[2]


def stage(tmp_path: Path) -> Stage:
    return Stage("validate", "sepsis", tmp_path)


def test_our_errors_are_shown_and_any_other_keeps_its_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OGSRL_DEBUG", raising=False)

    def wrong(_: Stage) -> None:
        raise ContractError("map: 3 rows out of range")

    def defect(_: Stage) -> None:
        raise ValueError("could not convert 'patient 7713' to float")

    assert run_stage(stage(tmp_path), wrong) == 1
    assert "map: 3 rows" in capsys.readouterr().err
    assert run_stage(stage(tmp_path), defect) == 70
    shown = capsys.readouterr()
    assert "unexpected ValueError" in shown.err
    assert "in defect" in shown.err
    assert "7713" not in shown.err + shown.out


def test_the_same_stage_does_not_run_twice_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def again(outer: Stage) -> None:
        assert run_stage(outer, lambda _: None) == 1

    assert run_stage(stage(tmp_path), again) == 0
    assert "already running" in capsys.readouterr().err
    assert run_stage(stage(tmp_path), lambda _: None) == 0, "the lock was not released"


def test_a_report_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    write_json(tmp_path / "a" / "b.json", {"x": [1, 0.1], "y": None})
    assert json.loads((tmp_path / "a" / "b.json").read_text()) == {"x": [1, 0.1], "y": None}
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a" / "b.json", {"x": float("nan")})
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b.json"]
    assert json.loads((tmp_path / "a" / "b.json").read_text())["x"] == [1, 0.1]


@pytest.mark.parametrize("noted", [True, False], ids=["end noted", "a zombie"])
def test_a_stage_ends_when_its_parent_is_killed(noted: bool, tmp_path: Path) -> None:
    child = (
        "import time, sys; from pathlib import Path; from pipelines.stage import *;"
        "run_stage(Stage('x', 'sepsis', Path(sys.argv[1])),"
        "lambda s: (print(os.getpid(), flush=True), time.sleep(60)))"
    )
    parent = (
        "import subprocess, sys;subprocess.run([sys.executable, '-c', sys.argv[1], sys.argv[2]])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", parent, child, str(tmp_path)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    os.kill(process.pid, signal.SIGKILL)
    if noted:
        process.wait()
    deadline = time.monotonic() + 20
    while psutil.pid_exists(pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not psutil.pid_exists(pid)
    process.wait()


def test_a_stage_whose_run_is_gone_before_it_looks_does_nothing(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    stage_of = (
        "import sys; from pathlib import Path; from pipelines.stage import *;"
        "sys.exit(run_stage(Stage('x', 'sepsis', Path(sys.argv[1])), lambda s: print('worked')))"
    )

    def run(starter: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", stage_of, str(tmp_path)]
        env = {**os.environ, "OGSRL_STARTER": str(starter)}
        return subprocess.run(
            command, cwd=REPOSITORY, env=env, capture_output=True, text=True, check=False
        )

    orphan = run(gone.pid)
    assert (orphan.returncode, orphan.stdout) == (143, "")
    assert "is gone" in orphan.stderr
    assert run(os.getpid()).stdout == "worked\n"


def test_what_a_killed_dvc_left_half_written_is_cleared_and_nothing_else(tmp_path: Path) -> None:
    def dvc(*command: str) -> str:
        whole = [sys.executable, "-m", "dvc", *command]
        return subprocess.run(
            whole, cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout

    (tmp_path / "dvc.yaml").write_text(
        "stages:\n  one:\n    cmd: date > made\n    deps: [here]\n    outs: [made]\n"
    )
    (tmp_path / "here").touch()
    dvc("init", "--no-scm", "-q")
    dvc("repro", "-q")
    made = (tmp_path / "made").read_text()
    lock, locks = tmp_path / "dvc.lock", tmp_path / ".dvc" / "tmp" / "rwlock"
    whole = lock.read_text()
    assert repro.clear_torn_files(tmp_path) == [], "whole files stay"
    for end in ("", "schema", "stages:\n  one:", "deps:\n    - ", "hash"):
        lock.write_text(whole[: whole.index(end) + len(end)])
        assert len(repro.clear_torn_files(tmp_path)) == 1, end
        assert not lock.exists()
    locks.write_text(locks.read_text()[:-1])
    assert repro.clear_torn_files(tmp_path)[0].startswith("removed a list of locks")
    assert "is cached" in dvc("repro")
    assert (tmp_path / "made").read_text() == made
    assert lock.read_text() == whole


def test_choosing_a_cohort_changes_its_line_alone(tmp_path: Path) -> None:
    (tmp_path / "data_contracts").mkdir()
    (tmp_path / "data_contracts" / "other.yaml").touch()
    (tmp_path / "params.yaml").write_text("# kept\ncohort: sepsis # which\nseed: 1\n")
    repro.choose_cohort("other", tmp_path)
    assert (tmp_path / "params.yaml").read_text() == "# kept\ncohort: other # which\nseed: 1\n"
    with pytest.raises(SpecError, match="there is other"):
        repro.choose_cohort("none", tmp_path)
    assert issubclass(SpecError, OgsrlError)
