"""ICU-Sepsis: a published process of 713 patient states and 25 doses, its clinicians, its truth.

Called by `open_source`, tests and benchmarks. Nothing learned may ever read what is true here.
"""

from ogsrl.sources.icu_sepsis.exact import Exact, evaluated, ever, occupancy, optimal
from ogsrl.sources.icu_sepsis.logs import (
    MAX_STEPS,
    IcuSepsisOptions,
    deadly_of,
    logged,
    logged_chunks,
    read,
)
from ogsrl.sources.icu_sepsis.published import COMBINATIONS, STATES, Process, process

__all__ = [
    "COMBINATIONS",
    "MAX_STEPS",
    "STATES",
    "Exact",
    "IcuSepsisOptions",
    "Process",
    "deadly_of",
    "evaluated",
    "ever",
    "logged",
    "logged_chunks",
    "occupancy",
    "optimal",
    "process",
    "read",
]
