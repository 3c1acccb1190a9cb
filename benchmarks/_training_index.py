"""The dataset-constraint index beside scikit-learn's KD-tree, for the training benchmark."""

from __future__ import annotations

import statistics
import time

import numpy as np
import torch
from sklearn.neighbors import NearestNeighbors

from benchmarks._training_rows import STEPS, Vitals
from ogsrl.policies.index import DatasetIndex

BETA, BATCH = 0.25, 256


def _tree(pairs: np.ndarray, jobs: int) -> NearestNeighbors:
    """As fast as it gets: asked for one more neighbour than the longest stay has rows."""
    tree = NearestNeighbors(n_neighbors=STEPS + 1, algorithm="kd_tree", n_jobs=jobs)
    return tree.fit(pairs)


def measure_index(
    made: Vitals, neighbours: int, batches: int, alternations: int
) -> dict[str, float]:
    """Answers a second of each in turn, equal answers, and what the index says of itself."""
    start = time.perf_counter()
    index = DatasetIndex.of(made.states, made.doses, made.stay, beta=BETA, k=neighbours)
    figures = {"index_rows": float(len(index)), "index_build_s": time.perf_counter() - start}
    pairs, stay = index.pairs.numpy(), made.stay.numpy()
    trees = {f"tree_{jobs}": _tree(pairs, jobs) for jobs in (1, -1)}
    g = torch.Generator().manual_seed(1)
    seconds: dict[str, list[float]] = {name: [] for name in ("index", *trees)}
    certified, own, wrong, worst = [], [], 0, 0.0
    for turn in range(alternations + 1):
        rows = torch.randint(len(index), (batches, BATCH), generator=g)
        start = time.perf_counter()
        found = [index.of_rows(i, made.proposed[i]) for i in rows]
        spent = {"index": time.perf_counter() - start}
        answers = {}
        for name, tree in trees.items():
            start = time.perf_counter()
            answers[name] = [_asked(tree, index, stay, i, made.proposed[i]) for i in rows]
            spent[name] = time.perf_counter() - start
        for nearest, theirs, i in zip(found, answers["tree_1"], rows, strict=True):
            gap = np.abs((nearest.distance.numpy() - theirs).astype(float))
            worst, wrong = max(worst, float(gap.max())), wrong + int((gap > 1e-5).sum())
            certified.append(float(nearest.certified.float().mean()))
            own.append(index.own_row_share(i, made.proposed[i]))
        if turn:  # the first turn warms
            for name, took in spent.items():
                seconds[name].append(took / (batches * BATCH))
    fastest = min(trees, key=lambda name: statistics.median(seconds[name]))
    ratios = [
        theirs / ours for ours, theirs in zip(seconds["index"], seconds[fastest], strict=True)
    ]
    held = [index.pairs, index.stay, index.neighbours, index.inner, index.radius]
    held += [index.listed, index.place]
    held += [index._products.wide]
    figures |= {
        "index_speedup": statistics.median(ratios),
        "index_per_s": 1 / statistics.median(seconds["index"]),
        "index_certified": statistics.mean(certified),
        "own_row_share": statistics.mean(own),
        "index_mb": sum(t.numel() * t.element_size() for t in held) / 2**20,
        "index_wrong": float(wrong),
        "index_worst_gap": worst,
        "index_neighbours": float(index.neighbours.shape[1]),
    }
    for name, took in seconds.items():
        if name != "index":
            figures[f"{name.replace('_-1', '_all').replace('tree', 'kd_tree')}_jobs_per_s"] = (
                1 / statistics.median(took)
            )
    return figures


def _asked(
    tree: NearestNeighbors,
    index: DatasetIndex,
    stay: np.ndarray,
    rows: torch.Tensor,
    doses: torch.Tensor,
) -> np.ndarray:
    """Distance of the nearest pair of another stay among the tree's neighbours."""
    here = torch.cat([index.pairs[rows, : index.columns], doses], 1).numpy()
    distance, near = tree.kneighbors(here)
    distance[stay[near] == stay[rows.numpy()][:, None]] = np.inf
    least: np.ndarray = distance.min(1)
    return least
