"""Planted clinicians are found again; what cannot be known is refused."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from ogsrl.behaviour.baselines import Persistence
from ogsrl.behaviour.decisions import Decisions
from ogsrl.behaviour.distribution import DosePolicy
from ogsrl.behaviour.doses import ZERO
from ogsrl.behaviour.fitting import fit
from ogsrl.behaviour.measures import log_probs, over_patients, ratio_by_step
from ogsrl.behaviour.policy import Behaviour
from ogsrl.errors import ModelError
from ogsrl.preparation.tensors import StayTensors
from tests.behaviour import planted
from tests.behaviour.conftest import Planted, params


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def refit(frame: pd.DataFrame, cohort: Planted, kind: str = "boosted") -> Behaviour:
    """Fitted on another training table, prepared as the planted one."""
    train = planted.tensors(frame, cohort.preparation)
    return fit(train, cohort.calibration, cohort.validation, params(kind), generator())


def test_planted_clinicians_are_found_again(behaviour: Behaviour, cohort: Planted) -> None:
    found = log_probs(behaviour, cohort.decisions).double()
    true = torch.from_numpy(planted.truth(cohort.table))
    assert 0 < float((true - found).mean()) < 0.05  # the distance to truth, in nats
    x = torch.tensor(cohort.table["severity"].to_numpy())
    zero = behaviour.distribution(cohort.decisions.states).parts(cohort.decisions.doses)["fluid"]
    planted_zero = torch.sigmoid(-1.0 - 1.2 * x)
    assert float((zero[:, ZERO] - planted_zero).abs().mean()) < 0.03


def gain(policy: DosePolicy, behaviour: Behaviour, cohort: Planted) -> dict[str, float | None]:
    """Log-likelihood of a policy above persistence, as report and benchmark measure it."""
    persistence = Persistence.fit(behaviour.marginal, Decisions.of(cohort.train))
    decisions = cohort.decisions
    off = log_probs(policy, decisions) - persistence.distribution(decisions).log_prob(
        decisions.doses
    )
    return over_patients(off, decisions.patient)


def test_it_beats_persistence_and_a_constant_predictor_does_not(
    behaviour: Behaviour, cohort: Planted
) -> None:
    lo = gain(behaviour, behaviour, cohort)["lo"]
    assert lo is not None
    assert lo > 0
    constant = gain(behaviour.marginal, behaviour, cohort)["lo"]
    assert constant is not None
    assert constant < 0


def test_mean_weights_of_the_truth_are_one(behaviour: Behaviour, cohort: Planted) -> None:
    steps = ratio_by_step(
        torch.from_numpy(planted.truth(cohort.table)),
        log_probs(behaviour, cohort.decisions),
        cohort.decisions,
    )
    assert all(abs(step["estimate"] - 1) < 0.1 for step in steps)


def test_samples_have_the_doses_of_the_clinicians(behaviour: Behaviour, cohort: Planted) -> None:
    states, given = cohort.decisions.states, cohort.decisions.doses
    drawn = behaviour.sample(states, generator())
    assert drawn.shape == given.shape
    assert torch.allclose(drawn.mean(0), given.mean(0), atol=0.05)
    assert torch.allclose(torch.corrcoef(drawn.T), torch.corrcoef(given.T), atol=0.05)
    assert torch.equal(drawn, behaviour.sample(states, generator()))
    mean = behaviour.distribution(states).mean(generator())
    assert torch.allclose(mean.mean(0), given.mean(0), atol=0.05)


def test_the_mode_is_no_less_likely_than_another_sample(
    behaviour: Behaviour, cohort: Planted
) -> None:
    states = cohort.decisions.states
    mode, drawn = behaviour.mode(states), behaviour.sample(states, generator())
    difference = behaviour.log_prob(states, mode) - behaviour.log_prob(states, drawn)
    assert float(difference.mean()) > 0.5


def test_gradients_reach_the_doses(neural: Behaviour, cohort: Planted) -> None:
    doses = cohort.decisions.doses[:50].clone().requires_grad_()
    neural.log_prob(cohort.decisions.states[:50], doses).sum().backward()
    assert doses.grad is not None
    assert bool(doses.grad.isfinite().all())
    assert float(doses.grad[:, 0].abs().sum()) > 0


@pytest.mark.parametrize("kind", ["neural", "boosted"])
def test_it_is_saved_and_read_back_bit_for_bit(
    kind: str, request: pytest.FixtureRequest, cohort: Planted, tmp_path: Path
) -> None:
    made: Behaviour = request.getfixturevalue(kind)
    again = fit(*cohort.parts, params(kind), generator())
    made.save(tmp_path / "once")
    again.save(tmp_path / "twice")
    for file in ("config.json", "weights.safetensors", "manifest.json"):
        assert (tmp_path / "once" / file).read_bytes() == (tmp_path / "twice" / file).read_bytes()
    read = Behaviour.load(tmp_path / "once", cohort.preparation)
    decisions = cohort.decisions
    assert torch.equal(log_probs(read, decisions), log_probs(made, decisions))
    assert torch.equal(read.mode(decisions.states), made.mode(decisions.states))


def test_the_likelier_kind_on_validation_patients_is_kept(
    neural: Behaviour, boosted: Behaviour, cohort: Planted
) -> None:
    both = fit(*cohort.parts, params("neural", "boosted"), generator())
    assert both.fitted is not None
    assert both.fitted.kind == max(both.likelihoods, key=lambda kind: both.likelihoods[kind] or -99)
    assert set(both.likelihoods) == {"neural", "boosted"}
    assert both.likelihoods["neural"] == neural.likelihoods["neural"]


@pytest.mark.parametrize("kind", ["neural", "boosted"])
def test_a_dose_never_given_has_no_probability(kind: str, cohort: Planted) -> None:
    frame = planted.table(300, 4)
    frame["fluid"] = 0.0
    frame["care"] = frame["care"].clip(upper=1)
    found = refit(frame, cohort, kind)
    decisions = cohort.decisions
    logs = log_probs(found, decisions)
    given = (cohort.table["fluid"].to_numpy() > 0) | (cohort.table["care"].to_numpy() > 1)
    assert ((logs == -math.inf).numpy() == given).all()
    drawn = found.sample(decisions.states, generator())
    assert bool((drawn[:, 0] == -1).all())
    assert float(drawn[:, 1].max()) == 0.0
    parts = found.distribution(decisions.states).parts(drawn)
    assert bool((parts["fluid"][:, ZERO] == 1).all())
    assert bool((parts["care"][:, 2] == 0).all())


@pytest.mark.parametrize("kind", ["neural", "boosted"])
def test_always_the_same_dose_is_a_peak_and_no_error(kind: str, cohort: Planted) -> None:
    parts = [
        planted.tensors(planted.table(300, seed).assign(fluid=100.0), cohort.preparation)
        for seed in (4, 5, 6)
    ]
    found = fit(*parts, params(kind), generator())
    drawn = found.sample(cohort.decisions.states, generator())
    clinical = cohort.preparation.doses["fluid"].inverse(drawn[:, 0].numpy())
    assert np.quantile(np.abs(clinical - 100), 0.9) < 20
    assert bool(log_probs(found, Decisions.of(parts[2])).isfinite().all())


def test_identical_patients_are_refused(cohort: Planted) -> None:
    one = planted.table(1, 4)
    frame = pd.concat([one.assign(patient_id=f"P{i}", stay_id=f"S{i}") for i in range(80)])
    with pytest.raises(ModelError, match="all 80 training patients are the same"):
        refit(frame.reset_index(drop=True), cohort)


def test_too_few_patients_fit_nothing_and_say_how_many_are_needed(
    cohort: Planted, tmp_path: Path
) -> None:
    found = refit(planted.table(49, 4), cohort)
    assert found.status == "too_few_patients"
    found.save(tmp_path / "model")
    read = Behaviour.load(tmp_path / "model", cohort.preparation)
    for one in (found, read):
        with pytest.raises(ModelError, match="50 train, 20 calibration"):
            one.log_prob(cohort.decisions.states, cohort.decisions.doses)


def test_a_constant_column_is_not_looked_at(neural: Behaviour, cohort: Planted) -> None:
    states = cohort.decisions.states
    place = neural.names.index("still")
    moved = states.clone()
    moved[:, place] += 3
    assert neural.fitted is not None
    assert "still" in neural.fitted.inputs.constant
    assert torch.equal(neural.mode(states), neural.mode(moved))


def test_a_gap_at_a_query_is_refused_by_name(behaviour: Behaviour, cohort: Planted) -> None:
    states = cohort.decisions.states[:40].clone()
    states[3, 0] = math.nan
    states[5:8, 4] = math.inf
    with pytest.raises(ModelError, match=r"severity \(1\), severity\[-1\] \(3\)"):
        behaviour.sample(states, generator())


def test_another_order_of_columns_is_refused(behaviour: Behaviour, cohort: Planted) -> None:
    names = list(behaviour.names)
    behaviour.distribution(cohort.decisions.states, names)
    turned = [names[1], names[0], *names[2:]]
    with pytest.raises(ModelError, match="another order, first at severity"):
        behaviour.distribution(cohort.decisions.states, turned)


def test_a_missing_column_is_refused(behaviour: Behaviour, cohort: Planted) -> None:
    states = cohort.decisions.states
    with pytest.raises(ModelError, match="missing severity"):
        behaviour.distribution(states[:, 1:], behaviour.names[1:])
    with pytest.raises(ModelError, match=r"expected \(rows, 16\)"):
        behaviour.mode(states[:, 1:])


def test_other_transforms_are_refused(neural: Behaviour, cohort: Planted, tmp_path: Path) -> None:
    neural.save(tmp_path / "model")
    other = planted.preparation(planted.table(200, 9))
    with pytest.raises(ModelError, match="not the one it was fitted with"):
        Behaviour.load(tmp_path / "model", other)
    longer = dataclasses.replace(cohort.preparation, history_steps=2)
    with pytest.raises(ModelError, match="not the one it was fitted with"):
        Behaviour.load(tmp_path / "model", longer)


def test_a_code_of_no_level_is_refused(neural: Behaviour, cohort: Planted) -> None:
    states = cohort.decisions.states[:10].clone()
    states[:2, neural.names.index("unit_kind")] = 7
    with pytest.raises(ModelError, match="unit_kind: 2 values are no code of its 3 levels"):
        neural.mode(states)


def test_gaps_in_training_states_are_refused(cohort: Planted) -> None:
    states = cohort.train.states.clone()
    states[:5, 0] = math.nan
    broken: StayTensors = dataclasses.replace(cohort.train, states=states)
    with pytest.raises(ModelError, match=r"train: .* severity \(5\)"):
        fit(broken, cohort.calibration, cohort.validation, params("boosted"), generator())


def test_a_censored_last_row_is_no_decision(cohort: Planted) -> None:
    frame = planted.table(60, 5)
    last = frame["step"] == planted.STEPS - 1
    frame.loc[last, ["fluid", "care"]] = np.nan
    frame.loc[last, "end"] = "censored"
    decisions = Decisions.of(planted.tensors(frame, cohort.preparation))
    assert len(decisions) == 60 * (planted.STEPS - 1)


def test_reading_parameters_loads_no_heavy_library() -> None:
    code = "import sys, ogsrl.behaviour.config as c; print({'torch', 'sklearn'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
