"""The ward: many patients at once, one step at a time, under whatever doses are given.

Used by `cohort` to log clinicians, by `truth` to value policies, and by whoever asks what another
dose would have done. All random numbers of a step are drawn for every patient, alive or not, and
never depend on doses: two wards of one seed differ only by what was given.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator, SeedSequence

from ogsrl.sources.simulator import charting, clinicians, physiology
from ogsrl.sources.simulator.config import (
    DOSE_BOUNDS,
    DOSE_INCREMENTS,
    MAX_STEPS,
    STEP_HOURS,
    Codes,
    Flags,
    Floats,
    SimulatorConfig,
)

_DAY = 24 // STEP_HOURS  # steps


@dataclass
class Outcome:
    """What one step did, for every patient of the ward; of the ended, nothing."""

    given: dict[str, Floats]
    died: Flags
    discharged: Flags
    horizon: Flags
    #: Of those who left alive in this step, the chance of dying later; 0 for the others.
    late_death: Floats


class Ward:
    """`n` patients of one seed; `charted` is what can be known before the next dose."""

    def __init__(
        self,
        n: int,
        seed: int | SeedSequence,
        config: SimulatorConfig | None = None,
        patients: physiology.Patients | None = None,
    ) -> None:
        """Admit `n` patients, or let `patients` come (back) with a new infection."""
        self.n = n
        self.config = config or SimulatorConfig()
        sequence = seed if isinstance(seed, SeedSequence) else SeedSequence(seed)
        self._rng: Generator = np.random.Generator(np.random.SFC64(sequence))
        self.step_index = 0
        self.patients = patients or physiology.admit(n, self._rng)
        self.sites: Codes = self._rng.integers(0, len(self.config.sites), n)
        self.alive: Flags = np.ones(n, dtype=bool)
        self.latent = physiology.arrive(self.patients, self._rng)
        self.previous_doses: dict[str, Floats] = {dose: np.zeros(n) for dose in DOSE_BOUNDS}
        self._given = np.zeros(n)
        self._urine: list[Floats] = []
        self._fixed = {
            **{name: getattr(self.patients, name) for name in charting.STATICS},
            "site": self.sites.astype(np.float64),
        }
        #: Every value as an instrument would show it now, whether or not anybody charted it.
        self.measured: dict[str, Floats] = {}
        #: The last charted value of every column, NaN if there was none.
        self.known: dict[str, Floats] = {}
        #: The row before the dose: statics, observations (NaN if not charted), step, site code.
        self.charted: dict[str, Floats] = {}
        self._chart()

    @property
    def bedside(self) -> Floats:
        """The uncharted bedside severity in [-1, 1]; only the simulator's clinicians see it."""
        return physiology.bedside_severity(self.patients, self.latent)

    def copy(self) -> Ward:
        """The same patients at the same moment, to be asked about another dose."""
        twin = copy.copy(self)
        twin.latent = self.latent.copy()
        twin._rng = copy.deepcopy(self._rng)
        twin._urine = list(self._urine)
        return twin

    def step(self, doses: Mapping[str, Floats]) -> Outcome:
        """Give the doses for four hours; the next row is then in `charted`.

        Doses are given as recorded, in whole increments; those of ended stays are ignored.
        """
        if self.step_index >= MAX_STEPS:
            raise ValueError(f"the ward has passed its last step, {MAX_STEPS - 1}")
        given = self._dispense(doses)
        noise = self._normals(physiology.NOISES)
        death, leave = self._rng.random(self.n), self._rng.random(self.n)
        beyond = self._beyond_support(given)
        self.latent = physiology.advance(self.patients, self.latent, given, noise)
        risk = physiology.death_risk(self.patients, self.latent, given)
        chance = physiology.discharge_chance(self.latent, given, self.step_index)
        died = self.alive & ((death < risk) | beyond)
        discharged = self.alive & ~died & (leave < chance)
        self.step_index += 1
        self.alive = self.alive & ~died & ~discharged
        horizon = self.alive if self.step_index == MAX_STEPS else np.zeros(self.n, dtype=bool)
        left = discharged | horizon
        late = physiology.late_death_risk(self.patients, self.latent) * left
        if self.step_index == MAX_STEPS:
            self.alive = np.zeros(self.n, dtype=bool)
        self.previous_doses = given
        self._given = self._given + given["iv_fluid"]
        self._chart()
        return Outcome(given, died, discharged, horizon, late)

    def expected(
        self, doses: Mapping[str, Floats], draws: int = 16, seed: int = 0
    ) -> dict[str, Floats]:
        """What these doses, given now, would do on average: next measurable values and `death`.

        The mean over `draws` of process and measurement noise, whatever really happens next;
        values of those who would die are those measured had they lived.
        """
        total: dict[str, Floats] = {}
        risk = np.zeros(self.n)
        for sequence in SeedSequence(seed).spawn(draws):
            twin = self.copy()
            twin._rng = np.random.Generator(np.random.SFC64(sequence))
            given = twin._dispense(doses)
            beyond = twin._beyond_support(given)
            twin.step(doses)
            for name, value in twin.measured.items():
                total[name] = total.get(name, 0.0) + value / draws
            now = physiology.death_risk(twin.patients, twin.latent, given)
            risk += np.where(beyond, 1.0, now) / draws
        return {**total, "death": risk}

    def _dispense(self, doses: Mapping[str, Floats]) -> dict[str, Floats]:
        given = {}
        for name, (lo, hi) in DOSE_BOUNDS.items():
            dose = np.where(self.alive, doses[name], 0.0)
            if not bool(np.all((dose >= lo) & (dose <= hi))):
                raise ValueError(f"{name}: every dose must be a number from {lo:g} to {hi:g}")
            unit = DOSE_INCREMENTS[name]
            given[name] = np.round(np.round(dose / unit) * unit, 2)
        return given

    def _beyond_support(self, given: Mapping[str, Floats]) -> Flags:
        if self.config.variant != "deadly":
            return np.zeros(self.n, dtype=bool)
        return ~clinicians.supported(self.known, self.previous_doses, given)

    def _normals(self, names: tuple[str, ...]) -> dict[str, Floats]:
        return dict(zip(names, self._rng.standard_normal((len(names), self.n)), strict=True))

    def _chart(self) -> None:
        noise = self._normals(charting.NOISES)
        uniforms = self._rng.random((len(charting.CHANCES), self.n))
        chances = dict(zip(charting.CHANCES, uniforms, strict=True))
        first = self.step_index == 0
        values = charting.measure(self.patients, self.latent, noise)
        values["fluid_total"] = self._given
        charted = charting.chart(values, self.known, chances, first)
        if first:
            self.known = {**charted, **self._fixed}
        known = charting.carry(self.known, charted)
        output = np.where(np.isnan(known["urine"]), clinicians.UNKNOWN["urine"], known["urine"])
        # a day of urine; before arrival it is taken to have been as at arrival
        self._urine = [output] * _DAY if first else [*self._urine[1:], output]
        day = sum(self._urine[1:], self._urine[0])
        sofa = charting.sofa_score(known, self.previous_doses["vasopressor"], day)
        step = np.full(self.n, float(self.step_index))
        self.measured = {**values, "sofa": sofa}
        self.charted = {**self._fixed, **charted, "sofa": sofa, "step": step}
        self.known = {**self._fixed, **known, "sofa": sofa, "step": step}
