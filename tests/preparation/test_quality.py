"""dataset.json says what is true of training patients, and nothing of fewer than ten."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ogsrl.constraints import attach_costs, attach_rewards
from ogsrl.preparation import Preparation, PrepareParams, TrainingRows, fit
from ogsrl.preparation.coverage import cells, state_action_coverage, state_clusters
from ogsrl.preparation.leakage import check_leakage
from ogsrl.preparation.quality import describe
from ogsrl.spec import Cohort


def described(frame: pd.DataFrame, cohort: Cohort) -> dict[str, Any]:
    rows = TrainingRows.of(frame, cohort)
    preparation = fit(rows, cohort, PrepareParams())
    return describe(
        rows,
        preparation,
        PrepareParams(),
        np.random.default_rng(0),
        attrition=[{"step": "simulated", "patients": 9, "stays": 9, "rows": 99}],
        leakage=check_leakage(rows, []),
    )


@pytest.fixture(scope="module")
def dataset(train: pd.DataFrame, sepsis: Cohort) -> dict[str, Any]:
    return described(train, sepsis)


def test_it_is_plain_json_and_the_same_every_time(
    dataset: dict[str, Any], train: pd.DataFrame, sepsis: Cohort
) -> None:
    text = json.dumps(dataset, allow_nan=False)
    assert json.dumps(described(train, sepsis), allow_nan=False) == text


def test_logged_shares_are_the_mean_over_stays_and_death_stands_apart(
    dataset: dict[str, Any], train: pd.DataFrame, sepsis: Cohort
) -> None:
    paid = attach_costs(train, sepsis)
    end = paid.groupby("stay_id")["end"].transform("last")
    paid = paid[end != "censored"]  # their later steps are not seen
    stays = paid["stay_id"].nunique()
    for name in sepsis.constraints:
        cost, death = paid[f"cost_{name}"], paid["end"] == "death"
        found = dataset["constraints"][name]
        assert found["share"]["estimate"] == pytest.approx(cost.sum() / stays)
        assert found["death"]["estimate"] == pytest.approx(cost[death].sum() / stays)
        assert found["before_death"]["estimate"] == pytest.approx(cost[~death].sum() / stays)
        assert found["share"]["lo"] < found["share"]["estimate"] < found["share"]["hi"]


def test_the_bootstrap_interval_has_the_width_of_the_standard_error(
    dataset: dict[str, Any], train: pd.DataFrame, sepsis: Cohort
) -> None:
    paid = attach_rewards(train, sepsis)
    end = paid.groupby("stay_id")["end"].transform("last")
    total = paid[end != "censored"].groupby("stay_id")["reward"].sum()
    mean = dataset["returns"]["mean"]
    assert mean["estimate"] == pytest.approx(total.mean())
    width = 2 * 1.96 * total.std() / np.sqrt(len(total))
    assert mean["hi"] - mean["lo"] == pytest.approx(width, rel=0.25)


def test_trajectory_quality_lies_between_the_worst_and_the_best_reward(
    dataset: dict[str, Any],
) -> None:
    returns = dataset["returns"]
    assert (returns["worst_possible"], returns["best_possible"]) == (-1, 1)
    wanted = (returns["mean"]["estimate"] + 1) / 2
    assert returns["trajectory_quality"] == pytest.approx(wanted)


def test_missing_shares_are_the_tables(dataset: dict[str, Any], train: pd.DataFrame) -> None:
    for name, found in dataset["missingness"].items():
        assert found["share"] == pytest.approx(train[name].isna().mean())
    assert dataset["missingness"]["lactate"]["hours_since_charted"]["90"] > 0


def test_fewer_than_ten_stays_without_a_chart_are_not_told(
    train: pd.DataFrame, sepsis: Cohort
) -> None:
    def told(count: int) -> float | None:
        few = train["stay_id"].isin(train["stay_id"].unique()[:count])
        lacking = train.assign(heart_rate=train["heart_rate"].mask(few))
        found: float | None = described(lacking, sepsis)["missingness"]["heart_rate"][
            "stays_never_charted"
        ]
        return found

    stays = train["stay_id"].nunique()
    assert told(9) is None
    assert told(50) is not None
    assert told(50) * stays >= 10


def test_how_few_next_rows_are_unknown_cannot_be_had_by_subtraction(
    dataset: dict[str, Any], train: pd.DataFrame, sepsis: Cohort
) -> None:
    lone = train["stay_id"] == train["stay_id"].iloc[0]
    unknown = described(train.assign(spo2=train["spo2"].mask(lone)), sepsis)
    found = unknown["constraints"]["hypoxia"]["next_rows"]
    assert found["measured"]["steps"]
    assert [found["unknown"]["steps"], found["carried"]["steps"]] == [None, None]
    assert dataset["constraints"]["oliguria"]["next_rows"]["measured"]["steps"]


def test_the_dose_plane_counts_every_decision_once(
    dataset: dict[str, Any], train: pd.DataFrame
) -> None:
    plane = dataset["dose_planes"][0]
    counted = sum(cell["steps"] for cell in plane["cells"]) + plane["steps_suppressed"]
    assert counted == train["iv_fluid"].notna().sum()
    assert min(cell["patients"] for cell in plane["cells"]) >= 10
    none = [cell["steps"] for cell in plane["cells"] if (cell["x"], cell["y"]) == (0, 0)]
    both = (train["iv_fluid"] == 0) & (train["vasopressor"] == 0)
    assert none == [both.sum()]


def test_persistence_says_how_often_a_dose_repeats(
    dataset: dict[str, Any], train: pd.DataFrame
) -> None:
    before = train.groupby("stay_id")["vasopressor"].shift(1)
    later = (train["step"] > 0) & train["vasopressor"].notna()
    same = (train["vasopressor"] - before).abs()[later] < 0.005
    assert dataset["persistence"]["vasopressor"]["same_share"] == pytest.approx(same.mean())
    for row in dataset["persistence"]["vasopressor"]["next_given_previous"]:
        if None not in row:
            assert sum(row) == pytest.approx(1)


def test_a_cohort_of_nine_shows_no_cell(train: pd.DataFrame, sepsis: Cohort) -> None:
    nine = train[train["patient_id"].isin(train["patient_id"].unique()[:9])]
    found = described(nine.reset_index(drop=True), sepsis)
    assert found["status"] == "too_few_patients"
    told = {"cohort", "version", "params", "smallest_cell", "columns", "attrition", "parts"}
    assert set(found) == told | {"leakage", "status", "needed"}


def test_the_total_does_not_give_a_single_small_cell_away() -> None:
    cell = np.repeat([0, 1, 2], [9, 30, 20])
    found = cells(cell, np.arange(59), 3, total_known=True)
    assert found.rows.tolist() == [0, 30, 0]


def test_a_hazard_without_its_column_is_named_as_not_evaluable(
    train: pd.DataFrame, sepsis: Cohort
) -> None:
    content = sepsis.model_dump()
    content["hazards"]["untested"] = {"expression": "pcwp > 18 and iv_fluid > 500"}
    found = described(train, Cohort.model_validate(content))["hazards"]
    assert found["untested"] == {
        "label": "untested",
        "status": "not evaluable",
        "missing_columns": ["pcwp"],
    }
    assert found["untreated_hypotension"]["status"] == "evaluable"


def test_cells_of_nine_patients_are_suppressed_and_of_ten_are_not() -> None:
    cell = np.repeat([0, 1], [9, 10])
    found = cells(cell, np.arange(19), 2)
    assert found.rows.tolist() == [0, 10]
    assert (found.suppressed_cells, found.suppressed_rows) == (1, 9)
    assert cells(np.zeros(50, np.int64), np.zeros(50, np.int64), 1).rows.tolist() == [0]


def test_coverage_is_1_where_the_state_does_not_matter_and_low_where_it_decides() -> None:
    rng = np.random.default_rng(0)
    cluster = rng.integers(0, 20, 20_000)
    free = state_action_coverage(cluster, rng.integers(0, 10, 20_000), rng)
    bound = state_action_coverage(cluster, cluster % 10, rng)
    assert free == pytest.approx(1.0)
    assert bound == pytest.approx(0.1)


def test_clusters_are_of_like_states() -> None:
    rng = np.random.default_rng(0)
    group = rng.integers(0, 3, 900)
    states = rng.normal(size=(900, 2)) * 0.05 + np.array([[0, 0], [9, 0], [0, 9]])[group]
    cluster = state_clusters(states, rng)
    assert all(len(np.unique(group[cluster == one])) == 1 for one in np.unique(cluster))


def test_the_manifest_of_columns_is_that_of_the_prepared_files(
    dataset: dict[str, Any], fitted: Preparation
) -> None:
    assert [column["name"] for column in dataset["columns"]] == fitted.schema.names
    assert {column["role"] for column in dataset["columns"]} >= {"state", "dose", "given", "cost"}
