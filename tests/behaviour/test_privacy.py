"""What is saved rests on ten patients or more: nine leave no trace in grids and tables."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import settings as trials
from hypothesis import strategies as st

from ogsrl.behaviour.baselines import fit_marginal
from ogsrl.behaviour.boosted import BoostedBehaviour, fit_boosted
from ogsrl.behaviour.config import BoostedParams
from ogsrl.behaviour.crowds import centres, crowds, means
from ogsrl.behaviour.decisions import Decisions, Inputs
from ogsrl.behaviour.doses import MAXIMUM, DoseGrid
from ogsrl.behaviour.fitting import fit
from ogsrl.behaviour.policy import Behaviour
from ogsrl.errors import ModelError
from ogsrl.preparation import DoseTransform
from ogsrl.spec import Action
from tests.behaviour import planted
from tests.behaviour.conftest import Planted, params

SCALING = DoseTransform("fluid", "sqrt", 0.0, 400.0)


def grid(clinical: np.ndarray, patient: np.ndarray, least: float = 20.0) -> DoseGrid:
    """Of doses in clinical units."""
    action = Action(unit="mL", bounds=(0, 400), min_dose=least, transform="sqrt")
    doses = torch.from_numpy(SCALING.forward(clinical)).float()
    return DoseGrid.of(action, SCALING, doses, torch.from_numpy(patient), 16)


def drawn(patients: int, each: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Doses no two of which are alike, and whose they are."""
    rng = np.random.default_rng(seed)
    return rng.uniform(60, 200, patients * each), np.repeat(np.arange(patients), each)


@trials(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    size=st.integers(1, 300),
    people=st.integers(1, 40),
    levels=st.integers(1, 60),
    count=st.integers(1, 20),
)
def test_a_crowd_is_ten_patients_and_parts_no_equal_values(
    seed: int, size: int, people: int, levels: int, count: int
) -> None:
    rng = np.random.default_rng(seed)
    patient, values = rng.integers(0, people, size), rng.integers(0, levels, size) / 2
    crowd = crowds(values, patient, np.arange(1, count) / count)
    if len(np.unique(patient)) < 10:
        assert set(crowd) == {-1}
        return
    assert set(crowd) == set(range(crowd.max() + 1))
    assert crowd.max() < count
    spans = []
    for one in range(crowd.max() + 1):
        assert len(np.unique(patient[crowd == one])) >= 10
        spans += [values[crowd == one].min(), values[crowd == one].max()]
    assert spans == sorted(spans)
    assert all(a < b for a, b in zip(spans[1::2], spans[2::2], strict=False))
    for of in (means, centres):
        assert (np.diff(of(values, patient, crowd)) > 0).all()


def test_one_patient_with_many_values_has_one_vote() -> None:
    values, patient = np.array([9.0] * 90 + [1.0] * 9), np.array([0] * 90 + [*range(1, 10)])
    assert means(values, patient, np.zeros(99, int)).tolist() == pytest.approx([1.8])


def test_the_least_and_largest_dose_are_no_knots() -> None:
    doses, patient = drawn(150, 4)
    doses[:3], doses[-3:] = 21.7, 391.3
    found = grid(doses, patient)
    knots = np.exp(found.knots)
    assert np.abs(knots[1:-1, None] / np.array([21.7, 391.3]) - 1).min() > 0.05
    assert knots[[0, -1]].tolist() == pytest.approx([20, 400])
    assert len(knots) > 10
    marginal = fit_marginal((found,), decisions(doses, patient))
    ends = torch.from_numpy(SCALING.forward(np.array([21.7, 391.3, 20.0, 399.0]))).float()
    logs = marginal.distribution(torch.zeros(4, 0)).log_prob(ends[:, None])
    assert bool(logs.isfinite().all()), "density reaches the bounds"


def test_a_dose_charted_for_ten_patients_is_a_knot_and_for_nine_is_not() -> None:
    for people, knot in ((10, True), (9, False)):
        doses, patient = drawn(100, 4)
        doses[np.isin(patient, np.arange(people))] = 250.0
        assert (np.abs(np.exp(grid(doses, patient).knots) - 250).min() < 0.01) == knot


@pytest.mark.parametrize("least", [20.0, 0.0])
def test_the_grid_does_not_know_what_nine_patients_were_given(least: float) -> None:
    grids = [grid(*drawn(9, 6, seed), least) for seed in (0, 1)]
    assert grids[0] == grids[1]
    inner = np.exp(grids[0].knots[1:-1])
    assert np.allclose(inner, 10 ** np.round(np.log10(inner))), "public round numbers"
    assert len(inner) == (1 if least else 6)


def test_no_order_of_magnitude_of_a_least_dose_is_kept() -> None:
    doses, patient = drawn(100, 4)
    low = doses.copy()
    low[0] = 0.004
    with_low, without = grid(low, patient, 0.0), grid(doses, patient, 0.0)
    assert np.allclose(with_low.knots[:5], without.knots[:5], atol=1e-5)
    assert without.knots[0] == pytest.approx(np.log(400e-6))
    tiny = torch.from_numpy(SCALING.forward(np.array([0.004])))
    logs = fit_marginal((with_low,), decisions(low, patient)).distribution(torch.zeros(1, 0))
    assert bool(logs.log_prob(tiny[:, None].float()).isfinite().all())


def decisions(clinical: np.ndarray, patient: np.ndarray, seed: int = 0) -> Decisions:
    """Decisions of one dose whose states say nothing."""
    rows = len(clinical)
    doses = torch.from_numpy(SCALING.forward(clinical)).float()[:, None]
    states = torch.randn(rows, 2, generator=torch.Generator().manual_seed(seed))
    step = torch.zeros(rows, dtype=torch.long)
    return Decisions(states, doses, torch.full_like(doses, -1), step, torch.from_numpy(patient))


SMALL = BoostedParams(trees=3, scale_trees=2, depth=2, min_leaf=20)


def boosted(train: Decisions, of: DoseGrid, settings: BoostedParams = SMALL) -> BoostedBehaviour:
    inputs = Inputs(("x", "y"), {}, 0, torch.zeros(2), torch.ones(2))
    marginal = fit_marginal((of,), train)
    generator = torch.Generator().manual_seed(0)
    return fit_boosted(train, inputs, (of,), marginal.log_weights, settings, generator)


def mostly_zero(people: int, value: Callable[[int], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """60 patients of 5 decisions; the first `people` get `value` of theirs, the others nothing."""
    patient = np.repeat(np.arange(60), 5)
    doses = np.zeros(300)
    doses[patient < people] = value(people * 5)
    return doses, patient


def test_trees_and_tables_do_not_know_what_nine_patients_were_given() -> None:
    arrays = []
    for seed in (0, 1):
        rng = np.random.default_rng(seed)
        doses, patient = mostly_zero(9, lambda n, rng=rng: rng.uniform(60, 200, n))
        if seed:
            doses[:5] = 150.0  # the same patients; another dose
        arrays.append(boosted(decisions(doses, patient), grid(doses, patient)).arrays())
    assert arrays[0].keys() == arrays[1].keys()
    for name, array in arrays[0].items():
        assert np.array_equal(array, arrays[1][name]), name
    constant, patient = mostly_zero(9, lambda n: np.full(n, 123.0))
    same = boosted(decisions(constant, patient), grid(constant, patient)).arrays()
    assert np.array_equal(same["trees.0.location.base"], arrays[0]["trees.0.location.base"])


def test_a_constant_dose_of_ten_patients_is_a_level() -> None:
    doses, patient = mostly_zero(10, lambda n: np.full(n, 123.0))
    found = boosted(decisions(doses, patient), grid(doses, patient)).arrays()
    assert found["trees.0.location.base"].item() == pytest.approx(np.log(123.0), abs=1e-4)


def test_how_many_of_one_to_nine_got_the_maximum_is_not_kept() -> None:
    marginals, odds = [], []
    for people in (1, 9):
        doses, patient = drawn(100, 5)
        doses[(np.arange(500) % 5 == 0) & (patient < people)] = 400.0
        train, of = decisions(doses, patient), grid(*drawn(100, 5))
        assert int((of.part(train.doses[:, 0]) == MAXIMUM).sum()) == people
        marginals.append(float(fit_marginal((of,), train).log_weights[0][1].exp()))
        odds.append(boosted(train, of).trees[0]["maximum"].base)
    assert marginals[0] == pytest.approx(marginals[1], abs=1e-9)
    assert 0 < marginals[0] < 0.05, "rare, and still possible"
    assert torch.equal(*odds)
    assert -5 < float(odds[0]) < -3


def care(people: int) -> tuple[BoostedBehaviour, Decisions]:
    """300 patients of 5 decisions at two levels; a third is given once to each of some patients."""
    levels = ("ward", "step-down", "intensive")
    scaling = DoseTransform("care", "identity", 0.0, 2.0)
    rng = np.random.default_rng(0)
    patient, x = np.repeat(np.arange(300), 5), rng.standard_normal(1500)
    code = (rng.random(1500) < 1 / (1 + np.exp(-2 * x))).astype(float)
    code[(np.arange(1500) % 5 == 0) & (patient < people)] = 2.0
    doses = torch.from_numpy(code - 1).float()[:, None]
    states = torch.from_numpy(np.stack([x, rng.standard_normal(1500)], 1)).float()
    step = torch.zeros(1500, dtype=torch.long)
    train = Decisions(states, doses, torch.full_like(doses, -1), step, torch.from_numpy(patient))
    action = Action(unit="1", kind="ordinal", levels=levels)
    return boosted(train, DoseGrid.of(action, scaling, doses[:, 0], train.patient, 16)), train


def test_how_many_of_one_to_nine_got_a_level_is_not_kept() -> None:
    shares, counts = [], []
    for people in (1, 4, 9):
        found, train = care(people)
        arrays = found.arrays()
        assert len(arrays["trees.0.level.base"]) == 1, "a classifier of the two common levels"
        base = arrays["trees.0.level.base"]
        assert np.array_equal(base, base.round(2)), "odds to full precision tell their counts"
        shares.append(arrays["never.0"].tolist())
        weights = found.log_weights(0, train.states, train.doses[:, :0]).exp()
        assert torch.allclose(weights.sum(1), torch.ones(len(weights)), atol=1e-5)
        assert float(weights[:, 2].std()) < 1e-7, "the same in every state"
        assert 0 < float(weights[0, 2]) < 0.05, "rare, and still possible"
        odds = (weights[:, 1] / weights[:, 0]).log().numpy()
        assert np.corrcoef(odds, train.states[:, 0].numpy())[0, 1] > 0.7
        counts.append(float(weights[0, 2]) * len(train))
    assert shares[0] == shares[1] == shares[2]
    assert counts == pytest.approx([counts[0]] * 3)


def test_a_level_of_ten_patients_is_told_by_trees() -> None:
    found, train = care(10)
    assert found.never[0].tolist() == [0, 0, 0]
    assert len(found.trees[0]["level"].base) == 3
    weights = found.log_weights(0, train.states, train.doses[:, :0]).exp()
    assert float(weights[:, 2].mean()) * len(train) == pytest.approx(10, rel=0.5)


def test_no_leaf_and_no_threshold_is_one_patients() -> None:
    rng = np.random.default_rng(0)
    patient = np.repeat(np.arange(60), 80)
    x = rng.standard_normal(60).round(2)[patient]
    x[patient == 0] = 4.37
    clinical = rng.uniform(80, 120, len(patient))
    clinical[patient == 0] = 237.0
    train = decisions(clinical, patient)
    train.states[:, 0] = torch.from_numpy(x)
    settings = BoostedParams(columns=1.0, depth=3)
    fitted = boosted(train, grid(clinical, patient), settings)
    for name in ("location", "scale"):
        trees = fitted.trees[0][name]
        kept = trees.threshold[(trees.feature == 0) & trees.threshold.isfinite()]
        ranks = [len(np.unique(patient[x > float(wall)])) for wall in kept]
        assert all(10 <= rank <= 50 for rank in ranks)
    far = torch.tensor([[6.0, 0.0]])
    assert 80 < float(fitted.trees[0]["location"].predict(far).exp()) < 150


def test_the_ends_of_the_residual_table_are_no_decision() -> None:
    doses, patient = drawn(400, 5)
    doses[0] = 399.0
    of = grid(doses, patient)
    fitted = boosted(decisions(doses, patient), of)
    table = fitted.residuals[0]
    logs = of.log(decisions(doses, patient).doses[:, 0]).double()
    rows = decisions(doses, patient).states
    location, scale = (fitted.trees[0][n].predict(rows)[:, 0] for n in ("location", "scale"))
    residuals = (logs - location) / scale.exp()
    assert float((table[[0, -1], None] - residuals).abs().min()) > 1e-3
    inner = torch.quantile(residuals, torch.linspace(0, 1, len(table), dtype=torch.float64))
    assert float((table - inner)[10:-10].abs().max()) < 0.05, "else the distribution is the same"
    assert bool((table.diff() > 0).all())


def test_too_few_patients_are_not_counted(cohort: Planted, tmp_path: Path) -> None:
    frames = [planted.table(n, 4) for n in (9, 12, 600)]
    parts = [planted.tensors(frame, cohort.preparation) for frame in frames]
    found = fit(*parts, params("boosted"), torch.Generator().manual_seed(0))
    assert found.status == "too_few_patients"
    assert found.patients == {"train": None, "calibration": 12, "validation": 600}
    found.save(tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())["config"]
    assert config["patients"]["train"] is None
    read = Behaviour.load(tmp_path / "model", cohort.preparation)
    with pytest.raises(
        ModelError, match="50 train, 20 calibration, 20 validation patients"
    ) as told:
        _ = read.known
    assert "9 " not in str(told.value)


@pytest.mark.parametrize("key", ["params", "doses", "calibration", "kind", "likelihoods"])
def test_a_model_without_one_key_is_an_error_that_says_what_to_do(
    key: str, neural: Behaviour, cohort: Planted, tmp_path: Path
) -> None:
    neural.save(tmp_path / "model")
    file = tmp_path / "model" / "config.json"
    content = json.loads(file.read_text())
    del content["config"][key]
    rewrite(file, content)
    with pytest.raises(ModelError, match="run its stage again"):
        Behaviour.load(tmp_path / "model", cohort.preparation)


def test_weights_of_another_size_are_an_error_that_says_what_to_do(
    neural: Behaviour, cohort: Planted, tmp_path: Path
) -> None:
    neural.save(tmp_path / "model")
    file = tmp_path / "model" / "config.json"
    content = json.loads(file.read_text())
    content["config"]["params"]["neural"]["hidden"] += 1
    rewrite(file, content)
    with pytest.raises(ModelError, match="run its stage again"):
        Behaviour.load(tmp_path / "model", cohort.preparation)


def rewrite(file: Path, content: object) -> None:
    """Change config.json, and the manifest with it."""
    file.write_text(json.dumps(content))
    manifest = json.loads((file.parent / "manifest.json").read_text())
    manifest["config.json"] = hashlib.sha256(file.read_bytes()).hexdigest()
    (file.parent / "manifest.json").write_text(json.dumps(manifest))


def test_saved_knots_of_charted_doses_are_charted(cohort: Planted) -> None:
    frame = planted.table(400, 7)
    frame["fluid"] = pd.Series(np.round(frame["fluid"] / 25) * 25)
    train = Decisions.of(planted.tensors(frame, cohort.preparation))
    clinical = SCALING.inverse(train.doses[:, 0].numpy().astype(float))
    knots = np.exp(grid(clinical, train.patient.numpy()).knots[1:-1])
    assert np.abs(knots / 25 - np.round(knots / 25)).max() < 1e-3
