"""Whether the audit catches harm, and lets the harmless through: `python -m benchmarks.harms`.

Cohorts of the default size go through the whole pipeline, from ingest to audit, and again through
its end with other test patients, whom nobody has seen; beside each a policy is measured under which
as many die as under the clinicians, and which must not be called better (decision 28). Other,
smaller cohorts do so too; into copies of them each harm is planted, and the stages that it reaches
run again. Finished parts are not done again.
"""

from __future__ import annotations

import importlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks._harms_null import Clinician, away, equal, panel_says
from benchmarks._harms_planted import HARMS, Harm, others
from benchmarks._report import ROOT, arguments, report
from benchmarks._small import HARDLY_FITTED, HARDLY_TRAINED
from benchmarks._truth_cohorts import NAME, Place, code_files, digest, make
from ogsrl.errors import OgsrlError
from ogsrl.policies.deployed import Actor
from pipelines.stage import Stage

#: Seeds that nothing was chosen by; development used 0 and 1, and 64,000 to 65,004 (decision 27).
SEED, DEVELOPMENT_SEED = 72_000, 0
#: Stages after the guardian stands, and code that each depends on besides that of those before.
REST = {
    "train": (
        *("ogsrl/behaviour", "ogsrl/constraints.py", "ogsrl/contracts", "ogsrl/dynamics"),
        *("ogsrl/guardian", "ogsrl/modeldir.py", "ogsrl/policies", "ogsrl/preparation"),
        *("ogsrl/sources/simulator", "ogsrl/spec", "pipelines/prepare.py"),
        *("pipelines/validate.py", "pipelines/train.py"),
    ),
    "select": ("ogsrl/evaluation", "ogsrl/selection", "pipelines/select.py"),
    "evaluate": ("pipelines/evaluate.py",),
    "audit": ("ogsrl/audit", "pipelines/audit.py"),
}
#: Gates that a clean cohort may be too small for.
OPEN = ("better", "detectable")
#: Folder of a cohort for what was found in it; a copy of the cohort starts without.
FOUND = "found"


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    #: Cohorts that nothing is planted in: how many are fitted, and of how many patients.
    clean: tuple[int, int]
    #: How many sets of test patients each of those is measured on.
    draws: int
    #: How many are fitted, and of how many patients, for harms to be planted into.
    planted: tuple[int, int]
    harms: tuple[str, ...]
    #: Simulated patients by whom a policy is made equal to the clinicians.
    truth: int
    #: Texts of params.yaml and what replaces them.
    changes: Mapping[str, str]
    #: The same, of cohorts with harms alone.
    further: Mapping[str, str]
    #: Added to their limits, which bounds of few patients reach beyond: else nobody is put forward.
    margin: float


_EVERY = {
    "algorithms: [bc, td3bc, ogsrl]": "algorithms: [bc, ogsrl]",
    "seeds: [0, 1, 2]": "seeds: [0, 1]",
    "threads: 2": "threads: 1",
    "kinds: [neural, boosted]": "kinds: [neural]",
    "truth_patients: 20000": "truth_patients: 0",
    "steps: 1000, batch_size: 256": "steps: 50, batch_size: 256",
    # no gate asked by default hangs on what is said of confounders
    "robust: {fits: 1, networks: 2, hidden: 64, start_steps: 200, steps: 1500": (
        "robust: {fits: 1, networks: 2, hidden: 64, start_steps: 50, steps: 50"
    ),
}
FULL = Size(
    (4, 20_000),
    5,
    (5, 5_000),
    tuple(one.name for one in HARMS),
    40_000,
    _EVERY,
    {
        "steps: 1800": "steps: 2100",
        "checkpoint_every: 900": "checkpoint_every: 1050",
        "aim: 0.8": "aim: 0.56",
        "hidden: 64, start_steps: 200, steps: 1500": "hidden: 64, start_steps: 200, steps: 600",
    },
    0.05,
)
QUICK = Size(
    (1, 600),
    2,
    (1, 600),
    ("fluid_in_litres", "rows_in_the_model", "test_patients_worn_out"),
    2_000,
    {
        **_EVERY,
        **HARDLY_FITTED,
        **HARDLY_TRAINED,
        "seeds: [0, 1, 2]": "seeds: [0]",
        "hidden: 64, start_steps: 200, steps: 1500": "hidden: 8, start_steps: 5, steps: 20",
    },
    {},
    0.0,
)


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

    def code(self, stage: str) -> str:
        """Of all that a stage's outputs depend on."""
        names = list(REST)[: list(REST).index(stage) + 1]
        files = code_files([place for name in names for place in REST[name]])
        read = [file.read_bytes() for file in (ROOT / "params.yaml", *files)]
        return digest(read, dict(self.changes))


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Run, print, and return the figures."""
    parser = arguments("harms", __doc__, processes="cohorts side by side")
    parser.add_argument("--development", action="store_true", help="on seeds to look at")
    parser.add_argument("--cohorts", type=int, default=100, help="of each kind, if fewer")
    options = parser.parse_args(argv)
    size = QUICK if options.quick else FULL
    first = DEVELOPMENT_SEED if options.development or options.quick else SEED
    jobs = [
        Job(size, options.work, first + (1_000 if planted else 0) + number, planted)
        for planted, (count, _) in ((False, size.clean), (True, size.planted))
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
    """What audits said of clean cohorts and their nulls; of another, which harms were caught."""
    torch.set_num_threads(1)
    _, patients = job.size.planted if job.planted else job.size.clean
    place = _made(job, patients)
    if not job.planted:
        drawn = []
        for draw in range(job.size.draws):
            drawn.append(_clean(place, job, draw))
            print(f"cohort {job.seed}, {draw}: {drawn[-1]}", flush=True)
        return {"clean": drawn}
    clean, was = _audited(place), {}
    print(f"cohort {job.seed}: {clean['verdict']}: {clean['said']}", flush=True)
    for harm in HARMS:
        if harm.name in job.size.harms:
            file = place.root / FOUND / f"{harm.name}-{job.code('audit')}.json"
            found = _kept(file, partial(_planted, harm, place, job))
            was[harm.name] = caught(harm, found, clean)
            print(f"cohort {job.seed}: {harm.name}: {was[harm.name]}: {found}", flush=True)
    return {"harms": was}


def caught(harm: Harm, found: Mapping[str, Any], clean: Mapping[str, Any]) -> bool:
    """Whether it was refused, or failed, for its own reason.

    What failed before is no reason, unless only now what was measured is itself beyond the limit:
    of few patients an interval reaches beyond it anyway.
    """
    if "refused" in found or harm.refused is not None:
        stage, named = harm.refused or ("", "")
        at, said = found.get("refused", ("", ""))
        return harm.refused is not None and at == stage and named in said
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
    drawn = [one for part in parts for one in part.get("clean", [])]
    clean = [one["audit"] for one in drawn]
    harmless = [{*one["failed"], *one["undecided"]} <= {*OPEN} for one in clean]
    made = {
        "harms_total": sum(map(len, each.values())),
        "harms_caught": sum(map(sum, each.values())),
        "harms_kinds": len(each),
        "clean_cohorts": len(clean),
        "default_passes": sum(harmless),
        "default_better": sum("better" in one["passed"] for one in clean),
        "null_passes": sum(one["null"]["word"] == "better" for one in drawn),
        "null_worse": sum(one["null"]["word"] == "worse" for one in drawn),
        "null_apart": max((abs(one["apart"]) for one in drawn), default=0.0),
        "draws_passes": sum(one["draws"]["word"] == "better" for one in drawn),
    }
    made |= {f"caught_{name}": sum(was) for name, was in each.items()}
    failed = Counter(name for one in clean for name in one["failed"])
    made |= {f"clean_failed_{name}": count for name, count in sorted(failed.items())}
    return {name: float(value) for name, value in made.items()}


def _made(job: Job, patients: int) -> Place:
    """A cohort through every stage."""
    margin = job.size.margin if job.planted else 0.0
    place = make(job.work / "cohorts", {"patients": patients}, job.seed, job.changes, margin)
    for stage in REST:
        _once(stage, place, job)
    return place


def _once(stage: str, place: Place, job: Job) -> None:
    """Unless it was done by the same code."""
    marker = place.root / f".done-{stage}-{job.code(stage)}"
    if not marker.exists():
        print(f"cohort {place.root.name}: {stage}", flush=True)
        _run(stage, place.root)
        marker.touch()


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


def _planted(harm: Harm, place: Place, job: Job) -> dict[str, Any]:
    """What came of a harm."""
    if harm.few:
        return _audited(_made(job, harm.few))
    rng = np.random.default_rng([job.seed, *harm.name.encode()])
    with _copied(place, harm.name) as copy:
        for step in harm.steps:
            name = "planting" if callable(step) else step
            try:
                step(Place(copy.root), rng) if callable(step) else _run(step, copy.root)
            except OgsrlError as error:
                return {"refused": (name, str(error))}
        return _audited(Place(copy.root))


def _clean(place: Place, job: Job, draw: int) -> dict[str, Any]:
    """Its own test patients first; then others, in the same split and by the same fits."""
    file = place.root / FOUND / f"share-{job.code('train')}.json"
    share = _kept(file, partial(equal, place, job.size.truth))
    as_many_die = away(place, share["share"])
    if draw:
        place = _drawn(place, job, draw)

    def said(name: str, actor: Actor) -> dict[str, Any]:
        file = place.root / FOUND / f"{name}-{job.code('evaluate')}.json"
        return _kept(file, partial(panel_says, place, actor))

    return {
        "audit": _audited(place),
        "apart": share["apart"],
        "null": said("null", as_many_die),
        "draws": said("draws", Clinician(place.behaviour)),
    }


def _drawn(place: Place, job: Job, draw: int) -> Place:
    """The same cohort with other test patients, through evaluate and audit."""
    root = place.root.with_name(f"{place.root.name}-drawn-{draw}")
    copy, marker = Place(root), root / f".done-drawn-{job.code('select')}"
    if not marker.exists():
        _copy(place, root)
        fitted = copy.stage.data("prepared", "transforms.json").read_bytes()
        others(copy, np.random.default_rng([job.seed, draw]))
        for stage in ("validate", "prepare"):
            _run(stage, root)
        if copy.stage.data("prepared", "transforms.json").read_bytes() != fitted:
            raise SystemExit("other test patients changed what training patients were fitted to")
        marker.touch()
    for stage in ("evaluate", "audit"):
        _once(stage, copy, job)
    return copy


def _copy(place: Place, root: Path) -> None:
    shutil.rmtree(root, ignore_errors=True)
    left = shutil.ignore_patterns(".*", "*.log", "private", FOUND)
    shutil.copytree(place.root, root, ignore=left)


@contextmanager
def _copied(place: Place, name: str) -> Iterator[Place]:
    """What stages made there, in a folder that is gone afterwards."""
    root = place.root.with_name(f"{place.root.name}-{name}")
    _copy(place, root)
    try:
        yield Place(root)
    finally:
        shutil.rmtree(root)


def _kept(file: Path, make_it: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What was found before, or now."""
    if not file.exists():
        found = make_it()
        file.parent.mkdir(exist_ok=True)
        beside = file.with_suffix(".partial")
        beside.write_text(json.dumps(found), encoding="utf-8")
        beside.replace(file)
    told: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return told


if __name__ == "__main__":
    main()
