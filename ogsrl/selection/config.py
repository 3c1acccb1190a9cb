"""The parameters of selection, one typed field a key of `select:` in params.yaml.

Read by the stage select and by everything in this package. Holds no data.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from ogsrl.evaluation.config import FqeParams


class SelectParams(BaseModel):
    """Parameters of the stage select."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    finalists: int = Field(
        3, ge=1, le=50, description="Candidates that the screening lets through, cloning apart."
    )
    confidence: float = Field(
        0.95, gt=0.5, lt=1, description="Of every bound, and of all constraints together (Holm)."
    )
    bootstrap: bool = Field(
        True,
        description="Whether each cold fit is fed its own bootstrap sample of patients, so that "
        "bounds know what these patients leave open.",
    )
    no_worse: bool = Field(
        True,
        description="Whether a policy that is estimated to be worse than the clinicians, in "
        "mortality or value, is refused whatever else it does.",
    )
    agree: bool = Field(
        True,
        description="Whether a policy that seems to break a limit in the screening model is "
        "refused, whatever fitted Q evaluation says of it.",
    )
    screen_stays: int = Field(
        1000, ge=10, description="Validation stays followed in the screening model, at most."
    )
    cloning: str = Field(
        "bc", description="The algorithm that is always compared: behaviour cloning."
    )
    fqe: FqeParams = Field(FqeParams(), description="Fitted Q evaluation of the finalists.")
    predictions: FqeParams = Field(
        FqeParams(networks=1, steps=1000),
        description="What is saved beside who was selected, for queries.",
    )
