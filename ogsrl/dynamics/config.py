"""The parameters of dynamics, one typed field a key of `dynamics:` in params.yaml.

Read by the stage and by everything in this package. Holds no data.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from ogsrl.errors import ModelError

#: A member stops early on patients it did not draw: about .37 of all; 30 of them tell a trend.
NEEDED_PATIENTS = 80


class TooFewPatients(ModelError):
    """The dynamics cannot be fitted: fewer patients than needed have a charted next step."""

    def __init__(self, needed: int) -> None:
        """Say how many are needed; how many there were is told in counts that may be shown."""
        super().__init__(
            f"dynamics: too few training patients with a charted next step; {needed} are needed"
        )
        self.needed = needed


class DynamicsParams(BaseModel):
    """Parameters of the stage dynamics."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    members: int = Field(5, ge=1, le=50, description="Networks, each on its own bootstrap.")
    hidden: int = Field(128, ge=4, le=2048, description="Width of the network of next values.")
    hidden_ends: int = Field(48, ge=4, le=2048, description="Width of the network of ends.")
    max_epochs: int = Field(12, ge=1, le=1000, description="Passes over the data at most.")
    patience: int = Field(4, ge=1, le=100, description="Passes without gain before stopping.")
    batch_size: int = Field(1024, ge=16, le=65536, description="Rows a member and step, at most.")
    learning_rate: float = Field(2e-3, gt=0, le=1, description="Of Adam; falls to 0 as a cosine.")
    weight_decay: float = Field(1e-4, ge=0, le=1, description="Decoupled from the learning rate.")
    ridge: float = Field(1e-3, gt=0, le=1, description="Of the linear part, per row.")
