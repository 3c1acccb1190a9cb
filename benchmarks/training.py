"""Speed of training beside d3rlpy's PRDC and TD3+BC: `python -m benchmarks.training`.

Peers take turns in one run, and figures are medians of the ratios of each turn. d3rlpy is asked for
its update steps alone, on batches that we look up for it (its own sampling costs it more), and PRDC
searches with one thread or with all, whichever is faster here. Our loops run as they do by default,
large products with factors in bfloat16 where the processor has it, d3rlpy as it comes, in float32;
`_float32` says what is left without that.
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

    def __init__(self, name: str, made: Problem, jobs: int | None = None) -> None:
        self.rows, self.codes = made.rows, StateCodes.of(made.history)
        self.generator = torch.Generator().manual_seed(3)
        self.algorithm: Any = fitted(name, made.rows, made.history, 0, self.generator)
        if jobs is not None:
            self.algorithm.impl._nbsr.set_params(n_jobs=jobs)

    def step(self, steps: int) -> float:
        """Seconds a step."""
        start = time.perf_counter()
        for _ in range(steps):
            rows = torch.randint(len(self.rows.row), (256,), generator=self.generator)
            self.algorithm.update(batch_of(self.rows, rows, self.codes, None))
        return (time.perf_counter() - start) / steps


def in_turn(ways: Mapping[str, Callable[[], float]], alternations: int) -> dict[str, list[float]]:
    """Seconds of each, in turn; the first turn warms and is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(alternations + 1):
        for name, measure in ways.items():
            took = measure()
            if turn:
                seconds[name].append(took)
    return seconds


def _ratio(seconds: Mapping[str, Sequence[float]], peer: str, ours: str) -> float:
    pairs = zip(seconds[peer], seconds[ours], strict=True)
    return statistics.median(theirs / mine for theirs, mine in pairs)


def _fastest(seconds: Mapping[str, Sequence[float]], names: Sequence[str]) -> str:
    return min(names, key=lambda name: statistics.median(seconds[name]))


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
    peers = {
        "td3bc": Peer("d3rlpy_td3bc", made),
        "prdc_1": Peer("d3rlpy_prdc", made, 1),
        "prdc_all": Peer("d3rlpy_prdc", made, -1),
    }

    def ours(one: OfflineLearner) -> float:
        begin = time.perf_counter()
        list(one.train(size.steps["ours"]))
        return (time.perf_counter() - begin) / size.steps["ours"]

    ways = {
        "ours": lambda: ours(learner),
        "ours_float32": lambda: ours(exact),
        "td3bc": lambda: peers["td3bc"].step(size.steps["td3bc"]),
    }
    for name in ("prdc_1", "prdc_all"):
        ways[name] = lambda name=name: peers[name].step(size.steps["prdc"])  # type: ignore[misc]
    seconds = in_turn(ways, size.alternations)
    prdc = _fastest(seconds, ("prdc_1", "prdc_all"))
    figures = {
        "steps_vs_prdc": _ratio(seconds, prdc, "ours"),
        "steps_vs_td3bc": _ratio(seconds, "td3bc", "ours"),
        "steps_vs_prdc_float32": _ratio(seconds, prdc, "ours_float32"),
        "steps_vs_td3bc_float32": _ratio(seconds, "td3bc", "ours_float32"),
        "offline_build_s": built,
    }
    return figures | {f"{n}_steps_per_s": 1 / statistics.median(s) for n, s in seconds.items()}


def measure_full(size: Size, *, small: bool) -> dict[str, float]:
    """The whole loop beside d3rlpy's PRDC on the same rows, and the share of its products."""
    made = full_problem(size.full_patients, 0, small=small)
    few: dict[str, Any] = {"start_steps": 20, "critic_start_steps": 20}
    if small:
        few |= {"hidden": 32, "starts": 50, "first_decisions": 20}
    params = OgsrlParams(refresh=size.refresh, **few)
    learner = begun(made, params)
    floor = Floor(learner)
    thirteen = problem(size.rows, 0)
    peers = {
        "prdc_same_1": Peer("d3rlpy_prdc", made, 1),
        "prdc_same_all": Peer("d3rlpy_prdc", made, -1),
        "prdc_13": Peer("d3rlpy_prdc", thirteen, 1),
    }
    ways: dict[str, Callable[[], float]] = {
        "full": lambda: _both(learner, alone),
        "floor": lambda: floor.seconds(size.steps["prdc"]),
    }
    alone: list[float] = []
    for name, peer in peers.items():
        ways[name] = lambda peer=peer: peer.step(size.steps["prdc"])  # type: ignore[misc]
    seconds = in_turn(ways, size.alternations)
    seconds["alone"] = alone[1:]
    prdc = _fastest(seconds, ("prdc_same_1", "prdc_same_all"))
    figures = {
        "full_vs_prdc": _ratio(seconds, prdc, "full"),
        "full_vs_prdc_13": _ratio(seconds, "prdc_13", "full"),
        "floor_share": _ratio(seconds, "floor", "alone"),
        "full_columns": float(made.rows.states.shape[1]),
        "full_rows": float(len(made.rows.row)),
    }
    return figures | {f"{n}_steps_per_s": 1 / statistics.median(s) for n, s in seconds.items()}


def _both(learner: Any, alone: list[float]) -> float:
    whole, without = refresh_of(learner)
    alone.append(without)
    return whole


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
