"""How the simulator's clinicians dose: from the chart, by habit of site and person, with noise.

Used to log cohorts, wherever a policy defers, and by the deadly variant's support. They must never
see the latent body; with `confounding` they see one number of it, the bounded bedside severity.

Each dose follows from an urge y = need(charted history) + site + person + residual; the dose is 0
below y = 0 and rises with y above. Their systematic faults: they go on filling when the patient is
full, and they tolerate a low pressure before they start a vasopressor.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.random import Generator

from ogsrl.sources.simulator.config import (
    DOSE_BOUNDS,
    DOSE_INCREMENTS,
    Flags,
    Floats,
    SimulatorConfig,
)

#: The column by which a ward shows its uncharted bedside severity to `Clinicians` alone.
BEDSIDE: Final = "bedside"
#: Steps that one person is responsible: 12 h.
SHIFT_STEPS: Final = 3
#: Standard deviations of the urge for each dose: between sites, persons, and steps.
SITE_SD: Final = {"iv_fluid": 0.15, "vasopressor": 0.15}
PERSON_SD: Final = {"iv_fluid": 0.35, "vasopressor": 0.25}
RESIDUAL_SD: Final = {"iv_fluid": 0.46, "vasopressor": 0.35}
#: What is assumed of a value that was never charted.
UNKNOWN: Final[dict[str, float]] = {
    "map": 72.0,
    "lactate": 1.8,
    "urine": 250.0,
    "cvp": 8.0,
    "pf_ratio": 300.0,
    "sofa": 6.0,
}
#: Urges further from the need than this many standard deviations are never acted upon.
SUPPORT_SDS: Final = 3.0

_SPREAD: Final = {
    name: float(np.sqrt(SITE_SD[name] ** 2 + PERSON_SD[name] ** 2 + RESIDUAL_SD[name] ** 2))
    for name in DOSE_BOUNDS
}


def fluid_dose(urge: Floats) -> Floats:
    """Fluid of an urge, mL in 4 h: nothing below 0, skewed above."""
    return np.minimum(300.0 * np.maximum(urge, 0.0) ** 1.3, DOSE_BOUNDS["iv_fluid"][1])


def pressor_dose(urge: Floats) -> Floats:
    """Vasopressor of an urge, ug/kg/min: nothing below 0, skewed above."""
    return np.minimum(0.13 * np.maximum(urge, 0.0) ** 1.3, DOSE_BOUNDS["vasopressor"][1])


_DOSE_OF: Final = {"iv_fluid": fluid_dose, "vasopressor": pressor_dose}


def remember(memory: Mapping[str, Floats], charted: Mapping[str, Floats]) -> dict[str, Floats]:
    """The last charted value of each column that clinicians weigh, or what they assume."""
    latest = {}
    for name, assumed in UNKNOWN.items():
        value = charted[name]
        latest[name] = np.where(np.isnan(value), memory.get(name, assumed), value)
    return latest


def needs(
    known: Mapping[str, Floats],
    charted: Mapping[str, Floats],
    previous: Mapping[str, Floats],
) -> dict[str, Floats]:
    """The mean urge for each dose, from charted history alone."""
    pressure = known["map"]
    output = known["urine"] / (4.0 * charted["weight"])
    early = np.maximum(3.0 - charted["step"], 0.0)
    fluid = (
        1.5
        + 0.20 * early  # resuscitation first
        + 0.045 * np.clip(66.0 - pressure, -20.0, 20.0)  # low pressure is met with volume,
        + 0.6 * np.clip(0.8 - output, -0.8, 0.8)  # and so is low urine output,
        + 0.06 * np.clip(known["lactate"] - 2.0, 0.0, 6.0)
        - 0.030 * np.clip(known["cvp"] - 10.0, 0.0, 10.0)  # hardly held back when full
    )
    running = previous["vasopressor"] / 0.2
    pressor = (
        -0.45
        + 0.11 * np.clip(60.0 - pressure, -20.0, 20.0)  # started late: at 60, not at 65
        + 1.75 * np.minimum(running, 1.2)  # and kept once it runs
    )
    return {"iv_fluid": fluid, "vasopressor": pressor}


def supported(
    known: Mapping[str, Floats], previous: Mapping[str, Floats], doses: Mapping[str, Floats]
) -> Flags:
    """Whether clinicians would ever give these doses to such a patient (the deadly variant)."""
    inside = np.ones(len(known["weight"]), dtype=bool)
    for name, (lo, hi) in support(known, previous).items():
        inside &= (doses[name] >= lo) & (doses[name] <= hi)
    return inside


def support(
    known: Mapping[str, Floats], previous: Mapping[str, Floats]
) -> dict[str, tuple[Floats, Floats]]:
    """Least and greatest dose that clinicians would ever give, from charted history."""
    limits = {}
    for name, need in needs(remember({}, known), known, previous).items():
        lo = _recorded(name, _DOSE_OF[name](need - SUPPORT_SDS * _SPREAD[name]))
        hi = _recorded(name, _DOSE_OF[name](need + SUPPORT_SDS * _SPREAD[name]))
        limits[name] = (lo, hi)
    return limits


def tilted(tilt: float, bedside: Floats, rng: Generator) -> Floats:
    """Normal residuals e, more often positive where `bedside` is: an uneasy eye doses up.

    The sign is positive with chance (1 + tilt * u) / 2, so the density of e is
    phi(e) * (1 + tilt * u * sign(e)): multiplied by 1 - tilt to 1 + tilt, whatever e.
    """
    size = np.abs(rng.standard_normal(len(bedside)))
    return np.where(rng.random(len(bedside)) < 0.5 * (1.0 + tilt * bedside), size, -size)


class Clinicians:
    """The logging policy."""

    def __init__(self, config: SimulatorConfig | None = None) -> None:
        self.config = config or SimulatorConfig()
        sites = len(self.config.sites)
        # liberal sites fill more and start vasopressors later; restrictive sites the other way
        ladder = np.linspace(1.0, -1.0, sites) if sites > 1 else np.zeros(1)
        ladder = ladder / max(float(ladder.std()), 1e-9)
        self._sites = {
            "iv_fluid": SITE_SD["iv_fluid"] * ladder,
            "vasopressor": -SITE_SD["vasopressor"] * ladder,
        }
        self._memory: dict[str, Floats] = {}
        self._person: dict[str, Floats] = {}

    def reset(self, n: int) -> None:
        """Begin with `n` unknown patients."""
        self._memory = {}
        self._person = {}

    def observe(self, step: int, charted: Mapping[str, Floats], rng: Generator) -> None:
        """Take note of a row; at a change of shift another person becomes responsible."""
        self._memory = remember(self._memory, charted)
        if step % SHIFT_STEPS == 0 or not self._person:
            self._person = {
                name: sd * rng.standard_normal(len(charted["step"]))
                for name, sd in PERSON_SD.items()
            }

    def act(
        self,
        step: int,
        charted: Mapping[str, Floats],
        previous: Mapping[str, Floats],
        rng: Generator,
    ) -> dict[str, Floats]:
        """Doses for the row, drawn."""
        self.observe(step, charted, rng)
        return self.dose(charted, previous, rng)

    def dose(
        self, charted: Mapping[str, Floats], previous: Mapping[str, Floats], rng: Generator
    ) -> dict[str, Floats]:
        """Doses for the row last observed."""
        n = len(charted["step"])
        if self.config.tilt > 0.0 and BEDSIDE not in charted:
            raise ValueError(
                f"these clinicians look at the patient: add the ward's {BEDSIDE!r} to the row, "
                "or let `rollout` do it"
            )
        site = charted["site"].astype(np.int64)
        doses = {}
        for name, need in needs(self._memory, charted, previous).items():
            if self.config.tilt > 0.0:
                residual = tilted(self.config.tilt, charted[BEDSIDE], rng)
            else:
                residual = rng.standard_normal(n)
            habit = self._sites[name][site] + self._person[name]
            doses[name] = _DOSE_OF[name](need + habit + RESIDUAL_SD[name] * residual)
        doses = self._blunder(doses, rng)
        if self.config.variant == "deadly":
            for name, (lo, hi) in support({**charted, **self._memory}, previous).items():
                doses[name] = np.clip(doses[name], lo, hi)
        return {name: _recorded(name, dose) for name, dose in doses.items()}

    def _blunder(self, doses: dict[str, Floats], rng: Generator) -> dict[str, Floats]:
        """Rare unsafe acts, whoever the patient: a flood, a pressor surge, everything stopped."""
        chance, which, size = rng.random((3, len(doses["iv_fluid"])))
        unsafe = chance < self.config.unsafe_share
        flood = unsafe & (which < 1 / 3)
        surge = unsafe & (which >= 2 / 3)
        stop = unsafe & ~flood & ~surge
        fluid = np.where(flood, 1500.0 + 500.0 * size, doses["iv_fluid"])
        pressor = np.where(surge, 0.5 + 0.5 * size, doses["vasopressor"])
        return {
            "iv_fluid": np.where(stop, 0.0, fluid),
            "vasopressor": np.where(stop, 0.0, pressor),
        }


class DenoisedClinicians:
    """The same clinicians without site, person or chance: their mean dose for such a chart.

    With `typical`, the median dose instead, which is that of an urge equal to the need.
    """

    _grid: Final = np.linspace(-6.0, 9.0, 601)

    def __init__(self, typical: bool = False) -> None:
        self.typical = typical
        nodes, weights = np.polynomial.hermite_e.hermegauss(40)
        weights = weights / weights.sum()
        self._means = {
            name: of(self._grid[:, None] + _SPREAD[name] * nodes) @ weights
            for name, of in _DOSE_OF.items()
        }
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
        """The mean or the median of the clinicians' doses for such a patient."""
        self._memory = remember(self._memory, charted)
        need = needs(self._memory, charted, previous)
        if self.typical:
            return {name: _DOSE_OF[name](need[name]) for name in DOSE_BOUNDS}
        return {name: np.interp(need[name], self._grid, self._means[name]) for name in DOSE_BOUNDS}


def _recorded(name: str, dose: Floats) -> Floats:
    unit = DOSE_INCREMENTS[name]
    recorded: Floats = np.round(np.round(dose / unit) * unit, 2)
    return recorded
