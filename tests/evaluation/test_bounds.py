"""Bounds of means over patients and fits hold as often as they say."""

from __future__ import annotations

import torch

from ogsrl.evaluation.bounds import normal_interval
from tests.evaluation.fits import FITS, TRUE, drawn

COHORTS = 2_000


def coverage(*, resampled: bool, data: float) -> float:
    generator = torch.Generator().manual_seed(1)
    held = 0
    for _ in range(COHORTS):
        values = drawn(generator, data=data, resampled=resampled)
        held += normal_interval(values, 0.95, resampled=resampled).high >= TRUE
    return held / COHORTS


def test_bounds_hold_where_fits_differ_by_their_seeds_alone() -> None:
    assert 0.93 < coverage(resampled=False, data=0.0) < 0.97


def test_bounds_of_resampled_fits_hold_what_the_data_leave_open() -> None:
    assert coverage(resampled=False, data=0.05) < 0.85  # seeds do not know of it
    assert coverage(resampled=True, data=0.05) > 0.9


def test_what_seeds_add_to_resampled_fits_is_told_from_what_the_data_leave_open() -> None:
    generator, k, m = torch.Generator().manual_seed(4), FITS, 2
    held, errors = 0, []
    for _ in range(COHORTS):
        values = drawn(generator, people=0.01, seeds=0.04, data=0.02, resampled=True, networks=m)
        bound = normal_interval(values, 0.95, resampled=True, networks=m)
        held += bound.high >= TRUE
        errors.append(bound.se**2)
    assert 0.86 < held / COHORTS < 0.97  # five fits tell their own spread but roughly
    true = 0.02**2 * (1 + 1 / k) + 0.04**2 / (k * m)
    naive = (0.02**2 + 0.04**2 / m) * (1 + 1 / k)  # as if seeds were patients
    mean = sum(errors) / len(errors)
    assert mean < 0.75 * naive
    assert 0.95 * true < mean < 1.4 * true  # it is never taken for less than v / k


def test_one_patient_bounds_nothing() -> None:
    assert normal_interval(torch.full((FITS, 1), 0.1), 0.95).high == torch.inf
