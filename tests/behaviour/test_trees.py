"""Trees kept as arrays say what scikit-learn's own trees say, of crowds of patients only."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from ogsrl.behaviour.pruning import of_crowds
from ogsrl.behaviour.trees import Trees

SETTINGS: dict[str, Any] = {
    "max_iter": 12,
    "max_depth": 4,
    "max_leaf_nodes": None,
    "early_stopping": False,
    "random_state": 0,
}


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    rng = np.random.default_rng(0)
    made = rng.standard_normal((3000, 5)).astype(np.float32)
    made[:, 1] = np.round(made[:, 1], 1)  # ties with thresholds
    made[:, 2] = 0.0
    return made


@pytest.mark.parametrize("kind", ["yes or no", "levels", "number", "size"])
def test_arrays_predict_as_scikit_learn_does(kind: str, rows: np.ndarray) -> None:
    x = rows[:, 0] + rows[:, 1] * rows[:, 3]
    fitted: Any
    if kind in ("yes or no", "levels"):
        answer = x > 0 if kind == "yes or no" else np.digitize(x, [-0.5, 0.5])
        fitted = HistGradientBoostingClassifier(**SETTINGS).fit(rows, answer)
        expected = fitted.decision_function(rows)
    else:
        loss = "squared_error" if kind == "number" else "gamma"
        answer = x if kind == "number" else np.abs(x) + 0.01
        fitted = HistGradientBoostingRegressor(loss=loss, **SETTINGS).fit(rows, answer)
        expected = fitted.predict(rows) if kind == "number" else np.log(fitted.predict(rows))
    trees = Trees.of(fitted, SETTINGS["max_depth"])
    found = trees.predict(torch.from_numpy(rows)).numpy()
    np.testing.assert_allclose(found, expected.reshape(len(rows), -1), atol=1e-9)
    again = Trees.from_arrays(trees.arrays("x"), "x")
    assert torch.equal(again.predict(torch.from_numpy(rows)), torch.from_numpy(found))


def test_no_trees_give_their_base_to_every_row(rows: np.ndarray) -> None:
    found = Trees.constant([0.5, -1.0], 3).predict(torch.from_numpy(rows))
    assert found.tolist() == [[0.5, -1.0]] * len(rows)


def people_at(trees: Trees, rows: np.ndarray, patient: np.ndarray) -> tuple[int, int]:
    """The fewest patients at an end of any tree, and on a side of any split."""
    ends = trees.ends(torch.from_numpy(rows)).numpy()
    at_ends, at_sides = [], []
    for i, end in enumerate(ends.T):
        at_ends += [len(np.unique(patient[end == one])) for one in np.unique(end)]
        for level in range(trees.depth):
            nodes = end >> (trees.depth - level - 1)
            split = np.flatnonzero(
                trees.threshold[i, 2**level - 1 : 2 ** (level + 1) - 1].isfinite()
            )
            at_sides += [
                len(np.unique(patient[nodes == 2 * node + side]))
                for node in split
                for side in (0, 1)
            ]
    return min(at_ends), min(at_sides)


@pytest.fixture(scope="module")
def crowd() -> tuple[np.ndarray, np.ndarray]:
    """60 patients of 80 rows: x is the patient's own, y is of chance."""
    rng = np.random.default_rng(0)
    patient = np.repeat(np.arange(60), 80)
    x = rng.standard_normal(60).round(2)[patient]
    return np.stack([x, rng.standard_normal(len(x))], 1).astype(np.float32), patient


@pytest.mark.parametrize("kind", ["levels", "number", "size"])
def test_ends_and_splits_are_of_ten_patients(
    kind: str, crowd: tuple[np.ndarray, np.ndarray]
) -> None:
    rows, patient = crowd
    rng = np.random.default_rng(1)
    signal = 2 * rows[:, 1] + rng.standard_normal(60)[patient]
    fitted: Any
    if kind == "levels":
        fitted = HistGradientBoostingClassifier(**SETTINGS).fit(rows, np.digitize(signal, [-1, 1]))
    else:
        loss, answer = ("gamma", np.exp(signal)) if kind == "size" else ("squared_error", signal)
        fitted = HistGradientBoostingRegressor(loss=loss, **SETTINGS).fit(rows, answer)
    grown = Trees.of(fitted, SETTINGS["max_depth"])
    assert min(people_at(grown, rows, patient)) < 10
    kept = of_crowds(grown, rows, patient)
    assert min(people_at(kept, rows, patient)) >= 10
    before, after = (t.predict(torch.from_numpy(rows)) for t in (grown, kept))
    assert torch.allclose(before.mean(0), after.mean(0), atol=0.02), "no tree lost its mean"
    assert np.corrcoef(after[:, -1], before[:, -1])[0, 1] > 0.8, "what crowds tell is kept"


def test_ends_that_no_row_comes_to_hold_nothing(crowd: tuple[np.ndarray, np.ndarray]) -> None:
    rows, patient = crowd
    answer = np.random.default_rng(1).standard_normal(60)[patient]
    fitted = HistGradientBoostingRegressor(**SETTINGS).fit(rows, answer)
    kept = of_crowds(Trees.of(fitted, SETTINGS["max_depth"]), rows, patient)
    for i, end in enumerate(kept.ends(torch.from_numpy(rows)).numpy().T):
        empty = np.setdiff1d(np.arange(kept.value.shape[1]), end)
        assert len(empty)
        assert float(kept.value[i, empty].abs().max()) == 0


def test_trees_of_crowds_are_kept_as_they_grew(crowd: tuple[np.ndarray, np.ndarray]) -> None:
    rows, _ = crowd
    patient = np.arange(len(rows))  # each row another's: every end of 20 rows is of 20 patients
    answer = rows[:, 1] ** 2 + rows[:, 0]
    fitted = HistGradientBoostingRegressor(**SETTINGS).fit(rows, answer)
    grown = Trees.of(fitted, SETTINGS["max_depth"])
    kept = of_crowds(grown, rows, patient)
    assert torch.equal(kept.value, grown.value)
    assert torch.equal(kept.feature, grown.feature)
    assert torch.equal(kept.threshold, grown.threshold)
