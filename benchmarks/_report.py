"""What every benchmark shares: its flags, its table, and the JSON that README and docs quote.

Called by the modules of this folder. It must never write a host name or a path.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
#: Flags that say where, not what.
PATHS = ("--json", "--work")


def arguments(
    name: str,
    about: str | None,
    parser: argparse.ArgumentParser | None = None,
    processes: str | None = None,
) -> argparse.ArgumentParser:
    """A parser with the two flags of every benchmark.

    Args:
        name: The benchmark's module.
        about: What it measures.
        parser: One that has flags already.
        processes: What its processes do, where it keeps parts that a second run takes up.
    """
    parser = parser or argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}", description=about
    )
    parser.add_argument("--quick", action="store_true", help="the same code on small numbers")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    if processes is not None:
        parser.add_argument("--processes", type=int, default=2, help=processes)
        parts = ROOT / ".cache" / "benchmarks" / name
        parser.add_argument("--work", type=Path, default=parts, help="its parts")
    return parser


def machine() -> str:
    """Cores, memory, processor and Python in words."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [li for li in cpuinfo.read_text().splitlines() if li.startswith("model name")]
        model = names[0].split(":", 1)[1].strip() if names else model
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cores} cores, {memory:.0f} GiB, {model}, Python {platform.python_version()}"


def revision() -> str:
    """The commit measured, with + where files differ from it."""
    try:
        head = _git("rev-parse", "--short=12", "HEAD")
        return head + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def report(name: str, figures: Mapping[str, float], file: Path | None) -> None:
    """Print the figures as a table and, if asked, write them as JSON."""
    width = max(len(key) for key in figures)
    for key, value in figures.items():
        print(
            f"{key:<{width}}  {value:>14,.4f}"
            if value < 1e4
            else f"{key:<{width}}  {value:>14,.0f}"
        )
    if file is None:
        return
    given = sys.argv[1:]
    flags = [
        arg
        for arg, before in zip(given, ["", *given], strict=False)
        if not {arg, before} & {*PATHS} and not arg.startswith(tuple(f"{one}=" for one in PATHS))
    ]
    document = {
        "name": name,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine(),
        "command": " ".join(["python -m", f"benchmarks.{name}", *flags]),
        "revision": revision(),
        "figures": {key: float(f"{value:.6g}") for key, value in figures.items()},
    }
    file.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def _git(*args: str) -> str:
    return subprocess.run(
        ["git", *args], capture_output=True, text=True, check=True, cwd=Path(__file__).parent
    ).stdout.strip()


def staged(workspace: Path, stage: str, cohort: str) -> float:
    """Run one stage as users do, in a process of its own; its largest resident set in MB."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines", stage, "--cohort", cohort],
        cwd=workspace,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "2"},
        stdout=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"stage {stage} failed")
    return usage.ru_maxrss / 1024
