"""What can be learned in the simulator, and how fast it runs: `python -m benchmarks.simulator`.

Finds the best protocol among doses that clinicians give to such patients, and measures it beside
clinicians, clinicians without variation, no treatment and maximal treatment on fresh patients.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Sequence

import numpy as np
from numpy.random import SeedSequence
from numpy.typing import NDArray

from benchmarks._report import arguments, report
from ogsrl.sources.simulator import (
    DOSE_BOUNDS,
    Clinicians,
    DenoisedClinicians,
    DoseLimits,
    MaximumDose,
    Policy,
    Protocol,
    ProtocolSettings,
    SimulatorConfig,
    Ward,
    ZeroDose,
    oracle,
    paired_difference,
    rollout,
    simulate,
    true_value,
)
from ogsrl.sources.simulator.protocols import ORACLE_LIMITS, SOFA_BANDS

SEARCH_SEED, JUDGE_SEED, FINAL_SEED = 1_000, 2_000, 3_000

#: Where the search looks, per number of the protocol.
RANGES = {
    "fluid_base": (0.0, 700.0),
    "fluid_pressure": (0.0, 60.0),
    "fluid_oliguria": (0.0, 800.0),
    "fluid_lactate": (0.0, 150.0),
    "full_cvp": (2.0, 14.0),
    "fluid_cvp": (0.0, 150.0),
    "full_lungs": (80.0, 350.0),
    "fluid_lungs": (0.0, 4.0),
    "pressure_goal": (58.0, 80.0),
    "pressor_gain": (0.0, 0.04),
    "pressor_keep": (0.3, 1.0),
}


def usual_doses(patients: int, seed: int) -> DoseLimits:
    """The clinicians' 1st and 99th percentile of each dose in each band of charted SOFA.

    Rare unsafe acts are left out: they are no doses that clinicians mean to give.
    """
    careful = SimulatorConfig(unsafe_share=0.0)
    table = simulate(patients, seed, careful).dropna(subset=list(DOSE_BOUNDS))
    band = np.searchsorted(SOFA_BANDS, table["sofa"].to_numpy(), side="left")
    limits: dict[float, dict[str, tuple[float, ...]]] = {}
    for share in (0.01, 0.99):
        limits[share] = {
            name: tuple(
                round(float(np.quantile(table[name].to_numpy()[band == b], share)), 3)
                for b in range(len(SOFA_BANDS) + 1)
            )
            for name in DOSE_BOUNDS
        }
    return DoseLimits(least=limits[0.01], greatest=limits[0.99])


def search(
    limits: DoseLimits, seed: int, patients: int, candidates: int, rounds: int
) -> ProtocolSettings:
    """Cross-entropy: draw protocols, keep the least deadly, draw closer to them."""
    rng = np.random.default_rng(seed)
    low, high = (np.array(ends) for ends in zip(*RANGES.values(), strict=True))
    centre = low + (high - low) * rng.uniform(0.15, 0.85, len(low))
    spread = 0.35 * (high - low)
    elite = max(candidates // 6, 3)
    for round_ in range(rounds):
        drawn = np.clip(rng.normal(centre, spread, (candidates, len(low))), low, high)
        drawn[0] = centre
        deaths = [
            true_value(Protocol(_settings(one), limits), patients, seed + round_).mortality
            for one in drawn
        ]
        best = drawn[np.argsort(deaths)[:elite]]
        centre = 0.3 * centre + 0.7 * best.mean(axis=0)
        spread = 0.3 * spread + 0.7 * best.std(axis=0)
    return _settings(centre)


def _settings(numbers: NDArray[np.float64]) -> ProtocolSettings:
    return ProtocolSettings(
        **{name: float(f"{n:.4g}") for name, n in zip(RANGES, numbers, strict=True)}
    )


def speed(patients: int, repeats: int) -> float:
    """Steps of living patients a second, clinicians' decisions included; the median run."""
    rates = []
    for repeat in range(repeats):
        start = time.perf_counter()
        steps = 0
        for number in range(0, patients, 2048):
            ward = Ward(2048, SeedSequence([repeat, number]))
            steps += sum(
                int(step.alive.sum()) for step in rollout(Clinicians(), ward, SeedSequence(number))
            )
        rates.append(steps / (time.perf_counter() - start))
    return statistics.median(rates)


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Run, print, and return the figures."""
    parser = arguments("simulator", __doc__)
    parser.add_argument("--search", action="store_true", help="print the protocol found and stop")
    options = parser.parse_args(argv)
    quick = options.quick
    restarts = 2 if quick else 5
    size = {"patients": 200, "candidates": 6, "rounds": 2} if quick else {}
    size = size or {"patients": 2_500, "candidates": 48, "rounds": 14}
    judged = 1_000 if quick else 20_000
    limits = usual_doses(500, SEARCH_SEED) if quick else usual_doses(20_000, SEARCH_SEED)
    found = []
    for restart in range(restarts):
        settings = search(limits, SEARCH_SEED + 100 * (restart + 1), **size)
        deaths = true_value(Protocol(settings, limits), judged, JUDGE_SEED).mortality
        found.append((deaths, settings))
        print(f"restart {restart + 1}: mortality {deaths:.4f} {dataclasses.asdict(settings)}")
    best_deaths, best = min(found, key=lambda one: one[0])
    if options.search:
        print(best, limits, sep="\n")
        return {"search_mortality": best_deaths}

    policies: dict[str, Policy] = {
        "clinicians": Clinicians(),
        "denoised": DenoisedClinicians(),
        "typical": DenoisedClinicians(typical=True),
        "zero": ZeroDose(),
        "maximum": MaximumDose(),
        "oracle": oracle(),
        "search": Protocol(best, limits),
    }
    patients = 2_000 if quick else 100_000
    truths = {name: true_value(p, patients, FINAL_SEED) for name, p in policies.items()}
    figures: dict[str, float] = {"patients": patients}

    def gain(key: str, name: str) -> None:
        figures[key], figures[f"{key}_se"] = paired_difference(truths["clinicians"], truths[name])

    gain("gap", "oracle")
    gain("search_gap", "search")
    gain("mean_dose_gain", "denoised")
    gain("typical_dose_gain", "typical")
    figures["denoising_gain"] = max(figures["mean_dose_gain"], figures["typical_dose_gain"])
    figures["restarts_spread"] = max(found)[0] - best_deaths if restarts else 0.0
    for name, truth in truths.items():
        figures[f"mortality_{name}"] = truth.mortality
        figures[f"mortality_{name}_se"] = truth.mortality_se
        for constraint in truth.unsafe:
            figures[f"{constraint}_{name}"] = truth.unsafe[constraint]
            figures[f"cost_{constraint}_{name}"] = truth.costs[constraint]
        for dose in truth.doses:
            figures[f"{dose}_{name}"] = truth.doses[dose]
    figures["zero_ratio"] = truths["zero"].mortality / truths["clinicians"].mortality
    figures["maximum_ratio"] = truths["maximum"].mortality / truths["clinicians"].mortality
    figures["limits_drift"] = max(
        abs(a - b) / DOSE_BOUNDS[name][1]
        for name in DOSE_BOUNDS
        for a, b in zip(limits.greatest[name], ORACLE_LIMITS.greatest[name], strict=True)
    )
    figures["sim_steps_per_s"] = speed(4_096 if quick else 20_480, 3 if quick else 7)
    report("simulator", figures, options.json)
    return figures


if __name__ == "__main__":
    main()
