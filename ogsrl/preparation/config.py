"""The parameters of prepare, one typed field a key of `prepare:` in params.yaml.

Read by the stage and by everything in this package. Holds no data.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Part = Literal["train", "calibration", "validation", "test"]
PARTS: tuple[Part, ...] = ("train", "calibration", "validation", "test")


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Shares(_Frozen):
    """Which share of the patients each part gets; together they are 1."""

    train: float = Field(0.5, gt=0, le=1, description="Fits everything that is fitted.")
    calibration: float = Field(0.15, ge=0, lt=1, description="Sets thresholds.")
    validation: float = Field(0.15, ge=0, lt=1, description="Chooses between fitted things.")
    test: float = Field(0.2, ge=0, lt=1, description="Read by evaluate and audit alone.")

    @model_validator(mode="after")
    def _whole(self) -> Shares:
        total = sum(getattr(self, part) for part in PARTS)
        if abs(total - 1) > 1e-9:
            raise ValueError(f"prepare.split: the shares add up to {total:g}; make it 1")
        return self


class PrepareParams(_Frozen):
    """Parameters of the stage prepare."""

    split: Shares = Field(default_factory=Shares, description="Shares of patients per part.")
    split_key: str = Field(
        "ogsrl",
        min_length=1,
        max_length=64,
        pattern=r"^[ -~]+$",
        description="Key of the hash that splits patients; another key, another split.",
    )
    history_steps: int = Field(
        3, ge=0, le=24, description="Earlier steps whose states and doses a state holds."
    )
    honour_source_splits: bool = Field(
        False, description="Whether a table's own column `split` decides who is tested."
    )
