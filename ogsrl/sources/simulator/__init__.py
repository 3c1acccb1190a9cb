"""Septic patients, their clinicians, and the truth about any policy: the default source.

Called by the ingest stage, tests, benchmarks and evaluation where truth is known. Nothing learned
may look behind the chart.
"""

from ogsrl.sources.simulator.charting import OBSERVATIONS, PLAUSIBLE, STATICS
from ogsrl.sources.simulator.clinicians import Clinicians, DenoisedClinicians
from ogsrl.sources.simulator.cohort import COLUMNS, simulate, simulate_chunks
from ogsrl.sources.simulator.config import (
    DOSE_BOUNDS,
    DOSE_INCREMENTS,
    MAX_STEPS,
    STEP_HOURS,
    SimulatorConfig,
)
from ogsrl.sources.simulator.protocols import (
    DoseLimits,
    MaximumDose,
    Protocol,
    ProtocolSettings,
    ZeroDose,
    oracle,
)
from ogsrl.sources.simulator.truth import (
    CONSTRAINTS,
    Policy,
    Truth,
    paired_difference,
    rollout,
    true_value,
)
from ogsrl.sources.simulator.ward import Outcome, Ward

__all__ = [
    "COLUMNS",
    "CONSTRAINTS",
    "DOSE_BOUNDS",
    "DOSE_INCREMENTS",
    "MAX_STEPS",
    "OBSERVATIONS",
    "PLAUSIBLE",
    "STATICS",
    "STEP_HOURS",
    "Clinicians",
    "DenoisedClinicians",
    "DoseLimits",
    "MaximumDose",
    "Outcome",
    "Policy",
    "Protocol",
    "ProtocolSettings",
    "SimulatorConfig",
    "Truth",
    "Ward",
    "ZeroDose",
    "oracle",
    "paired_difference",
    "rollout",
    "simulate",
    "simulate_chunks",
    "true_value",
]
