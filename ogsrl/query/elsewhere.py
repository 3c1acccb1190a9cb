"""A model on a cohort that it never saw: external validation, with drift and refusals.

Called by `ogsrl evaluate`. Nothing is trained: of the model's own, only fitted Q evaluation is
fitted there, cross-fitted on the patients that are evaluated.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from ogsrl.contracts import Contract
from ogsrl.errors import EstimateError, SpecError
from ogsrl.evaluation.closer import look_closer
from ogsrl.evaluation.config import EvaluateParams
from ogsrl.evaluation.enough import lacking
from ogsrl.evaluation.evaluate import Grounds, Subject, evaluate
from ogsrl.evaluation.external import drift
from ogsrl.evaluation.fqe import first_decisions
from ogsrl.evaluation.known import truths
from ogsrl.evaluation.report import flat, sentences, table
from ogsrl.preparation.tensors import stay_tensors
from ogsrl.query.model import Model
from ogsrl.sources import SourceSettings, open_source
from ogsrl.spec import Cohort, load_cohort
from ogsrl.spec.model import Source, overridden

#: Seeds of patients that are drawn, away from those of pipelines.
APART = 7_654_321
#: Of a cohort file, what must be the model's: all that its columns mean.
SAME = (
    "time_step_hours", "max_steps", "discount", "static", "observations", "actions", "outcome",
    "reward", "constraints", "hazards",
)  # fmt: skip


@dataclass(frozen=True)
class Elsewhere:
    """What came of it.

    Attributes:
        rows: As evaluation.parquet.
        told: As evaluation.json, and drift.
        sentences: For whoever watches.
    """

    rows: pd.DataFrame
    told: dict[str, Any]
    sentences: tuple[str, ...]


def evaluate_elsewhere(
    directory: Path, file: Path, seed: int, params: EvaluateParams | None = None
) -> Elsewhere:
    """Measure the model in this folder on the cohort in this file.

    Args:
        directory: Of the model, as select wrote it.
        file: Rows, or a cohort file that says where they are.
        seed: Everything is drawn with it.
        params: Of evaluation; none: the defaults, as the model's cohort file overrides them.
    """
    model = Model.load(directory)
    own = model.cohort.overrides.get("evaluate", {})
    defaults = EvaluateParams().model_dump(mode="json")
    params = params or EvaluateParams.model_validate(overridden(defaults, own))
    cohort = _cohort_of(model.cohort, file)
    _not_at_home(directory, model.cohort, file, cohort)
    frame, kept = _read(cohort, file, seed)
    preparation = model.history.preparation
    prepared = preparation.apply(frame)
    stays = stay_tensors(prepared, preparation, model.history)
    few = lacking(stays)
    if few is not None:
        raise EstimateError(f"{file.name}: {few}; of so few nothing is said")
    patients = len(torch.unique(stays.patient[first_decisions(stays)]))
    generator = torch.Generator().manual_seed(seed)
    guardian = model.deployed.guardian
    assert guardian is not None  # Model.load sets one
    moved = drift(frame, prepared, stays, model.behaviour, guardian)
    grounds = Grounds(stays, model.behaviour, foreign=True)
    subject = Subject(
        "selected",
        model.deployed,
        algorithm=model.about.get("algorithm"),
        seed=model.about.get("seed"),
        checkpoint=model.about.get("step"),
    )
    evaluation = evaluate([subject], grounds, params, generator)
    true = truths(evaluation.subjects, cohort, params.truth_patients, seed)
    about = look_closer(evaluation, generator)
    told = {"status": "evaluated", **kept, **flat(evaluation, true), **about.plain()}
    told |= moved.plain()
    refused = moved.refused.estimate
    lines = [
        f"{patients:,} patients; {len(moved.drifted)} of {len(moved.gaps)} columns have drifted"
        + (f": {', '.join(moved.drifted)}" if moved.drifted else ""),
        "refused of the clinicians' own steps here: "
        + ("not known" if refused is None else f"{refused:.3f}")
        + ("" if moved.promised is None else f"; promised where it came from: {moved.promised}"),
        "whether any of these patients was among those it was trained on is not known here",
        *sentences(evaluation),
    ]
    return Elsewhere(table(evaluation, true), told, tuple(lines))


def _cohort_of(model: Cohort, file: Path) -> Cohort:
    """The model's cohort, read from another place."""
    if file.suffix not in (".yaml", ".yml"):
        if not file.exists():
            raise SpecError(f"{file}: no such file")
        return model.model_copy(update={"source": Source(kind="table", path=str(file.absolute()))})
    other = load_cohort(file)
    different = [key for key in SAME if getattr(other, key) != getattr(model, key)]
    if different:
        raise SpecError(
            f"{file.name}: {', '.join(different)} differ from those of the model's cohort "
            f"{model.name}; they must mean the same, only source and name may be others"
        )
    return model.model_copy(update={"source": other.source})


def _not_at_home(directory: Path, model: Cohort, file: Path, cohort: Cohort) -> None:
    """Refuse the file that the model's own patients are in; a copy of it cannot be known."""
    if model.source.path is None or cohort.source.path is None:
        return
    home = directory.absolute().parent.parent / model.source.path  # models/NAME in its repository
    if home.resolve() == (_root(file) / cohort.source.path).resolve():
        raise SpecError(
            f"{file.name}: the model's own patients are there; what it comes to on those of them "
            "that it never saw is in the reports of stage evaluate"
        )


def _root(file: Path) -> Path:
    """Where paths of a cohort file are told from."""
    folder = file.absolute().parent
    return folder.parent if folder.name == "data_contracts" else folder


def _read(cohort: Cohort, file: Path, seed: int) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Rows that keep the contract, and what was left out."""
    # a source that draws its patients draws others than those of any pipeline
    reading = open_source(cohort, SourceSettings(root=_root(file), seed=seed + APART))
    parts = list(reading.parts)
    verdict = Contract(cohort).check(iter(parts), max_quarantine_share=1.0)
    verdict.raise_if_failed()
    kept = [part for part in map(verdict.keep, parts) if len(part)]
    if not kept:
        errors = [one for one in verdict.failing if one.severity == "error"]  # warnings break none
        broken = dict.fromkeys(f"{one.name}:{one.column}" for one in errors)
        raise EstimateError(
            f"{file.name}: all {verdict.quarantined_stays} stays break the contract "
            f"({', '.join(broken)}); mend them first"
        )
    frame = pd.concat(kept, ignore_index=True)
    told = {
        "external.stays": int(frame["stay_id"].nunique()),
        "external.stays_in_quarantine": verdict.quarantined_stays,
        "external.rules_broken": len(verdict.failing),
    }
    return frame, told
