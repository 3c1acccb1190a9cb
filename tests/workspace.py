"""A copy of the repository's tracked files as its own git repository, for whole runs."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from benchmarks._small import HARDLY_FITTED, HARDLY_TRAINED

REPOSITORY = Path(__file__).resolve().parents[1]
#: The same code on small numbers: what a test changes in params.yaml.
SMALL = {
    "threads: 2": "threads: 1",
    **HARDLY_FITTED,
    "{fits: 5, networks: 2, hidden: 64, start_steps: 200, steps: 1500": (
        "{fits: 2, networks: 1, hidden: 16, start_steps: 20, steps: 50"
    ),
    "truth_patients: 20000": "truth_patients: 200",
    "predictions: {fits: 5, networks: 1, hidden: 64, start_steps: 200, steps: 1000": (
        "predictions: {fits: 2, networks: 1, hidden: 16, start_steps: 20, steps: 50"
    ),
    "{fits: 8, networks: 1, hidden: 64, start_steps: 200, steps: 1500": (
        "{fits: 2, networks: 1, hidden: 16, start_steps: 20, steps: 50"
    ),
    "values: {fits: 1, networks: 2, hidden: 64, start_steps: 200, steps: 1500": (
        "values: {fits: 1, networks: 1, hidden: 16, start_steps: 20, steps: 50"
    ),
    "robust: {fits: 1, networks: 2, hidden: 64, start_steps: 200, steps: 1500": (
        "robust: {fits: 1, networks: 1, hidden: 16, start_steps: 20, steps: 50"
    ),
    "screen_stays: 1000": "screen_stays: 100",
    "seeds: [0, 1, 2]": "seeds: [0]",
    **HARDLY_TRAINED,
}


def small_params(patients: int | None) -> str:
    """The repository's params.yaml, with small models, and so many simulated patients.

    Of the default cohort, whichever was made last.
    """
    text = (REPOSITORY / "params.yaml").read_text()
    text = re.sub(r"^cohort: .*$", "cohort: sepsis", text, count=1, flags=re.MULTILINE)
    changes = {**SMALL, "patients: null": f"patients: {patients}"} if patients else SMALL
    for old, new in changes.items():
        assert old in text, f"params.yaml has no {old}"
        text = text.replace(old, new, 1)
    return text


@dataclass(frozen=True)
class Workspace:
    """A fresh clone with the virtual environment of the repository under test."""

    root: Path

    @classmethod
    def make(cls, root: Path, *, patients: int) -> Workspace:
        """Copy what git would: tracked files and new ones that are not ignored."""
        listed = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard"],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
        for name in listed:
            made_by_runs = name == "dvc.lock" or name.startswith("ledger/")
            if (REPOSITORY / name).is_file() and not made_by_runs:
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(REPOSITORY / name, root / name)
        (root / ".venv").symlink_to(REPOSITORY / ".venv")
        made = cls(root)
        (root / "params.yaml").write_text(small_params(patients))
        for command in ("git init -q", "git add -A", "git commit -q -m start"):
            made.call(*command.split())
        return made

    def change(self, old: str, new: str, file: str = "params.yaml") -> None:
        """Replace one piece of a text file."""
        text = (self.root / file).read_text()
        assert old in text, f"{file} has no {old}"
        (self.root / file).write_text(text.replace(old, new, 1))

    def call(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command here and return what it printed."""
        done = subprocess.run(
            command, cwd=self.root, capture_output=True, text=True, check=False, env=self.env()
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        """Start a command here, in a process group of its own."""
        return subprocess.Popen(
            command,
            cwd=self.root,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=self.env(),
            start_new_session=True,
        )

    def env(self) -> dict[str, str]:
        """The environment of a person who just cloned: nothing of this test run's."""
        names = {"author": "a", "committer": "a"}
        git = {f"GIT_{n.upper()}_{k}": "a@example.org" for n in names for k in ("NAME", "EMAIL")}
        kept = {k: v for k, v in os.environ.items() if not re.match("PYTEST|OGSRL|MLFLOW", k)}
        return {**kept, **git, "GIT_CONFIG_GLOBAL": os.devnull}

    def ran(self, output: str) -> list[str]:
        """Names of the stages that DVC says it ran."""
        return re.findall(r"Running stage '([^']+)'", output)

    def hashes(self, *, exempt: str = "data_docs") -> dict[str, str]:
        """The sha256 of every file under data/, models/ and reports/, Data Docs apart."""
        return {
            str(path.relative_to(self.root)): hashlib.sha256(path.read_bytes()).hexdigest()
            for folder in ("data", "models", "reports")
            for path in sorted((self.root / folder).rglob("*"))
            if path.is_file() and exempt not in path.parts
        }
