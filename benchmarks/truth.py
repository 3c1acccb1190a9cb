"""What policies do to patients, where that is known: `python -m benchmarks.truth`.

Each policy as Deployed in the true simulator, on 100,000 fresh patients with common random numbers,
between the clinicians and the best policy that two searches find under the same guardian; then the
same for selected policies of three harder cohorts. Finished parts are not done again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks._oracle import Found, SearchSize, oracle
from benchmarks._report import arguments, report
from benchmarks._small import HARDLY_FITTED
from benchmarks._truth_cohorts import HARDER, Place, digest, make
from benchmarks._truth_figures import HarderResult, SeedResult, default_figures, harder_figures
from benchmarks._truth_measure import Named, Patients, margins, measured, table
from benchmarks._truth_training import OURS, Trained, train_and_select
from ogsrl.sources.simulator import Clinicians, DenoisedClinicians, Truth, paired_difference

#: Seeds that nothing was chosen by; development uses others.
COHORT_SEED, DEVELOPMENT_SEED = 97_000, 0
POLICY_SEED, DEVELOPMENT_POLICY_SEED = 9_700, 0
PATIENT_SEED, DEVELOPMENT_PATIENT_SEED = 570_000, 540_000
#: Clinicians, and clinicians without their variation: the better is what must be improved on.
REFERENCES = ("clinicians", "clinicians, mean dose", "clinicians, median dose")


#: Trains algorithms in a cohort's place, a policy a seed, and selects a checkpoint of each.
TrainAndSelect = Callable[[Place, Mapping[str, Sequence[int]]], Iterable[Trained]]

CLONING, UNGUARDED = "bc", "unguarded"
#: Other baselines and ablations: told in the table, one seed each.
ONCE = (
    UNGUARDED,
    "no_costs",
    "no_dataset",
    "no_model",
    "refusals_kill",
    "fixed_multipliers",
    "quadratic_penalty",
    "cpo",
    "td3bc",
    "td3bc_own",
    "prdc",
    "cost_penalised_prdc",
    "lagrangian",
    "d3rlpy_prdc",
    "cql",
    "iql",
    "zero",
    "maximum",
    "marginal",
    "denoised",
)


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    options: Mapping[str, Any]
    changes: Mapping[str, str]
    patients: int
    #: Of OGSRL and cloning; of all others one.
    seeds: int
    search: SearchSize
    harder: Mapping[str, Mapping[str, Any]]


FULL = Size(
    options={},
    changes={},
    patients=100_000,
    seeds=5,
    search=SearchSize(),
    harder=HARDER,
)
QUICK = Size(
    options={"patients": 1_500},
    changes=HARDLY_FITTED,
    patients=300,
    seeds=2,
    search=SearchSize(patients=100, candidates=6, rounds=2, judged=200),
    harder={},
)


def references(place: Place) -> list[Named]:
    """Who treats today, and the same without chance."""
    return [
        Named("clinicians", Clinicians(place.config), "clinicians"),
        Named("clinicians, mean dose", DenoisedClinicians(), "clinicians, mean dose"),
        Named("clinicians, median dose", DenoisedClinicians(typical=True), "clinicians, median"),
    ]


def named(trained: Trained) -> Named:
    """A trained policy under the name of the table."""
    return Named(f"{trained.algorithm} {trained.seed}", trained.deployed, trained.key)


def bare_actor(trained: Trained) -> Named:
    """The same policy with nobody to say no, but for hazards."""
    unguarded = dataclasses.replace(trained.deployed, guardian=None)
    key = digest([], trained.key, "bare actor")
    return Named(f"{trained.algorithm} {trained.seed}, bare actor", unguarded, key)


def seed_result(trained: Trained, truth: Truth, clinicians: Truth, place: Place) -> SeedResult:
    """What one seed ended with."""
    over = margins(truth, clinicians, place.cohort, place.max_refusal)
    return SeedResult(
        truth.mortality, over.feasible, trained.selected, truth.steps_deferred, trained.multipliers
    )


def oracle_figures(found: Sequence[Found], reference: float) -> dict[str, float]:
    """How much better than the reference the best feasible policy is, and how sure that is."""
    best, *others = found
    figures = {
        "oracle_gap": reference - best.truth.mortality,
        "oracle_methods_differ": max(abs(o.truth.mortality - best.truth.mortality) for o in others),
        "oracle_feasible": float(best.margins.feasible),
        "mortality_reference": reference,
        "mortality_oracle": best.truth.mortality,
        "mortality_oracle_se": best.truth.mortality_se,
    }
    return figures | {f"mortality_oracle_{one.method}": one.truth.mortality for one in found}


def compare(
    place: Place,
    algorithms: Mapping[str, Sequence[int]],
    search: SearchSize,
    patients: Patients,
    folder: Path,
    trainer: TrainAndSelect | None,
    processes: int,
) -> dict[str, float]:
    """The truth table of the default cohort, and its figures.

    Args:
        place: The cohort.
        algorithms: Which to train, and with which seeds.
        search: How long to look for the oracle.
        patients: On whom everybody is measured.
        folder: Where parts are kept.
        trainer: None: references and oracle alone are measured.
        processes: For the oracle's searches.
    """
    truths = {one.name: measured(one, place, patients, folder) for one in references(place)}
    clinicians = truths["clinicians"]
    reference = min(REFERENCES, key=lambda name: truths[name].mortality)
    found = oracle(place, search, patients, folder, processes=processes)
    for one in found:
        truths[f"oracle, {one.method}"] = one.truth
        print(f"oracle, {one.method}: feasible {one.margins.feasible}, {one.numbers}")
    figures = {"patients": float(patients.count)}
    figures |= oracle_figures(found, truths[reference].mortality)
    results: dict[str, list[SeedResult]] = {}
    harms: dict[str, float] = {}
    for trained in trainer(place, algorithms) if trainer is not None else ():
        acting = named(trained)
        truths[acting.name] = measured(acting, place, patients, folder)
        if trained.pessimistic is not None:
            harms[acting.name] = trained.pessimistic
        result = seed_result(trained, truths[acting.name], clinicians, place)
        results.setdefault(trained.algorithm, []).append(result)
        print(f"{acting.name}: {trained.checkpoint}, {result}", flush=True)
        # what the guardian is for: the same actors without it
        if trained.algorithm in (OURS, UNGUARDED) and trained.seed == min(
            algorithms[trained.algorithm]
        ):
            bare = bare_actor(trained)
            truths[bare.name] = measured(bare, place, patients, folder)
    print(table(truths, truths[reference], harms))
    for name, truth in truths.items():
        key = name.replace(",", "").replace(" ", "_")
        figures[f"mortality_{key}"] = truth.mortality
        figures[f"steps_deferred_{key}"] = truth.steps_deferred
        less, error = paired_difference(truths[reference], truth)
        figures[f"gain_{key}"], figures[f"gain_se_{key}"] = less, error
        figures |= {f"cost_{c}_{key}": cost for c, cost in truth.costs.items()}
        if name in harms:
            figures[f"pessimistic_{key}"] = harms[name]
    feasible = [one.truth.mortality for one in found if one.margins.feasible]
    if not feasible:
        print("no oracle is feasible: there is no gap to close", flush=True)
    if feasible and results.get(OURS) and results.get(CLONING):
        figures |= default_figures(
            results[OURS],
            results[CLONING],
            truths[reference].mortality,
            min(feasible),
        )
    return figures


def harder(
    place: Place, seed: int, patients: Patients, folder: Path, trainer: TrainAndSelect
) -> HarderResult:
    """One harder cohort: the policy that selection lets through, if any, against clinicians."""
    (trained,) = trainer(place, {OURS: [seed]})
    if not trained.selected:
        return HarderResult(None, None)
    clinicians = measured(references(place)[0], place, patients, folder)
    truth = measured(named(trained), place, patients, folder)
    gain, error = paired_difference(clinicians, truth)
    over = margins(truth, clinicians, place.cohort, place.max_refusal)
    acting, harm = named(trained).name, trained.pessimistic
    harms = {} if harm is None else {acting: harm}
    print(table({"clinicians": clinicians, acting: truth}, clinicians, harms))
    return HarderResult(gain, error, over.broken)


def main(
    argv: Sequence[str] | None = None,
    trainer: TrainAndSelect | None = train_and_select,
    once: Sequence[str] = ONCE,
) -> dict[str, float]:
    """Run, print, and return the figures.

    Args:
        argv: Flags.
        trainer: How policies are made; None: references and oracle alone are measured.
        once: Other baselines and ablations: told in the table, one seed each.
    """
    parser = arguments("truth", __doc__, processes="for the oracle's searches")
    parser.add_argument("--development", action="store_true", help="seeds that may be tuned on")
    parser.add_argument("--only", choices=["default", "harder"], help="one part of it")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    size = QUICK if options.quick else FULL
    tuned = options.development or options.quick
    first = DEVELOPMENT_POLICY_SEED if tuned else POLICY_SEED
    seeds = range(first, first + size.seeds)
    patients = Patients(size.patients, DEVELOPMENT_PATIENT_SEED if tuned else PATIENT_SEED)
    work: Path = options.work
    parts = work / "parts"
    cohort_seed = DEVELOPMENT_SEED if tuned else COHORT_SEED
    figures: dict[str, float] = {}
    if options.only in (None, "default"):
        place = make(work / "cohorts", size.options, cohort_seed, size.changes)
        algorithms = {OURS: seeds, CLONING: seeds, **{name: seeds[:1] for name in once}}
        figures |= compare(
            place, algorithms, size.search, patients, parts, trainer, options.processes
        )
    if options.only in (None, "harder") and trainer is not None and size.harder:
        found = {}
        for name, changed in size.harder.items():
            place = make(work / "cohorts", {**size.options, **changed}, cohort_seed, size.changes)
            print(f"harder cohort: {name}")
            found[name] = harder(place, first, patients, parts, trainer)
        figures |= harder_figures(found)
    report("truth", figures, options.json)
    return figures


if __name__ == "__main__":
    main()
