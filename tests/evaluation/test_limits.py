"""Limits are judged in two steps: who costs more than clinicians does not profit by the second."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch

from ogsrl.evaluation.bounds import holm, normal_interval
from ogsrl.evaluation.limits import LimitTest, limit_tests
from ogsrl.spec import Cohort, load_cohort
from ogsrl.spec.model import Constraint
from tests.evaluation.fits import FITS, PATIENTS
from tests.workspace import REPOSITORY

#: What fits miss of a policy that costs more than the clinicians, and of one that does not.
MISS, LOWER = 0.03, 0.01
THEIRS = 0.2
SURELY = partial(normal_interval, resampled=True)


def limits(**limit: Any) -> Cohort:
    ill = Constraint.model_validate({"expression": "x < 1", "limit": limit})
    cohort = load_cohort(REPOSITORY / "data_contracts" / "sepsis.yaml")
    return cohort.model_copy(update={"constraints": {"ill": ill}})


def drawn(mean: float, generator: torch.Generator) -> torch.Tensor:
    """(fits, patients) values that are hardly uncertain by themselves."""
    return mean + 0.01 * torch.randn(FITS, PATIENTS, generator=generator)


def judged(own: torch.Tensor, cohort: Cohort) -> tuple[LimitTest, bool]:
    theirs = torch.full((FITS, PATIENTS), THEIRS)
    ((name, test),) = limit_tests({"cost:ill": own}, {"cost:ill": theirs}, cohort).items()
    asked = {name: (partial(test.bound, SURELY, MISS, LOWER), test.most)}
    return test, holm(asked, 0.95)[name].kept


@pytest.mark.parametrize("asked", [{"relative": 0.9, "margin": 0}, {"relative": 1.0}])
def test_a_policy_that_costs_more_is_kept_as_seldom_as_by_the_large_miss(
    asked: dict[str, float],
) -> None:
    generator = torch.Generator().manual_seed(1)
    cohort, kept, runs = limits(**asked), 0, 2_000
    for _ in range(runs):
        told = THEIRS + 1e-6 + MISS * float(torch.randn((), generator=generator))
        kept += judged(drawn(told, generator), cohort)[1]
    assert kept / runs <= 0.06


def test_a_policy_that_costs_less_but_not_enough_is_kept_seldom() -> None:
    generator = torch.Generator().manual_seed(2)
    cohort, kept, runs = limits(relative=0.5, margin=0), 0, 2_000
    for _ in range(runs):
        told = 0.5 * THEIRS + 1e-6 + LOWER * float(torch.randn((), generator=generator))
        kept += judged(drawn(told, generator), cohort)[1]
    assert 0.03 <= kept / runs <= 0.07, "the second step is at its own level"


def test_the_second_step_shows_what_the_first_alone_would_not() -> None:
    own = drawn(0.14, torch.Generator().manual_seed(3))
    test, kept = judged(own, limits(relative=0.9, margin=0))
    assert kept
    assert test.bound(SURELY, MISS, MISS, 0.95).high > 0, "by the large miss alone it is broken"
    near = drawn(0.16, torch.Generator().manual_seed(3))  # not surely below the clinicians'
    assert not judged(near, limits(relative=0.9, margin=0))[1]


@pytest.mark.parametrize(
    "asked", [{"relative": 1.1}, {"relative": 0.9, "margin": 0.05}, {"absolute": 0.16}]
)
def test_a_limit_that_more_costly_policies_may_keep_is_judged_by_the_large_miss(
    asked: dict[str, float],
) -> None:
    test, _ = judged(drawn(0.13, torch.Generator().manual_seed(4)), limits(**asked))
    level = 0.95
    assert test.bound(SURELY, MISS, 0.0, level) == test.bound(SURELY, MISS, MISS, level)
