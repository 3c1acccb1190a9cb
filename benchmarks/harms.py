"""Whether the audit catches harm, and lets the harmless through: `python -m benchmarks.harms`.

Clean cohorts go through the whole pipeline, from ingest to audit; into copies of some of them each
harm is planted, and the stages that it reaches run again. Beside each clean cohort a policy equal
to the clinicians is measured, which must not be called better. Finished parts are not done again.
"""

from __future__ import annotations

import importlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks._harms_planted import HARMS, Harm
from benchmarks._report import arguments, report
from benchmarks._truth_cohorts import NAME, Place, code_files, digest, make
from benchmarks.truth import QUICK as TRUTH_QUICK
from ogsrl.behaviour.policy import Behaviour
from ogsrl.errors import OgsrlError
from ogsrl.evaluation.evaluate import Grounds, Subject, evaluate
from ogsrl.evaluation.known import Truths
from ogsrl.evaluation.quantities import primary
from ogsrl.evaluation.report import flat
from ogsrl.policies.deployed import Deployed
from pipelines.models import load_dynamics
from pipelines.parts import load_parts
from pipelines.stage import Stage

#: Seeds that nothing was chosen by; development used 0 and 1.
SEED, DEVELOPMENT_SEED = 64_000, 0
#: Stages after the guardian stands.
REST = ("train", "select", "evaluate", "audit")
#: Gates that a clean cohort may be too small for.
OPEN = ("better", "detectable")


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    patients: int
    changes: Mapping[str, str]
    cohorts: int
    #: Cohorts into which harms are planted.
    planted: int
    harms: tuple[str, ...]


_EVERY = {
    "algorithms: [bc, td3bc, ogsrl]": "algorithms: [bc, ogsrl]",
    "seeds: [0, 1, 2]": "seeds: [0, 1]",
    "threads: 2": "threads: 1",
    "kinds: [neural, boosted]": "kinds: [neural]",
    "truth_patients: 20000": "truth_patients: 0",
    "steps: 1000, batch_size: 256": "steps: 50, batch_size: 256",
}
FULL = Size(
    5_000,
    {**_EVERY, "steps: 1800": "steps: 2100", "checkpoint_every: 900": "checkpoint_every: 1050"},
    20,
    5,
    tuple(one.name for one in HARMS),
)
QUICK = Size(
    600,
    {
        **_EVERY,
        **TRUTH_QUICK.changes,
        "steps: 1800": "steps: 20",
        "checkpoint_every: 900": "checkpoint_every: 10",
        "refresh: 150, pool: 5, starts: 2000": "refresh: 10, pool: 2, starts: 100",
        "hidden: 64, start_steps: 200, steps: 1500": "hidden: 8, start_steps: 5, steps: 20",
    },
    1,
    1,
    ("fluid_in_litres", "rows_in_the_model", "test_patients_worn_out"),
)


@dataclass(frozen=True)
class Clinician:
    """Doses as clinicians draw them: a policy equal to theirs."""

    behaviour: Behaviour

    def propose(self, states: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Drawn, one set a row."""
        return self.behaviour.sample(states, generator)


@dataclass(frozen=True)
class Job:
    """All that is asked of one cohort's seed."""

    size: Size
    work: Path
    number: int
    development: bool

    @property
    def seed(self) -> int:
        """Of the cohort."""
        return (DEVELOPMENT_SEED if self.development else SEED) + self.number


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Run, print, and return the figures."""
    parser = arguments("harms", __doc__, processes="cohorts side by side")
    parser.add_argument("--development", action="store_true", help="on seeds to look at")
    parser.add_argument("--cohorts", type=int, help="fewer of them")
    options = parser.parse_args(argv)
    size = QUICK if options.quick else FULL
    count = min(options.cohorts or size.cohorts, size.cohorts)
    jobs = [Job(size, options.work, number, options.development) for number in range(count)]
    if options.processes == 1:
        parts = [done(job) for job in jobs]
    else:
        with ProcessPoolExecutor(options.processes, get_context("spawn")) as pool:
            parts = list(pool.map(done, jobs))
    made = figures(parts)
    report("harms", made, options.json)
    return made


def done(job: Job) -> dict[str, Any]:
    """A clean cohort, and each harm in a copy of it."""
    torch.set_num_threads(1)
    code = digest([file.read_bytes() for file in code_files(("ogsrl", "pipelines"))])
    place = _made(job, {"patients": job.size.patients}, code)
    clean = _audited(place)
    null = _kept(place.root / f"null-{code}.json", partial(_null, place))
    told: dict[str, Any] = {"clean": clean, "null": null, "harms": {}}
    print(f"cohort {job.number}: {clean['verdict']}, {clean['failed']}, null {null}", flush=True)
    for harm in HARMS if job.number < job.size.planted else ():
        if harm.name in job.size.harms:
            file = place.root / f"{harm.name}-{code}.json"
            found = _kept(file, partial(_planted, harm, place, job, code))
            told["harms"][harm.name] = caught(harm, found, clean)
            print(f"cohort {job.number}: {harm.name}: {caught(harm, found, clean)}", flush=True)
    return told


def caught(harm: Harm, found: Mapping[str, Any], clean: Mapping[str, Any]) -> bool:
    """Whether it was refused, or failed, for its own reason; what fails anyway is no reason."""
    if harm.refused is not None:
        stage, named = harm.refused
        at, said = found.get("refused", ("", ""))
        return at == stage and named in said
    wrong = {*found["failed"]}
    if harm.few:
        wrong = {name for name, said in found["said"].items() if "too few patients" in said}
    return found["verdict"] != "passed" and bool({*harm.gates} & wrong - {*clean["failed"]})


def figures(parts: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """What the issue asks, and how often each harm was caught."""
    each: dict[str, list[bool]] = {}
    for part in parts:
        for name, was in part["harms"].items():
            each.setdefault(name, []).append(was)
    clean = [part["clean"] for part in parts]
    harmless = [{*one["failed"], *one["undecided"]} <= {*OPEN} for one in clean]
    made = {
        "harms_total": sum(map(len, each.values())),
        "harms_caught": sum(map(sum, each.values())),
        "harms_kinds": len(each),
        "clean_cohorts": len(clean),
        "default_passes": sum(harmless),
        "default_better": sum("better" in one["passed"] for one in clean),
        "null_passes": sum(part["null"]["word"] == "better" for part in parts),
    }
    made |= {f"caught_{name}": sum(was) for name, was in each.items()}
    failed = Counter(name for one in clean for name in one["failed"])
    made |= {f"clean_failed_{name}": count for name, count in sorted(failed.items())}
    return {name: float(value) for name, value in made.items()}


def _made(job: Job, options: Mapping[str, int], code: str) -> Place:
    """A cohort through every stage."""
    place = make(job.work / "cohorts", options, job.seed, job.size.changes)
    for stage in REST:
        marker = place.root / f".done-{stage}-{code}"
        if not marker.exists():
            print(f"cohort {place.root.name}: {stage}", flush=True)
            _run(stage, place.root)
            marker.touch()
    return place


def _run(stage: str, root: Path) -> None:
    with (root / f"{stage}.log").open("w", encoding="utf-8") as log, redirect_stdout(log):
        importlib.import_module(f"pipelines.{stage}").run(Stage(stage, NAME, root))


def _audited(place: Place) -> dict[str, Any]:
    """Which gates passed, which did not, and what each of those said."""
    told = json.loads(place.stage.report("audit.json").read_text(encoding="utf-8"))
    verdicts = {one["name"]: one["verdict"] for one in told["gates"]}
    return {
        "verdict": told["verdict"],
        "passed": [name for name, verdict in verdicts.items() if verdict == "passed"],
        "failed": told["failed"],
        "undecided": told["undecided"],
        "said": {o["name"]: o["said"] for o in told["gates"] if o["verdict"] != "passed"},
    }


def _planted(harm: Harm, clean: Place, job: Job, code: str) -> dict[str, Any]:
    """What came of a harm."""
    if harm.few:
        return _audited(_made(job, {"patients": harm.few}, code))
    root = clean.root.with_name(f"{clean.root.name}-{harm.name}")
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(clean.root, root, ignore=shutil.ignore_patterns(".*", "*.log", "private"))
    rng = np.random.default_rng([job.seed, *harm.name.encode()])
    try:
        for step in harm.steps:
            if callable(step):
                step(Place(root), rng)
                continue
            try:
                _run(step, root)
            except OgsrlError as error:
                return {"refused": (step, str(error))}
        return _audited(Place(root))
    finally:
        shutil.rmtree(root)


def _null(place: Place) -> dict[str, Any]:
    """What the panel says of a policy equal to the clinicians."""
    stage = Stage("evaluate", NAME, place.root)
    parts, dynamics = load_parts(stage, "train", "test"), load_dynamics(stage, place.history)
    equal = Deployed.of(Clinician(place.behaviour), place.guardian, place.history)
    grounds = Grounds(parts["test"], place.behaviour, parts["train"], dynamics)
    generator = torch.Generator().manual_seed(place.stage.params.seed)
    params = place.stage.params.evaluate
    evaluation = evaluate([Subject("null", equal)], grounds, params, generator, lambda _more: None)
    told = flat(evaluation, Truths())
    begin = f"null.{primary(place.cohort)}.gain."
    return {name: told[begin + name] for name in ("word", "estimate", "lo", "hi")}


def _kept(file: Path, make_it: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What was found before, or now."""
    if not file.exists():
        found = make_it()
        beside = file.with_suffix(".partial")
        beside.write_text(json.dumps(found), encoding="utf-8")
        beside.replace(file)
    told: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return told


if __name__ == "__main__":
    main()
