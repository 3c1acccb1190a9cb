"""The true value of any policy: simulated to the end, nobody censored, with standard errors.

Called by benchmarks, tests and evaluation wherever a simulated cohort knows its truth. Nothing
learned may ever read a number from here.

The estimand is one first stay a patient, seen to its end; the log also holds censored and second
stays, which die less (only survivors come back).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import numpy as np
from numpy.random import Generator, SeedSequence

from ogsrl.sources.simulator.clinicians import BEDSIDE, Clinicians
from ogsrl.sources.simulator.config import (
    DOSE_BOUNDS,
    MAX_STEPS,
    Flags,
    Floats,
    SimulatorConfig,
)
from ogsrl.sources.simulator.ward import Outcome, Ward

#: Patients simulated at once; randomness belongs to (seed, chunk), so compare within one size.
CHUNK: Final = 2048

#: On the last known charted values: is this step unsafe?
Rule = Callable[[Mapping[str, Floats]], Flags]
#: On the charted row and the doses given for it: is this a dose never to be given?
Hazard = Callable[[Mapping[str, Floats], Mapping[str, Floats]], Flags]

#: The physiological constraints of the cohort, as violations in last known charted values.
CONSTRAINTS: Final[dict[str, Rule]] = {
    "hypoxia": lambda known: known["spo2"] < 92.0,
    "oliguria": lambda known: known["urine"] / known["weight"] / 4.0 < 0.5,
}


class Policy(Protocol):
    """Anything that doses: full-n arrays in, full-n doses out; all doses NaN in a row: defer."""

    def act(
        self,
        step: int,
        charted: Mapping[str, Floats],
        previous: Mapping[str, Floats],
        rng: Generator,
    ) -> Mapping[str, Floats]:
        """Doses for the row; what it says of ended stays is ignored."""
        ...


@dataclass(frozen=True)
class Step:
    """One decision of a whole ward, as it was taken and what followed."""

    index: int
    alive: Flags  # before the step
    charted: Mapping[str, Floats]  # before the dose
    deferred: Flags
    outcome: Outcome
    known: Mapping[str, Floats]  # after the step, last charted values


def rollout(policy: Policy, ward: Ward, seed: SeedSequence) -> Iterator[Step]:
    """Treat everybody in the ward to the end; where the policy defers, clinicians act."""
    clinicians = policy if isinstance(policy, Clinicians) else Clinicians(ward.config)
    if clinicians.config != ward.config:
        raise ValueError("these clinicians have other settings than the ward they work in")
    for one in {id(p): p for p in (policy, clinicians)}.values():
        reset: Any = getattr(one, "reset", None)
        if reset is not None:
            reset(ward.n)
    own, theirs, habits = (seed.spawn(MAX_STEPS) for _ in range(3))
    for index in range(MAX_STEPS):
        if not ward.alive.any():
            return
        alive, charted, previous = ward.alive, ward.charted, ward.previous_doses
        seen = {**charted, BEDSIDE: ward.bedside} if ward.config.tilt > 0.0 else charted
        clinicians.observe(index, seen, _generator(habits[index]))
        deferred = np.zeros(ward.n, dtype=bool)
        if policy is clinicians:
            doses = clinicians.dose(seen, previous, _generator(theirs[index]))
        else:
            answer = policy.act(index, charted, previous, _generator(own[index]))
            doses = {name: np.asarray(answer[name], dtype=np.float64) for name in DOSE_BOUNDS}
            blank = [np.isnan(doses[name]) for name in DOSE_BOUNDS]
            deferred = alive & np.logical_and.reduce(blank)
            if deferred.any():
                drawn = clinicians.dose(seen, previous, _generator(theirs[index]))
                doses = {n: np.where(deferred, drawn[n], dose) for n, dose in doses.items()}
        outcome = ward.step(doses)
        yield Step(index, alive, charted, deferred, outcome, ward.known)


@dataclass(frozen=True)
class Truth:
    """What is true of a policy; every `_se` is a standard error over patients.

    Mortality counts deaths in the window and, by their probability, later ones. `costs` are the
    shares that constraints bound: unsafe steps and steps lost to death, over max_steps;
    `costs_before_death` and `death_cost` are its two parts. `unsafe` is the share of steps lived.
    """

    mortality: float
    mortality_se: float
    value: float
    value_se: float
    costs: dict[str, float]
    costs_se: dict[str, float]
    costs_before_death: dict[str, float]
    costs_before_death_se: dict[str, float]
    death_cost: float
    death_cost_se: float
    unsafe: dict[str, float]
    unsafe_se: dict[str, float]
    hazards: dict[str, float]
    hazards_se: dict[str, float]
    doses: dict[str, float]
    doses_se: dict[str, float]
    steps_deferred: float
    steps_deferred_se: float
    stays_deferred: float
    stays_deferred_se: float
    steps: float
    patients: int
    #: Per patient: `mortality`, `value`, `steps`, `deferred`, `death_cost`, `cost:<name>`,
    #: `unsafe:<name>`, `hazard:<name>`, `dose:<name>`; the last three and `deferred` are counts.
    each: dict[str, Floats] = field(repr=False)
    #: What must agree for two truths to share their random numbers.
    common: tuple[object, ...] = field(repr=False)


def true_value(
    policy: Policy,
    patients: int,
    seed: int,
    config: SimulatorConfig | None = None,
    *,
    chunk: int = CHUNK,
    discount: float = 0.99,
    constraints: Mapping[str, Rule] = CONSTRAINTS,
    hazards: Mapping[str, Hazard] | None = None,
) -> Truth:
    """Simulate `patients` fresh patients, one stay each, under `policy`.

    The same seed, number and chunk give every policy the same patients and the same luck. A hazard
    is a rule on (charted row, doses given).
    """
    settings = config or SimulatorConfig()
    rules = dict(hazards or {})
    parts = []
    for number, start in enumerate(range(0, patients, chunk)):
        body, luck = SeedSequence([seed, number]).spawn(2)
        ward = Ward(min(chunk, patients - start), body, settings)
        parts.append(_follow(policy, ward, luck, discount, constraints, rules))
    each = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return _summarise(each, list(constraints), list(rules), (patients, seed, settings, chunk))


def _follow(
    policy: Policy,
    ward: Ward,
    luck: SeedSequence,
    discount: float,
    constraints: Mapping[str, Rule],
    hazards: Mapping[str, Hazard],
) -> dict[str, Floats]:
    """What happened to each patient of the ward."""
    n = ward.n
    each = {name: np.zeros(n) for name in ("mortality", "value", "steps", "deferred", "death_cost")}
    for kind, names in (
        ("cost", constraints),
        ("unsafe", constraints),
        ("hazard", hazards),
        ("dose", DOSE_BOUNDS),
    ):
        each.update({f"{kind}:{name}": np.zeros(n) for name in names})
    for step in rollout(policy, ward, luck):
        end = step.outcome
        dies = np.where(end.died, 1.0, end.late_death)
        ended = end.died | end.discharged | end.horizon
        each["mortality"] += dies
        each["value"] += np.where(ended, (1.0 - 2.0 * dies) * discount**step.index, 0.0)
        each["steps"] += step.alive
        each["deferred"] += step.deferred
        each["death_cost"] += end.died * ((MAX_STEPS - step.index) / MAX_STEPS)
        goes_on = step.alive & ~ended
        for name, violated in constraints.items():
            unsafe = goes_on & violated(step.known)
            each[f"unsafe:{name}"] += unsafe
            each[f"cost:{name}"] += unsafe / MAX_STEPS
        for name, rule in hazards.items():
            each[f"hazard:{name}"] += step.alive & rule(step.charted, end.given)
        for name, dose in end.given.items():
            each[f"dose:{name}"] += dose
    for name in constraints:
        each[f"cost:{name}"] += each["death_cost"]
    return each


def _summarise(
    each: dict[str, Floats], constraints: list[str], hazards: list[str], common: tuple[object, ...]
) -> Truth:
    def mean(value: Floats) -> tuple[float, float]:
        spread = float(value.std(ddof=1)) if len(value) > 1 else float("nan")
        return float(value.mean()), spread / float(np.sqrt(len(value)))

    def per_step(value: Floats) -> tuple[float, float]:
        ratio = float(value.sum() / each["steps"].sum())
        residual = (value - ratio * each["steps"]) / each["steps"].mean()
        return ratio, mean(residual)[1]

    def both(pairs: dict[str, tuple[float, float]]) -> tuple[dict[str, float], dict[str, float]]:
        return {k: v[0] for k, v in pairs.items()}, {k: v[1] for k, v in pairs.items()}

    mortality, value = mean(each["mortality"]), mean(each["value"])
    death = mean(each["death_cost"])
    deferred, stays = per_step(each["deferred"]), mean((each["deferred"] > 0).astype(np.float64))
    costs, costs_se = both({n: mean(each[f"cost:{n}"]) for n in constraints})
    before, before_se = both({n: mean(each[f"cost:{n}"] - each["death_cost"]) for n in constraints})
    unsafe, unsafe_se = both({n: per_step(each[f"unsafe:{n}"]) for n in constraints})
    danger, danger_se = both({n: per_step(each[f"hazard:{n}"]) for n in hazards})
    doses, doses_se = both({n: per_step(each[f"dose:{n}"]) for n in DOSE_BOUNDS})
    return Truth(
        mortality=mortality[0],
        mortality_se=mortality[1],
        value=value[0],
        value_se=value[1],
        costs=costs,
        costs_se=costs_se,
        costs_before_death=before,
        costs_before_death_se=before_se,
        death_cost=death[0],
        death_cost_se=death[1],
        unsafe=unsafe,
        unsafe_se=unsafe_se,
        hazards=danger,
        hazards_se=danger_se,
        doses=doses,
        doses_se=doses_se,
        steps_deferred=deferred[0],
        steps_deferred_se=deferred[1],
        stays_deferred=stays[0],
        stays_deferred_se=stays[1],
        steps=float(each["steps"].mean()),
        patients=len(each["steps"]),
        each=each,
        common=common,
    )


def paired_difference(a: Truth, b: Truth, quantity: str = "mortality") -> tuple[float, float]:
    """Mean of a - b over the same patients with the same luck, and its standard error.

    `quantity` is any key of `Truth.each`.
    """
    if a.common != b.common:
        raise ValueError("the two truths differ in patients, seed, settings or chunk")
    if quantity not in a.each:
        raise ValueError(f"no quantity {quantity!r}; known: {', '.join(sorted(a.each))}")
    gap = a.each[quantity] - b.each[quantity]
    return float(gap.mean()), float(gap.std(ddof=1) / np.sqrt(len(gap)))


def _generator(seed: SeedSequence) -> Generator:
    return np.random.Generator(np.random.SFC64(seed))
