"""Patients of a MEDS dataset as a source: its sepsis cohort, in the columns that a file declares.

Called by `open_source`. Shards are streamed, whole subjects at a time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pandas as pd
from pydantic import ValidationError

from ogsrl.errors import SourceError
from ogsrl.sources.meds.cohort import DOSES, MADE, STATICS, Counted, MedsOptions, table
from ogsrl.sources.meds.events import Dataset, open_dataset, read_events
from ogsrl.sources.meds.icu import Chunk
from ogsrl.sources.meds.mapping import CodeMap, load_mapping
from ogsrl.sources.reading import Reading, SourceSettings, Warned, count, file_hash
from ogsrl.spec import Cohort

#: Concepts that are made of several charted ones.
OF_SEVERAL = ("map", "sbp", "gcs", "pf_ratio")


def read(cohort: Cohort, settings: SourceSettings) -> Reading:
    """Open the dataset at `source.path`."""
    try:
        options = MedsOptions.model_validate(cohort.source.options)
    except ValidationError as error:
        told = "; ".join(f"{one['loc'][0]}: {one['msg']}" for one in error.errors())
        raise SourceError(f"source.options: {told}") from None
    if cohort.source.path is None:
        raise SourceError("source.path: write the folder of the dataset, which holds data/")
    mapping = load_mapping(settings.root / "mappings" / f"{options.mapping}.yaml")
    _check(cohort, mapping, options)
    root = settings.root / cohort.source.path
    dataset = open_dataset(root, mapping, settings.threads)
    reading = Reading(iter(()), _provenance(dataset, mapping, options))
    reading.parts = _parts(dataset, cohort, mapping, options, reading)
    return reading


def _check(cohort: Cohort, mapping: CodeMap, options: MedsOptions) -> None:
    """Columns that nobody charts, and sets that nobody named, are mistakes."""
    if options.conversion not in mapping.equivalents:
        raise SourceError(
            f"source.options.conversion: {options.conversion} is not in mappings/{mapping.name}"
            f".yaml; there are {', '.join(mapping.equivalents)}"
        )
    cumulative = {n for n, c in cohort.observations.items() if c.cumulative_of is not None}
    known = {*mapping.concepts, *STATICS, *MADE, *OF_SEVERAL, *cumulative}
    strange = sorted({*cohort.states} - known)
    strange += sorted({*cohort.actions} ^ {*DOSES})
    if strange:
        raise SourceError(
            f"{', '.join(strange)}: not of this source; columns are {', '.join(sorted(known))}, "
            f"doses {' and '.join(DOSES)}"
        )


def _provenance(dataset: Dataset, mapping: CodeMap, options: MedsOptions) -> dict[str, Any]:
    file = dataset.root / "metadata" / "dataset.json"
    told = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return {
        "kind": "meds",
        "dataset": {
            key: str(told.get(key, "not told")) for key in ("dataset_name", "meds_version")
        },
        "files": {dataset.label(shard): file_hash(shard) for shard in dataset.shards},
        "mapping": {"name": mapping.name, "version": mapping.version},
        "options": options.model_dump(mode="json"),
        "equivalents": dict(mapping.equivalents[options.conversion].of),
        "shifted": [],
    }


def _parts(
    dataset: Dataset, cohort: Cohort, mapping: CodeMap, options: MedsOptions, reading: Reading
) -> Iterator[pd.DataFrame]:
    counted = Counted()
    for events in read_events(dataset):
        made = table(Chunk(events, dataset.meanings), cohort, mapping, options, counted)
        if len(made):
            yield made
    for step in counted.stays:  # rows of the source are events, until they are made into steps
        line = count(step, counted.patients[step], counted.stays[step], counted.events[step])
        reading.attrition.append(line)
    if reading.attrition:
        reading.attrition.append({**reading.attrition[-1], "step": "steps", "rows": counted.rows})
    for (why, name), number in sorted(counted.values.items()):
        if number:
            message = f"{name}: {number} values left out: {why}"
            reading.warnings.append(Warned(why.replace(" ", "_"), name, number, message))
    for finding, number in sorted(counted.findings.items()):
        if number:
            message = f"{finding}: {number}"
            reading.warnings.append(Warned("infusions_and_stays", None, number, message))


__all__ = ["read"]
