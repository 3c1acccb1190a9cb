"""Bounds hold as often as they say, and many limits together are judged together."""

from __future__ import annotations

import torch

from ogsrl.selection.bounds import Bound, holm, normal_interval

TRUE, PATIENTS, FITS = 0.2, 200, 5


def drawn(
    generator: torch.Generator, people: float = 0.3, seeds: float = 0.02, data: float = 0.0
) -> torch.Tensor:
    """(fits, patients) around TRUE: patients differ, fits differ, and all share what data leave."""
    shared = data * torch.randn((), generator=generator)
    of_fits = seeds * torch.randn(FITS, 1, generator=generator)
    return TRUE + shared + of_fits + people * torch.randn(1, PATIENTS, generator=generator)


def coverage(resampled: bool, data: float) -> float:
    generator = torch.Generator().manual_seed(1)
    held = 0
    for _ in range(2_000):
        values = drawn(generator, data=data)
        if resampled:  # fits spread as cohorts would
            spread = data * torch.randn(FITS, 1, generator=generator)
            values = values + spread
        held += normal_interval(values, 0.95, resampled=resampled).high >= TRUE
    return held / 2_000


def test_bounds_hold_where_fits_differ_by_their_seeds_alone() -> None:
    assert 0.93 < coverage(resampled=False, data=0.0) < 0.97


def test_bounds_of_resampled_fits_hold_what_the_data_leave_open() -> None:
    assert coverage(resampled=False, data=0.05) < 0.85  # seeds do not know of it
    assert coverage(resampled=True, data=0.05) > 0.9


def test_what_seeds_add_to_resampled_fits_is_told_from_what_the_data_leave_open() -> None:
    generator, k, m = torch.Generator().manual_seed(4), 5, 2
    held, errors = 0, []
    for _ in range(2_000):
        shared = 0.02 * torch.randn((), generator=generator)
        fits = 0.02 * torch.randn(k, 1, generator=generator).repeat_interleave(m, 0)
        seeds = 0.04 * torch.randn(k * m, 1, generator=generator)
        people = 0.01 * torch.randn(1, PATIENTS, generator=generator)
        values = TRUE + shared + fits + seeds + people
        bound = normal_interval(values, 0.95, resampled=True, networks=m)
        held += bound.high >= TRUE
        errors.append(bound.se**2)
    assert 0.86 < held / 2_000 < 0.97  # five fits tell their own spread but roughly
    true = 0.02**2 * (1 + 1 / k) + 0.04**2 / (k * m)
    naive = (0.02**2 + 0.04**2 / m) * (1 + 1 / k)  # as if seeds were patients
    mean = sum(errors) / len(errors)
    assert mean < 0.75 * naive
    assert 0.95 * true < mean < 1.4 * true  # it is never taken for less than v / k


def test_one_patient_bounds_nothing() -> None:
    assert normal_interval(torch.full((FITS, 1), 0.1), 0.95).high == torch.inf


def test_few_limits_are_wrongly_kept_among_many_that_are_broken() -> None:
    generator = torch.Generator().manual_seed(2)
    wrong = 0
    for _ in range(1_000):
        tests = {k: (drawn(generator), TRUE - 1e-9) for k in range(8)}  # all just broken
        wrong += any(one.kept for one in holm(tests, 0.95, normal_interval).values())
    assert wrong / 1_000 < 0.07


def test_limits_surely_kept_make_the_next_easier() -> None:
    values = torch.zeros(FITS, PATIENTS)
    values[:, ::2] = 1.0  # mean .5, SE .035
    alone = normal_interval(values, 0.95).high
    among = {"far": (values, 1.0), "near": (values, alone + 1e-6)}
    kept = holm(among, 0.95, normal_interval)
    assert kept["far"].kept
    assert kept["far"].bound.level == 0.975
    assert kept["near"].kept
    assert kept["near"].bound.level == 0.95
    both_near = holm({k: (values, alone + 1e-6) for k in "ab"}, 0.95, normal_interval)
    assert not any(one.kept for one in both_near.values())


def test_another_interval_takes_its_place() -> None:
    def certain(values: torch.Tensor, level: float) -> Bound:
        mean = float(values.mean())
        return Bound(mean, 0.0, mean, mean, level)

    values = torch.rand(FITS, 10, generator=torch.Generator().manual_seed(3))
    limit = float(values.mean()) + 1e-6
    assert not holm({"a": (values, limit)}, 0.95, normal_interval)["a"].kept
    assert holm({"a": (values, limit)}, 0.95, certain)["a"].kept
