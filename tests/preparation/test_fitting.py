"""What is fitted comes from training patients, and the way back is exact."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks._tables import random_table
from ogsrl.constraints import attach_costs, attach_rewards
from ogsrl.errors import PreparationError, SpecError
from ogsrl.preparation import (
    ColumnTransform,
    DoseTransform,
    Preparation,
    PrepareParams,
    TrainingRows,
    fit,
)
from ogsrl.spec import Cohort

KEYS = ["patient_id", "stay_id", "step", "site", "end", "died"]


def small(**columns: dict[str, object]) -> Cohort:
    return Cohort.model_validate(
        {
            "name": "small",
            "version": 1,
            "time_step_hours": 1,
            "max_steps": 8,
            "discount": 1,
            "source": {"kind": "table"},
            "observations": columns,
            "actions": {"dose": {"unit": "U", "bounds": [0, 10], "transform": "sqrt"}},
            "reward": {"terminal": {"death": -1, "discharge": 1, "horizon": 1}},
            "guardian": {"columns": [next(iter(columns))]},
        }
    )


def stays(length: int = 3, **columns: list[float]) -> pd.DataFrame:
    rows = len(next(iter(columns.values())))
    stay = np.arange(rows) // length
    last = np.arange(rows) % length == length - 1
    return pd.DataFrame(
        {
            "patient_id": [f"P{i}" for i in stay],
            "stay_id": [f"S{i}" for i in stay],
            "step": (np.arange(rows) % length).astype(np.int32),
            "hours": 0.0,
            "site": "A",
            **{name: np.array(values, float) for name, values in columns.items()},
            "dose": 5.0,
            "end": pd.Series(["discharge"] * rows).where(last, None).astype("str"),
            "died": pd.Series([False] * rows).astype("boolean").mask(~last),
        }
    )


def fit_small(cohort: Cohort, frame: pd.DataFrame) -> Preparation:
    return fit(TrainingRows.of(frame, cohort), cohort, PrepareParams())


NUMBER = {"unit": "1", "plausible": [0.1, 100]}
NAN = float("nan")


def test_scaled_training_columns_have_mean_0_and_deviation_1(
    train: pd.DataFrame, fitted: Preparation
) -> None:
    states = fitted.state_columns(train)
    for name, column in fitted.states.items():
        values = states[name].to_numpy(np.float64)
        if column.kind == "numeric":
            assert abs(values.mean()) < 1e-5
            assert abs(values.std() - 1) < 1e-5
        else:
            assert set(values) <= {-1.0, 1.0}


def test_other_patients_change_nothing_that_is_fitted(
    train: pd.DataFrame, simulated: pd.DataFrame, fitted: Preparation, sepsis: Cohort
) -> None:
    before = fitted.to_json()
    fitted.apply(simulated)
    again = fit(TrainingRows.of(train, sepsis), sepsis, PrepareParams())
    assert fitted.to_json() == before == again.to_json()


def test_clinical_values_come_back_exactly(
    simulated: pd.DataFrame, prepared: pd.DataFrame, fitted: Preparation
) -> None:
    back = fitted.clinical(prepared)
    for name in back:
        charted = simulated[name].notna().to_numpy()
        np.testing.assert_array_equal(
            back[name].to_numpy()[charted], simulated[name].to_numpy(float)[charted], err_msg=name
        )


@given(st.lists(st.integers(0, 150), min_size=1, max_size=20))
def test_every_multiple_of_the_increment_comes_back_exactly(steps: list[int]) -> None:
    doses = np.array(steps) / 100
    dose = DoseTransform("vasopressor", "sqrt", 0.0, 1.5)
    scaled = dose.forward(doses)
    assert (np.abs(scaled) <= 1).all()
    np.testing.assert_array_equal(dose.inverse(scaled), doses)


@pytest.mark.parametrize("transform", ["identity", "log", "log1p", "sqrt"])
def test_tensors_go_back_as_arrays_do(transform: str) -> None:
    import torch  # noqa: PLC0415 - only this test needs it

    column = ColumnTransform(
        "x", "numeric", transform, 1.0, 0.5, 0.1, 100, "carry", 1.0, False, False, 20.0
    )
    dose = DoseTransform("d", "identity" if transform == "log" else transform, 0.0, 4.0)
    values = np.linspace(0.2, 4, 30)
    for one in (column, dose):
        scaled = one.forward(values)
        tensor = one.inverse_torch(torch.from_numpy(scaled))
        np.testing.assert_allclose(one.inverse(scaled), values, atol=5.1e-5)
        np.testing.assert_allclose(tensor.numpy(), values, rtol=1e-4)


def test_gaps_are_filled_as_the_cohort_file_says() -> None:
    cohort = small(
        carried=NUMBER,
        central={**NUMBER, "missing": "median"},
        healthy={**NUMBER, "missing": "normal", "normal": 7},
    )
    values = [2.0, NAN, 4.0, NAN, 6.0, NAN]
    frame = stays(carried=values, central=values, healthy=values)
    fitted = fit_small(cohort, frame)
    back = fitted.clinical(fitted.apply(frame))
    assert back["carried"].tolist() == [2, 2, 4, 4, 6, 6]  # a stay's first gap: the median
    assert back["central"].tolist() == [2, 4, 4, 4, 6, 4]
    assert back["healthy"].tolist() == [2, 7, 4, 7, 6, 7]
    assert fitted.apply(frame)["missing_carried"].tolist() == [0, 1, 0, 1, 0, 1]


def test_the_longest_gaps_are_those_of_ten_patients() -> None:
    def value(patient: int) -> list[float]:
        """Nine go three steps without it, one never has it, two more miss a step, others none."""
        if patient < 9:
            return [1.0, NAN, NAN, NAN]
        if patient == 9:
            return [NAN] * 4
        return [NAN, 1.0, 1.0, 1.0] if patient < 12 else [1.0] * 4

    frame = stays(4, a=[x for patient in range(20) for x in value(patient)])
    assert fit_small(small(a=NUMBER), frame).longest_gaps == {"a": 3}
    fewer = frame[frame["patient_id"] != "P0"].reset_index(drop=True)
    assert fit_small(small(a=NUMBER), fewer).longest_gaps == {"a": 1}
    blind = PrepareParams(history_steps=0)  # a state that knows no earlier row
    cohort = small(a=NUMBER)
    assert fit(TrainingRows.of(frame, cohort), cohort, blind).longest_gaps == {"a": 1}


def test_a_gap_where_there_may_be_none_is_an_error() -> None:
    cohort = small(x={**NUMBER, "missing": "never"})
    fitted = fit_small(cohort, stays(x=[1, 2, 3]))
    with pytest.raises(PreparationError, match="x: 1 values are missing"):
        fitted.apply(stays(x=[1, NAN, 3]))


def test_a_column_complete_in_training_has_no_indicator_and_is_still_filled() -> None:
    fitted = fit_small(small(x=NUMBER), stays(x=[1, 2, 3]))
    prepared = fitted.apply(stays(x=[NAN, 2, 3]))
    assert "missing_x" not in prepared
    assert fitted.clinical(prepared)["x"].tolist() == [2, 2, 3]


def test_a_constant_column_is_flagged_and_stays_finite() -> None:
    fitted = fit_small(small(x=NUMBER, y=NUMBER), stays(x=[3.3, 3.3, 3.3], y=[1, 2, 3]))
    assert fitted.states["x"].constant
    assert not fitted.states["y"].constant
    assert fitted.apply(stays(x=[3.3, 3.3, 3.3], y=[1, 2, 3]))["x"].tolist() == [0, 0, 0]


def test_binary_columns_become_minus_1_and_1_and_codes_stay_codes() -> None:
    cohort = small(
        on={"unit": "1", "kind": "binary"},
        ward={"unit": "1", "kind": "categorical", "levels": ["a", "b", "c"]},
    )
    frame = stays(on=[0, 1, NAN], ward=[2, 2, 0])
    prepared = fit_small(cohort, frame).apply(frame)
    assert prepared["on"].tolist() == [-1, 1, 1]
    assert prepared["ward"].tolist() == [2, 2, 0]


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        (NUMBER, [1, 2, 987654], "x: 1 values outside 0.1 to 100"),
        (NUMBER, [1, 2, -999], "x: 1 values outside"),
        (NUMBER, [1, 2, np.inf], "x: 1 infinite values"),
        ({"unit": "1", "kind": "binary"}, [0, 1, 2], "x: 1 values of no known level"),
        ({"unit": "1", "kind": "binary"}, [0, 1, 0.5], "x: 1 values are no code"),
        (
            {"unit": "1", "kind": "categorical", "levels": ["a", "b"]},
            [0, 1, 7],
            "x: 1 values of no known level",
        ),
    ],
)
def test_values_that_cannot_be_are_refused_without_being_shown(
    column: dict[str, object], values: list[float], message: str
) -> None:
    cohort = small(x=column)
    fitted = fit_small(cohort, stays(x=[1, 1, 1]))
    with pytest.raises(PreparationError, match=message) as caught:
        fitted.apply(stays(x=values))
    assert "987654" not in str(caught.value)


def test_a_dose_out_of_bounds_or_missing_is_refused() -> None:
    fitted = fit_small(small(x=NUMBER), stays(x=[1, 2, 3]))
    with pytest.raises(PreparationError, match="dose: 1 doses outside 0 to 10"):
        fitted.apply(stays(x=[1, 2, 3]).assign(dose=[1, 2, 11.0]))
    with pytest.raises(PreparationError, match="dose: 1 decisions without a dose"):
        fitted.apply(stays(x=[1, 2, 3]).assign(dose=[1, NAN, 1]))
    with pytest.raises(PreparationError, match="x: the column is missing"):
        fitted.apply(stays(x=[1, 2, 3]).drop(columns="x"))


def test_a_censored_last_row_has_no_dose() -> None:
    frame = stays(x=[1, 2, 3]).assign(dose=[1, 2, NAN])
    frame.loc[2, "end"] = "censored"
    prepared = fit_small(small(x=NUMBER), frame).apply(frame)
    assert prepared[["dose", "given_dose", "reward"]].isna().to_numpy()[:, 0].tolist() == [
        False,
        False,
        True,
    ]


def test_the_fitted_numbers_survive_json_bit_for_bit(
    fitted: Preparation, sepsis: Cohort, tmp_path: Path
) -> None:
    fitted.save(tmp_path)
    again = Preparation.load(tmp_path, sepsis)
    assert again == fitted
    assert again.to_json() == fitted.to_json()
    assert "transforms.json" in [path.name for path in tmp_path.iterdir()]


def test_transforms_of_another_cohort_are_refused(fitted: Preparation, sepsis: Cohort) -> None:
    content = json.loads(fitted.to_json())
    for changed in ({"version": 99}, {"states": content["states"][1:]}, {"format": 0}):
        with pytest.raises(PreparationError, match="another cohort"):
            Preparation.from_json(json.dumps(content | changed), sepsis)
    with pytest.raises(PreparationError, match="not what prepare writes"):
        Preparation.from_json("{}", sepsis)


def test_parts_of_whole_stays_are_prepared_as_the_whole_is(
    simulated: pd.DataFrame, prepared: pd.DataFrame, fitted: Preparation
) -> None:
    cut = int(np.flatnonzero(simulated["step"] == 0)[700])
    halves = [fitted.apply(part) for part in (simulated.iloc[:cut], simulated.iloc[cut:])]
    pd.testing.assert_frame_equal(pd.concat(halves), prepared)


def test_columns_have_roles_and_types_and_rewards_and_costs_are_the_tables(
    simulated: pd.DataFrame, prepared: pd.DataFrame, fitted: Preparation, sepsis: Cohort
) -> None:
    assert list(prepared) == [column.name for column in fitted.columns] == fitted.schema.names
    assert fitted.names("key") == KEYS
    assert fitted.names("cost") == ["cost_hypoxia", "cost_oliguria"]
    assert set(prepared[fitted.names("state", "indicator", "dose")].dtypes) == {np.dtype("f4")}
    assert set(prepared[fitted.names("given", "reward", "cost")].dtypes) == {np.dtype("f8")}
    paid = attach_costs(attach_rewards(simulated, sepsis), sepsis)
    for name in fitted.names("reward", "cost"):
        pd.testing.assert_series_equal(prepared[name], paid[name])


def test_a_cohort_that_uses_our_names_is_refused() -> None:
    with pytest.raises(SpecError, match="given_dose"):
        fit_small(small(given_dose=NUMBER), stays(given_dose=[1, 2, 3]))


def test_no_training_patient_is_an_error() -> None:
    with pytest.raises(PreparationError, match="no patient"):
        fit_small(small(x=NUMBER), stays(x=[1, 2, 3]).iloc[:0])


def test_a_column_never_charted_needs_a_normal_value() -> None:
    empty = stays(x=[NAN, NAN, NAN])
    with pytest.raises(PreparationError, match="x: never charted"):
        fit_small(small(x=NUMBER), empty)
    assert fit_small(small(x={**NUMBER, "normal": 5}), empty).states["x"].constant


def test_any_cohort_file_can_be_prepared() -> None:
    cohort = Cohort.model_validate(
        small(x=NUMBER).model_dump()
        | {
            "actions": {
                "level": {"unit": "1", "kind": "ordinal", "levels": ["none", "low", "high"]}
            },
            "reward": {"step": "x > 50", "shaping": "0 - x"},
        }
    )
    frame = random_table(cohort, 50, 0)
    prepared = fit_small(cohort, frame).apply(frame)
    assert set(prepared["level"].dropna()) <= {-1.0, 0.0, 1.0}
    assert {"reward", "shaping", "given_level"} <= set(prepared)
