"""Simulated cohorts for the guardian's benchmark, prepared as the pipeline prepares them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import pandas as pd
import torch

from benchmarks._report import ROOT
from ogsrl.guardian.christoffel import ChristoffelGuardian
from ogsrl.guardian.columns import Layout
from ogsrl.guardian.config import GuardianParams
from ogsrl.guardian.protocol import Guardian, Rows
from ogsrl.preparation import Preparation, PrepareParams, TrainingRows, assign_parts, fit
from ogsrl.preparation.tensors import StayTensors, stay_tensors
from ogsrl.sources.simulator import simulate, simulate_chunks
from ogsrl.spec import Cohort
from ogsrl.spec.reader import load_cohort

G = TypeVar("G", bound=Guardian)
CODE = ("guardian", "preparation", "sources/simulator")


@dataclass(frozen=True)
class Fitted:
    """A simulated cohort's parts and the guardian fitted to it."""

    preparation: Preparation
    parts: dict[str, StayTensors]
    guardian: ChristoffelGuardian


def sepsis() -> Cohort:
    """The default cohort."""
    return load_cohort(ROOT / "data_contracts" / "sepsis.yaml")


def prepared(patients: int, seed: int) -> tuple[Preparation, dict[str, StayTensors]]:
    """Train, calibration and validation stays of simulated patients; test patients stay unread."""
    cohort = sepsis()
    table = simulate(patients, seed)[list(cohort.table_columns)]
    params = PrepareParams()
    part = assign_parts(table["patient_id"], params)
    train = table[part == "train"].reset_index(drop=True)
    preparation = fit(TrainingRows.of(train, cohort), cohort, params)
    frames = {name: table[part == name] for name in ("train", "calibration", "validation")}
    return preparation, {
        name: stay_tensors(preparation.apply(frame.reset_index(drop=True)), preparation)
        for name, frame in frames.items()
    }


def fitted(patients: int, seed: int, rows: int | None = None) -> Fitted:
    """The default guardian, fitted as its stage does (it asks no clinicians' density).

    Args:
        patients: Simulated patients.
        seed: Of the simulator and of the fit.
        rows: Training decisions, the first so many.
    """
    preparation, parts = prepared(patients, seed)
    train = Rows.of(parts["train"])
    if rows is not None:
        train = train.take(torch.arange(min(rows, len(train))))
    layout = Layout.of(parts["train"].history)
    generator = torch.Generator().manual_seed(seed)
    guardian = ChristoffelGuardian.fit([train], layout, GuardianParams(), generator)
    return Fitted(preparation, parts, calibrated(guardian, parts))


def calibrated(guardian: G, parts: dict[str, StayTensors]) -> G:
    """With a threshold from the calibration patients."""
    rows = Rows.of(parts["calibration"])
    return guardian.calibrate(rows.states, rows.doses, rows.patient, GuardianParams().alpha)


def fresh(preparation: Preparation, patients: int, seed: int) -> Iterator[Rows]:
    """Decisions of fresh patients of the same clinicians, in parts of whole patients."""
    columns = list(preparation.cohort.table_columns)
    for table in simulate_chunks(patients, seed):
        frame: pd.DataFrame = table[columns]
        yield Rows.of(stay_tensors(preparation.apply(frame), preparation))


def fingerprint(*settings: object) -> str:
    """What a cached part depends on: the code, and its settings."""
    digest = hashlib.blake2b(digest_size=12)
    files = [file for name in CODE for file in sorted((ROOT / "ogsrl" / name).glob("**/*.py"))]
    files += sorted((ROOT / "benchmarks").glob("*guardian*.py"))
    for file in [*files, ROOT / "data_contracts" / "sepsis.yaml"]:
        digest.update(file.read_bytes())
    digest.update(repr(settings).encode())
    return digest.hexdigest()
