"""The parameters of behaviour, one typed field a key of `behaviour:` in params.yaml.

Read by the stage and by everything in this package. Holds no data.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Kind = Literal["neural", "boosted"]
KINDS: tuple[Kind, ...] = ("neural", "boosted")


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class NeuralParams(_Frozen):
    """The network: a trunk over the state, and a head a dose that also sees earlier doses."""

    hidden: int = Field(256, ge=4, le=4096, description="Units of each of the trunk's two layers.")
    head: int = Field(128, ge=4, le=4096, description="Units of each dose's own layer.")
    max_epochs: int = Field(8, ge=1, le=1000, description="Most passes over the decisions.")
    patience: int = Field(2, ge=1, description="Passes without gain before fitting stops.")
    batch_size: int = Field(1024, ge=8, description="Decisions a gradient step.")
    learning_rate: float = Field(6e-3, gt=0, le=1, description="Of Adam, falling to 0.")
    weight_decay: float = Field(0.7, ge=0, description="Decoupled decay of weights.")
    held_out: float = Field(
        0.1, gt=0, lt=0.5, description="Share of the training patients that tells when to stop."
    )


class BoostedParams(_Frozen):
    """The trees: two classifiers, a location and a scale for each dose."""

    trees: int = Field(60, ge=1, le=2000, description="Trees of each classifier and location.")
    scale_trees: int = Field(20, ge=1, le=2000, description="Trees of each scale.")
    depth: int = Field(6, ge=1, le=12, description="Splits between a tree's root and a leaf.")
    learning_rate: float = Field(0.15, gt=0, le=1, description="Weight of each tree.")
    min_leaf: int = Field(60, ge=1, description="Least decisions a leaf grows on.")
    columns: float = Field(0.4, gt=0, le=1, description="Share of columns that a split looks at.")


class BehaviourParams(_Frozen):
    """Parameters of the clinicians' policy."""

    kinds: tuple[Kind, ...] = Field(
        KINDS, min_length=1, description="Kinds fitted; validation likelihood chooses."
    )
    knots: int = Field(
        32, ge=3, le=256, description="Knots of the log dose between zero and the maximum."
    )
    min_train: int = Field(
        50, ge=10, description="Training patients below which nothing is fitted."
    )
    min_calibration: int = Field(20, ge=10, description="The same for calibration patients.")
    min_validation: int = Field(20, ge=10, description="The same for validation patients.")
    neural: NeuralParams = Field(default_factory=NeuralParams, description="The neural kind.")
    boosted: BoostedParams = Field(default_factory=BoostedParams, description="The boosted kind.")
