"""Hypotensive septic patients: who arrives, and what four hours of treatment do to the body.

Called by `ward`. Everything here is latent: policies and tables must never see it directly, only
through `charting`. Volumes are mL per kg, pressures mmHg, damage is dimensionless, 0 is healthy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Final

import numpy as np
from numpy.random import Generator

from ogsrl.sources.simulator.config import Flags, Floats

#: Process noises of one step: one standard normal each for every patient, alive or not.
NOISES: Final = ("infection", "tone", "volume", "pressure", "lung", "kidney", "urine")

_NORMAL_PRELOAD: Final = 1.0 - np.exp(-30.0 / 12.0)


@dataclass
class Patients:
    """Traits that do not change within a stay."""

    age: Floats
    female: Floats
    weight: Floats
    comorbidity: Floats
    base_map: Floats  # accustomed mean pressure
    resolution: Floats  # antibiotics: log decay of infection in a step
    leak: Floats  # how leaky the capillaries get when septic, 1 is usual
    base_pf: Floats  # oxygenation with dry lungs
    heart: Floats  # 1 is a sound heart; a lower one tolerates less volume
    base_creatinine: Floats
    frailty: Floats  # lack of reserve that no chart shows
    rest_rate: Floats  # heart rate when well
    fever: Floats  # rise of temperature with infection; some go cold
    marrow: Floats  # response of white cells
    lactate_gain: Floats  # slow livers clear less lactate
    severity: Floats  # how sick on arrival, standard normal

    def take(self, rows: Flags) -> Patients:
        """The patients of the given rows."""
        return Patients(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})


@dataclass
class Latent:
    """The body at one moment; arrays are replaced, never written into."""

    infection: Floats
    tone_loss: Floats  # vasoplegia, 0 none, 1 complete
    volume: Floats  # effective filling, 0 normal, below it dry
    lung_water: Floats  # above normal
    kidney: Floats  # injury, 0 to 1
    damage: Floats  # of all other organs
    ischaemia: Floats  # fingers, toes, gut
    pressure: Floats  # true mean arterial pressure
    pf: Floats  # PaO2/FiO2
    saturation: Floats
    fio2: Floats
    ventilated: Floats
    urine: Floats  # mL/kg/h
    lactate: Floats
    creatinine: Floats
    bun: Floats
    bilirubin: Floats
    platelets: Floats

    def copy(self) -> Latent:
        """A snapshot; stepping one leaves the other as it was."""
        return Latent(**{f.name: getattr(self, f.name) for f in fields(self)})


def preload(volume: Floats) -> Floats:
    """Frank-Starling: what filling does for output; concave, so fluid helps the dry alone."""
    lift: Floats = 1.0 - np.exp(np.minimum(volume + 30.0, 60.0) / -12.0)
    return lift


def pressor_effect(pressor: Floats) -> Floats:
    """Emax curve of norepinephrine: half of its 1.2 at 0.6 ug/kg/min, then it saturates."""
    return 1.2 * pressor / (pressor + 0.6)


def arterial_pressure(patients: Patients, latent: Latent, pressor: Floats) -> Floats:
    """Mean pressure: falls with vasoplegia and dryness, rises with vasopressor, saturating."""
    effect = pressor_effect(pressor)
    pressure: Floats = (
        patients.base_map
        - 52.0 * latent.tone_loss * (1.0 - effect)  # vasoplegia, undone by vasopressor
        + 8.0 * effect
        + 45.0 * (preload(latent.volume) - _NORMAL_PRELOAD)  # fluid raises MAP when dry
        - 0.6 * np.maximum(latent.volume - 14.0, 0.0) * (1.5 - patients.heart)  # overstretched
    )
    return pressure


def oxygenation(patients: Patients, latent: Latent) -> Floats:
    """PaO2/FiO2: water in the lungs and inflamed capillaries lower it."""
    drop = 0.060 * latent.lung_water + 0.40 * patients.leak * latent.tone_loss
    pf: Floats = patients.base_pf * np.exp(-drop)
    return pf


def saturation(pao2: Floats) -> Floats:
    """Oxygen saturation in percent of a PaO2 (Severinghaus' curve)."""
    return 100.0 / (1.0 + 23400.0 / (pao2 * pao2 * pao2 + 150.0 * pao2))


def admit(n: int, rng: Generator) -> Patients:
    """Draw `n` new patients."""
    age = np.clip(66.0 + 15.0 * rng.standard_normal(n), 18.0, 95.0).round()
    female = (rng.random(n) < 0.44).astype(np.float64)
    build = np.where(female > 0, 71.0, 84.0) * np.exp(0.2 * rng.standard_normal(n))
    burden = np.exp(0.020 * (age - 66.0) + 0.45 * rng.standard_normal(n))
    comorbidity = np.clip(rng.poisson(3.2 * burden), 0, 15).astype(np.float64)
    pneumonia = rng.random(n) < 0.35
    resistant = rng.random(n) < 0.12
    rate = np.where(resistant, 0.02, 0.085) * np.exp(0.35 * rng.standard_normal(n))
    chronic = np.exp(0.05 * comorbidity + 0.20 * rng.standard_normal(n))
    return Patients(
        age=age,
        female=female,
        weight=np.clip(build, 40.0, 180.0).round(1),
        comorbidity=comorbidity,
        base_map=87.0 + 0.06 * (age - 66.0) + 6.0 * rng.standard_normal(n),
        resolution=rate,
        leak=np.exp(0.35 * rng.standard_normal(n)),
        base_pf=np.where(pneumonia, 300.0, 420.0) * np.exp(0.12 * rng.standard_normal(n)),
        heart=np.clip(
            1.0 - 0.03 * comorbidity - 0.004 * (age - 66.0) + 0.12 * rng.standard_normal(n),
            0.3,
            1.2,
        ),
        base_creatinine=np.clip(0.75 * chronic, 0.4, 4.0),
        frailty=rng.standard_normal(n),
        rest_rate=74.0 + 9.0 * rng.standard_normal(n),
        fever=0.75 + 0.45 * rng.standard_normal(n),
        marrow=np.exp(0.5 * rng.standard_normal(n)) - 0.35,
        lactate_gain=np.exp(0.35 * rng.standard_normal(n)),
        severity=rng.standard_normal(n),
    )


def arrive(patients: Patients, rng: Generator) -> Latent:
    """The state in which patients reach the unit: after a first resuscitation elsewhere."""
    n = len(patients.age)
    sick = patients.severity
    infection = 1.35 * np.exp(0.38 * sick + 0.20 * rng.standard_normal(n))
    tone_loss = np.clip(infection / (infection + 1.0) + 0.06 * rng.standard_normal(n), 0.05, 0.9)
    kidney = 1.0 / (1.0 + np.exp(2.0 - 0.7 * sick - 0.6 * rng.standard_normal(n)))
    damage = np.clip(0.35 * np.exp(0.55 * sick + 0.35 * rng.standard_normal(n)), 0.0, 3.0)
    none = np.zeros(n)
    latent = Latent(
        infection=infection,
        tone_loss=tone_loss,
        volume=-7.0 - 2.0 * sick + 5.0 * rng.standard_normal(n),
        lung_water=np.maximum(1.5 + 1.0 * sick + 2.0 * rng.standard_normal(n), 0.0),
        kidney=kidney,
        damage=damage,
        ischaemia=none,
        pressure=none,
        pf=none,
        saturation=none,
        fio2=none,
        ventilated=none,
        urine=none,
        lactate=0.9
        + 1.2 * infection * patients.lactate_gain * np.exp(0.3 * rng.standard_normal(n)),
        creatinine=patients.base_creatinine * (1.0 + 1.8 * kidney),
        bun=10.0 + 5.0 * patients.base_creatinine + 26.0 * kidney,
        bilirubin=0.7 * np.exp(0.45 * sick + 0.7 * rng.standard_normal(n)),
        platelets=np.clip(
            215.0 * np.exp(-0.22 * sick + 0.35 * rng.standard_normal(n)), 15.0, 700.0
        ),
    )
    latent.pressure = arterial_pressure(patients, latent, none) + 3.0 * rng.standard_normal(n)
    latent.pf = oxygenation(patients, latent)
    latent.fio2 = np.clip(80.0 / latent.pf, 0.21, 0.8)
    latent.ventilated = (latent.pf < 150.0).astype(np.float64)
    latent.saturation = saturation(latent.pf * latent.fio2)
    latent.urine = _urine(latent, rng.standard_normal(n))
    return latent


def _urine(latent: Latent, noise: Floats) -> Floats:
    """mL/kg/h: oliguria follows hypotension, dryness and injured kidneys."""
    perfusion = 1.0 / (1.0 + np.exp((54.0 - latent.pressure) / 4.5))
    filling = np.clip(1.0 + 0.022 * latent.volume, 0.45, 1.6)
    flow: Floats = 1.75 * (1.0 - latent.kidney) * perfusion * filling * np.exp(0.20 * noise)
    return flow


def advance(
    patients: Patients, latent: Latent, doses: Mapping[str, Floats], noise: Mapping[str, Floats]
) -> Latent:
    """The body after four hours under `doses`."""
    pressor = doses["vasopressor"]
    new = latent.copy()
    # antibiotics: the infection fades; vasoplegia follows it
    new.infection = latent.infection * np.exp(0.07 * noise["infection"] - patients.resolution)
    target = new.infection / (new.infection + 1.0)
    new.tone_loss = np.clip(
        latent.tone_loss + 0.35 * (target - latent.tone_loss) + 0.03 * noise["tone"], 0.0, 0.92
    )
    leakage = patients.leak * new.tone_loss
    # part of the fluid stays in the vessels, less of it when they leak; the rest is lost over hours
    kept = doses["iv_fluid"] / patients.weight * (0.50 - 0.15 * new.tone_loss)
    natriuresis = 0.003 * np.maximum(latent.volume, 0.0) ** 2
    lost = 0.5 + 2.2 * leakage + natriuresis
    new.volume = np.clip(latent.volume * 0.90 + kept - lost + 0.5 * noise["volume"], -28.0, 60.0)
    # wet: filling above normal drives water into the lungs, the more so through leaky vessels
    head = np.maximum(new.volume + 6.0, 0.0)
    flood = 0.11 * (1.0 + 0.8 * leakage) * head / (1.0 + head / 40.0)
    new.lung_water = np.clip(latent.lung_water * 0.88 + flood + 0.35 * leakage, 0.0, 45.0)
    new.pressure = np.clip(
        arterial_pressure(patients, new, pressor) + 3.0 * noise["pressure"], 20.0, 150.0
    )
    low = np.maximum(70.0 - 0.5 * (latent.pressure + new.pressure), 0.0) / 10.0
    dry = np.maximum(-7.0 - new.volume, 0.0) / 10.0
    high_pressor = np.maximum(pressor - 0.35, 0.0)
    # kidneys: hurt by low pressure, venous congestion, infection and intense vasoconstriction
    insult = (
        0.026 * low
        + 0.020 * np.maximum(new.volume, 0.0) / 10.0
        + 0.040 * dry
        + 0.012 * new.infection
        + 0.12 * high_pressor
    )
    new.kidney = np.clip(
        latent.kidney * 0.965 + insult * (1.0 - latent.kidney) + 0.012 * noise["kidney"], 0.0, 0.97
    )
    # lungs, and the oxygen and ventilator that nurses set from them, one step behind
    # wet lungs collapse now and then
    unrest = (0.03 + 0.007 * new.lung_water) * noise["lung"]
    new.pf = oxygenation(patients, new) * np.exp(np.clip(unrest, -1.0, 1.0))
    wanted = np.clip(76.0 / latent.pf, 0.21, 1.0)
    new.fio2 = latent.fio2 + 0.75 * (wanted - latent.fio2)
    new.ventilated = np.where(
        latent.ventilated > 0, latent.pf < 240.0, (latent.pf < 140.0) | (latent.damage > 2.2)
    ).astype(np.float64)
    new.saturation = saturation(new.pf * new.fio2)
    hypoxic = np.maximum(93.0 - new.saturation, 0.0) / 10.0
    # organs: hypotension, hypoxia and infection damage them, time mends
    new.damage = np.clip(
        latent.damage * 0.955
        + 0.030 * low
        + 0.24 * dry  # an empty circulation carries little oxygen, whatever the pressure
        + 0.05 * np.minimum(hypoxic, 2.0)
        + 0.0050 * new.lung_water  # stiff wet lungs, and the ventilator they need
        + 0.040 * new.infection
        + 0.10 * high_pressor,
        0.0,
        6.0,
    )
    # fingers and gut: high doses of vasoconstrictor
    new.ischaemia = latent.ischaemia * 0.98 + 0.35 * high_pressor
    new.urine = _urine(new, noise["urine"])
    # laboratory values follow slowly
    anaerobic = 0.5 * new.infection + 1.2 * low + 2.0 * dry + 1.5 * hypoxic + 1.5 * new.ischaemia
    new.lactate = latent.lactate * 0.6 + 0.4 * (0.8 + patients.lactate_gain * anaerobic)
    new.creatinine = latent.creatinine + 0.16 * (
        patients.base_creatinine * (1.0 + 5.5 * new.kidney * new.kidney) - latent.creatinine
    )
    new.bun = latent.bun + 0.12 * (
        10.0 + 5.0 * patients.base_creatinine + 55.0 * new.kidney - latent.bun
    )
    new.bilirubin = latent.bilirubin + 0.04 * (0.4 + 1.8 * new.damage - latent.bilirubin)
    new.platelets = latent.platelets + 0.05 * (255.0 / (1.0 + 0.9 * new.damage) - latent.platelets)
    return new


def death_risk(patients: Patients, latent: Latent, doses: Mapping[str, Floats]) -> Floats:
    """Chance of dying in the four hours that led to `latent`: age, severity, shock and doses."""
    logit = (
        -5.65
        + 0.028 * (patients.age - 66.0)  # age kills
        + 0.09 * (patients.comorbidity - 3.0)
        + 0.60 * patients.frailty
        + 1.8 * np.log(latent.damage + 0.2)  # organ failure kills
        + 0.8 * latent.kidney
        + 0.20 * np.maximum(48.0 - latent.pressure, 0.0)
        + 0.09 * np.maximum(88.0 - latent.saturation, 0.0)
        + 0.9 * latent.ischaemia
        + 1.2 * np.maximum(doses["vasopressor"] - 0.6, 0.0)  # arrhythmia
    )
    risk: Floats = 1.0 / (1.0 + np.exp(-np.minimum(logit, 3.0)))
    return risk


def late_death_risk(patients: Patients, latent: Latent) -> Floats:
    """Chance of a death after the window, of one who left it alive: remaining organ damage."""
    logit = (
        -4.0
        + 0.030 * (patients.age - 66.0)
        + 0.10 * (patients.comorbidity - 3.0)
        + 0.50 * patients.frailty
        + 1.6 * np.log(latent.damage + 0.2)
        + 0.8 * latent.kidney
        + 0.5 * latent.ischaemia
        + 0.03 * latent.lung_water
    )
    risk: Floats = 1.0 / (1.0 + np.exp(-np.minimum(logit, 3.0)))
    return risk


def discharge_chance(latent: Latent, doses: Mapping[str, Floats], step: int) -> Floats:
    """Chance of leaving the unit now: off support, breathing, perfused and infection receding."""
    if step < 7:
        return np.zeros_like(latent.pf)
    ready = (
        (doses["vasopressor"] < 0.03)
        & (latent.pressure > 62.0)
        & (latent.saturation > 92.0)
        & (latent.ventilated < 0.5)
        & (latent.infection < 1.0)
        & (latent.damage < 1.1)
    )
    return np.where(ready, 0.20, 0.0)


def bedside_severity(patients: Patients, latent: Latent) -> Floats:
    """What an experienced eye sees and no chart holds, in (-1, 1): 1 looks worst."""
    look: Floats = np.tanh(
        1.2 * patients.frailty + 0.8 * (latent.infection - 0.9) + 0.8 * (latent.damage - 0.9)
    )
    return look
