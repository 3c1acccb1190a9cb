"""What is told of few patients' transitions: nothing; and what that costs where truth is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ogsrl.dynamics.counts import PSEUDO_COUNTS, CountDynamics
from ogsrl.dynamics.told import Told, tell
from ogsrl.preparation.history import History
from ogsrl.spec import Cohort
from tests.dynamics.worlds import line_cohort, prepare

STATES, CELLS = 50, 9
OUTCOMES = STATES + 2


def grid_cohort() -> Cohort:
    levels = ["none", "low", "high"]
    return line_cohort(
        name="grid",
        static={},
        observations={
            "state": {
                "unit": "1",
                "kind": "categorical",
                "levels": [f"s{i}" for i in range(STATES)],
            },
        },
        actions={
            "one": {"unit": "1", "kind": "ordinal", "levels": levels},
            "two": {"unit": "1", "kind": "ordinal", "levels": levels},
        },
        constraints={},
        guardian={"columns": ["state"]},
    )


@dataclass(frozen=True)
class World:
    """A table whose truth is known: chances (states, cells, outcomes) and clinicians' doses."""

    chances: np.ndarray
    doses: np.ndarray

    @classmethod
    def draw(cls, seed: int) -> World:
        rng = np.random.default_rng(seed)
        often = rng.dirichlet(np.ones(OUTCOMES))
        chances = np.zeros((STATES, CELLS, OUTCOMES))
        for state in range(STATES):
            mean = rng.dirichlet(np.maximum(8 * often, 1e-3))
            chances[state] = rng.dirichlet(np.maximum(25 * mean, 1e-4), CELLS)
        chances[:, :, STATES] = 0.02 + 0.05 * rng.random((STATES, CELLS))
        chances[:, :, STATES + 1] = 0.08
        chances /= chances.sum(2, keepdims=True)
        return cls(chances, rng.dirichlet(np.full(CELLS, 0.7), STATES))

    def log(self, patients: int, seed: int, steps: int = 10) -> tuple[torch.Tensor, torch.Tensor]:
        """Transitions and whose they are."""
        rng = np.random.default_rng(seed)
        who, state, found = np.arange(patients), rng.integers(STATES, size=patients), []
        for _ in range(steps):
            cell = _pick(self.doses[state], rng)
            outcome = _pick(self.chances[state, cell], rng)
            found.append(np.stack([state, cell, outcome, who], axis=1))
            goes_on = outcome < STATES
            who, state = who[goes_on], outcome[goes_on]
        rows = torch.from_numpy(np.concatenate(found))
        return rows[:, :3], rows[:, 3]


def _pick(chances: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    threshold = rng.random((len(chances), 1))
    return (chances.cumsum(1) < threshold).sum(1).clip(max=chances.shape[1] - 1)


@pytest.fixture(scope="module")
def history() -> History:
    names = ["patient_id", "stay_id", "step", "hours", "site", "state", "one", "two", "end"]
    rows = [(f"P{i}", f"S{i}", 0, 0.0, "A", 0.0, 0.0, 0.0, "discharge") for i in range(20)]
    table = pd.DataFrame(rows, columns=names).astype({"end": "str"})
    return prepare(
        table.assign(died=pd.array([False] * 20, "boolean")), grid_cohort(), history_steps=0
    ).history


def everything(keys: torch.Tensor) -> Told:
    """All counts, as they were before any was merged."""
    exact = torch.zeros((STATES, CELLS, OUTCOMES))
    exact.index_put_(tuple(keys.T), torch.ones(len(keys)), accumulate=True)
    return none_rare(exact)


def none_rare(exact: torch.Tensor) -> Told:
    return Told(
        exact=exact,
        rare_pair=torch.zeros(STATES, CELLS),
        rare_risk=torch.zeros(STATES, CELLS),
        rare_state=torch.zeros(STATES, OUTCOMES),
        rare_other=torch.zeros(STATES),
        elsewhere=torch.zeros(OUTCOMES),
    )


@dataclass(frozen=True)
class Error:
    """Of the best pseudo-count, per logged decision."""

    variation: float
    divergence: float
    death: float


def error(told: Told, world: World, history: History, fresh: torch.Tensor) -> Error:
    tables = [CountDynamics(history, told, k).table().double().numpy() for k in PSEUDO_COUNTS]
    at = tuple(fresh.numpy().T)
    guess = max(tables, key=lambda table: float(np.log(table[at].clip(1e-12)).mean()))
    often = np.zeros((STATES, CELLS))
    np.add.at(often, at[:2], 1 / len(fresh))
    truth = world.chances
    divergence = truth * (np.log(truth.clip(1e-300)) - np.log(guess.clip(1e-12)))
    return Error(
        float((often * np.abs(truth - guess).sum(2) / 2).sum()),
        float((often * divergence.sum(2)).sum()),
        float((often * np.abs(truth - guess)[..., STATES]).sum()),
    )


@pytest.mark.parametrize("patients", [2_000, 10_000])
def test_merging_costs_less_than_half_of_what_leaving_rare_ones_out_costs(
    patients: int, history: History
) -> None:
    world = World.draw(0)
    keys, patient = world.log(patients, 1)
    fresh, _ = world.log(patients // 3, 2)
    told = tell(keys, patient, STATES, CELLS)
    merged = error(told, world, history, fresh)
    whole = error(everything(keys), world, history, fresh)
    exact_only = error(none_rare(told.exact), world, history, fresh)
    assert whole.divergence < merged.divergence < 0.5 * exact_only.divergence
    assert merged.variation < 0.8 * exact_only.variation
    assert merged.variation < whole.variation + 0.12
    assert merged.death < 1.15 * whole.death


def test_more_patients_tell_more(history: History) -> None:
    world = World.draw(3)
    fresh, _ = world.log(3_000, 2)
    errors = []
    for patients in (500, 2_000, 10_000, 50_000):
        keys, patient = world.log(patients, 1)
        errors.append(error(tell(keys, patient, STATES, CELLS), world, history, fresh).divergence)
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.05


def test_where_ten_patients_tell_everything_nothing_is_merged(history: History) -> None:
    keys = torch.tensor([[s, c, o] for s in range(3) for c in range(2) for o in (s, s + 1, 51)])
    keys, patient = keys.repeat(12, 1), torch.arange(12).repeat_interleave(len(keys))
    told = tell(keys, patient, STATES, CELLS)
    assert torch.equal(told.exact, everything(keys).exact)
    assert torch.equal(told.counts, told.exact)


def test_ten_transitions_of_one_patient_are_not_told() -> None:
    keys = torch.tensor([[0, 0, 1]] * 40)
    told = tell(keys, torch.zeros(40, dtype=torch.long), STATES, CELLS)
    assert sum(float(part.sum()) for part in (told.exact, told.rare_pair, told.rare_state)) == 0
    assert float(told.rare_other.sum() + told.elsewhere.sum()) == 0


def test_one_patient_more_or_less_in_a_pair_is_not_told() -> None:
    """The pair's total and its exact counts never differ by a few patients."""
    most, some = [[0, 0, 1]] * 30, [[0, 0, 2]] * 15
    with_one = tell(torch.tensor([*most, *some, [0, 0, 3]]), torch.arange(46), STATES, CELLS)
    assert with_one.exact[0, 0].nonzero().flatten().tolist() == [1]
    assert float(with_one.rare_pair[0, 0]) in {15, 16}


def rare_in_three_pairs(*doses: list[tuple[int, int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """In state 0, per pair the counts of its outcomes; everybody is another patient."""
    rows = [
        [0, cell, outcome]
        for cell, counts in enumerate(doses)
        for outcome, count in counts
        for _ in range(count)
    ]
    return torch.tensor(rows), torch.arange(len(rows))


def test_a_pairs_rare_transitions_are_spread_as_the_states_are() -> None:
    """Outcomes 2 and 3 are rare in each of three pairs, and 2:1 in the state."""
    told = tell(*rare_in_three_pairs(*[[(1, 20), (2, 8), (3, 4)]] * 3), STATES, CELLS)
    assert told.rare_pair[0, :3].tolist() == [12, 12, 12]
    assert told.rare_state[0, 2:4].tolist() == [24, 12]
    assert float(told.rare_risk[0, 0]) == -1  # of two outcomes a mean would tell both counts
    torch.testing.assert_close(told.counts[0, 1, 1:4], torch.tensor([20.0, 8.0, 4.0]))
    torch.testing.assert_close(told.counts.sum(2), told.pairs)


HOME = STATES + 1
#: States 1 and 2 are well, 3 and 4 deadly; 4 patients of 5 die there, nobody elsewhere.
LATER = [
    [state, 0, end]
    for state, deaths in ((1, 0), (2, 0), (3, 80), (4, 80))
    for end in [STATES] * deaths + [HOME] * (100 - deaths)
]


def told_of(*doses: list[tuple[int, int]]) -> Told:
    keys, _ = rare_in_three_pairs(*doses)
    keys = torch.cat([keys, torch.tensor(LATER)])
    return tell(keys, torch.arange(len(keys)), STATES, CELLS)


def test_a_dose_after_which_patients_get_worse_is_known_although_no_transition_is_told() -> None:
    """Under the third dose twice as many go to deadly states; each of its outcomes is rare."""
    usual = [(1, 9), (2, 9), (3, 5), (4, 5), (HOME, 5)]
    deadly = [(1, 4), (2, 4), (3, 9), (4, 9), (HOME, 7)]
    told = told_of(usual, usual, deadly)
    assert float(told.exact[0].sum()) == 0
    worse = told.counts[0, :3, 3:5].sum(1)  # 12.7 of each pair's 33, were all alike
    assert worse.tolist() == pytest.approx([10, 10, 18], abs=0.5)
    torch.testing.assert_close(told.counts.sum(2), told.pairs)


@pytest.mark.parametrize("few", range(10))
@pytest.mark.parametrize("deadly", [STATES, 3])
def test_a_mean_risk_never_tells_how_many_of_few_died_or_will(few: int, deadly: int) -> None:
    """Those who live risk nothing: a mean risk times the pair's transitions would be the deaths."""
    mine = [(1, 4), (2, 3), (HOME, 9 - few), (deadly, few)]
    others = [(1, 9), (2, 9), (HOME, 9), (deadly, 9)]
    told = told_of(mine, others, others)
    assert float(told.rare_pair[0, 0]) == 16
    if few == 0:
        assert float(told.rare_risk[0, 0]) == pytest.approx(0, abs=0.05)
    else:
        assert float(told.rare_risk[0, 0]) == -1
        swapped = told_of([(1, 4), (2, 4), (HOME, 9 - few), (deadly, few - 1)], others, others)
        assert swapped.rare_pair[0].tolist() == told.rare_pair[0].tolist()
        assert few == 1 or torch.equal(swapped.rare_risk[0], told.rare_risk[0])


def test_the_one_pair_whose_risk_is_not_told_is_not_known_from_the_others() -> None:
    """Of the first pair six survive; were both others told that nobody died, six would be left."""
    first = [(STATES, 12), (1, 2), (2, 2), (HOME, 2)]
    second, third = [[(1, n), (2, n), (5, n), (HOME, n)] for n in (6, 9)]
    told = told_of(first, second, third)
    assert told.rare_pair[0, :3].tolist() == [18, 24, 36]
    assert [float(risk) >= 0 for risk in told.rare_risk[0, :3]] == [False, False, True]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    transitions=st.integers(0, 600),
    patients=st.integers(1, 200),
    states=st.integers(1, 4),
    cells=st.integers(1, 4),
)
def test_every_number_told_is_of_ten_patients_or_more(
    seed: int, transitions: int, patients: int, states: int, cells: int
) -> None:
    rng = np.random.default_rng(seed)
    outcomes = states + 2
    columns = [
        (size * rng.random(transitions) ** 2).astype(np.int64)  # uneven: some are rare
        for size in (states, cells, outcomes)
    ]
    frame = pd.DataFrame(dict(zip(("s", "c", "o"), columns, strict=True)))
    frame["p"] = rng.integers(patients, size=transitions)
    keys = torch.tensor(frame[["s", "c", "o"]].to_numpy())
    told = tell(keys, torch.tensor(frame["p"].to_numpy()), states, cells)

    exact = told.exact[tuple(keys.T)].numpy() > 0
    by = frame.groupby(["s", "c", "o"])["p"].nunique()
    assert (by[[tuple(key) for key in told.exact.nonzero().tolist()]] >= 10).all()
    assert float(told.exact.sum()) == exact.sum()
    rare = frame[~exact]
    for names, part in (("sc", told.rare_pair), ("so", told.rare_state)):
        people = rare.groupby(list(names))["p"].nunique()
        count = rare.groupby(list(names)).size()
        for place in part.nonzero().tolist():
            assert people[tuple(place)] >= 10
            assert float(part[tuple(place)]) <= count[tuple(place)]
    # sums of the same transitions: what one tells and the other does not is none or of many
    apart = told.rare_state.sum(1) + told.rare_other - told.rare_pair.sum(1)
    for different in (apart, told.rare_pair, told.rare_state, told.rare_other, told.elsewhere):
        assert bool(((different == 0) | (different >= 10)).all())
    # of a pair of which something is told exactly, the rest is of none or of many
    some = told.exact.sum(2) > 0
    for pair, people in rare.groupby(["s", "c"])["p"].nunique().items():
        assert not bool(some[pair]) or people >= 10
    shown = told.rare_risk >= 0
    assert bool((told.rare_risk[~shown] == -1).all())
    assert not bool((shown & (told.rare_outcomes() < 4)).any())
    margin = frame[~exact]
    for (s, c), rows in margin.groupby(["s", "c"]):
        # some of a shown pair's rows may have left the table, never one that is in it
        died = rows[rows["o"] == states]["p"].nunique()
        if bool(shown[s, c]) and float(told.rare_pair[s, c]) == len(rows):
            assert died == 0 or died >= 10
    table = told.counts
    assert bool((table >= 0).all())
    torch.testing.assert_close(table.sum(2), told.pairs, rtol=1e-4, atol=1e-3)
