"""Speed of training beside d3rlpy's PRDC and TD3+BC: `python -m benchmarks.training`.

Peers take turns in one run, and figures are medians of the ratios of each turn. d3rlpy is asked for
its update steps alone, on batches that we look up for it (its own sampling costs it more).
Everybody runs with one thread and with two, PRDC's search too, and counts with the faster of them.
Our loops run as they do by default, large products with factors in bfloat16 where the processor has
it, d3rlpy as it comes, in float32; `_float32` says what is left without that.
"""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks._report import arguments, report
from benchmarks._training_full import Floor, begun, full_problem, refresh_of
from benchmarks._training_index import measure_index
from benchmarks._training_matrix import measure_matrix
from benchmarks._training_rows import problem, vitals
from ogsrl.policies.codes import StateCodes
from ogsrl.policies.config import DatasetParams, OgsrlParams
from ogsrl.policies.offline import OfflineLearner
from ogsrl.policies.problem import Problem

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of packages that d3rlpy loads
    from ogsrl.policies.peers import batch_of, fitted

#: d3rlpy's PRDC has this beta.
BETA = 2.0
#: Threads that everybody is tried with.
THREADS = (1, 2)
Seconds = dict[str, list[float]]


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    rows: int
    alternations: int
    steps: dict[str, int]
    full_patients: int
    refresh: int
    index_rows: int
    index_batches: int
    neighbours: int


FULL = Size(
    rows=147_628,
    alternations=7,
    steps={"ours": 100, "td3bc": 40, "prdc": 10},
    full_patients=20_000,
    refresh=150,
    index_rows=250_000,
    index_batches=2,
    neighbours=512,
)
QUICK = Size(
    rows=1_500,
    alternations=2,
    steps={"ours": 4, "td3bc": 2, "prdc": 2},
    full_patients=600,
    refresh=4,
    index_rows=2_000,
    index_batches=1,
    neighbours=64,
)


class Peer:
    """d3rlpy's algorithm on the rows of a problem."""

    def __init__(self, name: str, made: Problem) -> None:
        self.rows, self.codes = made.rows, StateCodes.of(made.history)
        self.generator = torch.Generator().manual_seed(3)
        self.algorithm: Any = fitted(name, made.rows, made.history, 0, self.generator)

    def step(self, steps: int) -> float:
        """Seconds a step."""
        search = getattr(self.algorithm.impl, "_nbsr", None)
        if search is not None:
            search.set_params(n_jobs=torch.get_num_threads())
        start = time.perf_counter()
        for _ in range(steps):
            rows = torch.randint(len(self.rows.row), (256,), generator=self.generator)
            self.algorithm.update(batch_of(self.rows, rows, self.codes, None))
        return (time.perf_counter() - start) / steps


def in_turn(ways: Mapping[str, Callable[[], float]], alternations: int) -> Seconds:
    """Seconds of each by its name and its threads, in turn; the first turn warms, uncounted."""
    seconds: Seconds = {_with(name, threads): [] for name in ways for threads in THREADS}
    usual = torch.get_num_threads()
    for turn in range(alternations + 1):
        for name, measure in ways.items():
            for threads in THREADS:
                torch.set_num_threads(threads)
                took = measure()
                if turn:
                    seconds[_with(name, threads)].append(took)
    torch.set_num_threads(usual)
    return seconds


def _with(name: str, threads: int) -> str:
    return f"{name}_{threads}"


def fastest(seconds: Seconds, name: str) -> str:
    """Somebody with the number of threads that is faster here."""
    return min(
        (_with(name, threads) for threads in THREADS),
        key=lambda tried: statistics.median(seconds[tried]),
    )


def _ratio(seconds: Seconds, peer: str, ours: str) -> float:
    pairs = zip(seconds[fastest(seconds, peer)], seconds[fastest(seconds, ours)], strict=True)
    return statistics.median(theirs / mine for theirs, mine in pairs)


def _rates(seconds: Seconds) -> dict[str, float]:
    return {f"{n}_steps_per_s": 1 / statistics.median(s) for n, s in seconds.items()}


def measure_offline(size: Size) -> dict[str, float]:
    """The loop without a model, everything off but the dataset constraint, beside its peers."""
    made = problem(size.rows, 0)
    start = time.perf_counter()
    params = OgsrlParams(
        model=False,
        guardian=False,
        constraints=False,
        dataset=DatasetParams(weight=1.0, beta=BETA, neighbours=min(128, size.neighbours)),
    )
    learner = OfflineLearner(made, params, 0, 0)
    learner.learn(torch.arange(256))  # its index is made
    exact = OfflineLearner(made, params.model_copy(update={"products": "float32"}), 0, 0)
    built = time.perf_counter() - start
    peers = {name: Peer(f"d3rlpy_{name}", made) for name in ("td3bc", "prdc")}

    def ours(one: OfflineLearner) -> float:
        begin = time.perf_counter()
        list(one.train(size.steps["ours"]))
        return (time.perf_counter() - begin) / size.steps["ours"]

    ways = {
        "ours": lambda: ours(learner),
        "ours_float32": lambda: ours(exact),
        "td3bc": lambda: peers["td3bc"].step(size.steps["td3bc"]),
        "prdc": lambda: peers["prdc"].step(size.steps["prdc"]),
    }
    seconds = in_turn(ways, size.alternations)
    figures = {
        "steps_vs_prdc": _ratio(seconds, "prdc", "ours"),
        "steps_vs_td3bc": _ratio(seconds, "td3bc", "ours"),
        "steps_vs_prdc_float32": _ratio(seconds, "prdc", "ours_float32"),
        "steps_vs_td3bc_float32": _ratio(seconds, "td3bc", "ours_float32"),
        "offline_build_s": built,
    }
    return figures | _rates(seconds)


def measure_full(size: Size, *, small: bool) -> dict[str, float]:
    """The whole loop beside d3rlpy's PRDC on the same rows, and the share of its products."""
    made = full_problem(size.full_patients, 0, small=small)
    few: dict[str, Any] = {"start_steps": 20, "critic_start_steps": 20}
    if small:
        few |= {"hidden": 32, "starts": 50, "first_decisions": 20}
    params = OgsrlParams(refresh=size.refresh, **few)
    learner = begun(made, params)
    floor = Floor(learner)
    peers = {"prdc_same": Peer("d3rlpy_prdc", made)}
    peers["prdc_13"] = Peer("d3rlpy_prdc", problem(size.rows, 0))
    rolled: dict[int, list[float]] = {threads: [] for threads in THREADS}

    def alone() -> float:
        """Steps without rollouts, whose seconds are put aside."""
        whole, without = refresh_of(learner, min(size.steps["ours"] // 2, size.refresh - 1))
        rolled[torch.get_num_threads()].append(whole - without)
        return without

    ways: dict[str, Callable[[], float]] = {
        "alone": alone,
        "floor": lambda: floor.seconds(size.steps["prdc"]),
        "prdc_same": lambda: peers["prdc_same"].step(size.steps["prdc"]),
        "prdc_13": lambda: peers["prdc_13"].step(size.steps["prdc"]),
    }
    seconds = in_turn(ways, size.alternations)
    for threads, more in rolled.items():
        steps = zip(seconds[_with("alone", threads)], more[1:], strict=True)
        seconds[_with("full", threads)] = [sum(pair) for pair in steps]
    figures = {
        "full_vs_prdc": _ratio(seconds, "prdc_same", "full"),
        "full_vs_prdc_13": _ratio(seconds, "prdc_13", "full"),
        "floor_share": _ratio(seconds, "floor", "alone"),
        "full_columns": float(made.rows.states.shape[1]),
        "full_rows": float(len(made.rows.row)),
    }
    return figures | _rates(seconds)


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Run, print, and return the figures."""
    parser = arguments("training", __doc__)
    parser.add_argument(
        "--only", choices=["offline", "full", "index", "matrix"], help="one part of it"
    )
    options = parser.parse_args(argv)
    size = QUICK if options.quick else FULL
    threads = torch.get_num_threads()
    torch.set_num_threads(1 if options.quick else 2)
    figures: dict[str, float] = {}
    parts: dict[str, Callable[[], dict[str, float]]] = {
        "offline": lambda: measure_offline(size),
        "full": lambda: measure_full(size, small=options.quick),
        "matrix": lambda: measure_matrix(small=options.quick),
        "index": lambda: measure_index(
            vitals(size.index_rows, 0), size.neighbours, size.index_batches, size.alternations
        ),
    }
    for name, measure in parts.items():
        if options.only in (None, name):
            start = time.perf_counter()
            figures |= measure()
            print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)
    torch.set_num_threads(threads)
    report("training", figures, options.json)
    return figures


if __name__ == "__main__":
    main()
