"""Stage source: fingerprints of the cohort's foreign files, so that DVC sees them change.

Always run by DVC, and cheap: a file's hash is remembered while its size and time stay the same.
"""

from __future__ import annotations

import json
from pathlib import Path

from ogsrl.sources.reading import file_hash, source_files
from pipelines.stage import Stage, write_json


def run(stage: Stage) -> None:
    """Write data/NAME/source.json, and others.json for the cohorts that validate compares with."""
    remembered = stage.cache / f"hashes-{stage.cohort_name}.json"
    known = json.loads(remembered.read_text()) if remembered.exists() else {}
    hashes: dict[str, str] = {}
    seen: dict[str, list[object]] = {}
    for file in source_files(stage.cohort, stage.root):
        status = file.stat()
        mark = [status.st_size, status.st_mtime_ns]
        old = known.get(str(file), [None, None])
        value = old[1] if old[0] == mark else file_hash(file)
        seen[str(file)] = [mark, value]
        hashes[_label(file, stage)] = str(value)
    if seen != known:
        write_json(remembered, seen)
    judged = stage.params.validate_
    others = [judged.reference, *judged.disjoint_with]
    tables = {name: stage.validated_table(name) for name in others if name is not None}
    found = {name: file_hash(path) for name, path in tables.items() if path.exists()}
    write_json(stage.data("others.json"), found)
    write_json(stage.data("source.json"), {"kind": stage.cohort.source.kind, "files": hashes})


def _label(file: Path, stage: Stage) -> str:
    """Below the repository, or below the folder that the cohort file names."""
    folder = stage.root / (stage.cohort.source.path or "")
    home = next((one for one in (stage.root, folder) if file.is_relative_to(one)), file.parent)
    return str(file.relative_to(home))
