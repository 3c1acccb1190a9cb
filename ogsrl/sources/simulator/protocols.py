"""Named policies beside the clinicians: nothing, everything, and bedside protocols.

Used by `truth`, benchmarks and later as references. Policies read charted values alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Final

import numpy as np
from numpy.random import Generator

from ogsrl.sources.simulator.clinicians import remember
from ogsrl.sources.simulator.config import DOSE_BOUNDS, Floats


class ZeroDose:
    """No fluid, no vasopressor, whatever happens."""

    def act(
        self,
        step: int,
        charted: Mapping[str, Floats],
        previous: Mapping[str, Floats],
        rng: Generator,
    ) -> dict[str, Floats]:
        """Zeros."""
        return {name: np.zeros(len(charted["step"])) for name in DOSE_BOUNDS}


class MaximumDose:
    """The greatest dose of everything, always."""

    def act(
        self,
        step: int,
        charted: Mapping[str, Floats],
        previous: Mapping[str, Floats],
        rng: Generator,
    ) -> dict[str, Floats]:
        """Upper bounds."""
        return {name: np.full(len(charted["step"]), hi) for name, (_, hi) in DOSE_BOUNDS.items()}


#: Upper ends of the severity bands of charted SOFA; the last band is open.
SOFA_BANDS: Final = (3.0, 6.0, 9.0, 12.0)


@dataclass(frozen=True)
class ProtocolSettings:
    """A bedside protocol in eleven numbers."""

    fluid_base: float = 300.0  # mL in 4 h, before corrections
    fluid_pressure: float = 15.0  # mL per mmHg of MAP below `pressure_goal`
    fluid_oliguria: float = 200.0  # mL per mL/kg/h of urine below 0.8
    fluid_lactate: float = 30.0  # mL per mmol/L above 2
    full_cvp: float = 9.0  # cvp above which fluid is held back
    fluid_cvp: float = 60.0  # mL less per mmHg above it
    full_lungs: float = 250.0  # P/F below which fluid is held back
    fluid_lungs: float = 1.0  # mL less per mmHg below it
    pressure_goal: float = 68.0  # MAP below which vasopressor rises, above which it falls
    pressor_gain: float = 0.010  # ug/kg/min per mmHg
    pressor_keep: float = 0.9  # share of the running dose kept

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """The numbers' names, in order."""
        return tuple(f.name for f in fields(cls))


@dataclass(frozen=True)
class DoseLimits:
    """Per dose, least and greatest dose in each band of charted SOFA."""

    least: dict[str, tuple[float, ...]]
    greatest: dict[str, tuple[float, ...]]

    def clip(self, doses: Mapping[str, Floats], sofa: Floats) -> dict[str, Floats]:
        """The doses moved inside the limits of each patient's band."""
        band = np.searchsorted(SOFA_BANDS, sofa, side="left")
        return {
            name: np.clip(
                dose, np.array(self.least[name])[band], np.array(self.greatest[name])[band]
            )
            for name, dose in doses.items()
        }


class Protocol:
    """Fluid to those who are dry and show it, vasopressor titrated to a pressure."""

    def __init__(self, settings: ProtocolSettings, limits: DoseLimits | None = None) -> None:
        self.settings = settings
        self.limits = limits
        self._memory: dict[str, Floats] = {}

    def reset(self, n: int) -> None:
        """Begin with `n` unknown patients."""
        self._memory = {}

    def act(
        self,
        step: int,
        charted: Mapping[str, Floats],
        previous: Mapping[str, Floats],
        rng: Generator,
    ) -> dict[str, Floats]:
        """Doses by rule, inside the limits."""
        self._memory = known = remember(self._memory, charted)
        s = self.settings
        short = s.pressure_goal - known["map"]
        output = known["urine"] / (4.0 * charted["weight"])
        fluid = (
            s.fluid_base
            + s.fluid_pressure * np.maximum(short, 0.0)
            + s.fluid_oliguria * np.maximum(0.8 - output, 0.0)
            + s.fluid_lactate * np.maximum(known["lactate"] - 2.0, 0.0)
            - s.fluid_cvp * np.maximum(known["cvp"] - s.full_cvp, 0.0)
            - s.fluid_lungs * np.maximum(s.full_lungs - known["pf_ratio"], 0.0)
        )
        pressor = s.pressor_keep * previous["vasopressor"] + s.pressor_gain * short
        doses = {
            "iv_fluid": np.clip(fluid, *DOSE_BOUNDS["iv_fluid"]),
            "vasopressor": np.clip(pressor, *DOSE_BOUNDS["vasopressor"]),
        }
        return doses if self.limits is None else self.limits.clip(doses, known["sofa"])


#: Found by `python -m benchmarks.simulator --search` (cross-entropy, best of five restarts), inside
#: the 1st to 99th percentile of the clinicians' doses in each band of charted SOFA, unsafe acts
#: left out. A change of the simulator asks for a new search.
ORACLE_SETTINGS: Final = ProtocolSettings(
    fluid_base=518.0,
    fluid_pressure=12.4,
    fluid_oliguria=673.8,
    fluid_lactate=38.28,
    full_cvp=3.167,
    fluid_cvp=142.2,
    full_lungs=302.3,
    fluid_lungs=0.2522,
    pressure_goal=72.91,
    pressor_gain=0.0185,
    pressor_keep=0.5523,
)
ORACLE_LIMITS: Final = DoseLimits(
    least={"iv_fluid": (0.0, 0.0, 0.0, 0.0, 0.0), "vasopressor": (0.0, 0.0, 0.0, 0.0, 0.0)},
    greatest={
        "iv_fluid": (1450.0, 1600.0, 1800.0, 1900.0, 1800.0),
        "vasopressor": (0.11, 0.22, 0.39, 0.48, 0.55),
    },
)


def oracle() -> Protocol:
    """The best protocol known among doses that clinicians do give to such patients."""
    return Protocol(ORACLE_SETTINGS, ORACLE_LIMITS)
