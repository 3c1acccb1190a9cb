"""The limits of the gates, one key a gate under `audit:` in params.yaml.

Read by the stage audit and by the card, which shows each limit that is looser than here.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Limit(BaseModel):
    """Of one gate."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    limit: float


def _limit(default: float, description: str) -> Limit:
    made: Limit = Field(Limit(limit=default), description=description)
    return made


class AuditParams(BaseModel):
    """Parameters of the stage audit; what a measure must be is said at its gate."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    contract: Limit = _limit(0, "Rules of severity error that the data break.")
    leakage: Limit = _limit(0, "Checks that found a leak.")
    false_alarms: Limit = _limit(0, "Share of clinicians' steps refused, surely above `alpha`.")
    rows_in_model: Limit = _limit(0, "Files of the model that hold rows of patients.")
    steps_deferred: Limit = _limit(0.10, "Upper bound of the share of steps deferred.")
    stays_deferred: Limit = _limit(0.5, "Upper bound of the share of stays with any.")
    constraints: Limit = _limit(0, "Upper bound of a constraint's cost above what it may be.")
    calibration: Limit = _limit(0.02, "Mean error of a constraint's predicted chance.")
    hazards: Limit = _limit(0, "Share of test steps in which a hazard is recommended.")
    dose_jumps: Limit = _limit(0, "Share of test steps with more than the largest change.")
    better: Limit = _limit(0, "Lower bound of the advantage over the clinicians.")
    cloning: Limit = _limit(-0.01, "Lower bound of the advantage over behaviour cloning.")
    subgroups: Limit = _limit(0, "Upper bound, Holm-adjusted, of a subgroup's advantage.")
    detectable: Limit = _limit(0.05, "Smallest advantage that would have been seen.")
    seeds: Limit = _limit(0.02, "How far other seeds' estimates are from the one put forward.")
    confounding: Limit = _limit(1.0, "Confounding that `better` must withstand.")
    outcomes: Limit = _limit(0, "Subgroups whose deaths are surely not all told.")
    signal: Limit = _limit(0, "Lower bound of the slope of what was seen on what was predicted.")
    test_uses: Limit = _limit(20, "Policies ever measured on these test patients.")
