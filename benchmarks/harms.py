"""Whether the audit catches harm, and lets the harmless through: `python -m benchmarks.harms`.

Clean cohorts of the default size go through the whole pipeline, from ingest to audit; beside each a
policy equal to the clinicians is measured, which must not be called better. Other, smaller cohorts
do so too; into copies of them each harm is planted, and the stages that it reaches run again.
Finished parts are not done again.
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

    #: Cohorts that nothing is planted in: how many, and of how many patients.
    clean: tuple[int, int]
    #: Alike, of those into which harms are planted.
    planted: tuple[int, int]
    harms: tuple[str, ...]
    #: Texts of params.yaml and what replaces them.
    changes: Mapping[str, str]
    #: The same, of cohorts with harms alone.
    further: Mapping[str, str]


_EVERY = {
    "algorithms: [bc, td3bc, ogsrl]": "algorithms: [bc, ogsrl]",
    "seeds: [0, 1, 2]": "seeds: [0, 1]",
    "threads: 2": "threads: 1",
    "kinds: [neural, boosted]": "kinds: [neural]",
    "truth_patients: 20000": "truth_patients: 0",
    "steps: 1000, batch_size: 256": "steps: 50, batch_size: 256",
}
FULL = Size(
    (20, 20_000),
    (5, 5_000),
    tuple(one.name for one in HARMS),
    _EVERY,
    {
        "steps: 1800": "steps: 2100",
        "checkpoint_every: 900": "checkpoint_every: 1050",
        # no harm here hangs on what is said of confounders
        "robust: {fits: 1, networks: 2, hidden: 64, start_steps: 200, steps: 1500": (
            "robust: {fits: 1, networks: 2, hidden: 64, start_steps: 50, steps: 50"
        ),
    },
)
QUICK = Size(
    (1, 600),
    (1, 600),
    ("fluid_in_litres", "rows_in_the_model", "test_patients_worn_out"),
    {
        **_EVERY,
        **TRUTH_QUICK.changes,
        "steps: 1800": "steps: 20",
        "checkpoint_every: 900": "checkpoint_every: 10",
        "refresh: 150, pool: 5, starts: 2000": "refresh: 10, pool: 2, starts: 100",
        "hidden: 64, start_steps: 200, steps: 1500": "hidden: 8, start_steps: 5, steps: 20",
    },
    {},
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
    """A cohort, and all that is asked of it.

    Attributes:
        size: How much is measured.
        work: Where parts are kept.
        seed: Of the cohort.
        planted: Whether harms are planted into it.
    """

    size: Size
    work: Path
    seed: int
    planted: bool

    @property
    def changes(self) -> Mapping[str, str]:
        """Of params.yaml."""
        return {**self.size.changes, **(self.size.further if self.planted else {})}


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Run, print, and return the figures."""
    parser = arguments("harms", __doc__, processes="cohorts side by side")
    parser.add_argument("--development", action="store_true", help="on seeds to look at")
    parser.add_argument("--cohorts", type=int, default=100, help="of each kind, if fewer")
    options = parser.parse_args(argv)
    size = QUICK if options.quick else FULL
    first = DEVELOPMENT_SEED if options.development else SEED
    jobs = [
        Job(size, options.work, first + (1_000 if planted else 0) + number, planted)
        for planted, (count, _) in ((True, size.planted), (False, size.clean))
        for number in range(min(count, options.cohorts))
    ]
    if options.processes == 1:
        parts = [done(job) for job in jobs]
    else:
        with ProcessPoolExecutor(options.processes, get_context("spawn")) as pool:
            parts = list(pool.map(done, jobs))
    made = figures(parts)
    report("harms", made, options.json)
    return made


def done(job: Job) -> dict[str, Any]:
    """What the audit said of a clean cohort and its null; of another, which harms were caught."""
    torch.set_num_threads(1)
    code = digest([file.read_bytes() for file in code_files(("ogsrl", "pipelines"))])
    _, patients = job.size.planted if job.planted else job.size.clean
    place = _made(job, patients, code)
    clean = _audited(place)
    print(f"cohort {job.seed}: {clean['verdict']}: {clean['said']}", flush=True)
    if not job.planted:
        null = _kept(place.root / f"null-{code}.json", partial(_null, place))
        print(f"cohort {job.seed}: null: {null}", flush=True)
        return {"clean": clean, "null": null}
    was = {}
    for harm in HARMS:
        if harm.name in job.size.harms:
            file = place.root / f"{harm.name}-{code}.json"
            found = _kept(file, partial(_planted, harm, place, job, code))
            was[harm.name] = caught(harm, found, clean)
            print(f"cohort {job.seed}: {harm.name}: {was[harm.name]}: {found}", flush=True)
    return {"harms": was}


def caught(harm: Harm, found: Mapping[str, Any], clean: Mapping[str, Any]) -> bool:
    """Whether it was refused, or failed, for its own reason.

    What failed before is no reason, unless only now what was measured is itself beyond the limit:
    of few patients an interval reaches beyond it anyway.
    """
    if harm.refused is not None:
        stage, named = harm.refused
        at, said = found.get("refused", ("", ""))
        return at == stage and named in said
    wrong = {*found["failed"]}
    if harm.few:
        wrong = {name for name, said in found["said"].items() if "too few patients" in said}
    before = {*clean["failed"]} - ({*found["beyond"]} - {*clean["beyond"]})
    return found["verdict"] != "passed" and bool({*harm.gates} & wrong - before)


def figures(parts: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """What the issue asks, and how often each harm was caught."""
    each: dict[str, list[bool]] = {}
    for name, was in [pair for part in parts for pair in part.get("harms", {}).items()]:
        each.setdefault(name, []).append(was)
    clean = [part["clean"] for part in parts if "clean" in part]
    nulls = [part["null"] for part in parts if "null" in part]
    harmless = [{*one["failed"], *one["undecided"]} <= {*OPEN} for one in clean]
    made = {
        "harms_total": sum(map(len, each.values())),
        "harms_caught": sum(map(sum, each.values())),
        "harms_kinds": len(each),
        "clean_cohorts": len(clean),
        "default_passes": sum(harmless),
        "default_better": sum("better" in one["passed"] for one in clean),
        "null_passes": sum(null["word"] == "better" for null in nulls),
    }
    made |= {f"caught_{name}": sum(was) for name, was in each.items()}
    failed = Counter(name for one in clean for name in one["failed"])
    made |= {f"clean_failed_{name}": count for name, count in sorted(failed.items())}
    return {name: float(value) for name, value in made.items()}


def _made(job: Job, patients: int, code: str) -> Place:
    """A cohort through every stage."""
    place = make(job.work / "cohorts", {"patients": patients}, job.seed, job.changes)
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
        "beyond": [one["name"] for one in told["gates"] if _beyond(one)],
        "said": {o["name"]: o["said"] for o in told["gates"] if o["verdict"] != "passed"},
    }


def _beyond(gate: Mapping[str, Any]) -> bool:
    """Whether the estimate itself is on the wrong side of the limit."""
    if gate["estimate"] is None:
        return False
    apart = gate["estimate"] - gate["limit"]
    return bool(apart > 0 if gate["relation"] in ("<=", "<") else apart < 0)


def _planted(harm: Harm, clean: Place, job: Job, code: str) -> dict[str, Any]:
    """What came of a harm."""
    if harm.few:
        return _audited(_made(job, harm.few, code))
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
