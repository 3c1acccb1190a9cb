"""Prepared parts for the stages that learn: `load_parts(stage, "train", "calibration")`.

The test part is read by evaluate, audit and register alone (which sets a version beside the
champion on the same patients); this module refuses it to all others.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pandas as pd

from ogsrl.errors import PreparationError
from ogsrl.preparation import Part, Preparation
from ogsrl.preparation.tensors import StayTensors, stay_tensors
from pipelines.stage import Stage

MAY_READ_TEST = ("evaluate", "audit", "register")


@contextmanager
def _prepared() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise PreparationError(
            "the cohort is not prepared, or prepare refused it; run prepare and read what it says"
        ) from None


def load_preparation(stage: Stage) -> Preparation:
    """What prepare fitted."""
    with _prepared():
        return Preparation.load(stage.data("prepared"), stage.cohort)


def load_frame(stage: Stage, part: Part) -> pd.DataFrame:
    """A prepared part, row for row."""
    if part == "test" and stage.name not in MAY_READ_TEST:
        raise PreparationError(f"{stage.name}: test patients are for {', '.join(MAY_READ_TEST)}")
    with _prepared():
        return pd.read_parquet(stage.data("prepared", f"{part}.parquet"))


def load_parts(stage: Stage, *parts: Part) -> dict[str, StayTensors]:
    """Prepared parts as tensors, by name."""
    preparation = load_preparation(stage)
    return {part: stay_tensors(load_frame(stage, part), preparation) for part in parts}
