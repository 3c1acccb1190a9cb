"""What is killed midway and repeated comes to the same: stages, and DVC itself."""

import os
import signal
import time

import psutil
import pytest

from tests.workspace import Workspace

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "stage",
    [
        "ingest",
        "validate",
        "prepare",
        "behaviour",
        "dynamics",
        "guardian",
        "train",
        "select",
        "evaluate",
    ],
)
def test_a_stage_killed_midway_and_repeated_gives_the_same_bytes(
    workspace: Workspace, stage: str
) -> None:
    before = workspace.hashes()
    command = ["./run", stage, "--cohort", "sepsis"]
    started = time.monotonic()
    workspace.call(*command)
    lasted = time.monotonic() - started
    assert workspace.hashes() == before
    for share in (0.6, 0.95):
        process = workspace.start(*command)
        time.sleep(lasted * share)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    workspace.call(*command)
    assert workspace.hashes() == before


def test_dvc_killed_midway_leaves_no_orphan_and_the_same_bytes_when_repeated(
    workspace: Workspace,
) -> None:
    before = workspace.hashes()
    for wait in (4, 8):
        process = workspace.start("./run", "dvc", "repro", "--force", "--downstream", "ingest")
        time.sleep(wait)
        stages = psutil.Process(process.pid).children(recursive=True)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        _, alive = psutil.wait_procs(stages, timeout=10)
        assert alive == [], "a stage outlived dvc"
    lock = workspace.root / "dvc.lock"
    lock.write_text("")  # as one that is killed while it writes may leave it
    assert "half-written" in workspace.call("./run", "repro").stdout
    assert workspace.hashes() == before
