"""Patients of a MEDS dataset as a source: its sepsis cohort, in the columns that a file declares.

Called by `open_source`. Shards are streamed, whole subjects at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd
from pydantic import ValidationError

from ogsrl.errors import SourceError
from ogsrl.sources.meds.cohort import (
    DOSES,
    HORIZONS,
    MADE,
    STATICS,
    Counted,
    MedsOptions,
    table,
)
from ogsrl.sources.meds.doses import EVENTS, TWICE
from ogsrl.sources.meds.events import Dataset, open_dataset, read_events, subjects
from ogsrl.sources.meds.icu import Chunk
from ogsrl.sources.meds.mapping import CodeMap, load_mapping
from ogsrl.sources.meds.metadata import name_and_version, subject_splits
from ogsrl.sources.reading import Reading, SourceSettings, Warned, count, file_hash, some_of
from ogsrl.spec import Cohort

#: Concepts that are made of several charted ones.
OF_SEVERAL = ("map", "sbp", "gcs", "pf_ratio")
#: Of infusion events, how many may be just like another: two bags of a minute are rare, an export
#: that was written twice is not; and of how few events nothing is concluded.
MOST_TWICE, FEW = 0.05, 20
#: What is said of moments that a dataset does not tell.
UNTOLD = {
    "culture": "Cultures are not recorded",
    "comfort_care": "No order for comfort care is recorded: it ends nobody's decisions",
    "replacement_start": "Renal replacement is not recorded",
    "ventilation_start": "Mechanical ventilation is not recorded",
    "steroid": "Steroids are not recorded",
}
WEAKER = (
    "Suspected infection is taken from antibiotics alone: weaker than Sepsis-3, which asks for "
    "cultures too"
)


@dataclass(frozen=True)
class _Opened:
    """A dataset, and all that is needed to read it.

    `options` say what is done; without cultures that is less than what was asked for. Of `chosen`
    patients alone, if not None.
    """

    dataset: Dataset
    mapping: CodeMap
    options: MedsOptions
    splits: dict[int, str] | None
    chosen: set[int] | None
    caveats: list[str]


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
    moments = {one.name for one in dataset.meanings if one.kind == "moment"}
    if "culture" not in moments:
        options = options.model_copy(update={"infection": "antibiotic_alone"})
    caveats = [WEAKER] if options.infection == "antibiotic_alone" else []
    caveats += _caveats(moments, mapping)
    chosen = None
    if settings.patients is not None:
        chosen = {*map(int, some_of(map(str, subjects(dataset)), settings.patients))}
    opened = _Opened(dataset, mapping, options, subject_splits(root), chosen, caveats)
    reading = Reading(iter(()), _provenance(opened, cohort))
    reading.parts = _parts(opened, cohort, reading)
    return reading


def _caveats(told: set[str], mapping: CodeMap) -> list[str]:
    """What no event of a dataset tells, and what its mapping says is left out of others."""
    made = []
    for name, missing in UNTOLD.items():
        note = mapping.moments[name].note if name in mapping.moments else ""
        if name not in told:
            made.append(f"{missing}: {note}" if note else missing)
        elif note:
            made.append(note)
    return made


def _check(cohort: Cohort, mapping: CodeMap, options: MedsOptions) -> None:
    """Columns that nobody charts, and sets that nobody named, are mistakes."""
    if options.conversion not in mapping.equivalents:
        raise SourceError(
            f"source.options.conversion: {options.conversion} is not in mappings/{mapping.name}"
            f".yaml; there are {', '.join(mapping.equivalents)}"
        )
    if cohort.outcome is None or cohort.outcome.horizon != HORIZONS[options.deaths]:
        raise SourceError(
            f"source.options.deaths: {options.deaths} is told as "
            f"`outcome.horizon: {HORIZONS[options.deaths]}`; write both alike"
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


def _provenance(opened: _Opened, cohort: Cohort) -> dict[str, Any]:
    dataset, mapping, options = opened.dataset, opened.mapping, opened.options
    return {
        "kind": "meds",
        "dataset": name_and_version(dataset.root),
        "files": {dataset.label(shard): file_hash(shard) for shard in dataset.shards},
        "mapping": {"name": mapping.name, "version": mapping.version},
        "asked": dict(cohort.source.options),
        "options": options.model_dump(mode="json"),
        "equivalents": dict(mapping.equivalents[options.conversion].of),
        "caveats": opened.caveats,
        "shifted": [],
    }


def _parts(opened: _Opened, cohort: Cohort, reading: Reading) -> Iterator[pd.DataFrame]:
    dataset, counted = opened.dataset, Counted()
    for part in read_events(dataset):
        events = part if opened.chosen is None else part[part["subject"].isin(opened.chosen)]
        chunk = Chunk(events, dataset.meanings)
        made = table(chunk, cohort, opened.mapping, opened.options, counted)
        if len(made):
            yield made if opened.splits is None else _with_split(made, opened.splits)
    for step in counted.stays:  # rows of the source are events, until they are made into steps
        line = count(step, counted.patients[step], counted.stays[step], counted.events[step])
        reading.attrition.append(line)
    if reading.attrition:
        reading.attrition.append({**reading.attrition[-1], "step": "steps", "rows": counted.rows})
    for (why, name), number in sorted(counted.values.items()):
        if number:
            message = f"{name}: {number} values left out: {why}"
            reading.warnings.append(Warned(why.replace(" ", "_"), name, number, message))
    for caveat in opened.caveats:
        reading.warnings.append(Warned("caveat", None, 1, caveat))
    infused = counted.findings.pop(EVENTS, 0)
    if counted.findings[TWICE] > MOST_TWICE * max(infused, FEW):
        raise SourceError(
            f"{counted.findings[TWICE]} of {infused} infusion events are there twice, and so would "
            "doses be; export the dataset again"
        )
    for finding, number in sorted(counted.findings.items()):
        if number:
            message = f"{finding}: {number}"
            reading.warnings.append(Warned("infusions_and_stays", None, number, message))


def _with_split(made: pd.DataFrame, splits: dict[int, str]) -> pd.DataFrame:
    """Whoever is in no part has none: prepare refuses them, where splits are honoured."""
    return made.assign(split=made["patient_id"].astype("int64").map(splits).astype("object"))


__all__ = ["read"]
