"""What every stage shares: its command line, lock, parent watch, progress, and how it fails.

A stage is a function of a `Stage`; `pipelines.__main__` finds it by name. Errors of ours are shown
as they are; any other error is shown without its message, which could quote a patient's value.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
from tqdm import tqdm

from ogsrl.errors import DEFECT, OgsrlError, without_values
from ogsrl.spec import Cohort, load_cohort
from pipelines.params import Params, parse_params, read_params

#: Seconds between lines where nobody watches a bar.
TOLD_EVERY = 10


@dataclass(frozen=True)
class Stage:
    """A stage's surroundings: where things are, the cohort, the parameters."""

    name: str
    cohort_name: str
    root: Path = field(default_factory=Path.cwd)
    item: str | None = None  # of a stage that is many: the algorithm of train

    @cached_property
    def cohort(self) -> Cohort:
        """The cohort file."""
        return load_cohort(self.cohort_file)

    @property
    def cohort_file(self) -> Path:
        """Where it lies."""
        return self._file_of(self.cohort_name)

    def cohort_of(self, name: str) -> Cohort:
        """Any cohort's file."""
        return load_cohort(self._file_of(name))

    def _file_of(self, name: str) -> Path:
        return self.root / "data_contracts" / f"{name}.yaml"

    @cached_property
    def params(self) -> Params:
        """params.yaml with the cohort's overrides."""
        values = {**read_params(self.root / "params.yaml"), "cohort": self.cohort_name}
        return parse_params(values, self.cohort.overrides, "params.yaml or overrides")

    def data(self, *parts: str) -> Path:
        """A path under data/NAME/."""
        return self.root.joinpath("data", self.cohort_name, *parts)

    def validated_table(self, cohort: str) -> Path:
        """Another cohort's validated table."""
        return self.root / "data" / cohort / "validated" / "trajectories.parquet"

    def model(self, *parts: str) -> Path:
        """A path under models/NAME/."""
        return self.root.joinpath("models", self.cohort_name, *parts)

    def report(self, *parts: str) -> Path:
        """A path under reports/NAME/."""
        return self.root.joinpath("reports", self.cohort_name, *parts)

    def private(self, *parts: str) -> Path:
        """A path under private/NAME/: what shows single patients; it never leaves."""
        return self.root.joinpath("private", self.cohort_name, *parts)

    def remove(self, output: str) -> None:
        """Remove this stage's folder under data/NAME/, as DVC does before it runs a stage."""
        shutil.rmtree(self.data(output), ignore_errors=True)

    @property
    def cache(self) -> Path:
        """Where locks and scratch files live, never an output."""
        return self.root / ".cache" / "ogsrl"

    def say(self, text: str) -> None:
        """Tell the person who watches."""
        print(f"{self.name}: {text}", flush=True)

    @contextmanager
    def progress(self, what: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        """A bar on a terminal; elsewhere a line every `TOLD_EVERY` seconds, and one at the end."""
        shown = sys.stderr.isatty()
        done, told = 0, -1
        begun = last = time.monotonic()
        with tqdm(total=total, desc=f"{self.name}: {what}", unit="", disable=not shown) as bar:

            def update(amount: int) -> None:
                nonlocal done, told, last
                done += amount
                bar.update(amount)
                now = time.monotonic()
                if not shown and now - last >= TOLD_EVERY:
                    told, last = done, now
                    left = _left(done, total, now - begun)
                    self.say(f"{what}: {done:,}" + (f" of {total:,}{left}" if total else ""))

            yield update
        if told != done:
            self.say(f"{what}: {done:,}")


def _left(done: int, total: int | None, seconds: float) -> str:
    """How long it takes yet at this pace.

    >>> _left(30, 90, 60)
    ', about 120 s left'
    """
    if not total or not 0 < done < total:
        return ""
    return f", about {seconds * (total - done) / done:.0f} s left"


def write_json(path: Path, value: Any) -> None:
    """Write beside and rename; keys stay in their order, floats as Python prints them."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write beside and rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.partial")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)


def write_frame(path: Path, frame: pd.DataFrame) -> None:
    """Write beside and rename, as parquet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.partial")
    frame.to_parquet(beside, index=False)
    beside.replace(path)


def run_stage(stage: Stage, work: Callable[[Stage], None]) -> int:
    """Run a stage under its lock; the exit status."""
    end_with_parent()
    try:
        with _lock(stage):
            work(stage)
    except OgsrlError as error:
        for line in str(error).splitlines():
            print(f"{stage.name}: {line}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{stage.name}: interrupted; nothing half-written is left", file=sys.stderr)
        return 130
    except Exception as error:
        for line in without_values(error):
            print(f"{stage.name}: {line}", file=sys.stderr)
        return DEFECT
    return 0


@contextmanager
def _lock(stage: Stage) -> Iterator[None]:
    """One run of a stage and cohort at a time; the lock dies with its process."""
    stage.cache.mkdir(parents=True, exist_ok=True)
    path = (
        stage.cache
        / f"{stage.name}-{stage.cohort_name}{'-' + stage.item if stage.item else ''}.lock"
    )
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OgsrlError(
                f"stage {stage.name} of cohort {stage.cohort_name} is already running; "
                "wait for it, or end it"
            ) from None
        yield


def end_with_parent() -> None:
    """End this process once dvc, or whoever started it, is gone (also when killed with -9).

    `./run` tells who that was (OGSRL_STARTER): it may be gone before this looks for it.
    """
    starter = os.environ.get("OGSRL_STARTER")
    chain = psutil.Process().parents()
    named = [i for i, one in enumerate(chain) if _is_dvc(one) or str(one.pid) == starter]
    if starter not in (None, str(os.getpid())) and not named:
        print("stage: whoever started this run is gone; nothing was done", file=sys.stderr)
        sys.stderr.flush()
        os._exit(143)
    watched = chain[: named[0] + 1] if named else chain[:1]

    def watch() -> None:
        while all(_alive(process) for process in watched):
            time.sleep(0.3)
        os._exit(143)

    threading.Thread(target=watch, daemon=True).start()


def _alive(process: psutil.Process) -> bool:
    """Running, and not merely waiting for whoever started it to take note of its end."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _is_dvc(process: psutil.Process) -> bool:
    try:
        return any(Path(word).name == "dvc" for word in process.cmdline()[:3])
    except psutil.Error:
        return False
