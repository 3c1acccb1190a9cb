"""`./run repro`: what `make repro` does; all stages whose inputs changed, for one cohort.

It clears a DVC lock whose processes are dead, looks whether the foreign files changed, and then
leaves the rest to DVC.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil

from ogsrl.errors import SpecError
from pipelines import source
from pipelines.stage import Stage, run_stage

FIRST_STAGE = "ingest"


def run(cohort: str, root: Path) -> int:
    """Bring the cohort up to date; the exit status."""
    choose_cohort(cohort, root)
    for line in clear_dead_locks(root):
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


def clear_dead_locks(root: Path) -> list[str]:
    """Remove from DVC's lock file what belongs to processes that are gone; say what was done."""
    path = root / ".dvc" / "tmp" / "rwlock"
    try:
        locks: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return []
    dead: set[int] = set()

    def alive(holder: dict[str, Any]) -> bool:
        living = psutil.pid_exists(int(holder["pid"]))
        if not living:
            dead.add(int(holder["pid"]))
        return living

    kept: dict[str, dict[str, Any]] = {}
    for held, kinds in locks.items():
        readers = [holder for holder in kinds.get("read", []) if alive(holder)]
        writer = kinds.get("write")
        left: dict[str, Any] = {"read": readers} if readers else {}
        if writer and alive(writer):
            left["write"] = writer
        if left:
            kept[held] = left
    if not dead:
        return []
    path.write_text(json.dumps(kept), encoding="utf-8")
    return [f"cleared DVC's lock of {len(dead)} dead process(es)"]
