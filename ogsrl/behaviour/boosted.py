"""The gradient-boosted kind: for each dose, P(zero), P(maximum), and a location and scale between.

Called by fitting. scikit-learn grows the trees; what is kept of them is arrays.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from torch.nn.functional import logsigmoid

from ogsrl.behaviour.config import BoostedParams
from ogsrl.behaviour.crowds import Codes, Floats, crowds, means
from ogsrl.behaviour.decisions import Decisions, Inputs
from ogsrl.behaviour.doses import BETWEEN, MAXIMUM, ZERO, DoseGrid, encode_doses
from ogsrl.behaviour.pruning import of_crowds
from ogsrl.behaviour.trees import Boosted, Trees
from ogsrl.preparation.coverage import MIN_PATIENTS

BLOCK = 4096
#: Thresholds tried a column; 255, the most, fits slower and no better.
BINS = 63
#: Rows of the rarer answer below which a classifier is a constant.
LEAST_ROWS = 20
#: Points of the table of standardised residuals.
POINTS = 201
#: Log scale of a dose that is always the same.
NO_SPREAD = -3.0
Progress = Callable[[int], None]


@dataclass(frozen=True)
class BoostedBehaviour:
    r"""log b_j: P(zero) = sigmoid(f_0), P(maximum) = (1 - P(zero)) sigmoid(f_1).

    Between, with l_k and r_k the middles between knot k and its neighbours,

        P(knot k | between) = G((r_k - f_2) / exp(f_3)) - G((l_k - f_2) / exp(f_3)),

    f_0 and f_1 minimise the log loss, f_2 the squared error of the log dose, f_3 (log link) the
    gamma loss of |log dose - f_2|; G is the distribution of (log dose - f_2) / exp(f_3) over
    training decisions, from means over crowds of patients. Ordinal doses have one classifier over
    levels that ten patients or more were given; a rarer level has its marginal probability. f see
    the state and, as the chain goes, earlier doses.

    Attributes:
        inputs: What the states are.
        grids: Components of each dose.
        never: Of each dose's components, -inf where never given, and 0 where trees tell; of a
            level that one to nine patients were given, its log probability in every state.
        trees: f of each dose, by name.
        residuals: G of each dose.
    """

    inputs: Inputs
    grids: tuple[DoseGrid, ...]
    never: tuple[torch.Tensor, ...]
    trees: tuple[dict[str, Trees], ...]
    residuals: tuple[torch.Tensor, ...]

    def context(self, states: torch.Tensor) -> torch.Tensor:
        """The state itself."""
        return states

    def log_weights(self, j: int, context: torch.Tensor, earlier: torch.Tensor) -> torch.Tensor:
        """Log weights of the components of dose j, given the doses before it."""
        seen = encode_doses(self.grids[:j], earlier).detach()
        rows = torch.cat([context.detach(), seen], 1)
        blocks = [self._block(j, block) for block in torch.split(rows, BLOCK)]
        return torch.cat(blocks) if blocks else rows.new_zeros(0, self.grids[j].components)

    def _block(self, j: int, rows: torch.Tensor) -> torch.Tensor:
        grid, trees = self.grids[j], self.trees[j]
        if grid.kind == "ordinal":
            return _levels(trees["level"].predict(rows), self.never[j]).float()
        zero, maximum = (trees[name].predict(rows)[:, 0] for name in ("zero", "maximum"))
        location, scale = (trees[name].predict(rows) for name in ("location", "scale"))
        walls = torch.tensor(grid.knots, dtype=torch.float64)
        walls = (walls[1:] + walls[:-1]) / 2
        below = _interpolate((walls - location) / scale.exp(), self.residuals[j])
        inner = below.new_zeros(len(rows), 1)
        knots = torch.cat([inner, below, inner + 1], 1).diff(dim=1).clamp(min=1e-7).log()
        between = logsigmoid(-zero) + logsigmoid(-maximum)
        logs = torch.cat(
            [
                torch.stack([logsigmoid(zero), logsigmoid(-zero) + logsigmoid(maximum)], 1),
                knots.log_softmax(1) + between[:, None],
            ],
            1,
        )
        return (logs + self.never[j]).log_softmax(1).float()

    def arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        """All trees and tables."""
        found: dict[str, np.ndarray[Any, Any]] = {}
        for j, trees in enumerate(self.trees):
            found[f"never.{j}"] = self.never[j].numpy()
            found[f"residuals.{j}"] = self.residuals[j].numpy()
            for name, one in trees.items():
                found |= one.arrays(f"trees.{j}.{name}")
        return found

    @classmethod
    def from_arrays(
        cls, inputs: Inputs, grids: Sequence[DoseGrid], arrays: Mapping[str, Any]
    ) -> BoostedBehaviour:
        """Back from `arrays`."""
        trees = []
        for j in range(len(grids)):
            names = {key.split(".")[2] for key in arrays if key.startswith(f"trees.{j}.")}
            trees.append({n: Trees.from_arrays(arrays, f"trees.{j}.{n}") for n in sorted(names)})
        return cls(
            inputs,
            tuple(grids),
            tuple(torch.tensor(arrays[f"never.{j}"]) for j in range(len(grids))),
            tuple(trees),
            tuple(torch.tensor(arrays[f"residuals.{j}"]) for j in range(len(grids))),
        )


def fit_boosted(
    train: Decisions,
    inputs: Inputs,
    grids: Sequence[DoseGrid],
    log_marginal: Sequence[torch.Tensor],
    params: BoostedParams,
    generator: torch.Generator,
    progress: Progress = lambda _: None,
) -> BoostedBehaviour:
    """Fit on training decisions, a dose at a time."""
    grown, tables, never = [], [], []
    for j, grid in enumerate(grids):
        seen = encode_doses(grids[:j], train.doses)
        rows = torch.cat([train.states, seen], 1).numpy()
        seed = int(torch.randint(2**31 - 1, (1,), generator=generator))
        who = train.patient.numpy()
        fixed = _fixed(grid, train.doses[:, j], train.patient, log_marginal[j])
        trees, table = _fit_dose(grid, rows, train.doses[:, j], who, fixed, params, seed)
        never.append(fixed)
        grown.append(trees)
        tables.append(table)
        progress(1)
    return BoostedBehaviour(inputs, tuple(grids), tuple(never), tuple(grown), tuple(tables))


def _fixed(
    grid: DoseGrid, doses: torch.Tensor, patient: torch.Tensor, log_marginal: torch.Tensor
) -> torch.Tensor:
    """`never` of a dose: 0 where trees tell, else a log probability that no state changes."""
    fixed = torch.where(log_marginal > -torch.inf, 0.0, -torch.inf)
    if grid.kind == "ordinal":
        part = grid.part(doses)
        for level in range(grid.levels):
            if 0 < len(torch.unique(patient[part == level])) < MIN_PATIENTS:
                fixed[level] = log_marginal[level]
    return fixed


def _fit_dose(
    grid: DoseGrid,
    rows: np.ndarray[Any, Any],
    doses: torch.Tensor,
    patient: Codes,
    fixed: torch.Tensor,
    params: BoostedParams,
    seed: int,
) -> tuple[dict[str, Trees], torch.Tensor]:
    settings = {
        "learning_rate": params.learning_rate,
        "max_depth": params.depth,
        "max_leaf_nodes": None,
        "min_samples_leaf": params.min_leaf,
        "max_features": params.columns,
        "max_bins": BINS,
        "early_stopping": False,
        "random_state": seed,
    }
    part = grid.part(doses).numpy()
    if grid.kind == "ordinal":
        told = (fixed == 0).numpy()
        kept = told[part]
        levels = _classes(rows[kept], part[kept], patient[kept], int(told.sum()), params, settings)
        return {"level": levels}, torch.zeros(0)
    given, between = part != ZERO, part == BETWEEN
    trees = {
        "zero": _yes(rows, part == ZERO, patient, params, settings),
        "maximum": _yes(rows[given], part[given] == MAXIMUM, patient[given], params, settings),
    }
    rows, who = rows[between], patient[between]
    logs = grid.log(doses).numpy()[between].astype(np.float64)
    few = len(np.unique(who)) < MIN_PATIENTS
    if few or logs.min() == logs.max():
        # one dose given by ten patients or more is a level; what fewer were given is not kept
        low, high = grid.knots[0], grid.knots[-1]
        anywhere = (low + high) / 2, math.log((high - low) / 2)
        location, scale = anywhere if few else (float(logs[0]), NO_SPREAD)
        trees["location"] = Trees.constant([location], params.depth)
        trees["scale"] = Trees.constant([scale], params.depth)
        return trees, torch.linspace(-1, 1, POINTS, dtype=torch.float64)
    fitted = HistGradientBoostingRegressor(max_iter=params.trees, **settings).fit(rows, logs)
    trees["location"] = of_crowds(Trees.of(fitted, params.depth), rows, who)
    off = logs - _answers(trees["location"], rows)
    size = np.maximum(np.abs(off), 1e-3)
    spread = HistGradientBoostingRegressor(loss="gamma", max_iter=params.scale_trees, **settings)
    spread.fit(rows, size)
    trees["scale"] = of_crowds(Trees.of(spread, params.depth), rows, who)
    return trees, torch.from_numpy(_table(off / np.exp(_answers(trees["scale"], rows)), who))


def _answers(trees: Trees, rows: np.ndarray[Any, Any]) -> Floats:
    """The one output of trees for each row."""
    blocks = torch.split(torch.from_numpy(rows), BLOCK)
    return np.asarray(torch.cat([trees.predict(block)[:, 0] for block in blocks]).numpy())


def _table(residuals: Floats, patient: Codes) -> Floats:
    """Residuals at evenly spaced shares, 0 to 1: means of crowds at the middles of their shares.

    The ends are not the least and largest residual, which are one decision's: they lie as far
    beyond the outermost means as the next means lie within.
    """
    crowd = crowds(residuals, patient, np.arange(1, POINTS) / POINTS)
    size = np.bincount(crowd) / len(crowd)
    middle = size.cumsum() - size / 2
    mean = means(residuals, patient, crowd)
    if len(mean) == 1:  # too few to tell a shape: even, of mean size 1 as residuals are
        mean, middle = np.array([-1.0, 1.0]), np.array([0.25, 0.75])
    shares, values = [0, *middle, 1], [2 * mean[0] - mean[1], *mean, 2 * mean[-1] - mean[-2]]
    points = np.interp(np.linspace(0, 1, POINTS), shares, values)
    return np.asarray(points + 1e-9 * np.arange(POINTS))


def _yes(
    rows: np.ndarray[Any, Any],
    answer: np.ndarray[Any, Any],
    patient: Codes,
    params: BoostedParams,
    settings: Mapping[str, Any],
) -> Trees:
    """Log odds of a yes; a constant where either answer is rare.

    What one to nine patients answered counts as ten answers: how many there were is not kept.
    """
    count = np.array([(~answer).sum(), answer.sum()])
    people = np.array([len(np.unique(patient[answer == yes])) for yes in (False, True)])
    few = (people > 0) & (people < MIN_PATIENTS)
    if few.any():
        others = max(len(answer) - MIN_PATIENTS, MIN_PATIENTS)
        count = np.where(people == 0, 0, np.where(few, MIN_PATIENTS, others))
    if few.any() or count.min() < LEAST_ROWS:
        odds = float(np.log((count[1] + 0.5) / (count[0] + 0.5)))
        return Trees.constant([odds], params.depth)
    model = HistGradientBoostingClassifier(max_iter=params.trees, **settings)
    return _grown(model, rows, answer, patient, params)


def _classes(
    rows: np.ndarray[Any, Any],
    codes: np.ndarray[Any, Any],
    patient: Codes,
    levels: int,
    params: BoostedParams,
    settings: Mapping[str, Any],
) -> Trees:
    """Scores of so many levels, in their order; all rows' levels are among them."""
    if levels < 2:
        return Trees.constant([0.0] * levels, params.depth)
    model = HistGradientBoostingClassifier(max_iter=params.trees, **settings)
    grown = _grown(model, rows, codes, patient, params)
    # exact odds are a fraction that tells its counts, and so how many rows had rarer levels
    return replace(grown, base=grown.base.round(decimals=2))


def _grown(
    model: Boosted,
    rows: np.ndarray[Any, Any],
    answer: np.ndarray[Any, Any],
    patient: Codes,
    params: BoostedParams,
) -> Trees:
    return of_crowds(Trees.of(model.fit(rows, answer), params.depth), rows, patient)


def _levels(scores: torch.Tensor, never: torch.Tensor) -> torch.Tensor:
    """Log weights of all levels from the scores of those that trees tell."""
    told = (never == 0).nonzero()[:, 0]
    if len(told) > scores.shape[1] == 1:  # a classifier of two has one score
        scores = torch.cat([torch.zeros_like(scores), scores], 1)
    left = 1 - never[never < 0].double().exp().sum()
    logs = never.double().expand(len(scores), -1)
    return logs.index_copy(1, told, scores.log_softmax(1) + left.log())


def _interpolate(values: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """The share of the table's distribution at or below each value."""
    at = torch.searchsorted(table, values.contiguous()).clamp(1, len(table) - 1)
    low, high = table[at - 1], table[at]
    share = ((values - low) / (high - low)).clamp(0, 1)
    return (at - 1 + share) / (len(table) - 1)
