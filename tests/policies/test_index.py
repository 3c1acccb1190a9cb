"""The nearest pair of another stay, as a tree and as plain arithmetic find it."""

from __future__ import annotations

import pytest
import torch

from ogsrl.errors import ModelError
from ogsrl.policies.index import DatasetIndex

BETA = 0.25


def stays(count: int, length: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Correlated rows: a stay's steps are near to each other, as vitals are."""
    generator = torch.Generator().manual_seed(seed)
    person = torch.randn(count, 1, 6, generator=generator)
    states = (person + 0.2 * torch.randn(count, length, 6, generator=generator)).flatten(0, 1)
    doses = torch.tanh(states[:, :2] + 0.5 * torch.randn(count * length, 2, generator=generator))
    return states, doses, torch.arange(count).repeat_interleave(length)


def brute(
    logged: tuple[torch.Tensor, torch.Tensor, torch.Tensor], rows: torch.Tensor, asked: torch.Tensor
) -> torch.Tensor:
    """Distance of the nearest pair of another stay, by the formula."""
    states, doses, stay = logged
    pairs = torch.cat([BETA * states, doses], 1).double()
    here = torch.cat([BETA * states[rows], asked], 1).double()
    gaps = torch.cdist(here, pairs)
    gaps[stay[rows][:, None] == stay] = torch.inf
    return gaps.min(1).values


@pytest.mark.parametrize("k", [1, 16, 400])
def test_the_answer_is_exact_whatever_is_listed(k: int) -> None:
    states, doses, stay = stays(200, 8, 0)
    index = DatasetIndex.of(states, doses, stay, beta=BETA, k=k)
    generator = torch.Generator().manual_seed(1)
    rows = torch.randint(len(states), (300,), generator=generator)
    asked = 2 * torch.rand(300, 2, generator=generator) - 1
    found = index.of_rows(rows, asked)
    assert torch.allclose(
        found.distance.double(), brute((states, doses, stay), rows, asked), atol=1e-5
    )
    assert bool((stay[found.row] != stay[rows]).all())
    here = torch.cat([BETA * states[rows], asked], 1)
    apart = (index.pairs[found.row] - here).norm(dim=1)
    assert torch.allclose(apart, found.distance, atol=1e-6)


def test_rows_without_a_list_are_answered_too_and_nothing_is_certified_by_another_s_list() -> None:
    states, doses, stay = stays(200, 8, 0)
    listed = torch.arange(0, len(states), 7)
    index = DatasetIndex.of(states, doses, stay, beta=BETA, k=64, listed=listed)
    whole = DatasetIndex.of(states, doses, stay, beta=BETA, k=64)
    rows, asked = torch.arange(len(states)), doses.roll(1, 0)
    found, wanted = index.of_rows(rows, asked), whole.of_rows(rows, asked)
    assert torch.equal(found.row, wanted.row)
    known = torch.isin(rows, listed)
    assert torch.equal(found.certified[known], wanted.certified[known])
    assert not bool(found.certified[~known].any())
    assert bool((stay[found.row] != stay[rows]).all())


def test_a_certificate_is_never_wrong_and_longer_lists_prove_more() -> None:
    states, doses, stay = stays(200, 8, 2)
    rows = torch.arange(len(states))
    asked = doses.roll(1, 0)
    shares = []
    for k in (1, 8, 64):
        index = DatasetIndex.of(states, doses, stay, beta=BETA, k=k)
        found = index.of_rows(rows, asked)
        listed = index.neighbours[rows].long()
        here = torch.cat([BETA * states, asked], 1)
        best = (index.pairs[listed] - here[:, None]).norm(dim=2).min(1).values
        truth = brute((states, doses, stay), rows, asked)
        assert torch.allclose(best[found.certified].double(), truth[found.certified], atol=1e-5)
        shares.append(float(found.certified.float().mean()))
    assert shares[0] < shares[1] < shares[2]


def test_a_models_state_is_asked_of_all_rows() -> None:
    states, doses, stay = stays(100, 5, 3)
    index = DatasetIndex.of(states, doses, stay, beta=BETA, k=8)
    found = index.of_states(states[:50], doses[:50], BETA)
    assert torch.equal(found.row, torch.arange(50))  # no own stay to leave out
    assert float(found.distance.max()) < 1e-6


def test_with_a_heavy_state_the_own_row_would_win() -> None:
    states, doses, stay = stays(200, 8, 4)
    rows, asked = torch.arange(len(states)), doses.roll(3, 0)
    heavy, light = (
        DatasetIndex.of(states, doses, stay, beta=beta, k=64).own_row_share(rows, asked)
        for beta in (10.0, 0.02)
    )
    assert heavy > 0.95
    assert light < 0.2


def test_stays_out_of_order_and_a_single_stay_are_errors() -> None:
    states, doses, stay = stays(3, 4, 5)
    with pytest.raises(ModelError, match="sort by stay and step"):
        DatasetIndex.of(states, doses, stay.flip(0), beta=BETA, k=2)
    with pytest.raises(ModelError, match="one stay alone"):
        DatasetIndex.of(states[:4], doses[:4], stay[:4], beta=BETA, k=2)
