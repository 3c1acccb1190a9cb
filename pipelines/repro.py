"""`./run repro`: what `make repro` does; all stages whose inputs changed, for one cohort.

It clears away what a killed DVC left half-written, looks whether the foreign files changed, and
then leaves the rest to DVC.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from dvc.schema import COMPILED_LOCKFILE_SCHEMA
from voluptuous import Invalid

from ogsrl.errors import SpecError
from pipelines import source
from pipelines.stage import Stage, run_stage

FIRST_STAGE = "ingest"


def run(cohort: str, root: Path) -> int:
    """Bring the cohort up to date; the exit status."""
    choose_cohort(cohort, root)
    for line in clear_torn_files(root):
        print(f"repro: {line}")
    status = run_stage(Stage("source", cohort, root), source.run)
    if status:
        return status
    command = [sys.executable, "-m", "dvc", "repro", "--downstream", FIRST_STAGE]
    status = subprocess.run(command, cwd=root, check=False).returncode
    if status == 0:
        print(f"repro: cohort {cohort} is up to date; read reports/{cohort}/")
    return status


def choose_cohort(cohort: str, root: Path) -> None:
    """Write the cohort's name into params.yaml, where DVC reads it, and leave all else as it is."""
    if not (root / "data_contracts" / f"{cohort}.yaml").exists():
        found = sorted(path.stem for path in (root / "data_contracts").glob("*.yaml"))
        raise SpecError(
            f"cohort: no file data_contracts/{cohort}.yaml; there is {', '.join(found)}"
        )
    path = root / "params.yaml"
    text = path.read_text(encoding="utf-8")
    changed, found_lines = re.subn(r"(?m)^cohort:\s*\S+", f"cohort: {cohort}", text, count=1)
    if not found_lines:
        raise SpecError("params.yaml: cohort: no such line at the top level")
    if changed != text:
        beside = path.with_name(".params.yaml.partial")
        beside.write_text(changed, encoding="utf-8")
        beside.replace(path)
        print(f"repro: params.yaml now says cohort: {cohort}")


def clear_torn_files(root: Path) -> list[str]:
    """Remove what DVC was writing when it was killed; say what was done.

    DVC writes both files in place and stops at one that it cannot read. Nothing is lost with
    them: its run cache knows what every stage made, and whoever is gone holds no lock.
    """
    said: list[str] = []
    if _torn(root / ".dvc" / "tmp" / "rwlock", json.loads):
        said.append("removed a list of locks that a killed DVC left half-written")
    if _torn(root / "dvc.lock", _read_stages):
        said.append("removed a dvc.lock that was left half-written; DVC's run cache knows the rest")
    return said


def _read_stages(text: str) -> None:
    COMPILED_LOCKFILE_SCHEMA(yaml.safe_load(text) or {})


def _torn(path: Path, read: Callable[[str], Any]) -> bool:
    """Remove a file that cannot be read, unless another DVC is just writing it."""
    for wait in (0.2, 0.2, 0.2, 0.0):
        try:
            read(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return False
        except (ValueError, yaml.YAMLError, Invalid):
            time.sleep(wait)
        else:
            return False
    path.unlink()
    return True
