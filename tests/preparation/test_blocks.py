"""Tests of `ogsrl.preparation.blocks`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from ogsrl.preparation.blocks import blocks, side_by_side


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """So many, and as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_parts_are_answered_in_order_however_many_threads_there_are(threads: int) -> None:
    rows = torch.arange(100.0)
    found = side_by_side(lambda block: block[0].square(), blocks(rows, size=7))
    assert torch.equal(torch.cat(found), rows.square())
    assert torch.get_num_threads() == threads


def test_a_slope_passes_and_stays_out_where_none_is_asked(threads: int) -> None:
    x = torch.arange(10.0, requires_grad=True)
    torch.cat(side_by_side(torch.square, x.split(3))).sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, 2 * x.detach())
    with torch.no_grad():
        assert not any(part.requires_grad for part in side_by_side(torch.square, x.split(3)))


def test_parts_within_parts_are_answered_too(threads: int) -> None:
    def rows(part: torch.Tensor) -> torch.Tensor:
        return torch.cat(side_by_side(torch.neg, part.split(2)))

    x = torch.arange(20.0)
    assert torch.equal(torch.cat(side_by_side(rows, x.split(5))), -x)


def test_an_error_of_one_part_is_raised_and_threads_are_as_before(threads: int) -> None:
    def fails(part: torch.Tensor) -> torch.Tensor:
        raise ValueError(f"{len(part)} rows")

    with pytest.raises(ValueError, match="2 rows"):
        side_by_side(fails, torch.zeros(4).split(2))
    assert torch.get_num_threads() == threads
