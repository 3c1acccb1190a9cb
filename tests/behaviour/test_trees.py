"""Trees kept as arrays say what scikit-learn's own trees say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

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
