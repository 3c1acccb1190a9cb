"""Stage train: one algorithm, all seeds -> models/NAME/policies/ALGORITHM/, train_ALGORITHM.json.

Trains on training patients alone. An interrupted run goes on where its last checkpoint was.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
import signal
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, get_context
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any

import pandas as pd
import torch

import ogsrl
from ogsrl.dynamics.counts import CountDynamics
from ogsrl.errors import ModelError, SpecError
from ogsrl.figures.style import save_svg
from ogsrl.figures.train import FIGURES, nothing_logged
from ogsrl.modeldir import MANIFEST
from ogsrl.policies.config import AlgorithmParams
from ogsrl.policies.dataset import dataset_index
from ogsrl.policies.devices import CPU, checked, moved
from ogsrl.policies.problem import Problem
from ogsrl.policies.table import TableProblem
from ogsrl.policies.training import AnyProblem, Place, Seed, check, steps_of, train_seed
from pipelines.models import load_behaviour, load_dynamics, load_guardian
from pipelines.parts import load_parts
from pipelines.stage import Stage, end_with_parent, write_json

#: Seeds side by side a thread: three share two cores better than two and then one.
CROWD = 2
#: Code that a seed depends on.
CODE = ("policies", "dynamics", "guardian", "behaviour", "preparation", "spec", "constraints.py")
#: Where a worker tells of its steps, and what it trains on.
_told: SimpleQueue[int]
_problem_here: AnyProblem


def run(stage: Stage) -> None:
    """Every algorithm asked for, or the one of `--algorithm`."""
    checked(stage.params.device)
    for name in (stage.item,) if stage.item else stage.params.train.algorithms:
        _train(stage, _algorithm(stage, name))


def _algorithm(stage: Stage, name: str) -> AlgorithmParams:
    known = stage.params.algorithms
    if name not in known:
        raise SpecError(
            f"train.algorithms: {name} is no key of algorithms: in params.yaml; there are "
            f"{', '.join(known)}"
        )
    algorithm = known[name].model_copy(update={"name": name})
    check(algorithm, stage.params.train, stage.cohort)
    return algorithm


def _train(stage: Stage, algorithm: AlgorithmParams) -> None:
    train, directory = stage.params.train, stage.model("policies", algorithm.name)
    total = len(train.seeds) * steps_of(algorithm, train)
    with stage.progress(f"{algorithm.name}, {len(train.seeds)} seeds, steps", total) as update:
        try:
            seeds = _all_seeds(stage, algorithm, update)
        except KeyboardInterrupt:
            stage.say(f"{algorithm.name}: what was done is kept; run it again, and it goes on")
            raise
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    if isinstance(seeds, str):
        _report(stage, algorithm, seeds, [])
        return
    for done in seeds:  # only what is whole is an output
        scratch = _scratch(stage, algorithm.name, done.seed)
        (scratch / "policies").rename(directory / f"seed_{done.seed}")
        shutil.rmtree(scratch)
    status = "trained" if any(done.status == "done" for done in seeds) else "every_seed_failed"
    if all(done.formless for done in seeds):
        status = "no_form"  # as a matrix for several cohorts may have it
    _report(stage, algorithm, status, seeds)
    if status == "every_seed_failed":
        raise ModelError(f"train: {algorithm.name}: every seed failed: {seeds[0].status}")


def _all_seeds(
    stage: Stage, algorithm: AlgorithmParams, update: Callable[[int], None]
) -> list[Seed] | str:
    """Seeds side by side, a thread each: the same numbers however many there are of either.

    A seed's matrices are small; two threads on one of them mostly wait for each other.
    """
    seeds, threads, asked = stage.params.train.seeds, torch.get_num_threads(), algorithm.ogsrl
    problem = _problem(stage)
    if isinstance(problem, str):
        return problem
    if isinstance(problem, Problem) and asked is not None and asked.dataset.weight:
        dataset_index(problem, asked.dataset)  # one for all seeds
    stage = Stage(stage.name, stage.cohort_name, stage.root, stage.item)  # without what it read
    if len(seeds) > 1:
        shared = pickle.dumps(problem, pickle.HIGHEST_PROTOCOL)
        del problem
        return _side_by_side(stage, algorithm, shared, update)
    torch.set_num_threads(1)
    try:
        return [_one_seed(stage, algorithm, seeds[0], problem, update)]
    finally:
        torch.set_num_threads(threads)


def _side_by_side(
    stage: Stage, algorithm: AlgorithmParams, problem: bytes, update: Callable[[int], None]
) -> list[Seed]:
    """A process a seed; whatever ends this stage ends them too."""
    context, seeds = get_context("forkserver"), stage.params.train.seeds
    context.set_forkserver_preload([__name__])  # imported once for all of them
    told: SimpleQueue[int] = context.SimpleQueue()
    workers = min(CROWD * stage.params.threads, len(seeds))
    with ProcessPoolExecutor(workers, context, _begin_worker, (told, problem)) as pool:
        try:
            coming = [pool.submit(_in_worker, stage, algorithm, seed) for seed in seeds]
            while wait(coming, 0.2).not_done or not told.empty():
                while not told.empty():
                    update(told.get())
            return [one.result() for one in coming]
        except BrokenProcessPool:
            raise ModelError(
                f"train: a process of {algorithm.name} was ended from outside, perhaps for want of "
                "memory; what its seeds had done is kept, so run train again, with fewer `threads`"
            ) from None
        finally:
            for process in active_children():
                process.terminate()


def _begin_worker(told: SimpleQueue[int], problem: bytes) -> None:
    global _told, _problem_here
    _told, _problem_here = told, pickle.loads(problem)  # by our own parent
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the stage ends its workers
    end_with_parent()
    torch.set_num_threads(1)


def _in_worker(stage: Stage, algorithm: AlgorithmParams, seed: int) -> Seed:
    return _one_seed(stage, algorithm, seed, _problem_here, _told.put)


def _one_seed(
    stage: Stage,
    algorithm: AlgorithmParams,
    seed: int,
    problem: AnyProblem,
    update: Callable[[int], None],
) -> Seed:
    scratch = _scratch(stage, algorithm.name, seed)
    place = Place(scratch / "policies", scratch / "checkpoint", _made_of(stage, algorithm))
    device = checked(stage.params.device)
    if isinstance(problem, Problem) and device != CPU:
        problem = moved(problem, device)
    return train_seed(problem, algorithm, stage.params.train, seed, place, update)


def _scratch(stage: Stage, algorithm: str, seed: int) -> Path:
    return stage.cache / "train" / stage.cohort_name / algorithm / f"seed_{seed}"


def _problem(stage: Stage) -> AnyProblem | str:
    """What training knows, or the status that says why there is nothing to train on."""
    train = load_parts(stage, "train")["train"]
    behaviour = load_behaviour(stage, train.history)
    dynamics = load_dynamics(stage, train.history)
    if behaviour.status != "fitted" or dynamics is None:
        return "too_few_patients"
    guardian = load_guardian(stage, train.history, behaviour)
    if guardian.threshold is None or guardian.status != "ready":
        return "too_few_patients"
    if isinstance(dynamics, CountDynamics):
        return TableProblem.of(train, behaviour, dynamics, guardian)
    return Problem.of(train, behaviour, dynamics, guardian)


def _made_of(stage: Stage, algorithm: AlgorithmParams) -> str:
    """A hash of everything that training depends on."""
    told = hashlib.sha256()
    plain = [algorithm.model_dump(mode="json"), stage.params.train.model_dump(mode="json")]
    plain.append({"device": stage.params.device})
    told.update(json.dumps(plain, sort_keys=True).encode())
    for part in ("behaviour", "dynamics", "guardian"):
        told.update((stage.model(part) / MANIFEST).read_bytes())
    told.update(stage.data("prepared", "train.parquet").read_bytes())
    told.update(stage.cohort.model_dump_json().encode())
    package = Path(ogsrl.__file__).parent
    for place in CODE:
        for module in sorted((package / place).rglob("*.py")) or [package / place]:
            told.update(module.read_bytes())  # other code would not go on bit for bit
    return told.hexdigest()


def _report(stage: Stage, algorithm: AlgorithmParams, status: str, seeds: list[Seed]) -> None:
    """Log, report and figures; how each seed ended is in the report and in its status file."""
    directory = stage.model("policies", algorithm.name)
    log = pd.DataFrame([row for done in seeds for row in done.log])
    log.to_parquet(directory / "log.parquet", index=False)
    ended: dict[str, Any] = {
        str(done.seed): {"status": done.status, "steps": done.steps} for done in seeds
    }
    write_json(directory / "status.json", {"status": status, "seeds": ended})
    last = [done.log[-1] for done in seeds if done.log]
    active = {
        name.removeprefix("active_"): [row[name] for row in last]
        for name in (last[0] if last else {})
        if name.startswith("active_")
    }
    report = {
        "algorithm": algorithm.name,
        "status": status,
        "seeds": ended,
        "steps": stage.params.train.steps,
        "multipliers_positive": active,
    }
    write_json(stage.report(f"train_{algorithm.name}.json"), report)
    folder = stage.report("figures")
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in FIGURES.items():
        figure = draw(log) if len(log) else nothing_logged(algorithm.name)
        save_svg(figure, folder / f"{name}_{algorithm.name}.svg")
    failed = [f"seed {done.seed}: {done.status}" for done in seeds if done.status != "done"]
    for line in failed:
        stage.say(line)
    stage.say(
        f"{algorithm.name}: {status.replace('_', ' ')}, {len(seeds) - len(failed)} seeds done"
    )
