"""ICU-Sepsis, where survival is known exactly: `python -m benchmarks.icu_sepsis`.

OGSRL as the pipeline trains and deploys it, and where its selection lets it act; baselines; a
tabular planner whose settings are chosen from the same logs: at three sizes and five seeds. Then
the variant in which doses that clinicians never give kill, whose logs are the same. Finished parts
are not done again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks._icu_sepsis_pipeline import OURS, ROOT, make, settings
from benchmarks._icu_sepsis_planner import Logs, greedy, penalised, reference
from benchmarks._report import arguments, report
from benchmarks._truth_cohorts import code_files, digest
from ogsrl.policies.actors import TableActor
from ogsrl.policies.codes import DoseLevels
from ogsrl.policies.deployed import Deployed
from ogsrl.policies.table import acting
from ogsrl.sources.icu_sepsis import (
    COMBINATIONS,
    STATES,
    evaluated,
    logged,
    optimal,
    process,
)
from ogsrl.sources.icu_sepsis.published import Floats

#: Seeds that nothing was chosen by; development uses others.
SEED, DEVELOPMENT_SEED = 98_500, 0
CODE = (
    "benchmarks/icu_sepsis.py",
    "benchmarks/_icu_sepsis_pipeline.py",
    "benchmarks/_icu_sepsis_planner.py",
    "ogsrl/sources/icu_sepsis",
    "ogsrl/preparation",
    "ogsrl/behaviour",
    "ogsrl/dynamics/counts.py",
    "ogsrl/dynamics/told.py",
    "ogsrl/guardian",
    "ogsrl/spec",
    "ogsrl/constraints.py",
    "ogsrl/policies",
    "ogsrl/selection",
    "ogsrl/evaluation",
)
PLANNER = "planner"
#: The same with OGSRL's own support, which was set on development seeds: it did not choose blindly.
INFORMED = "planner_same_support"
#: OGSRL where selection lets it act, else clinicians; `ogsrl` is measured whatever selection says.
PUT_FORWARD = "put_forward"
#: Any dose with equal chances: what the guardian lets pass of it, clinicians where it defers.
RANDOM = "random_guarded"
#: In the order of the table.
POLICIES = (
    OURS, PUT_FORWARD, PLANNER, INFORMED, "bc", "unguarded", "greedy", "penalised", RANDOM
)  # fmt: skip


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    trajectories: tuple[int, ...] = (1_000, 5_000, 17_000)
    seeds: int = 5
    changes: Mapping[str, Any] = field(default_factory=dict)


FULL = Size()
QUICK = Size(
    trajectories=(1_200,),
    seeds=1,
    changes={
        "behaviour": {"kinds": ["neural"], "neural": {"hidden": 16, "head": 8, "max_epochs": 1}},
        "train": {"steps": 20, "checkpoint_every": 20},
        "select": {"screen_stays": 20, "fqe": {"hidden": 8, "start_steps": 2, "steps": 4}},
    },
)


@dataclass(frozen=True)
class Job:
    """One part: so many trajectories of one seed."""

    trajectories: int
    seed: int
    changes: Mapping[str, Any]
    file: Path


def measure(job: Job) -> dict[str, Any]:
    """What is true of everybody, in both variants; from its part if that was finished."""
    if job.file.exists():
        found: dict[str, Any] = json.loads(job.file.read_text(encoding="utf-8"))
        return found
    torch.set_num_threads(1)
    cohort, params = settings(job.changes)
    made_of = process()
    table = logged(made_of, job.trajectories, job.seed, cohort.max_steps, cohort.time_step_hours)
    made, logs = make(table, cohort, params, job.seed), Logs.of(table)
    plans = {
        PLANNER: reference(logs),
        INFORMED: reference(logs, params.algorithms[OURS].ogsrl.least_patients),
        "greedy": greedy(logs),
        "penalised": penalised(logs),
    }
    treated = {
        PUT_FORWARD: _deployed(made.chosen),
        **{name: _deployed(deployed) for name, deployed in made.deployed.items()},
        **{name: _left_to_clinicians(plan.policy) for name, plan in plans.items()},
        RANDOM: at_random(made.deployed[OURS]),
    }
    reason = None if made.selection is None else made.selection.verdicts[0].reason
    found = {
        "trajectories": job.trajectories,
        "seed": job.seed,
        "settings": {name: dict(plan.settings) for name, plan in plans.items()},
        "reason": reason,
        "false_support": false_support(made.deployed[OURS]),
        "published": {name: _truth(one, deadly=False) for name, one in treated.items()},
        "deadly": {name: _truth(one, deadly=True) for name, one in treated.items()},
    }
    job.file.parent.mkdir(parents=True, exist_ok=True)
    beside = job.file.with_name(f".{job.file.name}.partial")
    beside.write_text(json.dumps(found), encoding="utf-8")
    beside.replace(job.file)
    return found


@dataclass(frozen=True)
class Treated:
    """A policy as it acts: what patients get, and where clinicians decide."""

    policy: Floats
    deferred: Floats


def _deployed(deployed: Deployed) -> Treated:
    does = acting(deployed)
    clinicians = torch.from_numpy(process().clinicians.copy())
    return Treated(does.treated(clinicians).numpy(), does.deferred.numpy())


def at_random(guarded: Deployed) -> Treated:
    """Under this guardian, with no mind of one's own."""
    each = [_deployed(replace(guarded, actor=one)) for one in _constants(guarded)]
    policy, deferred = ([getattr(one, name) for one in each] for name in ("policy", "deferred"))
    return Treated(np.mean(policy, 0), np.mean(deferred, 0))


def false_support(guarded: Deployed) -> float:
    """Share of the pairs that clinicians never give, and that kill in the variant, let pass."""
    never, passed = process().clinicians <= 0, np.zeros((STATES, COMBINATIONS))
    for one in _constants(guarded):
        passed += acting(replace(guarded, actor=one)).given.numpy()
    return float(passed[never].sum() / never.sum())


def _constants(guarded: Deployed) -> Iterator[TableActor]:
    """Each combination, whatever the state."""
    levels = DoseLevels.of(guarded.history)
    for cell in range(len(levels)):
        yield TableActor(torch.full((STATES,), cell), levels)


def _left_to_clinicians(policy: Floats) -> Treated:
    empty = ~policy.any(1)
    treated = np.where(empty[:, None], process().clinicians, policy)
    return Treated(treated, empty.astype(np.float64))


def _truth(treated: Treated, *, deadly: bool) -> dict[str, float]:
    exact = evaluated(process(deadly=deadly), treated.policy)
    return {
        "survival": exact.survival,
        "deferred": float(exact.visits @ treated.deferred) / exact.steps,
    }


def known() -> dict[str, float]:
    """Survival of those who need no logs."""
    made, lethal = process(), process(deadly=True)
    anything = np.full((STATES, COMBINATIONS), 1 / COMBINATIONS)
    return {
        "survival_clinicians": evaluated(made, made.clinicians).survival,
        "survival_random": evaluated(made, anything).survival,
        "survival_optimal": evaluated(made, optimal(made)).survival,
        "deadly_survival_clinicians": evaluated(lethal, made.clinicians).survival,
        "deadly_survival_random": evaluated(lethal, anything).survival,
    }


def figures_of(parts: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """All figures of finished parts."""
    figures = known()
    clinicians, best = figures["survival_clinicians"], figures["survival_optimal"]
    sizes = sorted({part["trajectories"] for part in parts})
    for size in sizes:
        own = [part for part in parts if part["trajectories"] == size]
        for name in POLICIES:
            values = [part["published"][name]["survival"] for part in own]
            deferred = [part["published"][name]["deferred"] for part in own]
            key = f"survival_{size}" if name == OURS else f"survival_{size}_{name}"
            figures[key] = float(np.mean(values))
            figures[f"{key}_least"], figures[f"{key}_most"] = min(values), max(values)
            figures[f"deferred_{size}_{name}"] = float(np.mean(deferred))
        for other, against in ((PLANNER, "reference"), (INFORMED, "same_support")):
            gap = [
                p["published"][OURS]["survival"] - p["published"][other]["survival"] for p in own
            ]
            figures[f"survival_{size}_vs_{against}"] = float(np.mean(gap))
            figures[f"survival_{size}_vs_{against}_se"] = (
                float(np.std(gap)) / max(len(gap) - 1, 1) ** 0.5
            )
        figures[f"recovered_{size}"] = (figures[f"survival_{size}"] - clinicians) / (
            best - clinicians
        )
        acts = [part["published"][PUT_FORWARD]["deferred"] < 1 - 1e-9 for part in own]
        figures[f"selected_{size}"] = float(np.mean(acts))
    ours = [part["published"][OURS]["survival"] for part in parts]
    figures["worst_margin"] = min(ours) - clinicians
    largest = [part["deadly"] for part in parts if part["trajectories"] == sizes[-1]]
    for name in POLICIES:
        values = [part[name]["survival"] for part in largest]
        figures[f"deadly_survival_{name}"] = float(np.mean(values))
    margins = [one[OURS]["survival"] - figures["deadly_survival_clinicians"] for one in largest]
    figures["deadly_margin"] = float(np.mean(margins))
    figures["deadly_margin_least"] = min(margins)
    figures["deadly_deferred"] = max(one[OURS]["deferred"] for one in largest)
    for size in sizes:
        let = [part["false_support"] for part in parts if part["trajectories"] == size]
        figures[f"deadly_false_support_{size}"] = float(np.mean(let))
    figures["deadly_deferred_random_guarded"] = max(one[RANDOM]["deferred"] for one in largest)
    return figures


def table(parts: Sequence[Mapping[str, Any]]) -> str:
    """A line a part: survival of everybody, OGSRL's deferred steps, settings, why."""
    lines = [
        "trajectories  seed   " + "  ".join(f"{name:>9.9}" for name in POLICIES) + "  deferred"
    ]
    for part in parts:
        values = "  ".join(f"{part['published'][name]['survival']:9.4f}" for name in POLICIES)
        deferred = part["published"][OURS]["deferred"]
        told = f"{part['trajectories']:12,}  {part['seed']:5}  {values}  {deferred:8.4f}"
        lines += [told, f"              {part['settings'][PLANNER]}; {part['reason']}"]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Run, print, and return the figures."""
    parser = arguments("icu_sepsis", __doc__, processes="parts side by side")
    parser.add_argument("--development", action="store_true", help="seeds that may be tuned on")
    options = parser.parse_args(argv)
    size = QUICK if options.quick else FULL
    first = DEVELOPMENT_SEED if options.quick or options.development else SEED
    params = settings(size.changes)[1].model_dump(mode="json")
    code = [file.read_bytes() for file in code_files(CODE)]
    made_of = digest(code, params, (ROOT / "data_contracts" / "icu_sepsis.yaml").read_text("utf-8"))
    jobs = [
        Job(n, first + i, size.changes, options.work / made_of / f"{n}_{first + i}.json")
        for n in size.trajectories
        for i in range(size.seeds)
    ]
    if options.processes > 1 and len(jobs) > 1:
        with ProcessPoolExecutor(options.processes, get_context("spawn")) as pool:
            parts = []
            for part in pool.map(measure, jobs):
                print(f"{part['trajectories']:,} trajectories, seed {part['seed']}", flush=True)
                parts.append(part)
    else:
        parts = [measure(job) for job in jobs]
    print(table(parts))
    figures = figures_of(parts)
    report("icu_sepsis", figures, options.json)
    return figures


if __name__ == "__main__":
    main()
