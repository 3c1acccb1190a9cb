"""The panel of departures: cases that a guardian should refuse, made from held-out cases.

Called by the report and the benchmark on validation patients. Each departure is a pure function of
rows and a generator. It never changes what it is given, and never looks at a guardian.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
import torch

from ogsrl.errors import SupportError
from ogsrl.guardian.protocol import Rows
from ogsrl.preparation.history import History

Kind = Literal["dose", "state", "noise"]
DOSE_BINS = 10  # of a positive dose, when combinations are counted
CANDIDATES = 64  # doses drawn for a case in search of a combination never seen
SITES = 24
SITE_SHIFT = 1.0  # training deviations by which a new site's measurements are off
SITE_HABIT = 0.5  # of the range of a dose by which a new site's doses are off at most
NOISE = 1.0  # training deviations of a noisy sensor
OXYGEN = "spo2"
HYPOXIC = 92.0


@dataclass(frozen=True)
class Departure:
    """One way to leave the data.

    Attributes:
        name: Its key in the report.
        label: What it is, in words.
        kind: Whether the dose is wrong, the patient is, or a sensor.
        apply: The cases as they would be; None where it is not evaluable.
        missing: What the cohort lacks for it.
    """

    name: str
    label: str
    kind: Kind
    apply: Callable[[Rows, torch.Generator], Rows] | None
    missing: str = ""


@dataclass(frozen=True)
class Seen:
    """What training patients showed: the few numbers by which a departure goes beyond them.

    Attributes:
        history: The layout of states.
        combinations: Codes of the dose combinations that were ever given.
        center: Mean of each guarded column, scaled.
        spread: Deviation of each guarded column, scaled.
        full: Where the upper third of each running total of a dose begins, scaled.
        sickest: Largest mean harm of a training row, in deviations.
    """

    history: History
    combinations: torch.Tensor
    center: Mapping[str, float]
    spread: Mapping[str, float]
    full: Mapping[str, float]
    sickest: float

    @classmethod
    def of(cls, train: Rows, history: History) -> Seen:
        """From training rows alone."""
        if not len(train):
            raise SupportError("train: no decision; the panel of departures needs training rows")
        values = {n: column(train, history, n).double() for n in _guarded(history)}
        totals = {n: column(train, history, n).numpy() for n in _totals(history)}
        seen = cls(
            history=history,
            combinations=torch.unique(_combination(history, train.doses)),
            center={n: float(v.mean()) for n, v in values.items()},
            spread={n: float(v.std(correction=0)) for n, v in values.items()},
            full={n: float(np.quantile(v, 2 / 3)) for n, v in totals.items()},
            sickest=0.0,
        )
        return replace(seen, sickest=float(seen.harm(train).max()) if seen.directions else 0.0)

    @cached_property
    def directions(self) -> dict[str, float]:
        """Guarded observations of which one direction harms: +1 high, -1 low."""
        signs = {"high": 1.0, "low": -1.0}
        observed = self.history.preparation.cohort.observations
        return {
            name: signs[observed[name].harm]
            for name in _guarded(self.history)
            if name in observed and observed[name].harm in signs and self.spread[name] > 0
        }

    @cached_property
    def sensors(self) -> list[str]:
        """Guarded numeric observations that are measured: no running total, no static."""
        observed = self.history.preparation.cohort.observations
        return [
            name
            for name in _guarded(self.history)
            if name in observed
            and observed[name].kind == "numeric"
            and observed[name].cumulative_of is None
            and self.spread[name] > 0
        ]

    def harm(self, rows: Rows) -> torch.Tensor:
        """How sick each case is: the mean deviation in the harmful directions."""
        parts = [
            sign * (column(rows, self.history, n).double() - self.center[n]) / self.spread[n]
            for n, sign in self.directions.items()
        ]
        return torch.stack(parts).mean(dim=0)

    def moved(self, rows: Rows, steps: Mapping[str, torch.Tensor]) -> Rows:
        """Columns moved by so many training deviations, as far as is plausible."""
        changed = {}
        for name, step in steps.items():
            made = self.history.preparation.states[name]
            least = max(made.low, 1e-9) if made.transform == "log" else made.low
            low, high = made.forward(np.array([least, made.high]))
            now = column(rows, self.history, name)
            changed[name] = (now + self.spread[name] * step).clip(float(low), float(high))
        return with_columns(rows, self.history, changed)


def panel(train: Rows, history: History) -> tuple[Departure, ...]:
    """All departures, fitted to what training patients showed; the same for every guardian."""
    seen = Seen.of(train, history)
    return (
        _random_doses(seen),
        Departure("another_patients_dose", "Another patient's dose", "dose", another_patients_dose),
        _flipped_doses(seen),
        _never_seen(seen),
        _high_when_overloaded(seen),
        _sicker(seen),
        _permuted(seen),
        _new_site(seen),
        _noisy(seen),
    )


def column(rows: Rows, history: History, name: str) -> torch.Tensor:
    """A column of the states, by name."""
    return rows.states[:, _place(history, name)]


def with_columns(rows: Rows, history: History, columns: Mapping[str, torch.Tensor]) -> Rows:
    """The same cases with other values in these columns."""
    states = rows.states.clone()
    for name, values in columns.items():
        states[:, _place(history, name)] = values.to(states.dtype)
    return replace(rows, states=states)


def administrable(history: History, doses: torch.Tensor) -> torch.Tensor:
    """Scaled doses as they can be given: within bounds, in whole increments, or none."""
    made = history.preparation
    given = []
    for (name, transform), scaled in zip(made.doses.items(), doses.T, strict=True):
        action = made.cohort.actions[name]
        clinical = transform.inverse(scaled.clip(-1, 1).numpy())
        unit = 1.0 if action.kind == "ordinal" else action.increment
        if unit is not None:
            clinical = np.round(clinical / unit) * unit
        clinical = np.where(clinical < action.min_dose, 0.0, clinical).clip(*action.range)
        given.append(torch.from_numpy(transform.forward(clinical)))
    return torch.stack(given, dim=1).to(doses.dtype)


def another_patients_dose(rows: Rows, generator: torch.Generator) -> Rows:
    """Every case gets the doses of a case of another patient."""
    if len(torch.unique(rows.patient)) < 2:
        raise SupportError("another patient's dose: rows of one patient; give at least two")
    other = torch.randint(len(rows), (len(rows),), generator=generator)
    while bool((same := rows.patient[other] == rows.patient).any()):
        other[same] = torch.randint(len(rows), (int(same.sum()),), generator=generator)
    return replace(rows, doses=rows.doses[other])


def _random_doses(seen: Seen) -> Departure:
    def apply(rows: Rows, generator: torch.Generator) -> Rows:
        drawn = torch.rand(rows.doses.shape, generator=generator) * 2 - 1
        return replace(rows, doses=administrable(seen.history, drawn))

    return Departure("random_doses", "Random doses", "dose", apply)


def _flipped_doses(seen: Seen) -> Departure:
    def apply(rows: Rows, generator: torch.Generator) -> Rows:
        return replace(rows, doses=administrable(seen.history, -rows.doses))

    return Departure("flipped_doses", "Flipped doses", "dose", apply)


def _never_seen(seen: Seen) -> Departure:
    """Drawn evenly among combinations of dose bands that no training row had."""
    name, label = "never_seen_combinations", "Combinations of doses never seen"
    history = seen.history

    def new(doses: torch.Tensor) -> torch.Tensor:
        return ~torch.isin(_combination(history, doses), seen.combinations)

    def apply(rows: Rows, generator: torch.Generator) -> Rows:
        shape = (CANDIDATES, *rows.doses.shape)
        drawn = administrable(
            history, (torch.rand(shape, generator=generator) * 2 - 1).flatten(0, 1)
        )
        unseen = new(drawn).reshape(shape[:2])
        first = unseen.to(torch.uint8).argmax(dim=0)
        doses = drawn.reshape(shape)[first, torch.arange(len(rows))]
        return replace(rows, doses=doses).take(unseen.any(dim=0).nonzero().squeeze(1))

    generator = torch.Generator().manual_seed(0)  # the same trial whoever asks
    trial = torch.rand((4096, len(history.preparation.doses)), generator=generator) * 2 - 1
    if float(new(administrable(history, trial)).double().mean()) < 0.01:
        return Departure(name, label, "dose", None, "a combination of doses never given")
    return Departure(name, label, "dose", apply)


def _high_when_overloaded(seen: Seen) -> Departure:
    """The top quarter of a dose for those hypoxic and in the upper third of its running total."""
    name, label = "high_doses_to_wet_and_hypoxic", "High doses to the wet and hypoxic"
    preparation, totals = seen.history.preparation, _totals(seen.history)
    lacking = [] if totals else ["a column that is the running total of a dose"]
    lacking += [] if OXYGEN in preparation.cohort.observations else [f"a column {OXYGEN}"]
    if lacking:
        return Departure(name, label, "dose", None, " and ".join(lacking))
    names = list(preparation.doses)

    def apply(rows: Rows, generator: torch.Generator) -> Rows:
        wet = [column(rows, seen.history, n) >= seen.full[n] for n in totals]
        oxygen = preparation.states[OXYGEN].inverse(column(rows, seen.history, OXYGEN).numpy())
        chosen = torch.stack(wet).any(dim=0) & torch.from_numpy(oxygen < HYPOXIC)
        rows = rows.take(chosen.nonzero().squeeze(1))
        doses = rows.doses.clone()
        for dose in sorted(set(totals.values())):
            drawn = torch.rand(len(rows), generator=generator)
            doses[:, names.index(dose)] = 0.75 + 0.25 * drawn
        return replace(rows, doses=administrable(seen.history, doses))

    return Departure(name, label, "dose", apply)


def _sicker(seen: Seen) -> Departure:
    """Every harmful column moved alike until the mean harm is up to 1 above any training row's."""
    name, label = "sicker_than_seen", "Sicker than any patient seen"
    if not seen.directions:
        lacking = "a guarded column of which one direction is declared harmful"
        return Departure(name, label, "state", None, lacking)

    def apply(rows: Rows, generator: torch.Generator) -> Rows:
        wanted = seen.sickest + torch.rand(len(rows), generator=generator).double()
        step = (wanted - seen.harm(rows)).clip(min=0)
        return seen.moved(rows, {n: sign * step for n, sign in seen.directions.items()})

    return Departure(name, label, "state", apply)


def _permuted(seen: Seen) -> Departure:
    """Every guarded column shuffled by itself: each value was seen, together they were not."""
    columns = _guarded(seen.history)
    name, label = "permuted_columns", "Columns of different patients"
    if len(columns) < 2:
        return Departure(name, label, "state", None, "a second guarded column")

    def apply(rows: Rows, generator: torch.Generator) -> Rows:
        shuffled = {
            n: column(rows, seen.history, n)[torch.randperm(len(rows), generator=generator)]
            for n in columns
        }
        return with_columns(rows, seen.history, shuffled)

    return Departure(name, label, "state", apply)


def _new_site(seen: Seen) -> Departure:
    """Sites whose devices are each off by a normal deviation, and whose doses are off too."""
    name, label = "new_site", "A new site: other devices, other habits"
    if not seen.sensors:
        return Departure(name, label, "state", None, "a guarded numeric observation")

    def apply(rows: Rows, generator: torch.Generator) -> Rows:
        site = torch.randint(SITES, (len(rows),), generator=generator)
        device = torch.randn((SITES, len(seen.sensors)), generator=generator)
        habit = torch.rand((SITES, rows.doses.shape[1]), generator=generator) * 2 - 1
        off = dict(zip(seen.sensors, SITE_SHIFT * device[site].T, strict=True))
        doses = administrable(seen.history, rows.doses + 2 * SITE_HABIT * habit[site])
        return replace(seen.moved(rows, off), doses=doses)

    return Departure(name, label, "state", apply)


def _noisy(seen: Seen) -> Departure:
    """A normal error on every measured column of every case."""
    name, label = "sensor_noise", "Noisy sensors"
    if not seen.sensors:
        return Departure(name, label, "noise", None, "a guarded numeric observation")

    def apply(rows: Rows, generator: torch.Generator) -> Rows:
        error = torch.randn((len(seen.sensors), len(rows)), generator=generator)
        return seen.moved(rows, dict(zip(seen.sensors, NOISE * error, strict=True)))

    return Departure(name, label, "noise", apply)


def _guarded(history: History) -> tuple[str, ...]:
    return history.preparation.cohort.guardian.columns


def _totals(history: History) -> dict[str, str]:
    """Columns that are the running total of a dose, and the dose."""
    observed = history.preparation.cohort.observations
    return {n: c.cumulative_of for n, c in observed.items() if c.cumulative_of is not None}


def _combination(history: History, doses: torch.Tensor) -> torch.Tensor:
    """One number for each combination of dose bands: none, ten of equal scaled width, or levels."""
    code = torch.zeros(len(doses), dtype=torch.int64)
    preparation = history.preparation
    for (name, made), scaled in zip(preparation.doses.items(), doses.T, strict=True):
        action = preparation.cohort.actions[name]
        if action.kind == "ordinal":
            band = torch.from_numpy(np.rint(made.inverse(scaled.numpy())).astype(np.int64))
            bands = len(action.levels)
        else:
            band = ((scaled + 1) / 2 * DOSE_BINS).ceil().long().clip(0, DOSE_BINS)
            bands = DOSE_BINS + 1
        code = code * bands + band
    return code


def _place(history: History, name: str) -> int:
    try:
        return history.names.index(name)
    except ValueError:
        raise SupportError(
            f"{name}: not a column of the states; they were built by another history or cohort"
        ) from None
