"""A state knows the past and nothing else, and tensors lose nothing of the table."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
import torch

from ogsrl.errors import PreparationError
from ogsrl.preparation import Preparation
from ogsrl.preparation.history import History
from ogsrl.preparation.tensors import StayTensors, logged_arrays, stay_tensors


@pytest.fixture(scope="module")
def history(fitted: Preparation) -> History:
    return History.of(fitted)


@pytest.fixture(scope="module")
def states(history: History, prepared: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(history.build(prepared), columns=list(history.names))


@pytest.fixture(scope="module")
def tensors(prepared: pd.DataFrame, fitted: Preparation) -> StayTensors:
    return stay_tensors(prepared, fitted)


def test_every_column_is_what_its_name_says(
    states: pd.DataFrame, prepared: pd.DataFrame, simulated: pd.DataFrame
) -> None:
    for stay in ("first", "last"):
        row = prepared.groupby("stay_id").indices
        rows = row[prepared["stay_id"].iloc[0 if stay == "first" else -1]]
        lactate = prepared["lactate"].to_numpy()[rows]
        fluid = prepared["iv_fluid"].to_numpy()[rows]
        charted = simulated["lactate"].notna().to_numpy()[rows]
        for t, place in enumerate(rows):
            state = states.iloc[place]
            assert state["lactate"] == lactate[t]
            assert state["share(step)"] == pytest.approx(t / 18)
            assert state["min(lactate)"] == lactate[: t + 1].min()
            assert state["max(lactate)"] == lactate[: t + 1].max()
            assert state["mean(lactate)"] == pytest.approx(lactate[: t + 1].mean(), abs=1e-5)
            for lag in (1, 2, 3):
                assert state[f"known[-{lag}]"] == (t >= lag)
                assert state[f"lactate[-{lag}]"] == (lactate[t - lag] if t >= lag else 0)
                assert state[f"iv_fluid[-{lag}]"] == (fluid[t - lag] if t >= lag else 0)
            seen = np.flatnonzero(charted[: t + 1])
            since = (t - seen[-1]) / 18 if len(seen) else 1
            assert state["since(lactate)"] == pytest.approx(since, abs=1e-6)


def test_a_gap_is_as_long_as_nothing_was_charted(
    history: History, prepared: pd.DataFrame, simulated: pd.DataFrame
) -> None:
    names = ("lactate", "map")
    gaps = history.gaps(torch.from_numpy(history.build(prepared)), names)
    for name, found in zip(names, gaps.T, strict=True):
        charted = simulated[name].notna().to_numpy()
        longest, gap = [], 0
        for step, known in zip(simulated["step"], charted, strict=True):
            gap = 0 if known else 1 if step == 0 else gap + 1
            longest.append(gap)
        assert found.tolist() == longest
        assert found.max() > 1


def test_the_future_changes_no_state(
    history: History, prepared: pd.DataFrame, states: pd.DataFrame
) -> None:
    middle = 5
    changed = prepared.copy()
    later = changed["step"] > middle
    columns = list(history.preparation.states) + history.preparation.names("indicator")
    changed.loc[later, columns] = 9.0
    now = changed["step"] >= middle  # the step's own dose belongs to the future
    changed.loc[now, list(history.preparation.doses)] = 0.77
    again = history.build(changed)
    past = (prepared["step"] <= middle).to_numpy()
    np.testing.assert_array_equal(again[past], states.to_numpy()[past])
    assert not np.array_equal(again[~past], states.to_numpy()[~past])


def test_a_state_holds_nothing_of_another_stay(history: History, prepared: pd.DataFrame) -> None:
    ids = prepared["stay_id"].unique()
    one = prepared[prepared["stay_id"] == ids[3]].reset_index(drop=True)
    both = prepared[prepared["stay_id"].isin(ids[2:4])].reset_index(drop=True)
    np.testing.assert_array_equal(history.build(both)[-len(one) :], history.build(one))


def test_states_are_finite(states: pd.DataFrame) -> None:
    assert np.isfinite(states.to_numpy()).all()


def test_a_step_in_a_model_gives_the_state_that_the_table_gives(
    history: History, tensors: StayTensors
) -> None:
    row = tensors.decision & (tensors.next_row >= 0)
    following = tensors.next_row[row]
    current = history.place("current")
    missing = history.place("indicator")
    found = history.advance(
        tensors.states[row],
        tensors.doses[row],
        tensors.states[following][:, current],
        tensors.states[following][:, missing],
    )
    torch.testing.assert_close(found, tensors.states[following], rtol=0, atol=2e-5)


def test_without_history_the_state_is_the_current_row(
    prepared: pd.DataFrame, fitted: Preparation
) -> None:
    bare = History(fitted, 0, False)
    assert bare.names == (*fitted.states, *fitted.names("indicator"))
    wanted = prepared[list(bare.names)].to_numpy()
    np.testing.assert_array_equal(bare.build(prepared), wanted)


def test_rows_out_of_order_are_refused(history: History, prepared: pd.DataFrame) -> None:
    with pytest.raises(PreparationError, match="not in order"):
        history.build(prepared.iloc[[1, 0, 2]])
    with pytest.raises(PreparationError, match="lactate: not in the prepared rows"):
        history.build(prepared.drop(columns="lactate"))


def test_rewards_and_costs_add_up_to_the_tables(
    tensors: StayTensors, prepared: pd.DataFrame, fitted: Preparation
) -> None:
    transitions = tensors.transitions()
    assert float(transitions.rewards.double().sum()) == pytest.approx(prepared["reward"].sum())
    for place, name in enumerate(tensors.cost_names):
        total = prepared[f"cost_{name}"].sum()
        assert float(tensors.costs[:, place].double().sum()) == pytest.approx(total, rel=1e-5)
        assert float(transitions.costs[:, place].double().sum()) == pytest.approx(total, rel=1e-5)


def test_every_decision_is_one_transition_and_ends_are_treated_by_kind(
    tensors: StayTensors, prepared: pd.DataFrame
) -> None:
    transitions = tensors.transitions()
    censored = (prepared["end"] == "censored").sum()
    assert censored > 0
    assert len(transitions.rewards) == len(prepared) - censored
    ended = prepared["end"].isin(["death", "discharge", "horizon"]).sum()
    assert int(transitions.terminal.sum()) == ended
    assert not transitions.next_states[transitions.terminal].any()
    assert int(tensors.death.sum()) == (prepared["end"] == "death").sum()
    before_censoring = tensors.next_row[transitions.row[~transitions.terminal]]
    assert (before_censoring >= 0).all()
    assert torch.isfinite(transitions.doses).all()


def test_the_dose_last_given_is_that_of_the_step_before(
    tensors: StayTensors, prepared: pd.DataFrame
) -> None:
    wanted = prepared.groupby("stay_id")["given_iv_fluid"].shift(1).fillna(0.0)
    place = tensors.dose_names.index("iv_fluid")
    np.testing.assert_array_equal(tensors.last_given[:, place].numpy(), wanted.to_numpy("f4"))


def test_d3rlpy_sees_every_reward_once(tensors: StayTensors, prepared: pd.DataFrame) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = pytest.importorskip("d3rlpy.dataset")
    arrays = logged_arrays(tensors)
    episodes = dataset.EpisodeGenerator(
        arrays.observations, arrays.actions, arrays.rewards, arrays.terminals, arrays.timeouts
    )()
    picker = dataset.BasicTransitionPicker()
    seen = [
        picker(episode, step) for episode in episodes for step in range(episode.transition_count)
    ]
    assert len(seen) == int(tensors.decision.sum())
    assert sum(float(t.reward[0]) for t in seen) == pytest.approx(prepared["reward"].sum())
    assert sum(int(t.terminal) for t in seen) == int(tensors.terminal.sum())


def test_importing_preparation_does_not_load_torch() -> None:
    import subprocess  # noqa: PLC0415 - a fresh interpreter is the point
    import sys  # noqa: PLC0415

    code = "import ogsrl.preparation, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
