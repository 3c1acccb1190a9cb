"""Time and peak memory of ingest, validate and prepare, as the stages that users run.

    python -m benchmarks.ingest --rows 250000 --columns 50 [--json FILE] [--quick]

Each stage is a process of its own in a workspace of its own; time is wall clock, memory is the
process's largest resident set. The same is then done with ten times the rows.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path

import pandas as pd
import yaml

from benchmarks._report import ROOT, arguments, report, staged
from benchmarks._tables import random_table, wide_cohort
from ogsrl.spec import Cohort

STAGES = ("ingest", "validate", "prepare")
ROWS_A_STAY = 10.5
SHARD_STAYS = 20_000


def main() -> None:
    """Run the benchmark."""
    parser = arguments("ingest", __doc__)
    parser.add_argument("--rows", type=int, default=250_000)
    parser.add_argument("--columns", type=int, default=50)
    parser.add_argument("--factor", type=int, default=10, help="size of the larger run")
    options = parser.parse_args()
    rows = 20_000 if options.quick else options.rows
    factor = 2 if options.quick else options.factor
    small, small_peak = measure(rows, options.columns)
    large, large_peak = measure(rows * factor, options.columns)
    figures = {
        **{f"{stage}_stage_s": small[stage] for stage in STAGES},
        **{f"{stage}_stage_big_s": large[stage] for stage in STAGES},
        "ingest_s": sum(small.values()),
        "ingest_peak_mb": small_peak,
        "ingest_growth": sum(large.values()) / sum(small.values()),
        "ingest_big_peak_mb": large_peak,
    }
    report("ingest", figures, options.json)


def measure(rows: int, columns: int) -> tuple[dict[str, float], float]:
    """Seconds of each stage, and the largest resident set of any, in MB."""
    seconds: dict[str, float] = {}
    peak = 0.0
    with tempfile.TemporaryDirectory(prefix="ogsrl-bench-") as folder:
        workspace = Path(folder)
        made = make_workspace(workspace, rows, columns)
        for stage in STAGES:
            began = time.perf_counter()
            used = staged(workspace, stage, "wide")
            seconds[stage] = time.perf_counter() - began
            peak = max(peak, used)
            print(f"{made:>10,} rows  {stage:<9}{seconds[stage]:7.1f} s {used:8.0f} MB", flush=True)
    return seconds, peak


def make_workspace(workspace: Path, rows: int, columns: int) -> int:
    """A folder with a cohort file, parameters and a sharded table; the rows written."""
    cohort = wide_cohort(columns)
    table = workspace / "table"
    table.mkdir()
    stays = round(rows / ROWS_A_STAY)
    written = 0
    for first in range(0, stays, SHARD_STAYS):
        frame = _shard(cohort, first, min(SHARD_STAYS, stays - first))
        written += len(frame)
        frame.to_parquet(table / f"{first:09d}.parquet", index=False)
    text = cohort.model_dump(mode="json", exclude_defaults=True)
    text["source"] = {"kind": "table", "path": "table"}
    (workspace / "data_contracts").mkdir()
    (workspace / "data_contracts" / "wide.yaml").write_text(yaml.safe_dump(text, sort_keys=False))
    shutil.copy(ROOT / "params.yaml", workspace)
    return written


def _shard(cohort: Cohort, first: int, stays: int) -> pd.DataFrame:
    return random_table(cohort, stays, seed=1, first=first)


if __name__ == "__main__":
    main()
