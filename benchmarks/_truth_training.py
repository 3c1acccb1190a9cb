"""Training and selection of algorithms in a cohort's place, a resumable part a seed.

Called by benchmarks.truth. One cohort and guardian; each seed has dynamics and a policy of its
own; its checkpoint is chosen by select among its own, as the stage does. No test patient is read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from benchmarks._truth_cohorts import Place, code_files, digest
from ogsrl.dynamics.ensemble import Dynamics
from ogsrl.dynamics.fitting import fit
from ogsrl.evaluation.quantities import MORTALITY
from ogsrl.policies.config import AlgorithmParams
from ogsrl.policies.deployed import Deployed
from ogsrl.policies.problem import Problem
from ogsrl.policies.saved import load_policy
from ogsrl.policies.training import Place as SeedPlace
from ogsrl.policies.training import train_seed
from ogsrl.selection.choose import Candidate, Grounds, select
from ogsrl.selection.report import describe
from ogsrl.selection.screen import second_model

#: Whose every seed must end, and is judged whatever it saved.
OURS = "ogsrl"
#: Code that a trained seed depends on beyond the cohort's own stages, and what selects.
TRAINING = ("ogsrl/dynamics", "ogsrl/policies")
SELECTING = ("ogsrl/evaluation", "ogsrl/selection", "benchmarks/_truth_training.py")


@dataclass(frozen=True)
class Trained:
    """One seed of an algorithm after training and selection.

    Attributes:
        deployed: The checkpoint that selection chose inside this seed, as it acts.
        key: A hash of the policy's files, under which its truth is remembered.
        checkpoint: Which checkpoint it is.
        selected: Whether selection found it feasible; if none was, the one of least upper bound.
            Nobody was asked about the one policy of an algorithm that saves no more.
        multipliers: Share of updates in which each multiplier was positive; empty if it has none.
        pessimistic: How much more mortality selection's second model sees where each deferral is
            met by the worst supported dose; an estimate, and only of whoever was a finalist.
    """

    algorithm: str
    seed: int
    deployed: Deployed
    key: str
    checkpoint: str
    selected: bool
    multipliers: Mapping[str, float]
    pessimistic: float | None = None


def train_and_select(place: Place, algorithms: Mapping[str, Sequence[int]]) -> Iterator[Trained]:
    """A policy an algorithm and seed, two at a time; finished ones are read back."""
    asked = [(name, seed) for name, seeds in algorithms.items() for seed in seeds]
    work = [(str(place.root), name, seed) for name, seed in asked]
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        for (name, seed), told in zip(asked, pool.map(_seed, work), strict=True):
            if "failed" not in told:
                yield _trained(place, name, seed, told)
            elif name == OURS:
                raise SystemExit(f"{name}, seed {seed}: {told['failed']}; nothing to measure")
            else:
                print(f"{name}, seed {seed}: {told['failed']}; left out", flush=True)


def _trained(place: Place, algorithm: str, seed: int, told: dict[str, Any]) -> Trained:
    actor, _ = load_policy(Path(told["policy"]), place.history, place.behaviour)
    return Trained(
        algorithm=algorithm,
        seed=seed,
        deployed=Deployed.of(actor, place.guardian, place.history),
        key=told["key"],
        checkpoint=told["checkpoint"],
        selected=told["selected"],
        multipliers=told["multipliers"],
        pessimistic=told.get("pessimistic"),
    )


def _settings(place: Place, algorithm: str) -> AlgorithmParams:
    return place.stage.params.algorithms[algorithm].model_copy(update={"name": algorithm})


def _seed(work: tuple[str, str, int]) -> dict[str, Any]:
    """Train and select one seed, unless that was done; what came of it as plain JSON."""
    torch.set_num_threads(1)
    place, algorithm, seed = Place(Path(work[0])), work[1], work[2]
    settings, train = _settings(place, algorithm), place.stage.params.train
    code = [file.read_bytes() for file in code_files(TRAINING)]
    made_of = digest(
        code, place.fingerprint, settings.model_dump(mode="json"), train.model_dump(mode="json")
    )
    folder = place.root / "seeds" / f"{algorithm}_{seed}_{made_of}"
    choosing = place.stage.params.select.model_dump(mode="json")
    judged = digest([file.read_bytes() for file in code_files(SELECTING)], made_of, choosing)
    done = folder / f"selected_{judged}.json"
    if done.exists():
        found: dict[str, Any] = json.loads(done.read_text(encoding="utf-8"))
        return found
    problem = _problem(place, seed)
    at = SeedPlace(folder / "policies", folder / "checkpoint", made_of)
    ended = train_seed(problem, settings, train, seed, at)
    if not ended.steps:
        return {"failed": ended.status}
    steps, told = ended.steps, {"selected": False, "checkpoint": f"step_{ended.steps[-1]}"}
    if len(steps) > 1 or algorithm == OURS:  # of one checkpoint there is nothing to choose
        told = _select(place, settings, seed, at, steps)
        (folder / "selection.json").write_text(json.dumps(told["report"], indent=1))
        del told["report"]
    policy = at.policies / str(told["checkpoint"])
    last = ended.log[-1] if ended.log else {}
    told |= {
        "policy": str(policy),
        "key": digest([(policy / "manifest.json").read_bytes()], algorithm),
        "multipliers": {
            name.removeprefix("active_"): share
            for name, share in last.items()
            if name.startswith("active_")
        },
    }
    beside = done.with_suffix(".partial")
    beside.write_text(json.dumps(told), encoding="utf-8")
    beside.replace(done)
    return told


def _problem(place: Place, seed: int) -> Problem:
    """The cohort with dynamics of this seed's own."""
    train = place.parts()["train"]
    code = digest([file.read_bytes() for file in code_files(("ogsrl/dynamics",))])
    params = place.stage.params.dynamics
    saved = place.root / "seeds" / f"dynamics_{seed}_{digest([], code, params.model_dump())}"
    if not saved.exists():
        generator = torch.Generator().manual_seed(seed)
        fit(train, place.parts()["calibration"], params, generator).save(saved)
    dynamics = Dynamics.load(saved, train.history)
    return Problem.of(train, place.behaviour, dynamics, place.guardian)


def _select(
    place: Place, settings: AlgorithmParams, seed: int, at: SeedPlace, steps: Sequence[int]
) -> dict[str, Any]:
    """The stage's own choice, among this seed's checkpoints."""
    params, validation = place.stage.params, place.parts()["validation"]
    generator = torch.Generator().manual_seed(seed)
    candidates = []
    for step in steps:
        actor, _ = load_policy(at.policy(step), place.history, place.behaviour)
        acts = Deployed.of(actor, place.guardian, place.history)
        candidates.append(Candidate(f"step {step}", settings.name, seed, f"step_{step}", acts))
    model = second_model(validation, params.dynamics, generator)
    grounds = Grounds(validation, place.behaviour, model, place.max_refusal)
    chosen = select(candidates, grounds, params.select, generator)
    one = chosen.chosen or chosen.least
    seen = next(v for v in chosen.verdicts if v.candidate is one)
    harm = None
    if seen.pessimistic is not None:
        harm = float((seen.pessimistic.each[MORTALITY] - seen.screened.each[MORTALITY]).mean())
    return {
        "pessimistic": harm,
        "selected": chosen.chosen is not None,
        "checkpoint": one.checkpoint,
        "report": describe(chosen, params.select),
    }
