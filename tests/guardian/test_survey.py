"""The first pass: patients weigh one each, the sample is of whole patients and bounded."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from ogsrl.errors import SupportError
from ogsrl.guardian.columns import Layout
from ogsrl.guardian.protocol import Rows
from ogsrl.guardian.ranks import Ranks
from ogsrl.guardian.survey import Survey, identical
from tests.guardian.cohorts import numeric, planted
from tests.harness_guardian import doctor_history, doctor_rows


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def survey(shards: list[Rows], rows: int = 600) -> Survey:
    return Survey.of(shards, Layout.of(doctor_history()), generator(), rows)


def shards(train: Rows, count: int) -> list[Rows]:
    return [train.take(train.patient % count == i) for i in range(count)]


def test_the_sample_is_whole_patients_and_no_more_than_asked() -> None:
    train = doctor_rows(1000, np.random.default_rng(1))
    for count in (1, 7):
        sample = survey(shards(train, count)).sample
        assert 500 < len(sample) <= 600
        assert (torch.bincount(sample.patient) == 6).all()  # each has all of his six steps
        assert torch.isin(sample.states[:, 0], train.states[:, 0]).all()


def test_every_patient_may_be_sampled_whatever_his_shard() -> None:
    train = doctor_rows(1000, np.random.default_rng(1))
    sample = survey(shards(train, 4)).sample
    place = torch.searchsorted(train.states[:, 0].sort().values, sample.states[:, 0].contiguous())
    number = train.patient[train.states[:, 0].argsort()][place]
    per_shard = torch.bincount(torch.unique(number) % 4, minlength=4)
    assert int(per_shard.min()) > 10  # of about 25 each


def test_shards_change_no_mean() -> None:
    train = doctor_rows(300, np.random.default_rng(1))
    whole, parts = survey([train]), survey(shards(train, 5))
    assert whole.patients == parts.patients == 300
    assert whole.rows == parts.rows == 1800
    torch.testing.assert_close(whole.mean, parts.mean)
    torch.testing.assert_close(whole.deviation, parts.deviation)


def test_no_training_row_is_an_error_that_says_so() -> None:
    with pytest.raises(SupportError, match="none"):
        survey([])


def test_a_column_outside_the_cohort_file_is_named() -> None:
    history = numeric(2)
    cohort = history.preparation.cohort
    guardian = cohort.guardian.model_copy(update={"columns": ("x0", "lactate")})
    broken = cohort.model_copy(update={"guardian": guardian})
    object.__setattr__(history.preparation, "cohort", broken)  # the reader refuses it earlier
    with pytest.raises(SupportError, match=r"lactate"):
        Layout.of(history)


def test_more_levels_than_can_be_checked_are_refused() -> None:
    levels = [f"w{i}" for i in range(70)]
    history = planted(
        {"ward": {"kind": "categorical", "levels": levels}}, {"a": {"bounds": [-1, 1]}}
    )
    states = torch.arange(70.0)[:, None]
    train = Rows(states, torch.rand(70, 1, generator=generator()), torch.arange(70))
    with pytest.raises(SupportError, match="ward: more than 64 levels"):
        Survey.of([train], Layout.of(history), generator())


def test_a_rank_rises_with_the_value_also_beyond_all_of_training() -> None:
    values = torch.randn(5000, generator=generator())
    ranks = Ranks.of(values, torch.ones(5000), torch.arange(5000))
    at = torch.linspace(-5, 50, 4000).requires_grad_()
    rank = ranks(at)
    assert (rank.diff() >= 0).all()
    assert (rank[at > values.max()].diff() > 0).all()
    (slope,) = torch.autograd.grad(rank.sum(), at)
    assert (slope[at > values.max()] > 0).all()
    assert torch.isfinite(slope).all()
    share = (values <= 1.0).double().mean()
    assert float(ranks(torch.tensor([1.0]))) == pytest.approx(float(share), abs=0.002)


def test_rows_of_little_weight_move_no_rank() -> None:
    values, weight = torch.cat([torch.zeros(99), torch.full((900,), 9.0)]), torch.ones(999)
    weight[99:] = 1 / 900  # one patient with 900 rows
    patient = torch.arange(999).clip(max=99)
    assert float(Ranks.of(values, weight, patient)(torch.tensor([1.0]))) > 0.98


@pytest.mark.parametrize("patients", [12, 40, 300, 3000])
def test_no_value_of_a_table_is_of_fewer_than_ten_patients(patients: int) -> None:
    values = (2 * torch.randn(patients * 5, generator=generator())).exp().double()  # a heavy tail
    patient = torch.arange(patients).repeat(5)
    ranks = Ranks.of(values, torch.full((len(values),), 0.2), patient)
    *inner, end = ranks.values.tolist()
    assert not torch.isin(ranks.values, values).any()
    assert len(torch.unique(patient[values > inner[-1]])) >= 10
    assert end < values.max()  # the greatest is one patient's
    for low, high in itertools.pairwise(inner):  # half of either group at least
        assert len(torch.unique(patient[(values > low) & (values < high)])) >= 5
    assert (ranks.values.diff() >= 0).all()
    assert (ranks.shares.diff() > 0).all()


def test_one_patient_far_out_moves_the_end_of_a_table_little() -> None:
    values = torch.rand(2000, generator=generator())
    near = Ranks.of(values, torch.ones(2000), torch.arange(2000))
    values[values.argmax()] = 1e9
    far = Ranks.of(values, torch.ones(2000), torch.arange(2000))
    assert torch.equal(far.values[:-1], near.values[:-1])
    assert float(far.values[-1]) < 20  # not a billion


def test_values_that_are_all_the_same_have_the_same_rank_and_others_lie_beyond() -> None:
    ranks = Ranks.of(torch.full((500,), 0.3), torch.ones(500), torch.arange(500))
    at = ranks(torch.tensor([0.3, 0.3, 0.31, 5.0]))
    assert at[0] == at[1] < at[2] < at[3]
    assert torch.isfinite(at).all()


@pytest.mark.parametrize("count", [1, 4, 40])
@pytest.mark.parametrize(("leaving", "constant"), [(0, True), (1, True), (9, True), (10, False)])
def test_a_column_that_fewer_than_ten_patients_leave_is_constant(
    count: int, leaving: int, constant: bool
) -> None:
    train = doctor_rows(200, np.random.default_rng(1))
    train.states[:, 2] = 0.5
    away = torch.arange(leaving) * 6 * 19 + 3  # a row each of patients in many shards
    train.states[away, 2] = torch.linspace(-3, 3, leaving)
    found = survey(shards(train, count))
    assert (found.seen[2].tolist() == [0.5]) is constant
    assert (float(found.deviation[2]) == 0) is constant
    assert found.needed == 0
    assert all(len(found.seen[i]) == 0 for i in (0, 1, 3, 5, 6))  # the others vary


def test_of_few_patients_no_single_ones_value_is_taken_for_the_usual() -> None:
    train = doctor_rows(18, np.random.default_rng(1))
    train.states[:, 2] = torch.where(train.patient < 9, 0.5, train.states[:, 2])
    assert survey([train]).needed == 19  # nine have it and nine do not: nobody can say
    one = doctor_rows(1, np.random.default_rng(1))
    assert survey([one]).patients == 1


def ward_history(levels: int) -> Layout:
    ward = {"kind": "categorical", "levels": [f"w{i}" for i in range(levels)]}
    return Layout.of(planted({"ward": ward}, {"a": {"bounds": [-1, 1]}}))


@pytest.mark.parametrize("shards", [1, 3])
def test_a_level_is_seen_if_ten_patients_had_it(shards: int) -> None:
    ward = torch.tensor([0.0] * 40 + [1.0] * 10 + [2.0] * 9).repeat(7)  # seven rows a patient
    patient = torch.arange(59).repeat(7)
    made = Rows(ward[:, None], torch.rand(len(ward), 1, generator=generator()), patient)
    parts = [made.take(patient % shards == i) for i in range(shards)]
    found = Survey.of(parts, ward_history(3), generator())
    assert found.seen[0].tolist() == [0.0, 1.0]
    assert found.needed == 0


def test_where_no_level_has_ten_patients_more_are_needed() -> None:
    ward = torch.arange(8.0).repeat(9)  # nine patients each
    made = Rows(ward[:, None], torch.rand(72, 1, generator=generator()), torch.arange(72))
    assert Survey.of([made], ward_history(8), generator()).needed == 80


def test_patients_who_differ_in_one_column_are_not_the_same() -> None:
    one = doctor_rows(1, np.random.default_rng(1))
    many = torch.arange(20).repeat_interleave(len(one))
    states, doses = one.states.repeat(20, 1), one.doses.repeat(20, 1)
    layout = Layout.of(doctor_history())
    assert identical([Rows(states, doses, many)], layout)
    assert survey([Rows(states, doses, many)]).identical
    other = states.clone()
    other[-1, 2] += 0.01
    assert not identical([Rows(other, doses, many)], layout)
