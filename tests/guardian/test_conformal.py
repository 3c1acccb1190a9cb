"""The threshold keeps its promise over patients: exactly in a table, and in simulation."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ogsrl.errors import SupportError
from ogsrl.guardian.conformal import (
    REFUSED,
    Threshold,
    conformal_threshold,
    patients_needed,
    shares_above,
)


def test_the_threshold_of_a_hand_made_table() -> None:
    # four patients: shares above .8 are 1/2, 0, 1/4, 0: (.75 + 1) / 5 = .35
    scores = torch.tensor([0.1, 0.9, 0.5, 0.2, 0.3, 0.8, 0.95, 0.7])
    patient = torch.tensor([0, 0, 1, 2, 2, 2, 2, 3])
    cut = partial(conformal_threshold, scores, patient, least=1)
    assert cut(0.35).value == pytest.approx(0.8)
    # above .7 patient 2 has two of four: (1 + 1) / 5 = .4; a hair less does not allow it
    assert cut(0.4).value == pytest.approx(0.7)
    assert cut(0.399).value == pytest.approx(0.8)
    assert cut(0.2).value == pytest.approx(0.95)
    short = cut(0.19)
    assert (short.status, short.value, short.needed) == ("too_few_patients", None, 5)


def test_as_many_patients_as_needed_are_enough_and_one_fewer_is_not() -> None:
    for alpha in (0.01, 0.03, 0.05, 0.1, 0.3):
        needed = patients_needed(alpha)
        one_each = torch.rand(needed, generator=torch.Generator().manual_seed(1))
        assert conformal_threshold(one_each, torch.arange(needed), alpha, least=1).status == "ready"
        fewer = conformal_threshold(one_each[1:], torch.arange(needed - 1), alpha, least=1)
        assert fewer.status == "too_few_patients"


@pytest.mark.parametrize(("patients", "told"), [(9, None), (12, 12)])
def test_fewer_than_ten_patients_make_no_threshold_and_are_not_counted(
    patients: int, told: int | None
) -> None:
    scores = torch.rand(patients, generator=torch.Generator().manual_seed(1))
    for alpha in (0.05, 0.3):  # .3 alone would ask for three patients
        made = conformal_threshold(scores, torch.arange(patients), alpha)
        if made.status == "ready":
            assert patients >= 10
            continue
        assert made.patients == told
        assert (made.value, made.share, made.spread) == (None, 1.0, 0.0)
        assert made.needed == max(10, patients_needed(alpha))


def test_a_fixed_rule_has_no_bound() -> None:
    measured = Threshold(None, 0.5, "ready", 100, 10, 0.05, 0.1)
    with pytest.raises(SupportError, match="promises nothing"):
        measured.prediction_bound(100)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 6)), min_size=30, max_size=120),
    st.sampled_from([0.1, 0.25, 0.5]),
)
def test_it_is_the_smallest_threshold_that_holds(
    steps: list[tuple[int, int]], alpha: float
) -> None:
    patient = torch.tensor([p for p, _ in steps])
    scores = torch.tensor([float(s) for _, s in steps])  # with many ties
    made = conformal_threshold(scores, patient, alpha)
    n = len(torch.unique(patient))

    def holds(value: float) -> bool:
        return float(shares_above(scores, patient, value).sum() + 1) / (n + 1) <= alpha + 1e-9

    if made.value is None:
        assert n < made.needed
        return
    assert holds(made.value)
    lower = [float(s) for s in scores.unique() if s < made.value]
    assert not any(holds(value) for value in lower)


def test_the_mean_share_refused_of_new_patients_is_as_promised() -> None:
    rng, alpha, shares = np.random.default_rng(4), 0.1, []
    for _ in range(400):
        sick = rng.normal(size=120)  # some patients are refused often, others never
        steps = rng.integers(1, 9, 120)
        patient = torch.tensor(np.repeat(np.arange(120), steps))
        scores = torch.tensor(np.repeat(sick, steps) + 0.5 * rng.normal(size=steps.sum()))
        old = patient < 60
        made = conformal_threshold(scores[old], patient[old], alpha)
        shares.append(float(shares_above(scores[~old], patient[~old], made.value).mean()))
    error = np.std(shares) / np.sqrt(len(shares))
    assert np.mean(shares) <= alpha + 2 * error
    assert np.mean(shares) >= alpha - 2 / 61 - 2 * error


def test_a_fresh_sample_beyond_its_bound_is_as_rare_as_said() -> None:
    rng, beyond = np.random.default_rng(5), 0
    for _ in range(1000):
        sick = torch.tensor(rng.normal(size=(700, 1)) + 0.5 * rng.normal(size=(700, 6)))
        patient = torch.arange(700).repeat_interleave(6)
        old = patient < 200
        made = conformal_threshold(sick.flatten()[old], patient[old], 0.1)
        share = shares_above(sick.flatten()[~old], patient[~old], made.value).mean()
        beyond += bool(share > made.prediction_bound(500, 0.95))
    assert beyond < 80  # of 1000, where 50 are expected


def test_steps_that_are_refused_anyhow_count_against_the_promise() -> None:
    patient = torch.arange(100)
    scores = torch.linspace(0, 1, 100)
    scores[:4] = torch.tensor([torch.inf, REFUSED, 2 * REFUSED, torch.inf])
    made = conformal_threshold(scores, patient, 0.1)
    assert made.value is not None
    assert float(shares_above(scores, patient, made.value).mean()) == pytest.approx(0.09, abs=1e-9)
    scores[:12] = torch.inf
    none = conformal_threshold(scores, patient, 0.1)
    assert (none.status, none.value) == ("too_many_refused", None)


def test_an_unreadable_score_is_no_score() -> None:
    with pytest.raises(SupportError, match="1 scores are not a number"):
        conformal_threshold(torch.tensor([0.1, torch.nan]), torch.tensor([0, 1]), 0.5)


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1])
def test_a_promise_is_a_share(alpha: float) -> None:
    with pytest.raises(SupportError, match=r"guardian\.alpha"):
        conformal_threshold(torch.tensor([0.1]), torch.tensor([0]), alpha)
