"""How often what evaluation says is true: `python -m benchmarks.coverage`.

Policies fitted once; fresh simulated cohorts, each estimated of as the pipeline does; the truth
from the simulator. `--fit` finds on cohorts of its own how much too sure cold fits are
(`evaluate.inflation` of params.yaml). Finished parts are not done again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from typing import Any

import torch

from benchmarks._coverage_cohorts import PLAIN, Job, done
from benchmarks._coverage_figures import (
    FQE,
    PANEL,
    by_estimator,
    confounded_figures,
    figures,
    fitted_inflation,
    fitted_misses,
    limit_figures,
    said,
)
from benchmarks._coverage_policies import fix
from benchmarks._report import arguments, report
from benchmarks._small import HARDLY_FITTED, HARDLY_TRAINED
from benchmarks._truth_cohorts import ROOT, code_files, digest, make
from benchmarks._truth_measure import Patients
from benchmarks.truth import QUICK as SMALL
from ogsrl.evaluation.config import EvaluateParams
from pipelines.params import parse_params, read_params

#: Seeds of the cohort of the policies, of its truth, and of fresh cohorts by what they are for.
COHORT_SEED, PATIENT_SEED = 41_000, 610_000
SEEDS: Mapping[str, int] = {
    "fit": 870_000,
    "panel": 882_000,  # 880_000 were seen while gains got an inflation of their own
    "light": 890_000,
    "confounded": 885_000,
}
CONFOUNDING = (0.0, 0.25, 0.5, 1.0)
#: Code that a part depends on.
CODE = (
    *(f"ogsrl/{name}" for name in ("behaviour", "dynamics", "evaluation", "guardian", "policies")),
    *(f"ogsrl/{name}" for name in ("preparation", "selection", "sources/simulator", "spec")),
    "ogsrl/constraints.py",
    "benchmarks/_coverage_cohorts.py",
    "benchmarks/_coverage_policies.py",
    "benchmarks/_truth_training.py",
)
#: But not this: a part's name says what evaluation's parameters were, whatever they are by default.
DEFAULTS = ROOT / "ogsrl/evaluation/config.py"
_LONG, _SHORT = "hidden: 64, start_steps: 200, steps: 1500", "hidden: 8, steps: 20"


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        changes: Texts of params.yaml and what replaces them.
        options: Of the simulator.
        fit: Cohorts that inflation is found on.
        panel: Cohorts by the whole panel.
        light: Cohorts by the light estimators.
        confounded: Cohorts of each confounding.
        train: Training patients of a cohort.
        test: Test patients.
        truth: Patients of the truth.
    """

    changes: Mapping[str, str]
    options: Mapping[str, Any]
    fit: int
    panel: int
    light: int
    confounded: int
    train: int
    test: int
    truth: int


FULL = Size({}, {}, 10, 20, 200, 3, 4_000, 4_000, 100_000)
QUICK = Size(
    {
        **HARDLY_FITTED,
        **HARDLY_TRAINED,
        f"fqe: {{fits: 8, networks: 1, {_LONG}": f"fqe: {{fits: 2, networks: 1, {_SHORT}",
        f"values: {{fits: 1, networks: 2, {_LONG}": f"values: {{fits: 1, networks: 1, {_SHORT}",
        f"robust: {{fits: 1, networks: 2, {_LONG}": f"robust: {{fits: 1, networks: 1, {_SHORT}",
        "bootstrap: 2000": "bootstrap: 200",
    },
    SMALL.options,
    fit=1,
    panel=1,
    light=1,
    confounded=1,
    train=400,
    test=300,
    truth=500,
)


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Run, print, and return the figures."""
    parser = arguments("coverage", __doc__, processes="cohorts side by side")
    parser.add_argument("--fit", action="store_true", help="find `inflation`, `limits_miss`")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    size = QUICK if options.quick else FULL
    place = make(options.work / "cohorts", size.options, COHORT_SEED, size.changes)
    params = place.stage.params.model_dump(mode="json")
    # in the names of parts that they are in
    for found in ("inflation", "limits_miss", "limits_miss_lower"):
        params["evaluate"].pop(found)
    asked = {name: params[name] for name in ("train", "select", "algorithms")}
    code = [file.read_bytes() for file in code_files(CODE) if file != DEFAULTS]
    folder = options.work / digest(code, place.fingerprint, size.truth, asked)
    evaluated = digest([], params["evaluate"])
    fixed = fix(place, folder, Patients(size.truth, PATIENT_SEED))
    for name, each in fixed.truths.gains.items():
        print(f"{name}: mortality {each['mortality'].truth:+.4f} on clinicians'", flush=True)
    few = size.truth // 5
    plain = Job("panel", 0, place.root, folder, evaluated, size.train, size.test, few)

    def parts(what: str, job: Job, count: int) -> list[dict[str, Any]]:
        jobs = [replace(job, seed=SEEDS[what] + k) for k in range(count)]
        return list(_side_by_side(jobs, options.processes, what))

    if options.fit:
        seen = said(parts("fit", replace(plain, kind="fit"), size.fit), fixed.truths, PLAIN)
        made = by_estimator([one for one in seen if one.estimator == FQE])
        made |= {f"inflation_{name}": value for name, value in fitted_inflation(seen).items()}
        made |= fitted_misses(seen)
        report("coverage", made, None)
        return made
    written = _found()
    inflation = written.inflation
    of_panel = parts("panel", plain, size.panel)
    made = written.of_fits | figures(said(of_panel, fixed.truths, inflation))
    misses = written.limits_miss, written.limits_miss_lower
    made |= limit_figures(said(of_panel, fixed.truths, PLAIN), *misses)
    light = replace(plain, kind="light")
    many = said(parts("light", light, size.light), fixed.truths, inflation)
    made |= by_estimator([one for one in many if one.estimator not in (FQE, PANEL)], "light_")
    hidden = replace(plain, kind="confounded", inflation=inflation)
    confounded = [
        (level, cohort, part)
        for level in CONFOUNDING
        for cohort, part in enumerate(
            parts("confounded", replace(hidden, confounding=level), size.confounded)
        )
    ]
    made |= confounded_figures(confounded)
    report("coverage", made, options.json)
    return made


def _found() -> EvaluateParams:
    """What `--fit` found, as it is written down."""
    return parse_params(read_params(ROOT / "params.yaml"), {}, "params.yaml").evaluate


def _side_by_side(jobs: Sequence[Job], processes: int, what: str) -> Iterator[dict[str, Any]]:
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:  # begins lazily
        each = pool.map(done, jobs) if processes > 1 else map(done, jobs)
        for number, told in enumerate(each, 1):
            print(f"{what}: {number} of {len(jobs)}", flush=True)
            yield told


if __name__ == "__main__":
    main()
