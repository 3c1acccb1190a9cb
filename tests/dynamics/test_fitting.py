"""What is fitted, on whom, and what happens when there is little to fit."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
import torch

from ogsrl.dynamics.config import NEEDED_PATIENTS, DynamicsParams, TooFewPatients
from ogsrl.dynamics.ensemble import Dynamics
from ogsrl.dynamics.fitting import fit
from ogsrl.dynamics.outcomes import outcomes
from ogsrl.dynamics.report import describe
from ogsrl.dynamics.training import Bootstrap, linear_part
from ogsrl.errors import ModelError
from ogsrl.figures.dynamics import FIGURES
from ogsrl.preparation.tensors import StayTensors
from tests.dynamics.conftest import Line
from tests.dynamics.worlds import line_cohort, line_table, prepare

TINY = DynamicsParams(members=2, hidden=8, hidden_ends=8, max_epochs=2)


def fitted(stays: StayTensors, calibration: StayTensors | None = None) -> Dynamics:
    return fit(stays, calibration, TINY, torch.Generator().manual_seed(0))


def asked(dynamics: Dynamics, stays: StayTensors) -> torch.Tensor:
    """The mean that is predicted; every number of the answer is one."""
    predicted = dynamics.predict(stays.states[stays.decision], stays.doses[stays.decision])
    for name in ("mean", "low", "high", "scaled_sd", "p_death", "p_discharge", "disagreement"):
        assert bool(torch.isfinite(getattr(predicted, name)).all()), name
    drawn = dynamics.step(stays.states, stays.doses, torch.Generator().manual_seed(0))
    assert bool(torch.isfinite(drawn.states).all())
    return predicted.mean


def test_no_patient_is_both_in_a_members_bag_and_out_of_it() -> None:
    patient = torch.arange(100).repeat_interleave(7)
    bootstrap = Bootstrap.draw(4, 100, torch.Generator().manual_seed(0))
    bags, out = bootstrap.bags(patient), bootstrap.out_of_bag(patient)
    for bag, rest in zip(bags, out, strict=True):
        assert not set(patient[bag].tolist()) & set(patient[rest].tolist())
        assert len(bag) == len(patient)  # as many patients, whole, with replacement
        drawn = torch.bincount(patient[bag], minlength=100)
        assert bool((drawn % 7 == 0).all())
        assert 0.25 < len(rest) / len(patient) < 0.5
    assert bags[0].tolist() != bags[1].tolist()


def test_stays_of_one_patient_are_drawn_together(line: Line) -> None:
    doubled = line_table(150, 5)
    doubled["patient_id"] = "P" + (doubled["stay_id"].str[1:].astype(int) // 2).astype(str)
    stays = prepare(doubled, line_cohort())
    known = outcomes(stays, line.dynamics.layout)
    bootstrap = Bootstrap.draw(3, 75, torch.Generator().manual_seed(0))
    for rest in bootstrap.out_of_bag(known.patient):
        assert len(torch.unique(known.stay[rest])) > len(torch.unique(known.patient[rest]))
        again = torch.isin(known.patient, known.patient[rest])
        assert int(again.sum()) == len(rest)


def test_the_linear_part_is_least_squares_on_known_rows() -> None:
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=(400, 3))).float()
    y = x @ torch.tensor([[1.0, 0.5], [0.0, -2.0], [0.3, 0.0]]) + 0.7
    known = torch.from_numpy(rng.random((400, 2)) < 0.6)
    slopes, left = linear_part(x, y, known, torch.ones(2, 400), 1e-8)
    expected = torch.tensor([[1.0, 0.5], [0.0, -2.0], [0.3, 0.0], [0.7, 0.7]])
    torch.testing.assert_close(slopes[0], expected, atol=1e-2, rtol=0)
    assert float(left.max()) < 1e-2


def test_the_same_seed_gives_the_same_dynamics() -> None:
    stays = prepare(line_table(150, 1), line_cohort())
    one, other = (fitted(stays, stays).fitted.arrays() for _ in range(2))
    assert all((one[name] == other[name]).all() for name in one)


def test_too_few_patients_say_how_many_are_needed() -> None:
    stays = prepare(line_table(NEEDED_PATIENTS - 20, 1), line_cohort())
    with pytest.raises(TooFewPatients) as few:
        fitted(stays)
    assert few.value.needed == NEEDED_PATIENTS


def test_as_many_patients_as_needed_are_enough() -> None:
    table = line_table(NEEDED_PATIENTS + 30, 1)  # some have one row only
    asked(fitted(prepare(table, line_cohort())), prepare(table, line_cohort()))


def copies_of_one(patients: int) -> pd.DataFrame:
    one = line_table(1, 4).query("stay_id == 'S00000'")
    assert len(one) > 2
    copies = [one.assign(patient_id=f"P{i:03d}", stay_id=f"S{i:03d}") for i in range(patients)]
    return pd.concat(copies, ignore_index=True)


def test_identical_patients_are_refused() -> None:
    stays = prepare(copies_of_one(120), line_cohort())
    told = r"all 120 training patients are the same: .*\(age, x, .* and no end differs"
    with pytest.raises(ModelError, match=told):
        fitted(stays)


def test_patients_who_differ_in_one_column_are_predicted_as_they_are() -> None:
    table = copies_of_one(120)
    rng = np.random.default_rng(0)
    x, noise = (line_table(1, 4)["x"].iloc[1], rng.normal(0, 0.1, len(table)))
    stays = prepare(table.assign(x=table["x"] + noise), line_cohort())
    dynamics = fitted(stays)
    mean = asked(dynamics, stays)
    following = dynamics.predict(stays.states[:1], stays.doses[:1]).mean[0]
    i = list(dynamics.history.preparation.cohort.observations).index("x")
    assert float(following[i]) == pytest.approx(float(x), abs=0.5)
    assert float(mean.std(0).min()) == 0  # a constant column


def test_a_cohort_without_numbers_warns_of_nothing() -> None:
    cohort = line_cohort(
        static={},
        observations={"flag": {"unit": "1", "kind": "binary"}},
        constraints={"flagged": {"expression": "flag > 0.5", "limit": {"relative": 0.9}}},
        guardian={"columns": ["flag"]},
    )
    table = line_table(300, 1)
    kept = ["patient_id", "stay_id", "step", "hours", "site", "flag", "fluid", "end", "died"]
    stays = prepare(table[kept], cohort)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dynamics = fit(stays, stays, TINY.model_copy(update={"max_epochs": 6}), torch.Generator())
        made = stays.transitions()
        predicted = dynamics.predict(made.states, made.doses)
        drawn = dynamics.step(made.states, made.doses, torch.Generator().manual_seed(0))
        report = describe(
            dynamics, stays, stays, torch.Generator().manual_seed(0), horizons=(1, 3), starts=50
        )
        for draw in FIGURES.values():
            draw(report)
    flagged = made.states[:, 0] > 0
    assert (
        float(predicted.mean[flagged, 0].mean()) > float(predicted.mean[~flagged, 0].mean()) + 0.2
    )
    assert set(drawn.states[:, 0].tolist()) <= {-1.0, 1.0}
    assert report["columns"] == {}
    assert report["constraints"]["flagged"]["auroc"]["estimate"] > 0.6


def test_a_dose_never_given_changes_nothing_and_is_finite() -> None:
    table = line_table(150, 1)
    table["fluid"], table["total"] = 0.0, 0.0
    stays = prepare(table, line_cohort())
    asked(fitted(stays), stays)


def test_a_cohort_without_outcome_has_no_deaths() -> None:
    table = line_table(150, 1)
    table.loc[table["end"] == "death", "end"] = "discharge"
    table["died"] = pd.array([None] * len(table), "boolean")
    cohort = line_cohort(outcome=None, reward={"step": "x > 0"})
    stays = prepare(table, cohort)
    dynamics = fitted(stays, stays)
    asked(dynamics, stays)
    predicted = dynamics.predict(stays.states, stays.doses)
    assert float(predicted.p_death.max()) == 0
    assert float(predicted.p_discharge.mean()) > 0.01


def test_a_cohort_without_discharges_or_constraints_works() -> None:
    table = line_table(150, 1)
    kept = table.groupby("stay_id")["end"].transform(lambda end: "discharge" not in set(end))
    cohort = line_cohort(constraints={})
    stays = prepare(table[kept].reset_index(drop=True), cohort)
    dynamics = fitted(stays, stays)
    predicted = dynamics.predict(stays.states, stays.doses)
    assert float(predicted.p_discharge.max()) == 0
    assert predicted.unsafe == {}


def test_deaths_after_leaving_are_learned_from_their_reward() -> None:
    table = line_table(400, 1)
    left = table["end"].isin(["discharge", "horizon"])
    table.loc[left, "died"] = pd.array(table.loc[left, "x"] < -0.7, "boolean")
    stays = prepare(table, line_cohort())
    known = outcomes(stays, fitted(stays).layout)
    late = known.ends[:, 2]
    assert int(late.sum()) == int((left & (table["x"] < -0.7)).sum())
    dynamics = fit(stays, None, TINY.model_copy(update={"max_epochs": 12}), torch.Generator())
    risk = dynamics.predict(known.states, known.doses).p_late_death
    own = known.at_risk[:, 2]
    assert float(risk[own & late].mean()) > float(risk[own & ~late].mean()) + 0.2


def test_stays_of_another_layout_are_refused(line: Line) -> None:
    other = prepare(line_table(100, 1), line_cohort(), history_steps=2)
    with pytest.raises(ModelError, match="other columns"):
        outcomes(other, line.dynamics.layout)


def test_levels_of_a_category_are_learned() -> None:
    table = line_table(300, 1)
    table["ward"] = (table["x"] > 0.5).astype(float) + (table["x"] > -0.5)
    observations = {
        **{n: c.model_dump() for n, c in line_cohort().observations.items()},
        "ward": {"unit": "1", "kind": "categorical", "levels": ["low", "middle", "high"]},
    }
    stays = prepare(table, line_cohort(observations=observations))
    dynamics = fit(stays, stays, TINY.model_copy(update={"max_epochs": 6}), torch.Generator())
    known = outcomes(stays, dynamics.layout)
    own = known.follows
    chance = dynamics.heads(known.states[own], known.doses[own]).codes["ward"].mean(0)
    right = (chance.argmax(1) == known.codes[own, -1]).float().mean()
    commonest = torch.bincount(known.codes[own, -1]).max() / own.sum()
    assert float(right) > float(commonest) + 0.1
    asked(dynamics, stays)


def test_an_empty_calibration_part_leaves_the_ensemble_as_it_was_trained() -> None:
    table = line_table(150, 1)
    stays = prepare(table, line_cohort())
    none = prepare(table.iloc[:0], line_cohort(), fitted=stays.history.preparation)
    one, other = fitted(stays, none).fitted, fitted(stays).fitted
    assert torch.equal(one.noise, torch.ones_like(one.noise))
    assert torch.equal(one.correlation, other.correlation)
    i, j = (fitted(stays).layout.numeric.index(name) for name in ("lab", "twin"))
    both = one.correlation @ one.correlation.T
    assert float(both[i, j]) > 0.9


def test_states_without_history_work_and_know_no_horizon() -> None:
    stays = prepare(line_table(150, 1), line_cohort(), history_steps=0)
    dynamics = fitted(stays, stays)
    asked(dynamics, stays)
    drawn = dynamics.step(stays.states, stays.doses, torch.Generator().manual_seed(0))
    assert not bool(drawn.horizon.any())


def test_the_range_kept_is_the_cohort_files_and_no_patients(line: Line) -> None:
    chart, layout = line.dynamics.fitted.chart, line.dynamics.layout
    columns = [layout.history.preparation.states[name] for name in layout.numeric]
    assert chart.low.tolist() == pytest.approx([column.low for column in columns])
    assert chart.high.tolist() == pytest.approx([column.high for column in columns])
