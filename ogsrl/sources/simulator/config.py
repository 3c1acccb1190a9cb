"""What a simulated cohort is: its settings, its clock, its doses.

Read by every module of the simulator. It holds no patient and draws no number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Codes = NDArray[np.int64]

STEP_HOURS: Final = 4
MAX_STEPS: Final = 18

#: Upper bounds of the doses: mL in 4 h, and ug/kg/min norepinephrine equivalent. The lower is 0.
DOSE_BOUNDS: Final[dict[str, tuple[float, float]]] = {
    "iv_fluid": (0.0, 2000.0),
    "vasopressor": (0.0, 1.5),
}
#: Doses are recorded in whole multiples of these.
DOSE_INCREMENTS: Final[dict[str, float]] = {"iv_fluid": 50.0, "vasopressor": 0.01}

#: Tilt of each dose's residual at confounding 1; the two doses are tilted independently.
_FULL_TILT: Final = 0.30

Variant = Literal["standard", "deadly"]


@dataclass(frozen=True)
class SimulatorConfig:
    """Settings of a simulated cohort; every field is checked when it is built."""

    #: 0: doses depend on charted history alone; 1: the uncharted bedside severity tilts them most.
    confounding: float = 0.0
    #: Share of decisions that are a rare unsafe act, whatever the patient's state.
    unsafe_share: float = 0.03
    #: Names of the sites; patients are spread over them at random.
    sites: tuple[str, ...] = ("A", "B", "C", "D", "E", "F")
    #: Chance a step that a logged stay is transferred away and no longer followed.
    censoring: float = 0.003
    #: Share of patients who come back for a second stay (among those who can).
    readmission: float = 0.066
    #: In 'deadly', a dose outside `Clinicians.support` kills within the step.
    variant: Variant = "standard"

    def __post_init__(self) -> None:
        for name, top in (("confounding", 1.0), ("unsafe_share", 0.5), ("readmission", 1.0)):
            value = getattr(self, name)
            if not 0.0 <= value <= top:
                raise ValueError(f"{name} is {value}; it must lie between 0 and {top:g}")
        if not 0.0 <= self.censoring < 0.5:
            raise ValueError(f"censoring is {self.censoring}; it must lie in [0, 0.5)")
        if not self.sites or len(set(self.sites)) != len(self.sites):
            raise ValueError("sites must be at least one name, each once")
        if self.variant not in ("standard", "deadly"):
            raise ValueError(f"variant is {self.variant!r}; it must be 'standard' or 'deadly'")

    @property
    def tilt(self) -> float:
        """How far bedside severity tilts the residual of one dose (see `clinicians.tilted`)."""
        return _FULL_TILT * self.confounding

    @property
    def gamma(self) -> float:
        """Gamma: how far bedside severity u multiplies the dose density of whoever is in charge.

        b(doses | history, u) / b(doses | history) lies in [1/Gamma, Gamma] for every person.
        The residual e of one dose has its density multiplied by 1 + tilt * u * sign(e), |u| <= 1:
        a number in [1 - tilt, 1 + tilt], as is its mean over u. Doses are functions of e, so
        their density ratio is bounded alike; two doses square it.
        """
        return ((1.0 + self.tilt) / (1.0 - self.tilt)) ** 2
