"""The pipeline as its users run it: DVC, real stages, parameters, cohorts."""

from pathlib import Path

import pytest

from tests.workspace import Workspace

pytestmark = pytest.mark.slow
TRAIN = ["train@bc", "train@ogsrl", "train@td3bc"]
#: Of what hangs on the guardian.
LAST = ["audit", "evaluate", "guardian", "register", "select", *TRAIN]


def test_a_second_run_runs_nothing_and_git_sees_no_data(workspace: Workspace) -> None:
    again = workspace.call("./run", "repro")
    assert workspace.ran(again.stdout) == []
    assert "up to date" in again.stdout
    seen = workspace.call("git", "status", "--porcelain").stdout.split()
    assert set(seen) <= {"M", "??", "params.yaml", "dvc.lock", "ledger/"}, seen


def test_one_parameter_reruns_only_what_depends_on_it(workspace: Workspace) -> None:
    workspace.change("max_quarantine_share: 0.05", "max_quarantine_share: 0.04")
    workspace.change("truth_patients: 200", "truth_patients: 210")
    ran = workspace.ran(workspace.call("./run", "repro").stdout)
    # the validated rows are the same, so prepare and all that hangs on it have nothing to do
    assert sorted(ran) == ["audit", "evaluate", "register", "validate"]
    workspace.change("history_steps: 3", "history_steps: 2")
    ran = workspace.ran(workspace.call("./run", "repro").stdout)
    assert ran[0] == "prepare"
    assert sorted(ran[1:]) == sorted(["behaviour", "dynamics", *LAST])
    workspace.change("max_quarantine_share: 0.04", "max_quarantine_share: 0.05")
    workspace.change("truth_patients: 210", "truth_patients: 200")
    workspace.change("history_steps: 2", "history_steps: 3")
    back = workspace.call("./run", "repro").stdout
    # audit counts who was measured on these patients meanwhile, and so its card is another
    assert set(workspace.ran(back)) <= {"audit", "register"}, "DVC's run cache knows the rest"


def test_a_failing_stage_shows_no_data_to_git(workspace: Workspace) -> None:
    workspace.change("split: {train: 0.5,", "split: {train: 0.7,")
    failed = workspace.call("./run", "repro", check=False)
    assert failed.returncode != 0
    assert "prepare.split" in failed.stdout + failed.stderr
    seen = workspace.call("git", "status", "--porcelain").stdout.split()
    assert set(seen) <= {"M", "??", "params.yaml", "dvc.lock", "ledger/"}, seen
    workspace.change("split: {train: 0.7,", "split: {train: 0.5,")
    workspace.call("./run", "repro")


def test_another_cohort_is_an_experiment_of_the_same_pipeline(workspace: Workspace) -> None:
    text = (workspace.root / "data_contracts" / "sepsis.yaml").read_text()
    other = workspace.root / "data_contracts" / "harder.yaml"
    other.write_text(
        text.replace("name: sepsis", "name: harder").replace("confounding: 0.0", "confounding: 0.5")
    )
    workspace.call("git", "add", "-A")
    workspace.call("git", "commit", "-q", "-m", "harder")
    workspace.call("./run", "dvc", "exp", "run", "-q", "-S", "cohort=harder")
    assert (workspace.root / "reports" / "harder" / "dataset.json").exists()
    assert "cohort: harder" in (workspace.root / "params.yaml").read_text()
    back = workspace.call("./run", "repro", "--cohort", "sepsis").stdout
    assert "params.yaml now says cohort: sepsis" in back
    # nothing is made anew; register has no cached output, looks, and finds it there
    assert workspace.ran(back) == ["register"]
    assert "(was there already)" in back or "no version" in back


def test_plots_are_shown_without_the_network(workspace: Workspace, tmp_path: Path) -> None:
    workspace.call("./run", "dvc", "plots", "show", "-o", str(tmp_path / "plots"))
    page = (tmp_path / "plots" / "index.html").read_text()
    assert "dataset_dose_plane" in page
    assert "guardian_region" in page
    assert "<script" not in page
    assert "http" not in page
