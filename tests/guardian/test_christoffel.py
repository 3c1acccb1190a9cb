"""The default guardian: polynomials of known moments, planted patients, what must be refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch

from ogsrl.errors import SupportError
from ogsrl.guardian.christoffel import ChristoffelGuardian
from ogsrl.guardian.columns import Layout
from ogsrl.guardian.config import GuardianParams
from ogsrl.guardian.conformal import REFUSED
from ogsrl.guardian.moments import RIDGE, Basis, Moments, Polynomial
from ogsrl.guardian.protocol import Rows
from ogsrl.guardian.shortage import Shortage
from tests.guardian.cohorts import numeric, planted, rows
from tests.harness_guardian import (
    GuardianHarness,
    calibrated,
    doctor_history,
    doctor_rows,
)

RNG = np.random.default_rng(23)


class TestChristoffel(GuardianHarness):
    kind = "christoffel"


class TestChristoffelOfDegreeTwo(GuardianHarness):
    kind = "christoffel"
    params: ClassVar[GuardianParams] = GuardianParams(degree=2)


def wave(states: torch.Tensor) -> torch.Tensor:
    """Doses that no polynomial of degree 3 in the state comes near."""
    return 0.7 * torch.stack([(4 * states[:, 0]).sin(), (4 * states[:, 1]).cos()], dim=1)


def wave_rows(patients: int, seed: int) -> Rows:
    made = doctor_rows(patients, np.random.default_rng(seed))
    noise = torch.randn(made.doses.shape, generator=generator())
    return replace(made, doses=(wave(made.states) + 0.1 * noise).clip(-1, 1))


class WaveDensity:
    """The density of those doses in closed form."""

    def __init__(self, shift: float = 0.0) -> None:
        self.shift = shift

    def log_prob(self, states: torch.Tensor, doses: torch.Tensor) -> torch.Tensor:
        return -((doses - wave(states) - self.shift) / 0.1).square().sum(dim=1) / 2


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(5)


def basis(degree: int, columns: int, states: int) -> Basis:
    return Basis(degree, states, torch.zeros(columns), torch.ones(columns))


def fit(train: Rows, history, density=None, **params) -> ChristoffelGuardian:  # type: ignore[no-untyped-def] # a test's shorthand
    layout = Layout.of(history)
    asked = GuardianParams(**{"usual": None, **params})
    return ChristoffelGuardian.fit([train], layout, asked, generator(), density)


def test_degree_one_is_mahalanobis_distance_plus_one() -> None:
    z = RNG.multivariate_normal([1.0, -2.0], [[2.0, 0.8], [0.8, 1.0]], size=500)
    e = basis(1, 2, 1)
    made = Moments.of(e, torch.tensor(z), torch.ones(500))
    q = Polynomial(e, made.inverse_factor(0.0))(torch.tensor(z))[1].numpy()
    gap = z - z.mean(axis=0)
    wanted = 1 + np.einsum("ij,jk,ik->i", gap, np.linalg.inv(np.cov(z.T, bias=True)), gap)
    np.testing.assert_allclose(q, wanted, rtol=1e-9)


def test_degree_two_of_a_normal_is_the_hermite_sum() -> None:
    x = torch.tensor(np.random.default_rng(0).normal(size=(400_000, 1)))
    e = basis(2, 1, 1)
    q = Polynomial(e, Moments.of(e, x, torch.ones(len(x))).inverse_factor(0.0))
    at = torch.tensor([[0.0], [1.0], [3.0]], dtype=torch.float64)
    wanted = 1 + at**2 + (at**2 - 1) ** 2 / 2  # sum of squared orthonormal Hermite polynomials
    torch.testing.assert_close(q(at)[1], wanted[:, 0], rtol=0.03, atol=0.03)


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_the_mean_over_training_patients_is_the_number_of_monomials(degree: int) -> None:
    train = doctor_rows(300, np.random.default_rng(degree))
    x = torch.cat([train.states[:, :4], train.doses], dim=1)
    e = basis(degree, 6, 4)
    weight = torch.full((len(x),), 0.25)
    q = Polynomial(e, Moments.of(e, x, weight).inverse_factor())
    of_states, of_pairs = q(x.double())
    assert float(of_pairs.mean()) == pytest.approx(len(e), rel=1e-3)
    assert float(of_states.mean()) == pytest.approx(e.state_size, rel=1e-3)
    assert (of_pairs >= of_states).all()


def test_moments_of_parts_add_in_any_order() -> None:
    x, weight = torch.tensor(RNG.normal(size=(3000, 4))), torch.tensor(RNG.uniform(size=3000))
    e = basis(2, 4, 2)
    whole = Moments.of(e, x, weight).mean
    pieces = [Moments.of(e, a, w) for a, w in zip(x.split(700), weight.split(700), strict=True)]
    for order in (pieces, pieces[::-1]):
        total = Moments.nothing(e)
        for piece in order:
            total += piece
        torch.testing.assert_close(total.mean, whole, rtol=1e-12, atol=1e-12)


def test_a_patient_of_many_rows_weighs_as_one_of_few() -> None:
    history = numeric(1)
    states = np.r_[RNG.normal(size=200), np.repeat(5.0, 200)][:, None]
    many = rows(states, RNG.uniform(-1, 1, (400, 1)))
    number = torch.cat([torch.arange(200), torch.full((200,), 200)])  # the last has 200 rows
    basis_ = fit(replace(many, patient=number), history, degree=1).asked.polynomial.basis
    assert float(basis_.center[0]) == pytest.approx((states[:200].sum() + 5) / 201, abs=1e-5)


def test_shards_in_any_number_give_the_same_region() -> None:
    history, train = doctor_history(), doctor_rows(800, np.random.default_rng(1))
    layout, params = Layout.of(history), GuardianParams(degree=2)
    parts = [train.take((train.patient % 4) == i) for i in range(4)]
    whole = ChristoffelGuardian.fit([train], layout, params, generator()).asked.polynomial
    summed = ChristoffelGuardian.fit(parts, layout, params, generator()).asked.polynomial
    torch.testing.assert_close(whole.factor, summed.factor, rtol=1e-6, atol=1e-8)


def test_a_generator_of_shards_is_refused_since_a_fit_reads_twice() -> None:
    train = doctor_rows(200, np.random.default_rng(1))
    layout = Layout.of(doctor_history())
    with pytest.raises(SupportError, match="only once"):
        ChristoffelGuardian.fit(iter([train]), layout, GuardianParams(), generator())


def test_single_precision_decides_as_double_does() -> None:
    train, fresh = (doctor_rows(n, np.random.default_rng(n)) for n in (1500, 3000))
    guardian = calibrated(fit(train, doctor_history(), degree=3), fresh)
    single = guardian.supported(fresh.states, fresh.doses)
    double = guardian.supported(fresh.states.double(), fresh.doses.double())
    assert float((single != double).double().mean()) < 0.001


def test_ten_times_the_ridge_changes_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    train, fresh = (doctor_rows(n, np.random.default_rng(n)) for n in (1500, 3000))
    verdicts = []
    for ridge in (RIDGE, 10 * RIDGE):
        guardian = fit(train, doctor_history(), degree=2)
        moments = _moments(guardian, train)
        polynomial = replace(guardian.asked.polynomial, factor=moments.inverse_factor(ridge))
        moved = replace(guardian, asked=replace(guardian.asked, polynomial=polynomial))
        moved = calibrated(moved, fresh)
        verdicts.append(moved.supported(fresh.states, fresh.doses))
    assert float((verdicts[0] != verdicts[1]).double().mean()) < 0.001


def _moments(guardian: ChristoffelGuardian, train: Rows) -> Moments:
    e = guardian.asked.polynomial.basis
    x = guardian.scaled(train.states, train.doses)
    return Moments.of(e, x, torch.ones(len(x)))


def test_a_dose_never_given_is_refused() -> None:
    train, other = (doctor_rows(n, np.random.default_rng(n)) for n in (800, 400))
    train.doses[:, 1] = other.doses[:, 1] = -1.0  # no pressor at all
    guardian = calibrated(fit(train, doctor_history()), other)
    assert guardian.supported(other.states, other.doses).double().mean() > 0.8
    given = other.doses.clone()
    given[:, 1] = -0.98
    assert not guardian.supported(other.states, given).any()
    assert set(guardian.rules(other.states, given)) == {"never_seen"}


def test_the_way_back_from_a_dose_never_given_is_known() -> None:
    train = doctor_rows(800, np.random.default_rng(1))
    train.doses[:, 1] = -1.0
    doses = train.doses.clone()
    doses[:, 1] = 0.3
    doses.requires_grad_()
    score = fit(train, doctor_history()).score(train.states, doses)
    (slope,) = torch.autograd.grad(score.sum(), doses)
    assert torch.isfinite(score).all()
    assert (score >= REFUSED).all()
    assert (slope[:, 1] > 0).all()


def test_doses_never_given_together_are_refused() -> None:
    train, other = (doctor_rows(n, np.random.default_rng(n)) for n in (2000, 600))
    for part in (train, other):  # either dose, never both
        first = torch.rand(len(part), generator=generator()) < 0.5
        part.doses[:, 0] = torch.where(first, torch.rand(len(part), generator=generator()), -1.0)
        part.doses[:, 1] = torch.where(first, -1.0, torch.rand(len(part), generator=generator()))
    guardian = calibrated(fit(train, doctor_history(), degree=2), other)
    assert guardian.supported(other.states, other.doses).double().mean() > 0.8
    both = torch.full_like(other.doses, 0.6)
    assert guardian.supported(other.states, both).double().mean() < 0.02


def test_a_level_never_seen_is_refused() -> None:
    history = planted(
        {"x": {"plausible": [-9, 9]}, "ward": {"kind": "categorical", "levels": ["a", "b", "c"]}},
        {"level": {"kind": "ordinal", "levels": ["none", "low", "high"]}},
    )
    ward = RNG.choice([0.0, 2.0], 3000)
    level = RNG.choice([-1.0, 0.0], 3000)[:, None]
    train = rows(np.column_stack([RNG.normal(size=3000), ward]), level, 500)
    guardian = calibrated(fit(train, history), train)
    assert guardian.supported(train.states, train.doses).double().mean() > 0.85
    unseen = train.states.clone()
    unseen[:, 1] = 1.0
    assert not guardian.supported(unseen, train.doses).any()
    assert not guardian.supported(train.states, torch.ones_like(train.doses)).any()


@pytest.mark.parametrize(("given_to", "constant"), [(1, True), (9, True), (10, False)])
def test_a_dose_given_to_fewer_than_ten_patients_is_as_one_never_given(
    given_to: int, constant: bool, tmp_path: Path
) -> None:
    train, other = (doctor_rows(n, np.random.default_rng(n)) for n in (800, 400))
    train.doses[:, 1] = other.doses[:, 1] = -1.0
    none = fit(train, doctor_history(), degree=2)
    train.doses[7 : 7 + 6 * given_to : 6, 1] = 0.31415  # once each
    guardian = calibrated(fit(train, doctor_history(), degree=2), other)
    assert len(guardian.asked.polynomial.basis.center) == 7 - constant
    if not constant:
        return
    assert guardian.supported(other.states, other.doses).double().mean() > 0.8
    for dose in (0.31415, -0.9):
        given = other.doses.clone()
        given[:, 1] = dose
        assert set(guardian.rules(other.states, given)) == {"never_seen"}
    none.save(tmp_path / "none")
    fit(train, doctor_history(), degree=2).save(tmp_path / "few")
    for file in (tmp_path / "none").iterdir():  # nothing saved tells that dose, or that it was
        assert file.read_bytes() == (tmp_path / "few" / file.name).read_bytes()


def test_constant_columns_must_be_as_they_were() -> None:
    train, other = (doctor_rows(n, np.random.default_rng(n)) for n in (800, 400))
    for part in (train, other):
        part.states[:, 2] = 0.7
        part.states[:, 4] = 1.0
    guardian = calibrated(fit(train, doctor_history()), other)
    assert guardian.supported(other.states, other.doses).double().mean() > 0.8
    other.states[:, 2] = 0.8
    assert not guardian.supported(other.states, other.doses).any()


def test_a_column_twice_is_no_obstacle() -> None:
    train, other = (doctor_rows(n, np.random.default_rng(n)) for n in (800, 400))
    for part in (train, other):
        part.states[:, 3] = part.states[:, 0]
    guardian = calibrated(fit(train, doctor_history(), degree=2), other)
    assert 0.8 < guardian.supported(other.states, other.doses).double().mean() < 0.97
    other.states[:, 3] += 0.5  # they never differed
    assert not guardian.supported(other.states, other.doses).any()


def test_too_few_training_patients_refuse_everything_and_say_how_many_are_needed() -> None:
    train, other = (doctor_rows(n, np.random.default_rng(n)) for n in (40, 400))
    guardian = calibrated(fit(train, doctor_history()), other)
    assert guardian.status == "too_few_patients"
    assert guardian.needed == 80  # ten a monomial: 1, five columns, two doses
    assert not guardian.supported(other.states, other.doses).any()
    enough = fit(doctor_rows(80, np.random.default_rng(1)), doctor_history())
    assert enough.status == "uncalibrated"
    assert enough.choice.degree == 1  # 36 monomials of degree 2 ask for 350 patients


def test_a_guardian_of_too_few_patients_is_read_back_as_such_and_holds_nothing_of_them(
    tmp_path: Path,
) -> None:
    train = [doctor_rows(n, np.random.default_rng(1)) for n in (3, 7)]
    train[0].states[:, 2] = 0.7  # a column that is the same for all three
    for name, part in zip("ab", train, strict=True):
        fit(part, doctor_history()).save(tmp_path / name)
    again = ChristoffelGuardian.load(tmp_path / "a", doctor_history())
    assert again.status == "too_few_patients"
    assert again.lacking == Shortage("training", 80)
    files = [{f.name: f.read_bytes() for f in (tmp_path / name).iterdir()} for name in "ab"]
    assert files[0] == files[1]  # whoever they were, and however many


def test_a_level_of_nine_patients_is_as_one_never_seen(tmp_path: Path) -> None:
    history = planted(
        {"x": {"plausible": [-9, 9]}, "ward": {"kind": "categorical", "levels": ["a", "b", "c"]}},
        {"level": {"kind": "ordinal", "levels": ["none", "low", "high"]}},
    )
    ward, level = np.repeat([0.0, 1.0, 2.0], [300, 191, 9]), RNG.choice([-1.0, 0.0], (500, 1))
    level[:9] = 1.0
    train = rows(np.column_stack([RNG.normal(size=500), ward]), level)
    guardian = calibrated(fit(train, history), train)
    supported = guardian.supported(train.states, train.doses)
    assert not supported[:9].any()
    assert not supported[-9:].any()
    assert supported[9:-9].double().mean() > 0.85
    guardian.save(tmp_path / "g")
    saved = ChristoffelGuardian.load(tmp_path / "g", history)
    assert [values.tolist() for values in saved.seen_values().values()] == [[0, 1], [-1, 0]]
    assert len(saved.asked.polynomial.basis.center) == 3  # x, b, low: nothing of the nine


def test_where_every_level_is_rare_everything_is_refused() -> None:
    history = planted(
        {"ward": {"kind": "categorical", "levels": [f"w{i}" for i in range(20)]}},
        {"dose": {"bounds": [-1, 1]}},
    )
    made = rows(np.arange(100.0)[:, None] % 20, RNG.uniform(-1, 1, (100, 1)))
    guardian = fit(made, history)
    assert guardian.lacking == Shortage("training", 200)
    assert not guardian.supported(made.states, made.doses).any()


def test_training_rows_that_are_no_number_are_named_and_counted() -> None:
    train = doctor_rows(200, np.random.default_rng(1))
    train.states[3:5, 1] = torch.nan
    with pytest.raises(SupportError, match=r"x1 \(2\)"):
        fit(train, doctor_history())


def test_the_clinicians_density_is_asked_where_it_tells_more() -> None:
    train, other = wave_rows(1500, 1), wave_rows(800, 2)
    guardian = fit(train, doctor_history(), WaveDensity())
    assert guardian.choice.usual == "density"
    plain = fit(train, doctor_history())
    refused = [
        1 - calibrated(g, other).supported(other.states, -other.doses).double().mean()
        for g in (guardian, plain)
    ]
    assert refused[0] > refused[1] + 0.2


def test_a_density_that_knows_nothing_is_not_asked() -> None:
    class Blind:
        def log_prob(self, states: torch.Tensor, doses: torch.Tensor) -> torch.Tensor:
            return states[:, 5]  # a column of noise

    train = doctor_rows(800, np.random.default_rng(1))
    assert fit(train, doctor_history(), Blind()).choice.usual == "ratio"


def test_another_clinicians_density_is_found_out(tmp_path: Path) -> None:
    guardian = fit(wave_rows(1500, 1), doctor_history(), WaveDensity())
    guardian.save(tmp_path / "g")
    history = doctor_history()
    again = ChristoffelGuardian.load(tmp_path / "g", history, WaveDensity())
    assert again.choice == guardian.choice
    with pytest.raises(SupportError, match="none"):
        ChristoffelGuardian.load(tmp_path / "g", history)
    with pytest.raises(SupportError, match="another"):
        ChristoffelGuardian.load(tmp_path / "g", history, WaveDensity(0.5))


def test_no_row_of_a_patient_is_saved(tmp_path: Path) -> None:
    train = doctor_rows(800, np.random.default_rng(1))
    fit(train, doctor_history()).save(tmp_path / "g")
    from safetensors.torch import load_file  # noqa: PLC0415 - this test alone

    x = torch.cat([train.states[:, :5], train.doses], dim=1)
    centers = load_file(tmp_path / "g" / "weights.safetensors")["cell_centers"]
    guardian = ChristoffelGuardian.load(tmp_path / "g", doctor_history())
    basis_ = guardian.asked.polynomial.basis
    back = centers * basis_.scale.float() + basis_.center.float()
    assert float(torch.cdist(back, x).min()) > 1e-4
    assert int(guardian.cells.patients.min()) >= 10
    answers = guardian.asked.of_rows(train, guardian.layout)
    for name, table in guardian.tables.items():
        gaps = (table.values[:, None] - answers[name].double()).abs()
        assert not (gaps <= 1e-9 * table.values[:, None].abs()).any(), name
        beyond = answers[name].double() > table.values[-2]
        assert len(torch.unique(train.patient[beyond])) >= 10, name
        assert table.values[-1] != answers[name].max()
