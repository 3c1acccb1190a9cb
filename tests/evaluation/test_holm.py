"""Many limits together are judged together."""

from __future__ import annotations

from functools import partial

import torch

from ogsrl.evaluation.bounds import Asked, Bound, holm, normal_interval
from tests.evaluation.fits import FITS, PATIENTS, TRUE, drawn


def asked(values: torch.Tensor) -> Asked:
    return partial(normal_interval, values)


def test_few_limits_are_wrongly_kept_among_many_that_are_broken() -> None:
    generator = torch.Generator().manual_seed(2)
    wrong = 0
    for _ in range(1_000):
        tests = {k: (asked(drawn(generator)), TRUE - 1e-9) for k in range(8)}  # all just broken
        wrong += any(one.kept for one in holm(tests, 0.95).values())
    assert wrong / 1_000 < 0.07


def test_limits_surely_kept_make_the_next_easier() -> None:
    values = torch.zeros(FITS, PATIENTS)
    values[:, ::2] = 1.0  # mean .5, SE .035
    alone = normal_interval(values, 0.95).high
    among = {"far": (asked(values), 1.0), "near": (asked(values), alone + 1e-6)}
    kept = holm(among, 0.95)
    assert kept["far"].kept
    assert kept["far"].bound.level == 0.975
    assert kept["near"].kept
    assert kept["near"].bound.level == 0.95
    both_near = holm({k: (asked(values), alone + 1e-6) for k in "ab"}, 0.95)
    assert not any(one.kept for one in both_near.values())


def test_another_interval_takes_its_place() -> None:
    values = torch.rand(FITS, 10, generator=torch.Generator().manual_seed(3))
    mean = float(values.mean())

    def certain(level: float) -> Bound:
        return Bound(mean, 0.0, mean, mean, level)

    assert not holm({"a": (asked(values), mean + 1e-6)}, 0.95)["a"].kept
    assert holm({"a": (certain, mean + 1e-6)}, 0.95)["a"].kept
