"""Fit time and memory of the streaming guardian: `python -m benchmarks._guardian_growth ROWS`.

Run by benchmarks.guardian, a process a size, so that each has its own peak. Rows are synthetic
patients of five decisions, made anew at every pass, and the making is not counted.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch

from benchmarks._guardian_cohort import ROOT, prepared
from ogsrl.guardian.christoffel import ChristoffelGuardian
from ogsrl.guardian.columns import Layout
from ogsrl.guardian.config import GuardianParams
from ogsrl.guardian.protocol import Rows
from ogsrl.preparation.history import History

SHARD = 10_000
STAY = 5
DEGREE = 2  # the same whatever the size
REPEATS, REPEATED_ROWS = 5, 500_000  # a fit of a tenth of a second is timed more than once
#: Freed blocks go back to the system at once: the peak is what the fit held, not what malloc kept.
MALLOC = {"MALLOC_MMAP_THRESHOLD_": "1048576", "MALLOC_TRIM_THRESHOLD_": "1048576"}


@dataclass
class Stream:
    """Shards that are made when they are read, the same at every pass."""

    history: History
    rows: int
    spent: float = 0.0
    mixing: torch.Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.columns = Layout.of(self.history)
        width = len(self.columns.names)
        generator = torch.Generator().manual_seed(0)
        self.mixing = torch.randn(width, width, generator=generator) / width**0.5

    def __iter__(self) -> Iterator[Rows]:
        for number in range(0, self.rows, SHARD):
            start = time.perf_counter()
            shard = self._shard(number, min(SHARD, self.rows - number))
            self.spent += time.perf_counter() - start
            yield shard

    def _shard(self, number: int, rows: int) -> Rows:
        generator = torch.Generator().manual_seed(number)
        z = torch.randn(rows, len(self.columns.names), generator=generator) @ self.mixing
        states = torch.zeros(rows, len(self.history.names))
        width = self.columns.width
        binary = [kind != "numeric" for kind in self.columns.kinds]
        states[:, self.columns.places] = torch.where(
            torch.tensor(binary), z[:, :width].sign(), z[:, :width]
        )
        doses = z[:, width:].tanh()
        doses = torch.where(doses < -0.5, torch.full_like(doses, -1.0), doses)
        return Rows(states, doses, number + torch.arange(rows) // STAY)


def measure(rows: int) -> dict[str, float]:
    """Seconds of a fit without the making of rows, and the peak of this process in MB."""
    preparation, _ = prepared(60, 1)
    stream = Stream(History(preparation, 0, False), rows)
    layout = Layout.of(stream.history)
    list(Stream(stream.history, SHARD))  # warm
    seconds = []
    for _ in range(max(1, min(REPEATS, REPEATED_ROWS // rows))):
        start, spent = time.perf_counter(), stream.spent
        ChristoffelGuardian.fit(
            stream, layout, GuardianParams(degree=DEGREE), torch.Generator().manual_seed(0)
        )
        seconds.append(time.perf_counter() - start - (stream.spent - spent))
    return {"s": statistics.median(seconds), "mb": peak_mb()}


def peak_mb() -> float:
    """The peak of this program; getrusage would tell its parent's where that was higher."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) / 1024


def grow(sizes: list[int]) -> dict[str, float]:
    """Each size in a process of its own, and how time and memory grew from first to last."""
    found: dict[int, dict[str, float]] = {}
    for size in sizes:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks._guardian_growth", str(size)],
            cwd=ROOT,
            env={**os.environ, **MALLOC},
            capture_output=True,
            text=True,
            check=True,
        )
        found[size] = json.loads(done.stdout)
        print(
            f"fit of {size:,} rows: {found[size]['s']:.1f} s, {found[size]['mb']:.0f} MB",
            flush=True,
        )
    figures = {f"fit_{name}_{size}": part[name] for size, part in found.items() for name in part}
    first, before, last = sizes[0], sizes[-2], sizes[-1]
    figures["fit_time_growth"] = found[last]["s"] / found[first]["s"] / (last / first)
    figures["fit_time_growth_last"] = found[last]["s"] / found[before]["s"] / (last / before)
    figures["fit_peak_mb_growth"] = found[last]["mb"] - found[first]["mb"]
    figures["fit_peak_mb_growth_last"] = found[last]["mb"] - found[before]["mb"]
    return figures


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]))))
