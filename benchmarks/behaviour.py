"""How well clinicians' doses are known: `python -m benchmarks.behaviour`.

Fits on a simulated cohort as the default one, then asks about fresh patients: E_b[pi/b] of three
policies that are not b, likelihood beside persistence and the marginal, reliability by dose band;
and, of the clinicians as the simulator writes them down, why the marginal cannot have mean 1.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch

from benchmarks._clinicians import dose_shares, first_pressor, mass_below
from benchmarks._report import arguments, report
from ogsrl.behaviour.baselines import Persistence
from ogsrl.behaviour.config import BehaviourParams, BoostedParams, NeuralParams
from ogsrl.behaviour.decisions import Decisions
from ogsrl.behaviour.distribution import DosePolicy, Supported, Tempered
from ogsrl.behaviour.fitting import DecisionParts, fit_decisions
from ogsrl.behaviour.measures import (
    bands_of,
    log_probs,
    over_patients,
    ratio_by_step,
    reliability_by_band,
)
from ogsrl.behaviour.policy import Behaviour
from ogsrl.preparation import Preparation, PrepareParams, TrainingRows, assign_parts, fit
from ogsrl.preparation.tensors import StayTensors, stay_tensors
from ogsrl.sources.simulator import SimulatorConfig, simulate
from ogsrl.spec import load_cohort

COHORT_SEED, FRESH_SEED, FIT_SEED = 0, 7_000, 0
#: A step's ratio is judged where the effective sample is at least this.
EFFECTIVE = 2_000
POWER = 1.5
#: Beside the marginal clinician stands one who gives no dose that clinicians give to such a patient
#: less than this fraction as often as to anyone: see docs/decisions/0006 for why.
LEAST = 0.2
#: Why: the share of the marginal's mass on first vasopressor doses that b, as the simulator writes
#: it down, gives such a patient less than once in so many times.
RARE = {"20000": 2e4, "1e6": 1e6, "1e12": 1e12}
JUDGED = ("marginal", "tempered", "half")
SMALL = BehaviourParams(
    neural=NeuralParams(hidden=32, head=16, max_epochs=3),
    boosted=BoostedParams(trees=5, scale_trees=3, depth=3, min_leaf=20),
)


def prepared(table: pd.DataFrame, preparation: Preparation) -> StayTensors:
    """Stays in clinical units as tensors."""
    return stay_tensors(preparation.apply(table.reset_index(drop=True)), preparation)


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Run, print, and return the figures."""
    parser = arguments("behaviour", __doc__)
    parser.add_argument("--fresh-seed", type=int, default=FRESH_SEED, help="of fresh patients")
    options = parser.parse_args(argv)
    patients = 1_500 if options.quick else 20_000
    effective = 100 if options.quick else EFFECTIVE
    params = SMALL if options.quick else BehaviourParams()
    cohort = load_cohort(Path(__file__).parents[1] / "data_contracts" / "sepsis.yaml")
    known = {field.name for field in dataclasses.fields(SimulatorConfig)}
    config = SimulatorConfig(**{k: v for k, v in cohort.source.options.items() if k in known})

    table = simulate(patients, COHORT_SEED, config)
    part = assign_parts(table["patient_id"], PrepareParams())
    train = table[part == "train"].reset_index(drop=True)
    preparation = fit(TrainingRows.of(train, cohort), cohort, PrepareParams())
    parts = DecisionParts.of(
        *(prepared(table[part == p], preparation) for p in ("train", "calibration", "validation"))
    )
    start = time.perf_counter()
    b = fit_decisions(parts, params, torch.Generator().manual_seed(FIT_SEED))
    seconds = time.perf_counter() - start
    figures: dict[str, float] = {"patients": patients, "fit_s": seconds}

    rows = simulate(patients, options.fresh_seed, config)
    figures |= marginal_masses(train, rows, config)
    fresh = Decisions.of(prepared(rows, preparation))
    start = time.perf_counter()
    logged = log_probs(b, fresh)
    figures["log_prob_rows_per_s"] = len(fresh) / (time.perf_counter() - start)
    figures |= gains(b, parts.train, fresh, logged)
    figures["behaviour_ece"] = calibration_error(b, fresh)

    generator = torch.Generator().manual_seed(FIT_SEED + 1)
    policies: dict[str, DosePolicy] = {
        "marginal": b.marginal,
        "supported_marginal": Supported(b.marginal, b, LEAST),
        "tempered": Tempered(b, POWER),
        "half": fit_decisions(parts.half(generator), only(b, params), generator),
    }
    shares, ratios = [], []
    for name, policy in policies.items():
        steps = ratio_by_step(log_probs(policy, fresh), logged, fresh)
        judged = [s["estimate"] for s in steps if (s["effective"] or 0) >= effective]
        for s in steps:
            print(
                f"{name} {s['step']:>2} {s['estimate']:.4f} se {s['se']:.4f} "
                f"effective {s['effective']:>8,.0f} of {s['rows']:,}"
            )
        figures[f"ratio_steps_share_{name}"] = len(judged) / len(steps)
        if name in JUDGED:
            shares.append(len(judged) / len(steps))
            ratios += judged
        if judged:
            figures[f"ratio_min_{name}"] = min(judged)
            figures[f"ratio_max_{name}"] = max(judged)
    figures["ratio_steps_share"] = min(shares)
    if ratios:
        figures["ratio_min"], figures["ratio_max"] = min(ratios), max(ratios)
    report("behaviour", figures, options.json)
    return figures


def marginal_masses(
    train: pd.DataFrame, rows: pd.DataFrame, config: SimulatorConfig
) -> dict[str, float]:
    """How much of the marginal's mass lies on doses that such patients are hardly ever given."""
    chances = first_pressor(rows[rows["step"] == 0], config)
    shares = dose_shares(train["vasopressor"])
    return {
        f"marginal_mass_below_1_in_{name}": mass_below(chances, shares, 1 / times)
        for name, times in RARE.items()
    }


def only(b: Behaviour, params: BehaviourParams) -> BehaviourParams:
    """The same parameters with the kind that was chosen."""
    return params.model_copy(update={"kinds": (b.known.kind,)})


def gains(
    b: Behaviour, train: Decisions, fresh: Decisions, logged: torch.Tensor
) -> dict[str, float]:
    """Mean log-likelihood a decision above each baseline, with its interval over patients."""
    persistence = Persistence.fit(b.marginal, train)
    found = {"log_likelihood": float(logged.mean())}
    others = {
        "persistence": persistence.distribution(fresh).log_prob(fresh.doses),
        "marginal": log_probs(b.marginal, fresh),
    }
    never = int((logged == -torch.inf).sum())
    found["never_given"] = never
    for name, logs in others.items():
        both = (logged > -torch.inf) & (logs > -torch.inf)
        told = over_patients((logged - logs)[both], fresh.patient[both])
        found[f"gain_over_{name}"] = float(told["estimate"] or 0)
        found[f"gain_over_{name}_lo"] = float(told["lo"] or 0)
        found[f"gain_over_{name}_hi"] = float(told["hi"] or 0)
    return found


def calibration_error(b: Behaviour, fresh: Decisions) -> float:
    """The largest error over doses and bands."""
    actions = b.history.preparation.cohort.actions
    bands = {
        grid.name: bands_of(grid, logs, actions[grid.name].levels)
        for grid, logs in zip(b.marginal.grids, b.marginal.log_weights, strict=True)
    }
    each = reliability_by_band(b, fresh, bands)
    return max(
        band["error"] for dose in each.values() for band in dose if band["error"] is not None
    )


if __name__ == "__main__":
    main()
