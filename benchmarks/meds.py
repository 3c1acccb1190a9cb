"""Time and memory of reading a MEDS dataset: the demo of MIMIC-IV, over and over, with new ids.

    python -m benchmarks.meds [--scale 10000] [--json FILE] [--quick]

So many stays in intensive care, and five times as many, go through stage ingest as users run it: a
process of its own, by the clock, with its largest resident set. Patients of the demo are read where
they lie, beside the repository, and what is made of them is removed.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from benchmarks._report import ROOT, arguments, report, staged

DEMO = ROOT.parent / "shared" / "data" / "mimic_iv_demo_meds"
COHORT = "mimic_meds"
FACTOR = 5
#: Copies of a file of the demo in one shard, and ids between copies.
COPIES_A_SHARD, APART = 10, 100_000_000


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Run, print, and return the figures."""
    parser = arguments("meds", __doc__)
    parser.add_argument("--scale", type=int, default=10_000, metavar="N", help="stays")
    options = parser.parse_args(argv)
    if not DEMO.is_dir():
        raise SystemExit("the MIMIC-IV demo is not beside the repository: nothing to multiply")
    scale = 300 if options.quick else options.scale
    seconds, peaks, events = {}, {}, {}
    for name, stays in (("small", scale), ("large", scale * FACTOR)):
        seconds[name], peaks[name], events[name] = measure(stays)
    made = {
        "growth": seconds["large"] / seconds["small"] / FACTOR,
        "peak_mb": max(peaks.values()),
        "peak_mb_growth": peaks["large"] - peaks["small"],
        "events_per_s": events["large"] / seconds["large"],
        **{f"seconds_{name}": value for name, value in seconds.items()},
        **{f"events_{name}": float(value) for name, value in events.items()},
    }
    report("meds", made, options.json)
    return made


def measure(stays: int) -> tuple[float, float, int]:
    """Seconds, megabytes, and how many events were there."""
    with tempfile.TemporaryDirectory(prefix="ogsrl-bench-") as folder:
        workspace = Path(folder)
        shutil.copytree(ROOT / "mappings", workspace / "mappings")
        (workspace / "data_contracts").mkdir()
        told = yaml.safe_load((ROOT / "data_contracts" / f"{COHORT}.yaml").read_text())
        told["source"]["path"] = "export"
        contract = workspace / "data_contracts" / f"{COHORT}.yaml"
        contract.write_text(yaml.safe_dump(told, sort_keys=False), encoding="utf-8")
        shutil.copy(ROOT / "params.yaml", workspace)
        events = multiply(workspace / "export", stays)
        began = time.perf_counter()
        peak = staged(workspace, "ingest", COHORT)
        lasted = time.perf_counter() - began
    print(f"{stays:>10,} stays  {events:>12,} events  {lasted:7.1f} s {peak:8.0f} MB", flush=True)
    return lasted, peak, events


def multiply(root: Path, stays: int) -> int:
    """The demo so often that there are as many stays; its events."""
    shards = {path: pq.read_table(path) for path in sorted(DEMO.glob("data/*/*.parquet"))}
    copies = -(-stays // sum(map(_stays, shards.values())))
    for path, table in shards.items():
        folder = root / "data" / path.parent.name
        folder.mkdir(parents=True)
        for first in range(0, copies, COPIES_A_SHARD):
            with pq.ParquetWriter(folder / f"{first}.parquet", table.schema) as writer:
                for copy in range(first, min(first + COPIES_A_SHARD, copies)):
                    writer.write_table(_another(table, copy))
    return copies * sum(table.num_rows for table in shards.values())


def _stays(table: pa.Table) -> int:
    return sum(str(code).startswith("ICU_ADMISSION") for code in table["code"].to_pylist())


def _another(table: pa.Table, copy: int) -> pa.Table:
    place = table.schema.get_field_index("subject_id")
    ids = pa.array(table["subject_id"].to_numpy() + copy * APART)
    return table.set_column(place, table.schema.field(place), ids)


if __name__ == "__main__":
    main()
