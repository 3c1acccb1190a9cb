"""The parameters of the guardian, one typed field a key of `guardian:` in params.yaml.

Read by the stage guardian and by every member of this package. Holds no data.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

#: What the question "is this dose usual?" is answered with: q(s,a) / q(s), or -log b(a|s).
Usual = Literal["ratio", "density"]
Kind = Literal["christoffel", "kde", "neighbours", "counts"]


class GuardianParams(BaseModel):
    """Parameters of the stage guardian."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: Kind = Field("christoffel", description="Which guardian decides what is supported.")
    degree: int | None = Field(
        None, ge=1, le=3, description="Degree of the polynomial; null: chosen on training folds."
    )
    usual: Usual | None = Field(
        "ratio",
        description="What tells how usual a dose is; null: whichever has more power on training "
        "folds (see docs/decisions/0008).",
    )
    alpha: float = Field(
        0.05,
        gt=0,
        lt=1,
        description="Promised mean share of a patient's steps refused; counts promises none.",
    )
    max_refusal: float = Field(
        0.08,
        gt=0,
        le=1,
        description="Largest share of a policy's steps that may be refused; read where policies "
        "are trained, not by a guardian.",
    )
    min_stays: int = Field(
        10,
        ge=10,
        description="counts: stays in which a pair must be seen to be supported; they must also be "
        "of ten patients.",
    )
    reach: int = Field(
        0,
        ge=0,
        le=4,
        description="counts: levels, over all doses together, by which a dose given in the same "
        "state may differ and still be counted.",
    )
    own: int = Field(
        10,
        ge=0,
        description="counts: patients who must have been given the very dose in the state, however "
        "many were given one within reach. Below ten the model tells of fewer than ten: for logs "
        "of no real patient.",
    )
    bandwidth: float = Field(
        0.535, gt=0, description="kde: the kernel's deviation, columns scaled to [-1, 1]."
    )
    neighbours: int = Field(
        10, ge=1, le=1000, description="neighbours: the distance to which neighbour counts."
    )
