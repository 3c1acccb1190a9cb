"""Tilted shares have the mean asked for, wherever it can be reached."""

from __future__ import annotations

import pytest
import torch

from ogsrl.dynamics.tilt import tilted


@pytest.mark.parametrize(
    "scores", [[0.01, 0.02, 0.03, 0.05], [0.2, 0.21, 0.22, 0.25], [0, 0, 0, 1]]
)
@pytest.mark.parametrize("part", [0.05, 0.2, 0.5, 0.8, 0.95])
@pytest.mark.parametrize("weights", [[1, 1, 1, 1], [100, 10, 1, 0.01]])
def test_a_mean_between_scores_is_reached_however_close_they_are(
    scores: list[float], part: float, weights: list[float]
) -> None:
    score = torch.tensor(scores)
    mean = score.min() + (score.max() - score.min()) * part
    shares = tilted(torch.tensor([weights]), score, mean[None])
    found = float((shares * score).sum())
    assert found == pytest.approx(float(mean), abs=1e-3 * float(score.max() - score.min()))


def test_what_has_no_weight_gets_no_share() -> None:
    score = torch.tensor([0.01, 0.02, 0.05, 1.0])
    shares = tilted(torch.tensor([[1.0, 1.0, 1.0, 0.0]]), score, torch.tensor([0.04]))
    assert float(shares[0, 3]) == 0
    assert float((shares * score).sum()) == pytest.approx(0.04, abs=1e-5)


def test_where_no_mean_is_wanted_or_all_scores_are_one_the_shares_stay() -> None:
    weights = torch.tensor([[1.0, 3.0], [1.0, 3.0]])
    usual = torch.tensor([[0.25, 0.75]] * 2, dtype=torch.float64)
    nan = torch.tensor([torch.nan, torch.nan])
    torch.testing.assert_close(tilted(weights, torch.tensor([0.1, 0.9]), nan), usual)
    same = torch.tensor([0.3, 0.3])
    torch.testing.assert_close(tilted(weights, same, torch.tensor([0.3, 0.5])), usual)
