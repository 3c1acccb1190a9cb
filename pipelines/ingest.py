"""Stage ingest: the cohort's source -> data/NAME/raw/trajectories.parquet and cohort.json."""

from __future__ import annotations

import itertools
from dataclasses import asdict

from ogsrl.errors import SourceError
from ogsrl.sources import SourceSettings, open_source
from ogsrl.sources.reading import file_hash
from ogsrl.trajectories import TableWriter, schema
from pipelines.stage import Stage, write_json


def run(stage: Stage) -> None:
    """Read the source, write the table and what was read."""
    cohort = stage.cohort
    stage.remove("raw")
    settings = SourceSettings(
        root=stage.root,
        scratch=stage.cache / "sort",
        patients=stage.params.source.patients,
        seed=stage.params.seed,
        threads=stage.params.threads,
    )
    reading = open_source(cohort, settings)
    path = stage.data("raw", "trajectories.parquet")
    with stage.progress("rows") as update:
        first = next(reading.parts, None)
        if first is None or first.empty:
            raise SourceError(f"source of cohort {cohort.name}: nobody left; no row to ingest")
        with TableWriter(path, schema(cohort, split="split" in first)) as writer:
            for part in itertools.chain([first], reading.parts):
                writer.write(part)
                update(len(part))
    for warning in reading.warnings:
        stage.say(f"warning: {warning.message}")
    write_json(
        stage.report("cohort.json"),
        {
            "cohort": cohort.name,
            "version": cohort.version,
            "source": reading.provenance,
            "attrition": reading.attrition,
            "warnings": [asdict(warning) for warning in reading.warnings],
            "table": {"rows": writer.written, "sha256": file_hash(path)},
        },
    )
    end = reading.attrition[-1]
    stage.say(f"{end['patients']:,} patients, {end['stays']:,} stays, {end['rows']:,} rows")
