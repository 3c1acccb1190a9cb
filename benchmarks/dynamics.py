"""What the dynamics know of fresh patients, beside their peers: `python -m benchmarks.dynamics`.

Fitted on the default cohort's training patients, measured on 20,000 fresh simulated stays and on
doses that nobody chose, where the simulator knows the truth.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from benchmarks._report import ROOT, arguments, report
from ogsrl.dynamics.config import DynamicsParams
from ogsrl.dynamics.ensemble import Dynamics
from ogsrl.dynamics.errors_ahead import (
    HORIZONS,
    PARTICLES,
    PEERS,
    ahead_report,
    errors_ahead,
    worst_gain,
)
from ogsrl.dynamics.fitting import fit
from ogsrl.dynamics.interventions import courses_of_another, questions, simulator_config
from ogsrl.dynamics.other_doses import answers, other_doses_report
from ogsrl.dynamics.outcomes import outcomes
from ogsrl.dynamics.peers import LinearDynamics, NeighbourDynamics, ridge_predict
from ogsrl.dynamics.report import NEIGHBOURS, Measured
from ogsrl.dynamics.rollouts import expected_ahead
from ogsrl.preparation import PrepareParams, TrainingRows, assign_parts
from ogsrl.preparation import fit as fit_preparation
from ogsrl.preparation.tensors import StayTensors, stay_tensors
from ogsrl.sources.simulator import simulate
from ogsrl.spec.reader import load_cohort

COHORT_SEED, FRESH_SEED = 0, 41_000
#: Steps ahead at which doses of another patient are followed.
FAR = 12


def cohort_parts(patients: int, fresh: int) -> dict[str, StayTensors]:
    """The default cohort as the pipeline prepares it, and fresh patients prepared alike."""
    cohort = load_cohort(ROOT / "data_contracts" / "sepsis.yaml")
    config = simulator_config(cohort)
    table = simulate(patients, COHORT_SEED, config)
    part = assign_parts(table["patient_id"], PrepareParams())
    train = table[part == "train"].reset_index(drop=True)
    preparation = fit_preparation(TrainingRows.of(train, cohort), cohort, PrepareParams())
    frames = {
        "train": train,
        "calibration": table[part == "calibration"].reset_index(drop=True),
        "fresh": simulate(fresh, FRESH_SEED, config),
    }
    frames["fresh"] = _first_stays(frames["fresh"], fresh)
    return {n: stay_tensors(preparation.apply(f), preparation) for n, f in frames.items()}


def _first_stays(table: Any, count: int) -> Any:
    """So many stays, in the table's order."""
    kept = table["stay_id"].unique()[:count]
    return table[table["stay_id"].isin(kept)].reset_index(drop=True)


def far_ahead(
    dynamics: Dynamics, linear: LinearDynamics, patients: int, generator: torch.Generator
) -> dict[str, float]:
    """Errors `FAR` steps ahead under another patient's doses: ours over each linear model's."""
    rng = np.random.default_rng(FRESH_SEED + 1)
    layout = dynamics.layout
    found = courses_of_another(dynamics.history, patients, rng, start=3, steps=FAR)
    ours = expected_ahead(dynamics, found.states, found.doses, (FAR,), generator, PARTICLES)[FAR]
    inputs = layout.inputs(found.states, found.doses[:, 0])
    inputs = torch.cat([inputs, *found.doses[:, 1:].unbind(1)], dim=1)
    guesses = {
        "ours": ours,
        "linear": linear.ahead(found.states, found.doses, (FAR,))[FAR],
        "direct": ridge_predict(linear.direct[FAR], inputs),
    }
    columns = dynamics.history.preparation.states
    truth = torch.stack(
        [
            torch.from_numpy(columns[name].forward(found.measured[name][:, -1].double().numpy()))
            for name in layout.numeric
        ],
        dim=1,
    )
    alive = found.alive[:, -1]
    error = {n: float((g - truth)[alive].square().mean().sqrt()) for n, g in guesses.items()}
    return {name: error["ours"] / error[name] for name in ("linear", "direct")}


def worst_gains(columns: dict[str, dict[str, Any]]) -> dict[str, float]:
    """The least gain over each peer with its interval of 95 %, and whether that holds 0."""
    figures: dict[str, float] = {}
    for peer in PEERS:
        worst = worst_gain(columns, peer)
        if worst is None:
            continue
        low, high = (worst["estimate"] + side * 1.96 * worst["se"] for side in (-1, 1))
        name = f"worst_gain_over_{peer}"
        figures |= {name: worst["estimate"], f"{name}_se": worst["se"]}
        figures |= {f"{name}_low": low, f"{name}_high": high, f"{name}_holds_0": low <= 0 <= high}
        print(f"worst gain over {peer}: {worst['column']}, {worst['steps']} steps ahead")
    return figures


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Run, print, and return the figures."""
    options = arguments("dynamics", __doc__).parse_args(argv)
    quick = options.quick
    torch.set_num_threads(1 if quick else 2)
    parts = cohort_parts(600 if quick else 20_000, 300 if quick else 20_000)
    params = DynamicsParams(members=2, hidden=16, max_epochs=2) if quick else DynamicsParams()
    generator = torch.Generator().manual_seed(COHORT_SEED)
    start = time.perf_counter()
    dynamics = fit(parts["train"], parts["calibration"], params, generator)
    figures: dict[str, float] = {"fit_s": time.perf_counter() - start}
    layout = dynamics.layout
    truth = outcomes(parts["fresh"], layout)
    figures["stays"] = len(torch.unique(truth.stay))
    figures["decisions"] = len(truth)

    linear = LinearDynamics.of(parts["train"], layout, HORIZONS)
    starts = truth.row[torch.randperm(len(truth), generator=generator)[: 150 if quick else 40_000]]
    errors = errors_ahead(dynamics, linear, parts["fresh"], starts.sort().values, generator)
    columns = ahead_report(dynamics, errors)
    figures |= worst_gains(columns)
    cells = [c for column in columns.values() for c in column.values() if c is not None]
    figures["cells_with_signal"] = sum(cell["signal"] for cell in cells)
    figures["cells"] = len(cells)

    measured = Measured(dynamics, truth)
    for name, entry in (measured.ends() | measured.constraints()).items():
        for key in ("slope", "auroc"):
            if entry is not None and entry[key] is not None:
                figures[f"{name}_{key}"] = entry[key]["estimate"]
                figures[f"{name}_{key}_se"] = entry[key]["se"]
    for level in (0.5, 0.9):
        within = [
            told["within"][str(level)]["estimate"]
            for told in map(measured.intervals, columns)
            if told["within"]
        ]
        figures[f"intervals_{100 * level:.0f}_least"] = min(within)
        figures[f"intervals_{100 * level:.0f}_most"] = max(within)

    known = outcomes(parts["train"], layout)
    peers = {n: NeighbourDynamics.of(layout, known, k) for n, k in NEIGHBOURS.items()}
    asked = questions(dynamics.history, 20 if quick else 1_500, np.random.default_rng(FRESH_SEED))
    count = len(next(iter(asked.values())))
    rows = torch.randperm(count, generator=generator)[: 100 if quick else 4_000].sort().values
    others = other_doses_report(
        dynamics,
        {name: each.take(rows) for name, each in asked.items()},
        answers(dynamics, linear, peers),
    )
    every = others["all"]
    figures["interventional_error"] = every["ours"]["error"]["estimate"]
    figures["interventional_error_se"] = every["ours"]["error"]["se"]
    figures["interventional_effect_error"] = every["ours"]["effect_error"]["estimate"]
    ratios = {"": "nearest neighbour", "_10_neighbours": "10 neighbours", "_linear": "linear"}
    for suffix, peer in ratios.items():
        for kind, key in (("", "error"), ("_effect", "effect_error")):
            ratio = every["ours"][key]["estimate"] / every[peer][key]["estimate"]
            figures[f"interventional{kind}_ratio{suffix}"] = ratio
    figures["disagreement_rank_correlation"] = others["disagreement"]["rank_correlation"] or 0.0
    for peer, ratio in far_ahead(dynamics, linear, 300 if quick else 20_000, generator).items():
        figures[f"far_ahead_ratio_{peer}"] = ratio
    report("dynamics", figures, options.json)
    return figures


if __name__ == "__main__":
    main()
