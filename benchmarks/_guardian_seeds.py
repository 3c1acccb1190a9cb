"""False alarms on fresh patients over seeds of the simulator, a resumable part a seed."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks._guardian_cohort import ROOT, fingerprint, fitted, fresh
from ogsrl.guardian.conformal import shares_above
from ogsrl.guardian.departures import panel
from ogsrl.guardian.power import refused
from ogsrl.guardian.protocol import Rows

#: Seeds that nothing was chosen by; development uses others.
FINAL_SEEDS = range(91_000, 91_020)
FRESH_SEED = 500_000
LEVEL = 0.999


@dataclass(frozen=True)
class SeedSettings:
    """One seed's share of the work."""

    patients: int
    fresh: int


def false_alarms(
    seeds: range, settings: SeedSettings, cache: Path | None = None
) -> list[dict[str, Any]]:
    """Each seed's mean share refused and its bound; a finished seed is not done again."""
    folder = (cache or ROOT / ".cache" / "ogsrl") / fingerprint(settings)
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for seed in seeds:
        file = folder / f"guardian_seed_{seed}.json"
        if not file.exists():
            start = time.monotonic()
            part = one_seed(seed, settings)
            beside = file.with_suffix(".partial")
            beside.write_text(json.dumps(part), encoding="utf-8")
            beside.replace(file)
            print(f"seed {seed} took {time.monotonic() - start:.0f} s", flush=True)
        part = json.loads(file.read_text(encoding="utf-8"))
        print(
            f"seed {seed}: {part['mean']:.4f} refused, bound {part['bound']:.4f}, "
            f"{part['power_random_doses']:.3f} of random doses, degree {part['degree']}, "
            f"{part['usual']}",
            flush=True,
        )
        found.append(part)
    return found


def one_seed(seed: int, settings: SeedSettings) -> dict[str, Any]:
    """Fit to a cohort of its own, then count on fresh patients of the same clinicians."""
    made = fitted(settings.patients, seed)
    guardian = made.guardian
    assert guardian.threshold is not None  # calibrated
    shares = []
    for rows in fresh(made.preparation, settings.fresh, FRESH_SEED + seed):
        scores = guardian.score(rows.states, rows.doses).detach()
        shares.append(shares_above(scores, rows.patient, guardian.threshold.value))
    each = torch.cat(shares)
    history = made.parts["train"].history
    apply = panel(Rows.of(made.parts["train"]), history)[0].apply
    assert apply is not None  # random doses can be drawn for any cohort
    cases = apply(Rows.of(made.parts["validation"]), torch.Generator().manual_seed(seed))
    return {
        "mean": float(each.mean()),
        "se": float(each.std() / len(each) ** 0.5),
        "patients": len(each),
        "bound": guardian.threshold.prediction_bound(len(each), LEVEL),
        "alpha": guardian.threshold.alpha,
        "power_random_doses": float(refused(guardian, cases).double().mean()),
        "degree": guardian.choice.degree,
        "usual": guardian.choice.usual,
    }


def figures(parts: list[dict[str, Any]]) -> Mapping[str, float]:
    """What the seeds say together."""
    means = [part["mean"] for part in parts]
    alpha = parts[0]["alpha"]
    error = statistics.stdev(means) / len(means) ** 0.5 if len(means) > 1 else float("nan")
    return {
        "false_alarm_seeds": len(parts),
        "false_alarm_mean": statistics.mean(means),
        "false_alarm_se": error,
        "false_alarm_excess_se": (statistics.mean(means) - alpha) / error,
        "false_alarm_outliers": sum(part["mean"] > part["bound"] for part in parts),
        # a guardian that never refuses keeps any promise: this is what it would not have
        "seeds_least_power_random_doses": min(part["power_random_doses"] for part in parts),
    }
