"""Costs, rewards and hazards mean what a hand-worked table says."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ogsrl.constraints import (
    CostCounts,
    RewardCounts,
    attach_costs,
    attach_rewards,
    constraint_rules,
    cost_counts,
    hazard_rules,
    hazards,
    reward_counts,
    step_cost,
)
from ogsrl.errors import PreparationError, SourceError
from ogsrl.spec import Cohort

STEPS = 4


def cohort(kind: str = "share", **changes: object) -> Cohort:
    content: dict[str, object] = {
        "name": "example",
        "version": 1,
        "time_step_hours": 4,
        "max_steps": STEPS,
        "discount": 1,
        "source": {"kind": "table"},
        "static": {"weight": {"unit": "kg", "plausible": [30, 250]}},
        "observations": {
            "spo2": {"unit": "%", "plausible": [40, 100]},
            "urine": {"unit": "mL", "plausible": [0, 4000]},
        },
        "actions": {"fluid": {"unit": "mL", "bounds": [0, 1000]}},
        "outcome": {"horizon": "in hospital", "censoring": "transfer"},
        "reward": {"terminal": {"death": -1, "discharge": 1, "horizon": 0.5}},
        "constraints": {
            "hypoxia": {"expression": "spo2 < 92", "kind": kind, "limit": {"relative": 0.9}}
        },
        "hazards": {
            "wet": {"expression": "spo2 < 90 and fluid > 500"},
            "central": {"expression": "cvp > 15 and fluid > 500"},
        },
        "guardian": {"columns": ["spo2"]},
    }
    return Cohort.model_validate(content | changes)


def table(*stays: tuple[list[float], str, bool | None]) -> pd.DataFrame:
    """Stays of oxygen saturations, their end and whether the patient died."""
    frames = []
    for number, (spo2, end, died) in enumerate(stays):
        rows = len(spo2)
        frames.append(
            pd.DataFrame(
                {
                    "patient_id": f"P{number}",
                    "stay_id": f"S{number}",
                    "step": np.arange(rows),
                    "weight": 80.0,
                    "spo2": np.array(spo2, float),
                    "urine": 100.0,
                    "fluid": 600.0,
                    "end": pd.Series([None] * (rows - 1) + [end], dtype="str"),
                    "died": pd.array([None] * (rows - 1) + [died], "boolean"),
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


NAN = float("nan")


def costs(frame: pd.DataFrame, kind: str = "share") -> list[float]:
    return attach_costs(frame, cohort(kind))["cost_hypoxia"].tolist()


def test_a_step_pays_for_the_row_that_follows_it() -> None:
    frame = table(([95, 91, 95, 91], "horizon", False))
    assert costs(frame) == [0.25, 0.0, 0.25, 0.0]


def test_the_first_row_of_a_stay_is_nobodys_cost() -> None:
    frame = table(([95, 95], "discharge", False), ([80, 95], "discharge", False))
    assert costs(frame) == [0, 0, 0, 0]


def test_a_death_costs_all_steps_that_are_left_and_its_step_is_not_dropped() -> None:
    frame = table(([95, 91, 95], "death", True))
    assert costs(frame) == [0.25, 0.0, 0.5]


def test_nothing_is_paid_after_discharge_or_horizon_even_when_the_patient_dies_later() -> None:
    frame = table(([95, 95], "discharge", True), ([95, 95, 95, 91], "horizon", True))
    assert costs(frame) == [0, 0, 0, 0, 0.25, 0]


def test_a_censored_last_row_is_no_step_but_is_the_row_that_the_step_before_pays_for() -> None:
    found = costs(table(([95, 91], "censored", None)))
    assert found[0] == 0.25
    assert np.isnan(found[1])


def test_a_missing_value_carries_the_last_known_one_and_is_counted() -> None:
    frame = table(([91, NAN, NAN, 95], "discharge", False))
    assert costs(frame) == [0.25, 0.25, 0, 0]
    assert cost_counts(frame, cohort())["hypoxia"] == CostCounts(1, 2, 0)


def test_a_value_never_known_costs_nothing_and_is_counted_as_unknown() -> None:
    frame = table(([NAN, NAN, 91], "discharge", False), ([91, 95], "discharge", False))
    assert costs(frame) == [0, 0.25, 0, 0, 0]
    assert cost_counts(frame, cohort())["hypoxia"] == CostCounts(2, 0, 1)


def test_counts_of_parts_add_up_to_those_of_the_whole() -> None:
    one, other = ([91, NAN, 95], "discharge", False), ([NAN, NAN, 91], "death", True)
    parts = [cost_counts(table(stay), cohort())["hypoxia"] for stay in (one, other)]
    assert parts[0] + parts[1] == cost_counts(table(one, other), cohort())["hypoxia"]


def test_columns_are_carried_one_by_one() -> None:
    ratio = cohort(
        constraints={
            "oliguria": {"expression": "urine / weight / 4 < 0.5", "limit": {"relative": 0.9}}
        }
    )
    frame = table(([95, 95, 95], "discharge", False))
    frame["weight"] = [80.0, NAN, NAN]
    frame["urine"] = [300.0, 100.0, NAN]
    assert attach_costs(frame, ratio)["cost_oliguria"].tolist() == [0.25, 0.25, 0]
    assert cost_counts(frame, ratio)["oliguria"] == CostCounts(0, 2, 0)


def test_ever_pays_once() -> None:
    frame = table(([95, 91, 91, 95], "horizon", False), ([95, 91, 95], "death", True))
    assert costs(frame, "ever") == [1, 0, 0, 0, 1, 0, 0]


def test_ever_is_paid_by_death_where_nothing_was_paid_before() -> None:
    frame = table(([95, 95, 95], "death", True), ([95, 91], "discharge", False))
    assert costs(frame, "ever") == [0, 0, 1, 1, 0]


def test_costs_are_positive_where_patients_are_unsafe() -> None:
    safe = table(([99, 99, 99, 99], "horizon", False))
    unsafe = table(([99, 80, 80, 80], "horizon", False))
    assert sum(costs(safe)) == 0
    assert sum(costs(unsafe)) > 0


def test_terminal_rewards_follow_the_end_and_a_later_death_counts_as_death() -> None:
    frame = table(
        ([95, 95], "discharge", False),
        ([95, 95], "discharge", True),
        ([95, 95], "horizon", True),
        ([95, 95], "horizon", None),
        ([95, 95], "death", True),
    )
    assert attach_rewards(frame, cohort())["reward"].tolist() == [0, 1, 0, -1, 0, -1, 0, 0.5, 0, -1]
    assert reward_counts(frame, cohort()) == RewardCounts(later_deaths=2, assumed_alive=1)


def test_step_rewards_are_of_the_next_row_and_shaping_stays_apart() -> None:
    paid = cohort(reward={"step": "spo2 / 100", "shaping": "0 - spo2"})
    frame = attach_rewards(table(([90, 80, NAN], "discharge", False)), paid)
    assert frame["reward"].tolist() == [0.8, 0.8, 0]
    assert frame["shaping"].tolist() == [-80, -80, 0]


def test_a_censored_last_row_has_no_reward() -> None:
    frame = attach_rewards(table(([95, 95], "censored", None)), cohort())
    assert frame["reward"].isna().tolist() == [False, True]


def test_a_hazard_without_its_column_is_not_evaluable_and_an_unknown_value_stays_unknown() -> None:
    frame = table(([85, NAN, 95], "discharge", False))
    found = hazards(frame, cohort())
    assert found["wet"].values is not None
    np.testing.assert_array_equal(found["wet"].values, [1, np.nan, 0])
    assert not found["central"].evaluable
    assert found["central"].missing == ("cvp",)


def test_a_known_false_decides_a_hazard() -> None:
    frame = table(([NAN, NAN], "discharge", False)).assign(fluid=100.0)
    values = hazards(frame, cohort())["wet"].values
    assert values is not None
    assert values.tolist() == [0, 0]


def test_numpy_and_torch_agree_on_constraints_hazards_and_costs() -> None:
    rng = np.random.default_rng(0)
    values = {"spo2": rng.normal(92, 3, 50), "fluid": rng.uniform(0, 1000, 50)}
    values["spo2"][:5] = np.nan
    tensors = {name: torch.from_numpy(array) for name, array in values.items()}
    for rule in (constraint_rules(cohort())["hypoxia"], hazard_rules(cohort())["wet"]):
        np.testing.assert_array_equal(rule.numpy(values), rule.torch(tensors).numpy())
    unsafe, death, step = rng.random(50), rng.random(50), rng.integers(0, STEPS, 50)
    for kind in ("share", "ever"):
        one = step_cost(kind, unsafe, death, step, STEPS)
        other = step_cost(*(kind, *map(torch.from_numpy, (unsafe, death, step))), STEPS)
        np.testing.assert_allclose(one, other.numpy(), rtol=1e-12)


def test_torn_stays_gaps_and_steps_beyond_the_horizon_are_refused_without_ids() -> None:
    good = table(([95, 95], "discharge", False), ([95, 95], "discharge", False))
    with pytest.raises(SourceError, match="2 stays are not in one piece"):
        attach_costs(good.iloc[[0, 2, 1, 3]], cohort())
    with pytest.raises(PreparationError, match="1 rows do not follow"):
        attach_costs(good.assign(step=[0, 1, 0, 2]), cohort())
    with pytest.raises(PreparationError, match="1 decisions lie beyond max_steps"):
        attach_costs(table(([95] * 5, "horizon", False)), cohort())
    with pytest.raises(PreparationError, match="spo2: needed by an expression"):
        attach_costs(good.drop(columns="spo2"), cohort())


saturations = st.lists(st.one_of(st.floats(80, 100), st.just(NAN)), min_size=1, max_size=STEPS)
any_stay = st.tuples(
    saturations, st.sampled_from(["death", "discharge", "horizon", "censored"]), st.none()
)


@given(st.lists(any_stay, min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_the_order_of_stays_changes_nothing(stays, random) -> None:  # type: ignore[no-untyped-def] # hypothesis
    order = list(range(len(stays)))
    random.shuffle(order)
    frame = table(*stays)
    pieces = [frame[frame["stay_id"] == f"S{i}"] for i in order]
    for kind in ("share", "ever"):
        one = attach_rewards(attach_costs(frame, cohort(kind)), cohort(kind))
        shuffled = pd.concat(pieces, ignore_index=True)
        other = attach_rewards(attach_costs(shuffled, cohort(kind)), cohort(kind))
        other = other.sort_values(["stay_id", "step"], ignore_index=True)
        pd.testing.assert_frame_equal(one, other)


@given(any_stay)
def test_a_stay_costs_at_most_one_and_at_least_nothing(stay) -> None:  # type: ignore[no-untyped-def] # hypothesis
    for kind in ("share", "ever"):
        total = np.nansum(costs(table(stay), kind))
        assert -1e-12 <= total <= 1 + 1e-12


@settings(max_examples=60)
@given(saturations, st.integers(0, STEPS - 1))
def test_dying_earlier_never_costs_less(spo2, earlier) -> None:  # type: ignore[no-untyped-def] # hypothesis
    sooner = table((spo2[: earlier + 1], "death", True))
    for kind in ("share", "ever"):
        died = np.sum(costs(table((spo2, "death", True)), kind))
        lived = np.sum(costs(table((spo2, "discharge", False)), kind))
        assert np.sum(costs(sooner, kind)) >= died - 1e-12
        assert died >= lived - 1e-12
