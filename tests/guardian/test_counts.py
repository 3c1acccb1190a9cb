"""A pair is supported if enough stays had it; nothing else counts."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ogsrl.errors import SupportError
from ogsrl.guardian.config import GuardianParams
from ogsrl.guardian.counts import Counts
from ogsrl.guardian.protocol import Rows
from ogsrl.preparation.history import History
from tests.guardian.cohorts import layout, numeric, planted
from tests.harness_guardian import ALPHA, STEPS, GuardianHarness, Made

HISTORY = planted(
    {"ward": {"kind": "categorical", "levels": ["a", "b", "c", "d"]}},
    {
        "drug": {"kind": "ordinal", "levels": ["none", "low", "high"]},
        "fluid": {"kind": "ordinal", "levels": ["none", "some"]},
    },
)
DRUG, FLUID = HISTORY.preparation.doses.values()


class TestCounts(GuardianHarness):
    kind = "counts"
    smooth = False

    @classmethod
    def history(cls) -> History:
        return HISTORY

    @classmethod
    def draw(cls, patients: int, rng: np.random.Generator) -> Rows:
        """The wards a, b and c, each with its usual dose and now and then another."""
        ward = np.repeat(rng.integers(0, 3, patients), STEPS)
        rare = rng.random(len(ward)) < 0.06
        drug = np.where(rare, rng.choice([0, 1, 2], len(ward), p=[0.9, 0.08, 0.02]), ward)
        stay = np.arange(len(ward)) // STEPS
        return pairs(ward.tolist(), drug.tolist(), (ward == 2).astype(int).tolist(), stay.tolist())

    def test_new_patients_are_refused_as_often_as_promised_and_no_more(self, made: Made) -> None:
        share = 1 - made.guardian.supported(made.fresh.states, made.fresh.doses).double().mean()
        measured = made.guardian.threshold
        assert measured is not None
        assert measured.share == pytest.approx(float(share), abs=0.01)  # no promise, but the truth
        assert measured.alpha is None
        assert made.guardian.alpha is None
        assert 0 < share < ALPHA

    def test_a_stricter_promise_refuses_less(self, made: Made) -> None:
        guardian = made.fitted
        part = made.calibration
        values = {
            guardian.calibrate(part.states, part.doses, part.patient, alpha).threshold.value  # type: ignore[union-attr]
            for alpha in (0.02, 0.3)
        }
        assert len(values) == 1  # the rule is the count, whatever is promised


def pairs(level: list[int], drug: list[int], fluid: list[int], stay: list[int]) -> Rows:
    doses = [DRUG.forward(np.array(drug, float)), FLUID.forward(np.array(fluid, float))]
    number = torch.tensor(stay)
    states = torch.tensor(level, dtype=torch.float32)[:, None]
    return Rows(states, torch.tensor(np.stack(doses, axis=1)), number, number)


def fitted(seen: Rows, least: int = 10, reach: int = 0, own: int = 10) -> Counts:
    generator = torch.Generator().manual_seed(0)
    params = GuardianParams(min_stays=least, reach=reach, own=own)
    return Counts.fit([seen], layout(HISTORY), params, generator)


def seen(stays: int, repeats: int = 1) -> Rows:
    """`stays` stays of pair (0, low, none); many of every other level and dose."""
    level, drug, fluid, stay = [], [], [], []
    for i in range(stays):
        for _ in range(repeats):
            level.append(0), drug.append(1), fluid.append(0), stay.append(i)
    for i in range(40):
        level.append(1 + i % 2), drug.append(i % 3), fluid.append(i % 2), stay.append(1000 + i)
    return pairs(level, drug, fluid, stay)


def calibrated(guardian: Counts) -> Counts:
    clinic = pairs([0] * 40, [1] * 40, [0] * 40, list(range(40)))
    return guardian.calibrate(clinic.states, clinic.doses, clinic.patient, 0.05)


@pytest.mark.parametrize(("stays", "supported"), [(9, False), (10, True), (11, True)])
def test_ten_stays_make_a_pair_supported_and_nine_do_not(stays: int, supported: bool) -> None:
    ask = pairs([0], [1], [0], [0])
    guardian = calibrated(fitted(seen(stays)))
    assert guardian.supported(ask.states, ask.doses).tolist() == [supported]


def test_many_steps_of_few_stays_are_few() -> None:
    ask = pairs([0], [1], [0], [0])
    guardian = calibrated(fitted(seen(9, repeats=50)))
    assert not guardian.supported(ask.states, ask.doses).any()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 90), min_size=3, max_size=3, unique=True))
def test_the_score_falls_as_the_count_rises(counts: list[int]) -> None:
    level, stay = [], []
    for place, count in enumerate(counts):
        level += [place] * count
        stay += range(100 * place, 100 * place + count)
    level, stay = [*level, *[3] * 20], [*stay, *range(900, 920)]
    made = pairs(level, [1] * len(level), [0] * len(level), stay)
    guardian = fitted(made)
    ask = pairs([0, 1, 2], [1] * 3, [0] * 3, [0] * 3)
    scores = guardian.score(ask.states, ask.doses)
    known = [i for i in range(3) if counts[i] >= 10]
    order = sorted(known, key=lambda i: counts[i])
    assert all(scores[a] > scores[b] for a, b in itertools.pairwise(order))


@pytest.mark.parametrize(("people", "supported"), [(1, False), (9, False), (10, True)])
def test_twenty_stays_are_support_only_if_ten_patients_had_them(
    people: int, supported: bool
) -> None:
    made = seen(20)
    number = torch.where(made.patient < 1000, made.patient % people, made.patient)
    guardian = calibrated(fitted(replace(made, patient=number)))
    ask = pairs([0], [1], [0], [0])
    assert guardian.supported(ask.states, ask.doses).tolist() == [supported]
    assert float(guardian.counts[0].sum()) == (20 if supported else 0)


def test_patients_of_two_shards_add_up() -> None:
    made = seen(10)
    halves = [made.take(made.patient % 2 == i) for i in range(2)]
    generator = torch.Generator().manual_seed(0)
    found = Counts.fit(halves, layout(HISTORY), GuardianParams(), generator)
    assert torch.equal(found.counts, fitted(made).counts)
    assert float(found.counts[0].sum()) == 10


def test_support_of_fewer_than_ten_stays_cannot_be_asked_for() -> None:
    with pytest.raises(ValidationError):
        GuardianParams(min_stays=9)


def test_a_level_or_a_dose_of_one_patient_leaves_no_trace(tmp_path: Path) -> None:
    common = pairs([0, 1] * 60, [0, 1] * 60, [0] * 120, list(range(120)))
    rare = pairs([3] * 12, [2] * 12, [1] * 12, list(range(500, 512)))  # twelve stays of his
    both = [(getattr(common, n), getattr(rare, n)) for n in ("states", "doses", "stay")]
    states, doses, stay = (torch.cat(pair) for pair in both)
    number = torch.cat([common.patient, torch.full((12,), 500)])
    guardians = {"without": fitted(common), "with": fitted(Rows(states, doses, number, stay))}
    for name, guardian in guardians.items():
        calibrated(guardian).save(tmp_path / name)
    for file in (tmp_path / "without").iterdir():
        assert file.read_bytes() == (tmp_path / "with" / file.name).read_bytes()
    guardian = calibrated(guardians["with"])
    assert not guardian.supported(rare.states, rare.doses).any()
    assert set(guardian.rules(rare.states, rare.doses)) == {"never_seen"}
    unusual = pairs([0], [1], [0], [0])  # both are known, but not together
    assert guardian.rules(unusual.states, unusual.doses) == ["count"]


def test_a_training_dose_outside_the_cohort_file_is_counted_and_not_shown() -> None:
    made = seen(20)
    made.doses[:3, 0] = 0.4
    with pytest.raises(SupportError, match="3 decisions"):
        fitted(made)


def test_a_level_or_a_dose_never_seen_is_refused() -> None:
    guardian = calibrated(fitted(seen(20)))
    ask = pairs([3, 0, 0], [1, 1, 2], [0, 1, 0], [0, 0, 0])
    between = Rows(ask.states[:1], torch.tensor([[0.4, -1.0]]), ask.patient[:1], ask.stay)
    broken = torch.tensor([[float("nan")]])
    assert not guardian.supported(ask.states, ask.doses).any()
    assert not guardian.supported(between.states, between.doses).any()
    assert not guardian.supported(broken, ask.doses[:1]).any()


def test_what_calibration_patients_are_refused_is_measured_and_changes_no_rule() -> None:
    clinic = pairs([0] * 20 + [3] * 20, [1] * 40, [0] * 40, list(range(40)))
    guardian = fitted(seen(20))
    strict = guardian.calibrate(clinic.states, clinic.doses, clinic.patient, 0.05)
    assert strict.threshold is not None
    assert strict.threshold.share == 0.5  # above alpha, and said so
    assert strict.supported(*(pairs([0], [1], [0], [0]).states, pairs([0], [1], [0], [0]).doses))


def test_no_count_of_fewer_stays_than_support_needs_is_kept(tmp_path: Path) -> None:
    guardian = calibrated(fitted(seen(9)))
    assert not ((guardian.counts > 0) & (guardian.counts < 10)).any()
    assert not Counts.holds_rows
    guardian.save(tmp_path / "counts")
    again = Counts.load(tmp_path / "counts", HISTORY)
    ask = seen(9)
    assert torch.equal(again.score(ask.states, ask.doses), guardian.score(ask.states, ask.doses))
    assert again.threshold == guardian.threshold


def test_counting_needs_one_categorical_column() -> None:
    states, doses = torch.zeros(30, 2), torch.zeros(30, 1)
    made = Rows(states, doses, torch.arange(30), torch.arange(30))
    with pytest.raises(SupportError, match="exactly one categorical"):
        Counts.fit([made], layout(numeric(2)), GuardianParams(), torch.Generator())


def test_a_continuous_dose_is_not_counted_since_its_values_are_patients_own() -> None:
    ward = {"ward": {"kind": "categorical", "levels": ["a", "b"]}}
    history = planted(ward, {"fluid": {"bounds": [-1, 1]}})
    states, doses = torch.arange(30.0)[:, None] % 2, torch.linspace(-1, 1, 30)[:, None]
    made = Rows(states, doses, torch.arange(30), torch.arange(30))
    with pytest.raises(SupportError, match="ordinal doses"):
        Counts.fit([made], layout(history), GuardianParams(), torch.Generator())


@pytest.mark.parametrize("reach", [0, 1, 2])
def test_with_a_reach_patients_given_a_dose_so_near_are_counted_each_once(reach: int) -> None:
    rng = np.random.default_rng(reach)
    level, drug = rng.integers(0, 2, 300), rng.integers(0, 3, 300)
    fluid, patient = rng.integers(0, 2, 300), rng.integers(0, 40, 300)
    seen = pairs(level.tolist(), drug.tolist(), fluid.tolist(), patient.tolist())
    counts = fitted(seen, 10, reach, own=8).counts.reshape(4, 3, 2)
    for s, a, b in itertools.product(range(4), range(3), range(2)):
        apart = abs(drug - a) + abs(fluid - b)
        people, own = (len(set(patient[(level == s) & (apart <= far)])) for far in (reach, 0))
        told = people // 10 * 10 if reach else people
        assert counts[s, a, b] == (told if people >= 10 and own >= 8 else 0)


def test_a_dose_near_enough_to_those_of_ten_is_supported_if_anybody_was_given_it(
    tmp_path: Path,
) -> None:
    given = pairs([0] * 26, [0] * 12 + [2] * 12 + [1, 1], [0] * 25 + [1], list(range(26)))
    near = pairs([0, 0, 1], [1, 1, 1], [0, 1, 0], [0, 1, 2])
    never = pairs([0, 0], [0, 2], [1, 1], [0, 1])  # beside many, and nobody's
    for reach, supported in ((0, [0, 0, 0]), (1, [1, 0, 0]), (2, [1, 1, 0])):
        guardian = fitted(given, 10, reach, own=1)
        guardian = guardian.calibrate(given.states, given.doses, given.patient, 0.05)
        assert not guardian.supported(never.states, never.doses).any()
        two = fitted(given, 10, reach, own=2)
        assert (
            not two.calibrate(given.states, given.doses, given.patient, 0.05)
            .supported(near.states, near.doses)
            .any()
        )
        assert guardian.supported(near.states, near.doses).int().tolist() == supported
        guardian.save(tmp_path / str(reach))
        again = Counts.load(tmp_path / str(reach), HISTORY)
        assert again.reach == reach
        assert torch.equal(again.counts, guardian.counts)
