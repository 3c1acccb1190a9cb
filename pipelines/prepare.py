"""Stage prepare: split, transforms, costs, leakage checks -> data/NAME/prepared/, dataset.json.

Training rows are read a column at a time to fit, then every part is written in one pass.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ogsrl import figures
from ogsrl.preparation import PARTS, Preparation, TrainingRows, assign_parts, check_disjoint, fit
from ogsrl.preparation.leakage import Parts, check_leakage, raise_on_leak
from ogsrl.preparation.quality import describe
from ogsrl.trajectories import TableWriter, read, read_parts, table_schema
from pipelines.stage import Stage, write_json

FIGURES = ("attrition", "dose_plane", "persistence", "missingness", "returns")


def run(stage: Stage) -> None:
    """Fit on training patients, check for leaks, write the parts and what they hold."""
    cohort, params = stage.cohort, stage.params.prepare
    table = stage.data("validated", "trajectories.parquet")
    source = json.loads(stage.report("cohort.json").read_text(encoding="utf-8"))
    part_of = _part_of_rows(stage)
    train = part_of == PARTS.index("train")

    def column(name: str) -> pd.Series:
        return read(table, [name])[name][train].reset_index(drop=True)

    rows = TrainingRows(column, cohort)
    preparation = fit(rows, cohort, params)
    parts = Parts(cohort)
    counts = _write_parts(stage, preparation, parts, part_of)
    check_disjoint(parts.patients())
    findings = check_leakage(rows, source["source"]["shifted"], parts)
    preparation.save(stage.data("prepared"))
    dataset = describe(
        rows,
        preparation,
        params,
        np.random.default_rng(stage.params.seed),
        attrition=[*source["attrition"], _kept("kept by the contract", counts)],
        parts=counts,
        leakage=findings,
    )
    write_json(stage.report("dataset.json"), dataset)
    _draw(stage, dataset)
    for finding in findings:
        if finding.status in ("leak", "warning"):
            stage.say(f"{finding.status}: {asdict(finding)['check']}: {finding.message}")
    raise_on_leak(findings)


def _part_of_rows(stage: Stage) -> npt.NDArray[np.int8]:
    """Number in PARTS of every row of the validated table, from its patient's id alone."""
    table = stage.data("validated", "trajectories.parquet")
    split = stage.params.prepare.honour_source_splits and "split" in table_schema(table).names
    wanted = ["patient_id", "split"] if split else ["patient_id"]
    numbers = {part: number for number, part in enumerate(PARTS)}
    found = [
        assign_parts(part["patient_id"], stage.params.prepare, part["split"] if split else None)
        .map(numbers)
        .to_numpy(np.int8)
        for part in read_parts(table, wanted)
    ]
    return np.concatenate([np.zeros(0, np.int8), *found])


def _write_parts(
    stage: Stage, preparation: Preparation, parts: Parts, part_of: npt.NDArray[np.int8]
) -> dict[str, dict[str, int]]:
    """One file a part; patients, stays and rows of each."""
    table = stage.data("validated", "trajectories.parquet")
    patients: dict[str, set[str]] = {part: set() for part in PARTS}
    counts = {part: {"patients": 0, "stays": 0, "rows": 0} for part in PARTS}
    with ExitStack() as stack, stage.progress("rows prepared", len(part_of)) as update:
        writers = {
            part: stack.enter_context(
                TableWriter(stage.data("prepared", f"{part}.parquet"), preparation.schema)
            )
            for part in PARTS
        }
        for part, frame in _frames(stage, part_of):
            parts.add(part, frame)
            writers[part].write(preparation.apply(frame))
            patients[part].update(frame["patient_id"].unique())
            counts[part]["stays"] += frame["stay_id"].nunique()
            counts[part]["rows"] += len(frame)
            update(len(frame))
    for part in PARTS:
        counts[part]["patients"] = len(patients[part])
    stage.say(f"{table.name}: " + ", ".join(f"{p} {n['patients']:,}" for p, n in counts.items()))
    return counts


def _frames(stage: Stage, part_of: npt.NDArray[np.int8]) -> Iterator[tuple[str, pd.DataFrame]]:
    at = 0
    for frame in read_parts(stage.data("validated", "trajectories.parquet")):
        here = part_of[at : at + len(frame)]
        at += len(frame)
        for number, part in enumerate(PARTS):
            chosen = frame[here == number]
            if len(chosen):
                yield part, chosen.reset_index(drop=True)


def _kept(name: str, counts: dict[str, dict[str, int]]) -> dict[str, Any]:
    keys = ("patients", "stays", "rows")
    return {"step": name, **{key: sum(part[key] for part in counts.values()) for key in keys}}


def _draw(stage: Stage, dataset: dict[str, Any]) -> None:
    folder = stage.report("figures")
    folder.mkdir(parents=True, exist_ok=True)
    for name in FIGURES:
        figure = getattr(figures, f"dataset_{name}")(dataset)
        figures.save_svg(figure, folder / f"dataset_{name}.svg")
