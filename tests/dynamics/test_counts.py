"""Counts of a table cohort: closed forms."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from ogsrl.dynamics.config import TooFewPatients
from ogsrl.dynamics.counts import (
    PLANNING_COUNTS,
    CountDynamics,
    describe_counts,
    fit_counts,
    has_counts,
    transitions,
)
from ogsrl.dynamics.ensemble import Dynamics
from ogsrl.dynamics.layout import Layout
from ogsrl.dynamics.saved import save_too_few
from ogsrl.errors import ModelError
from ogsrl.figures.dynamics import FIGURES
from ogsrl.modeldir import load_model, save_model
from ogsrl.preparation.tensors import StayTensors
from ogsrl.spec import Cohort
from tests.dynamics.worlds import line_cohort, line_table, prepare


def table_cohort() -> Cohort:
    return line_cohort(
        name="table",
        static={},
        observations={
            "state": {"unit": "1", "kind": "categorical", "levels": ["a", "b", "c"]},
        },
        actions={
            "one": {"unit": "1", "kind": "ordinal", "levels": ["none", "some"]},
            "two": {"unit": "1", "kind": "ordinal", "levels": ["none", "low", "high"]},
        },
        constraints={},
        guardian={"columns": ["state"]},
    )


def walks(patients: int, seed: int, dose_matters: bool) -> pd.DataFrame:
    """Dose `one` moves the state on if it matters; state c dies now and then."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(patients):
        state = rng.integers(3)
        for step in range(8):
            one, two = rng.integers(2), rng.integers(3)
            dies = state == 2 and rng.random() < 0.3
            leaves = not dies and rng.random() < 0.1
            end = "death" if dies else "discharge" if leaves else "horizon" if step == 11 else None
            rows.append((f"P{i}", f"S{i:04d}", step, 4.0 * step, "A", float(state), one, two, end))
            if end:
                break
            move = one if dose_matters else rng.random() < 0.5
            state = (state + move) % 3 if rng.random() < 0.8 else rng.integers(3)
        else:
            rows[-1] = (*rows[-1][:-1], "discharge")
    names = ["patient_id", "stay_id", "step", "hours", "site", "state", "one", "two", "end"]
    table = pd.DataFrame(rows, columns=names).astype({"end": "str", "one": float, "two": float})
    died = [None if not isinstance(end, str) else end == "death" for end in table["end"]]
    return table.assign(died=pd.array(died, "boolean"))


COUNTED = ("count", "rare_pair", "rare_state", "rare_other", "elsewhere")


@pytest.fixture(scope="module")
def train() -> StayTensors:
    return prepare(walks(300, 1, True), table_cohort(), history_steps=0)


def test_a_table_cohort_is_known_by_its_columns() -> None:
    assert has_counts(table_cohort())
    assert not has_counts(line_cohort())


def test_the_chance_of_an_outcome_is_its_count_shrunk_to_the_states_mean() -> None:
    table = walks(1500, 1, True)  # so many that ten patients tell of each transition
    stays = prepare(table, table_cohort(), history_steps=0)
    dynamics = fit_counts(stays, stays, (10.0,))
    table["next"] = table.groupby("stay_id")["state"].shift(-1)
    table.loc[table["end"] == "death", "next"] = 3
    table.loc[table["end"] == "discharge", "next"] = 4
    in_state = table[table["state"] == 1]
    pair = in_state[(in_state["one"] == 1) & (in_state["two"] == 2)]
    overall = np.bincount(table["next"].astype(int), minlength=5) / len(table)
    mean = (np.bincount(in_state["next"].astype(int), minlength=5) + overall) / (len(in_state) + 1)
    expected = (np.bincount(pair["next"].astype(int), minlength=5) + 10 * mean) / (len(pair) + 10)
    np.testing.assert_allclose(dynamics.table()[1, 1 * 3 + 2].numpy(), expected, rtol=1e-5)
    torch.testing.assert_close(dynamics.table().sum(-1), torch.ones(3, 6))


def test_a_pair_never_seen_has_the_states_mean() -> None:
    table = walks(300, 1, True)
    table.loc[(table["state"] == 0) & (table["two"] == 2), "two"] = 1.0
    stays = prepare(table, table_cohort(), history_steps=0)
    dynamics = fit_counts(stays, stays, (3.0,))
    assert float(dynamics.pairs[0, 2]) == 0
    torch.testing.assert_close(dynamics.table()[0, 2], dynamics.state_mean[0])


@pytest.mark.parametrize("matters", [True, False])
def test_validation_patients_choose_how_far_counts_are_shrunk(matters: bool) -> None:
    cohort = table_cohort()
    train = prepare(walks(300, 1, matters), cohort, history_steps=0)
    fitted = train.history.preparation
    validation = prepare(walks(2000, 2, matters), cohort, 0, fitted)
    dynamics = fit_counts(train, validation)
    assert (dynamics.pseudo_count <= 10) == matters


@pytest.mark.parametrize("matters", [True, False])
def test_planners_shrink_no_further_than_validation_patients_risk_asks_for(matters: bool) -> None:
    cohort = table_cohort()
    train = prepare(walks(300, 1, matters), cohort, history_steps=0)
    validation = prepare(walks(2000, 2, matters), cohort, 0, train.history.preparation)
    dynamics = fit_counts(train, validation)
    risk = dynamics.told.risk
    seen, new = (transitions(part)[0] for part in (train, validation))

    def errors(k: float) -> torch.Tensor:
        squares = []
        for state, cell in itertools.product(range(3), range(6)):
            own = (seen[:, 0] == state) & (seen[:, 1] == cell)
            went = risk[seen[own, 2]]
            usual = k * dynamics.state_mean[state].double() @ risk
            told = (went.sum() + usual) / (len(went) + k)
            theirs = (new[:, 0] == state) & (new[:, 1] == cell)
            squares.append((risk[new[theirs, 2]] - told) ** 2)
        return torch.cat(squares)

    tried = {k: errors(k) for k in PLANNING_COUNTS}
    best = min(tried.values(), key=lambda one: float(one.mean()))
    alike = [
        k
        for k, each in tried.items()
        if float((each - best).mean()) <= float((each - best).std()) / len(best) ** 0.5
    ]
    assert dynamics.planning_count == alike[0]
    assert (dynamics.planning_count <= 30) == matters


def test_draws_come_as_often_as_the_table_says(train: StayTensors) -> None:
    dynamics = fit_counts(train, train)
    states, doses = torch.full((20_000, 1), 2.0), torch.tensor([[1.0, -1.0]]).expand(20_000, -1)
    drawn = dynamics.step(states, doses, torch.Generator().manual_seed(0))
    chance = dynamics.table()[2, 3]
    assert float(drawn.died.float().mean()) == pytest.approx(float(chance[3]), abs=0.01)
    assert float(drawn.discharged.float().mean()) == pytest.approx(float(chance[4]), abs=0.01)
    assert 0.2 < float(chance[3]) < 0.4
    going = ~drawn.ended
    share = (drawn.states[going, 0] == 0).float().mean() * going.float().mean()
    assert float(share) == pytest.approx(float(chance[0]), abs=0.01)


def test_the_counts_that_answer_are_those_that_are_saved(
    train: StayTensors, tmp_path: Path
) -> None:
    dynamics = fit_counts(train, train)
    assert float(dynamics.told.rare_pair.sum()) > 0  # some were merged
    dynamics.save(tmp_path / "dynamics")
    loaded = CountDynamics.load(tmp_path / "dynamics", train.history)
    assert torch.equal(loaded.table(), dynamics.table())
    assert torch.equal(loaded.pairs, dynamics.pairs)
    _, arrays = load_model(tmp_path / "dynamics", "dynamics")
    assert set(arrays) == {"place", "rare_risk", *COUNTED}
    seen = [values[values > 0] for name, values in arrays.items() if name in COUNTED]
    assert min(float(values.min()) for values in seen if len(values)) >= 10


def test_counts_of_too_few_patients_say_so_when_read(train: StayTensors, tmp_path: Path) -> None:
    save_too_few(tmp_path / "dynamics", 80)
    with pytest.raises(TooFewPatients, match=r"training patients .* 80 are needed"):
        CountDynamics.load(tmp_path / "dynamics", train.history)


def test_counts_and_ensembles_are_not_read_as_each_other(
    train: StayTensors, tmp_path: Path
) -> None:
    fit_counts(train, train).save(tmp_path / "dynamics")
    with pytest.raises(ModelError, match="'counts'; expected 'ensemble'"):
        Dynamics.load(tmp_path / "dynamics", train.history)


@pytest.mark.parametrize("key", ["status", "form", "transforms", "pseudo_count"])
def test_counts_without_a_key_are_refused(train: StayTensors, tmp_path: Path, key: str) -> None:
    fit_counts(train, train).save(tmp_path / "dynamics")
    config, arrays = load_model(tmp_path / "dynamics", "dynamics")
    del config[key]
    save_model(tmp_path / "dynamics", "dynamics", config, arrays)
    with pytest.raises(ModelError, match="not those of this version"):
        CountDynamics.load(tmp_path / "dynamics", train.history)


@pytest.mark.parametrize("name", ["place", "count", "rare_pair", "elsewhere"])
def test_counts_of_another_table_are_refused(train: StayTensors, tmp_path: Path, name: str) -> None:
    fit_counts(train, train).save(tmp_path / "dynamics")
    config, arrays = load_model(tmp_path / "dynamics", "dynamics")
    arrays[name] = arrays[name][1:] if name != "place" else arrays[name] + 5
    save_model(tmp_path / "dynamics", "dynamics", config, arrays)
    with pytest.raises(ModelError, match="not those of this version"):
        CountDynamics.load(tmp_path / "dynamics", train.history)


def test_counts_of_identical_patients_are_refused() -> None:
    one = walks(20, 1, True).query("stay_id == 'S0000'")
    copies = [one.assign(patient_id=f"P{i:03d}", stay_id=f"S{i:03d}") for i in range(90)]
    stays = prepare(pd.concat(copies, ignore_index=True), table_cohort(), history_steps=0)
    with pytest.raises(ModelError, match=r"all 90 training patients are the same.*one, two"):
        fit_counts(stays, stays)


def test_other_cohorts_and_few_patients_are_refused(train: StayTensors) -> None:
    stays = prepare(line_table(100, 1), line_cohort())
    with pytest.raises(ModelError, match="one categorical state"):
        fit_counts(stays, stays)
    few = prepare(walks(20, 1, True), table_cohort(), history_steps=0)
    with pytest.raises(TooFewPatients):
        fit_counts(few, few)
    dynamics = fit_counts(train, train)
    with pytest.raises(ModelError, match="no number"):
        dynamics.chances(torch.tensor([[float("nan")]]), torch.zeros(1, 2))


@pytest.mark.parametrize(
    ("state", "one", "told"),
    [
        (7.0, -1.0, "state: 1 values that are no code from 0 to 2"),
        (-1.0, -1.0, "state: 1 values that are no code from 0 to 2"),
        (1.4, -1.0, "state: 1 values that are no code from 0 to 2"),
        (1.0, 55.0, "one: 1 values that are no code from 0 to 1"),
        (1.0, 0.2, "one: 1 values that are no code from 0 to 1"),
    ],
)
def test_a_code_or_dose_that_does_not_exist_is_an_error_and_not_the_nearest_one(
    train: StayTensors, state: float, one: float, told: str
) -> None:
    dynamics = fit_counts(train, train)
    states, doses = torch.tensor([[0.0], [state]]), torch.tensor([[1.0, 0.0], [one, 0.0]])
    with pytest.raises(ModelError, match=f"^{told}; .* prepare the rows first"):
        dynamics.chances(states, doses)
    with pytest.raises(ModelError, match=told):
        dynamics.step(states, doses, torch.Generator().manual_seed(0))
    dynamics.chances(states[:1], doses[:1])


def test_the_ensembles_inputs_refuse_unknown_codes_of_now_and_before() -> None:
    stays = prepare(walks(300, 1, True), table_cohort(), history_steps=1)
    layout = Layout(stays.history)
    states, doses = stays.states[stays.decision], stays.doses[stays.decision]
    layout.check(states, doses)
    for place, column in enumerate(stays.history.columns):
        if column.of == "state":
            for code in (-1.0, 0.5, 3.0):
                changed = states.clone()
                changed[:2, place] = code
                with pytest.raises(ModelError, match=r"state.*: 2 values that are no code"):
                    layout.check(changed, doses)


def test_the_report_of_counts_tells_and_draws(train: StayTensors) -> None:
    dynamics = fit_counts(train, train)
    report = json.loads(json.dumps(describe_counts(dynamics, train), allow_nan=False))
    best = max(report["likelihood"], key=lambda cell: cell["log_likelihood"])
    assert best["pseudo_count"] == report["pseudo_count"]
    assert report["ends"]["death"]["auroc"]["estimate"] > 0.7
    for draw in FIGURES.values():
        draw(report)
