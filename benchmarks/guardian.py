"""Speed, power, growth and false alarms of the guardian: `python -m benchmarks.guardian`.

Christoffel against the paper's kernel density, both fitted to the same 120,000 simulated rows of 13
columns and 2 doses and calibrated on the same patients. False alarms are counted over 20 seeds; a
part that was finished is not done again.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from benchmarks._guardian_cohort import Fitted, calibrated, fitted
from benchmarks._guardian_growth import grow
from benchmarks._guardian_seeds import FINAL_SEEDS, SeedSettings, false_alarms
from benchmarks._guardian_seeds import figures as figures_of_seeds
from benchmarks._report import arguments, report
from ogsrl.guardian.config import GuardianParams
from ogsrl.guardian.departures import panel
from ogsrl.guardian.kde import KernelDensity
from ogsrl.guardian.neighbours import Neighbours
from ogsrl.guardian.power import departed, refused, sample
from ogsrl.guardian.protocol import Guardian, Rows

FINAL_SEED, DEVELOPMENT_SEED = 90_000, 7
PLAIN_BLOCK = 64


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    patients: int
    rows: int
    cases: int
    alternations: int
    queries: dict[str, int]
    growth: list[int]
    seeds: int
    seed_settings: SeedSettings


FULL = Size(
    patients=17_500,
    rows=120_000,
    cases=10_000,
    alternations=9,
    queries={"christoffel": 40_000, "blocked": 8_192, "plain": 1_024, "paper": 100},
    growth=[10_000, 100_000, 1_000_000, 10_000_000],
    seeds=20,
    seed_settings=SeedSettings(patients=8_000, fresh=20_000),
)
QUICK = Size(
    patients=400,
    rows=120_000,
    cases=300,
    alternations=2,
    queries={"christoffel": 500, "blocked": 200, "plain": 64, "paper": 5},
    growth=[10_000, 20_000],
    seeds=2,
    seed_settings=SeedSettings(patients=400, fresh=300),
)


def paper_loop(kde: KernelDensity) -> Callable[[torch.Tensor, torch.Tensor], None]:
    """As the paper's code asks: one pair after the other, all training rows each time."""
    training = kde.scaled(kde.rows).numpy().astype(np.float64)
    assert kde.threshold is not None
    assert kde.threshold.value is not None
    limit, width = -kde.threshold.value, 2 * kde.bandwidth**2

    def ask(states: torch.Tensor, doses: torch.Tensor) -> None:
        z = kde.scaled(kde.layout.read(states, doses)).numpy().astype(np.float64)
        for query in z:
            squares = ((training - query) ** 2).sum(axis=1)
            _ = np.log(np.exp(-squares / width).mean()) >= limit

    return ask


def plain_blocks(kde: KernelDensity) -> Callable[[torch.Tensor, torch.Tensor], None]:
    """A blocked exact density as one writes it first: pairwise distances, exponentials, means."""
    training = kde.scaled(kde.rows)
    assert kde.threshold is not None
    assert kde.threshold.value is not None
    limit, width = -kde.threshold.value, 2 * kde.bandwidth**2

    def ask(states: torch.Tensor, doses: torch.Tensor) -> None:
        z = kde.scaled(kde.layout.read(states, doses))
        for start in range(0, len(z), PLAIN_BLOCK):
            squares = torch.cdist(z[start : start + PLAIN_BLOCK], training).square()
            _ = (-squares / width).exp().mean(dim=1).log() >= limit

    return ask


def speed(guardian: Guardian, kde: KernelDensity, real: Rows, size: Size) -> dict[str, float]:
    """Verdicts a second of each, in turn, and the median of their ratios."""
    ways: dict[str, Callable[[torch.Tensor, torch.Tensor], object]] = {
        "christoffel": guardian.supported,
        "blocked": kde.supported,
        "plain": plain_blocks(kde),
        "paper": paper_loop(kde),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(size.alternations + 1):
        for name, ask in ways.items():
            count = size.queries[name]
            rows = (torch.arange(count) + turn * count) % len(real)
            states, doses = real.states[rows], real.doses[rows]
            start = time.perf_counter()
            ask(states, doses)
            if turn:  # the first turn warms
                rates[name].append(count / (time.perf_counter() - start))
    found = {f"{name}_per_s": statistics.median(rate) for name, rate in rates.items()}
    for peer, key in (("blocked", "blocked_kde"), ("plain", "plain_kde"), ("paper", "paper")):
        ratios = [a / b for a, b in zip(rates["christoffel"], rates[peer], strict=True)]
        found[f"speedup_{key}"] = statistics.median(ratios)
    return found


def power(made: Fitted, members: Mapping[str, Guardian], size: Size, seed: int) -> dict[str, float]:
    """Share of each departure refused at calibrated thresholds, and the least differences."""
    generator = torch.Generator().manual_seed(seed)
    real = Rows.of(made.parts["validation"])
    departures = panel(Rows.of(made.parts["train"]), made.parts["train"].history)
    cases = departed(departures, real, size.cases, generator)
    asked = {"clinicians": sample(real, size.cases, generator), **cases}
    shares = {
        name: {m: float(refused(g, rows).double().mean()) for m, g in members.items()}
        for name, rows in asked.items()
    }
    print(f"{'':32}" + "".join(f"{member:>13}" for member in members))
    for name, found in shares.items():
        print(f"{name:<32}" + "".join(f"{found[member]:>13.3f}" for member in members))
    figures: dict[str, float] = {
        f"power_{member}_{name}": value
        for name, found in shares.items()
        for member, value in found.items()
    }
    for kind, key in (("dose", "doses"), ("state", "states"), ("noise", "noise")):
        names = [d.name for d in departures if d.kind == kind and d.name in cases]
        margins = [shares[name]["christoffel"] - shares[name]["kde"] for name in names]
        figures[f"power_margin_{key}"] = min(margins)
        figures[f"power_least_{key}"] = min(shares[name]["christoffel"] for name in names)
    return figures


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Run, print, and return the figures."""
    parser = arguments("guardian", __doc__)
    parser.add_argument("--development", action="store_true", help="seeds that may be tuned on")
    parser.add_argument("--only", choices=["peers", "growth", "seeds"], help="one part of it")
    options = parser.parse_args(argv)
    size = QUICK if options.quick else FULL
    final = not (options.development or options.quick)
    figures: dict[str, float] = {}
    if options.only in (None, "peers"):
        seed = FINAL_SEED if final else DEVELOPMENT_SEED
        figures |= _peers(size, seed)
    if options.only in (None, "growth"):
        figures |= grow(size.growth)
    if options.only in (None, "seeds"):
        seeds = FINAL_SEEDS if final else range(DEVELOPMENT_SEED, DEVELOPMENT_SEED + size.seeds)
        figures |= figures_of_seeds(false_alarms(seeds, size.seed_settings))
    report("guardian", figures, options.json)
    return figures


def _peers(size: Size, seed: int) -> dict[str, float]:
    start = time.perf_counter()
    made = fitted(size.patients, seed, size.rows)
    print(
        f"degree {made.guardian.choice.degree}, {made.guardian.choice.usual}: "
        f"fitted in {time.perf_counter() - start:.0f} s",
        flush=True,
    )
    train = Rows.of(made.parts["train"])
    train = train.take(torch.arange(min(size.rows, len(train))))
    layout, generator = made.guardian.layout, torch.Generator().manual_seed(seed)
    kde = KernelDensity.fit([train], layout, GuardianParams(), generator)
    kde = calibrated(kde, made.parts)
    near = calibrated(Neighbours.fit([train], layout, GuardianParams(), generator), made.parts)
    members = {"christoffel": made.guardian, "kde": kde, "neighbours": near}
    figures: dict[str, float] = {"rows": len(train), "columns": len(layout.names)}
    figures |= speed(made.guardian, kde, Rows.of(made.parts["validation"]), size)
    return figures | power(made, members, size, seed)


if __name__ == "__main__":
    main()
