"""From the latent body to the chart: measurement noise, irregular labs, missing values, SOFA.

Called by `ward`. What leaves this module is all that clinicians, policies and tables ever see.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from ogsrl.sources.simulator.config import Floats
from ogsrl.sources.simulator.physiology import Latent, Patients

#: Static columns, in the order of the table.
STATICS: Final = ("age", "female", "weight", "comorbidity")

#: Plausible range of every charted column; charted values are clipped to it.
PLAUSIBLE: Final[dict[str, tuple[float, float]]] = {
    "age": (18.0, 95.0),
    "female": (0.0, 1.0),
    "weight": (40.0, 180.0),
    "comorbidity": (0.0, 15.0),
    "heart_rate": (25.0, 220.0),
    "sbp": (30.0, 260.0),
    "map": (20.0, 180.0),
    "resp_rate": (4.0, 60.0),
    "temperature": (32.0, 42.5),
    "spo2": (40.0, 100.0),
    "fio2": (0.21, 1.0),
    "gcs": (3.0, 15.0),
    "pf_ratio": (30.0, 650.0),
    "lactate": (0.3, 25.0),
    "ph": (6.8, 7.7),
    "creatinine": (0.2, 15.0),
    "bun": (2.0, 180.0),
    "bilirubin": (0.1, 40.0),
    "platelets": (5.0, 900.0),
    "wbc": (0.2, 80.0),
    "cvp": (-4.0, 35.0),
    "urine": (0.0, 2500.0),
    "sofa": (0.0, 24.0),
    "ventilated": (0.0, 1.0),
    "fluid_total": (0.0, 36000.0),
}
#: Observation columns, in the order of the table.
OBSERVATIONS: Final = tuple(name for name in PLAUSIBLE if name not in STATICS)

_VITALS: Final[dict[str, float]] = {  # share of rows in which each is not charted
    "heart_rate": 0.01,
    "sbp": 0.02,
    "map": 0.015,
    "resp_rate": 0.02,
    "temperature": 0.03,
    "spo2": 0.015,
    "fio2": 0.02,
    "gcs": 0.03,
    "cvp": 0.10,
    "urine": 0.02,
}
_BLOOD_GAS: Final = ("pf_ratio", "lactate", "ph")
_CHEMISTRY: Final = ("creatinine", "bun", "bilirubin", "platelets", "wbc")
_NEVER_MISSING: Final = ("sofa", "ventilated", "fluid_total")

#: Measurement noises of one step: one standard normal each for every patient.
NOISES: Final = (*(v for v in _VITALS if v != "urine"), *_BLOOD_GAS, *_CHEMISTRY)
#: Uniforms of one step that decide what is charted.
CHANCES: Final = (*_VITALS, "blood_gas", "chemistry")


def measure(patients: Patients, latent: Latent, noise: Mapping[str, Floats]) -> dict[str, Floats]:
    """Every measurable value with measurement noise, none missing, SOFA not yet scored."""
    dry = np.maximum(-latent.volume, 0.0)
    pao2 = latent.pf * latent.fio2
    sick = latent.infection
    pulse_pressure = 52.0 + 0.25 * (patients.age - 66.0) - 0.8 * dry - 6.0 * latent.tone_loss
    acidosis = np.maximum(latent.lactate - 1.5, 0.0)
    values = {
        # tachycardia: infection, dryness, low pressure; the old less so
        "heart_rate": patients.rest_rate
        + 11.0 * np.minimum(sick, 3.0)
        + 0.8 * dry
        + 0.35 * np.maximum(70.0 - latent.pressure, 0.0)
        - 0.12 * (patients.age - 66.0)
        + 6.0 * noise["heart_rate"],
        "sbp": latent.pressure + 0.63 * pulse_pressure + 5.0 * noise["sbp"],
        "map": latent.pressure + 2.5 * noise["map"],
        # tachypnoea: wet lungs, acidosis, infection
        "resp_rate": 14.5
        + 2.6 * np.minimum(sick, 3.0)
        + 0.28 * latent.lung_water
        + 0.5 * acidosis
        + 2.2 * noise["resp_rate"],
        "temperature": 36.8
        + patients.fever * np.minimum(sick, 2.2)
        - 0.010 * (patients.age - 66.0)
        + 0.35 * noise["temperature"],
        "spo2": np.round(saturation_shown(latent.saturation, noise["spo2"])),
        "fio2": np.round((latent.fio2 + 0.012 * noise["fio2"]) * 20.0) / 20.0,
        # encephalopathy: organ damage, low pressure
        "gcs": np.round(
            15.4
            - 2.3 * latent.damage
            - 0.12 * np.maximum(55.0 - latent.pressure, 0.0)
            - 2.5 * latent.ventilated
            + 0.8 * noise["gcs"]
        ),
        "cvp": np.round(
            7.0 + 0.45 * latent.volume + 4.0 * (1.0 - patients.heart) + 1.3 * noise["cvp"]
        ),
        "urine": np.round(latent.urine * patients.weight * 4.0 / 5.0) * 5.0,
        "pf_ratio": latent.pf * np.exp(0.07 * noise["pf_ratio"]),
        "lactate": latent.lactate * np.exp(0.08 * noise["lactate"]),
        "ph": 7.41
        - 0.016 * acidosis
        - 0.08 * latent.kidney
        - 0.02 * np.maximum(60.0 - pao2, 0.0) / 10.0
        + 0.025 * noise["ph"],
        "creatinine": latent.creatinine * np.exp(0.05 * noise["creatinine"]),
        "bun": latent.bun * np.exp(0.06 * noise["bun"]),
        "bilirubin": latent.bilirubin * np.exp(0.08 * noise["bilirubin"]),
        "platelets": latent.platelets * np.exp(0.07 * noise["platelets"]),
        "wbc": (6.5 + 7.5 * sick * patients.marrow) * np.exp(0.12 * noise["wbc"]),
        "ventilated": latent.ventilated,
    }
    for name, decimals in _DECIMALS.items():
        values[name] = np.round(values[name], decimals)
    for name, value in values.items():
        lo, hi = PLAUSIBLE[name]
        values[name] = np.minimum(np.maximum(value, lo), hi)
    return values


_DECIMALS: Final = {
    "heart_rate": 0,
    "sbp": 0,
    "map": 0,
    "resp_rate": 0,
    "temperature": 1,
    "pf_ratio": 0,
    "lactate": 1,
    "ph": 2,
    "creatinine": 2,
    "bun": 0,
    "bilirubin": 1,
    "platelets": 0,
    "wbc": 1,
}


def saturation_shown(saturation: Floats, noise: Floats) -> Floats:
    """Pulse oximetry: about one per cent of error."""
    return saturation + 0.9 * noise


def chart(
    values: Mapping[str, Floats],
    known: Mapping[str, Floats],
    chances: Mapping[str, Floats],
    first: bool,
) -> dict[str, Floats]:
    """Leave out what nobody charted: vitals now and then, labs most of the time.

    How often labs are drawn depends on the SOFA charted before, never on the latent state.
    """
    charted = dict(values)
    for name, share in _VITALS.items():
        charted[name] = np.where(chances[name] < share, np.nan, values[name])
    sofa = known["sofa"] if not first else np.full_like(values["map"], 24.0)
    gas = chances["blood_gas"] < np.minimum(0.38 + 0.03 * sofa, 0.97)
    chemistry = chances["chemistry"] < np.minimum(0.33 + 0.02 * sofa + 0.2 * first, 0.97)
    for names, drawn in ((_BLOOD_GAS, gas), (_CHEMISTRY, chemistry)):
        for name in names:
            charted[name] = np.where(drawn, values[name], np.nan)
    return charted


def carry(known: Mapping[str, Floats], charted: Mapping[str, Floats]) -> dict[str, Floats]:
    """The last value charted of every column."""
    return {name: np.where(np.isnan(value), known[name], value) for name, value in charted.items()}


def sofa_score(known: Mapping[str, Floats], pressor: Floats, urine_day: Floats) -> Floats:
    """SOFA of the last known values; a value never measured scores 0.

    Boundaries have no holes: each grade starts where it is written and ends where the next starts
    (P/F 400, creatinine 5.0 and bilirubin 12.0 are graded 0, 4 and 4).
    """
    pf, ventilated = known["pf_ratio"], known["ventilated"] > 0
    lungs = _grade(-pf, (-400.0, -300.0)) + ventilated * _grade(-pf, (-200.0, -100.0))
    clotting = _grade(-known["platelets"], (-150.0, -100.0, -50.0, -20.0))
    liver = _grade(known["bilirubin"], (1.2, 2.0, 6.0, 12.0), at=True)
    support = np.where(pressor > 0.1, 4.0, np.where(pressor > 0.0, 3.0, 0.0))
    circulation = np.maximum(support, known["map"] < 70.0)
    brain = _grade(-known["gcs"], (-15.0, -13.0, -10.0, -6.0))
    kidneys = _grade(known["creatinine"], (1.2, 2.0, 3.5, 5.0), at=True)
    output = np.where(urine_day < 200.0, 4.0, np.where(urine_day < 500.0, 3.0, 0.0))
    return lungs + clotting + liver + circulation + brain + np.maximum(kidneys, output)


def _grade(value: Floats, cuts: tuple[float, ...], at: bool = False) -> Floats:
    """How many of the rising `cuts` the value passes, or reaches if `at`; unknown passes none."""
    passed = [(value >= cut) if at else (value > cut) for cut in cuts]
    total = passed[0].astype(np.float64)
    for more in passed[1:]:
        total += more
    return total
