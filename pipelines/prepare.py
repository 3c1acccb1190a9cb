"""Stage prepare: split, transforms, costs, leakage checks -> data/NAME/prepared/, dataset.json.

Training rows are read a column at a time to fit, then every part is written in one pass.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ogsrl.figures.dataset import FIGURES
from ogsrl.figures.style import save_svg, too_few
from ogsrl.preparation import PARTS, Preparation, TrainingRows, assign_parts, check_disjoint, fit
from ogsrl.preparation.leakage import Parts, check_leakage, raise_on_leak
from ogsrl.preparation.quality import describe
from ogsrl.trajectories import TableWriter, read, read_parts, table_schema
from pipelines.stage import Stage, write_json


def run(stage: Stage) -> None:
    """Prepare the cohort; if anything fails, no prepared file stays behind."""
    stage.remove("prepared")
    try:
        _prepare(stage)
    except BaseException:
        stage.remove("prepared")
        raise


def _prepare(stage: Stage) -> None:
    """Fit on training patients, check for leaks, write the parts and what they hold."""
    cohort, params = stage.cohort, stage.params.prepare
    table = stage.data("validated", "trajectories.parquet")
    source = json.loads(stage.report("cohort.json").read_text(encoding="utf-8"))
    train = _training_rows(stage, table)

    def column(name: str) -> pd.Series:
        values: pd.Series = read(table, [name])[name]
        return values[train].reset_index(drop=True)

    rows = TrainingRows(column, cohort)
    preparation = fit(rows, cohort, params)
    parts = Parts(cohort)
    counts = _write_parts(stage, preparation, parts, len(train))
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
            stage.say(f"{finding.status}: {finding.check}: {finding.message}")
    raise_on_leak(findings)


def _split(stage: Stage, frame: pd.DataFrame) -> pd.Series:
    return assign_parts(frame["patient_id"], stage.params.prepare, frame.get("split"))


def _training_rows(stage: Stage, table: Path) -> npt.NDArray[np.bool_]:
    """Which rows of the validated table are of training patients."""
    wanted = [name for name in ("patient_id", "split") if name in table_schema(table).names]
    flags = [(_split(stage, part) == "train").to_numpy() for part in read_parts(table, wanted)]
    return np.concatenate([np.zeros(0, bool), *flags])


def _write_parts(
    stage: Stage, preparation: Preparation, parts: Parts, rows: int
) -> dict[str, dict[str, int]]:
    """One file a part; patients, stays and rows of each."""
    table = stage.data("validated", "trajectories.parquet")
    counts: dict[str, dict[str, int]] = {
        part: {"patients": 0, "stays": 0, "rows": 0} for part in PARTS
    }
    with ExitStack() as stack, stage.progress("rows prepared", rows) as update:
        writers = {
            part: stack.enter_context(
                TableWriter(stage.data("prepared", f"{part}.parquet"), preparation.schema)
            )
            for part in PARTS
        }
        for frame in read_parts(table):
            split = _split(stage, frame)
            for part, writer in writers.items():
                chosen = frame[split == part].reset_index(drop=True)
                if len(chosen):
                    parts.add(part, chosen)
                    writer.write(preparation.apply(chosen))
                    counts[part]["stays"] += chosen["stay_id"].nunique()
                    counts[part]["rows"] += len(chosen)
            update(len(frame))
    for name, people in parts.patients().items():
        counts[name]["patients"] = len(people)
    stage.say("patients: " + ", ".join(f"{p} {n['patients']:,}" for p, n in counts.items()))
    return counts


def _kept(name: str, counts: dict[str, dict[str, int]]) -> dict[str, Any]:
    keys = ("patients", "stays", "rows")
    return {"step": name, **{key: sum(part[key] for part in counts.values()) for key in keys}}


def _draw(stage: Stage, dataset: dict[str, Any]) -> None:
    folder = stage.report("figures")
    folder.mkdir(parents=True, exist_ok=True)
    few = dataset["status"] == "too_few_patients"
    for name, draw in FIGURES.items():
        figure = too_few(dataset["smallest_cell"]) if few else draw(dataset)
        save_svg(figure, folder / f"{name}.svg")
