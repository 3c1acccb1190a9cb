"""What a corruption of the catalogue is, and the case that it corrupts.

Used by the modules of the catalogue and by `benchmarks.corruptions`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd

from ogsrl.spec import Cohort

Rng = np.random.Generator
#: The site whose units are swapped.
SITE = "B"


@dataclass
class Case:
    """A cohort's table and what it is checked against."""

    frame: pd.DataFrame
    reference: pd.DataFrame | None = None
    others: dict[str, pd.Series] = field(default_factory=dict)


@dataclass(frozen=True)
class Corruption:
    """One way to break a table, and the key of the rule that must say so."""

    name: str
    rule: str
    apply: Callable[[Case, Cohort, Rng], Case]
    stage: Literal["ingest", "validate"] = "validate"
