"""What a policy answers: what acts, whatever the order of rows, and never a row in an error."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from ogsrl.errors import ModelError, QueryError
from ogsrl.policies.deployed import Deployed
from ogsrl.preparation.tensors import stay_tensors
from ogsrl.query import answer
from ogsrl.query.answer import ask, summary
from ogsrl.query.model import Model, check_bundle, write_bundle
from ogsrl.query.request import example, required

KEYS = ["stay_id", "step"]
#: A value and a name that nobody may repeat.
MARK = "MARKER7731"
MARKED = 7731.25


def by_row(answers: pd.DataFrame) -> pd.DataFrame:
    return answers.sort_values(KEYS).reset_index(drop=True)


def test_answers_are_what_the_measured_policy_does(model: Model, rows: pd.DataFrame) -> None:
    known = rows[rows.groupby("stay_id")["end"].transform("last") != "censored"]
    answers = ask(model, known)
    preparation = model.history.preparation
    stays = stay_tensors(preparation.apply(known.reset_index(drop=True)), preparation)
    decided = model.deployed.decide(stays.states, torch.Generator())
    assert (answers["verdict"] == "defer").tolist() == decided.deferred.tolist()
    assert 0 < decided.deferred.sum() < len(decided.deferred)
    for j, (name, scale) in enumerate(preparation.doses.items()):
        dose = scale.inverse(decided.doses[:, j].numpy())
        shown = answers[f"dose_{name}"]
        assert shown.isna().tolist() == decided.deferred.tolist()
        assert shown[~decided.deferred.numpy()].tolist() == dose[~decided.deferred.numpy()].tolist()
    assert answers["score"].astype(float).to_numpy() == pytest.approx(decided.score.numpy())


def test_a_row_knows_nothing_of_its_own_dose_nor_of_what_comes_later(
    model: Model, rows: pd.DataFrame
) -> None:
    stay = rows[rows["stay_id"] == rows["stay_id"].iloc[0]].reset_index(drop=True)
    whole = ask(model, stay)
    for step in (0, 3):
        begun = stay[stay["step"] <= step].copy()
        begun.loc[begun["step"] == step, ["iv_fluid", "vasopressor"]] = np.nan
        last = ask(model, begun).iloc[-1]
        for name, value in whole.iloc[step].items():
            same = last[name] == value or (last[name] is None and value is None)
            assert same or last[name] == pytest.approx(value, rel=1e-4), name


def test_rows_in_any_order_get_the_same_answers(model: Model, rows: pd.DataFrame) -> None:
    answers = ask(model, rows, similar=True)
    mixed = rows.sample(frac=1, random_state=0)
    again = ask(model, mixed, similar=True)
    for key in KEYS:
        assert again[key].tolist() == mixed[key].tolist()
    pd.testing.assert_frame_equal(by_row(answers), by_row(again))


def test_blocks_do_not_change_an_answer(
    model: Model, rows: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = ask(model, rows)
    monkeypatch.setattr(answer, "BLOCK", 30)
    for name, column in ask(model, rows).items():
        if name in ("verdict", "rule", "reason", *KEYS):
            assert column.tolist() == whole[name].tolist()
        else:
            numbers = column.astype(float).to_numpy(), whole[name].astype(float).to_numpy()
            assert numbers[0] == pytest.approx(numbers[1], rel=1e-3, abs=1e-6, nan_ok=True)


def test_integers_extra_columns_and_missing_optional_ones_are_taken(
    model: Model, rows: pd.DataFrame
) -> None:
    odd = rows.assign(
        step=rows["step"].astype(float), age=rows["age"].round(), note="x", **{"7": 1}
    )
    odd = odd.assign(more=1).rename(columns={"more": 7})
    whole = odd.assign(age=odd["age"].astype(int), stay_id=pd.factorize(odd["stay_id"])[0])
    answers = ask(model, whole)
    assert answers["stay_id"].tolist() == whole["stay_id"].tolist()
    assert answers["dose_iv_fluid"].tolist() == ask(model, odd)["dose_iv_fluid"].tolist()
    needed = required(model.cohort)
    assert "wbc" not in needed
    assert {"map", "cvp", "spo2", "weight", "iv_fluid"} <= {*needed}
    fewer = ask(model, rows[needed])
    unknown = ask(model, rows.assign(**{n: np.nan for n in rows if n not in needed}))
    pd.testing.assert_frame_equal(fewer, unknown)


def test_null_is_told_and_never_nan(model: Model, rows: pd.DataFrame) -> None:
    answers = ask(model, rows, similar=True)
    for name, column in answers.items():
        values = column.tolist()
        assert not any(isinstance(x, float) and not np.isfinite(x) for x in values), name
    assert answers["rule"].map(lambda rule: rule is None or isinstance(rule, str)).all()


def test_nobody_put_forward_defers_everywhere(model: Model, rows: pd.DataFrame) -> None:
    guardian = model.deployed.guardian
    nobody = replace(model, deployed=Deployed.of(None, guardian, model.history))
    answers = ask(nobody, rows)
    assert set(answers["rule"]) == {"no_policy"}
    assert answers[["dose_iv_fluid", "dose_vasopressor", "score"]].isna().all().all()
    told = summary(answers)
    assert (told["recommended"], told["deferred"]) == (0, len(rows))


def test_predictions_are_in_their_intervals_and_deferring_is_the_clinicians(
    model: Model, rows: pd.DataFrame
) -> None:
    answers = ask(model, rows)
    for name in ("p_death", "cost_hypoxia", "clinician_p_death", "clinician_cost_oliguria"):
        low, mean, high = (answers[name + end].astype(float) for end in ("_lo", "", "_hi"))
        assert ((low >= 0) & (low <= mean) & (mean <= high) & (high <= 1)).all()
        assert (high > low).any()


def test_similar_patients_are_at_least_ten(model: Model, rows: pd.DataFrame) -> None:
    answers = ask(model, rows, similar=True)
    nobody = answers["rule"].isin(["patient", "not_charted"])
    assert nobody.any()
    assert not nobody.all()
    alike = [name for name in answers if "similar" in name]
    assert answers.loc[nobody, alike].isna().all().all(), "no patient is like these"
    assert (answers.loc[~nobody, "n_similar"].astype(int) >= 10).all()
    assert model.evidence is not None
    died = model.evidence.died
    known = ~torch.isnan(died)
    assert bool(known.any())  # and of these cells ten died and ten lived
    patients = model.evidence.patients[known]
    assert bool(((died[known] + 0.005) * patients >= 10).all())  # it is told in hundredths


BAD: dict[str, Any] = {
    "a column is missing": lambda rows: rows.drop(columns="map"),
    "a dose column is missing": lambda rows: rows.drop(columns="iv_fluid"),
    "no stay": lambda rows: rows.drop(columns="stay_id"),
    "no row": lambda rows: rows.iloc[:0],
    "no table": lambda rows: [{"stay_id": MARK}],
    "another unit": lambda rows: rows.assign(temperature=MARKED),
    "a dose beyond its bounds": lambda rows: rows.assign(iv_fluid=MARKED),
    "infinite": lambda rows: rows.assign(map=np.inf),
    "text": lambda rows: rows.assign(map=MARK),
    "numbers as text": lambda rows: rows.assign(map=rows["map"].astype(str)),
    "a list in a cell": lambda rows: rows.assign(map=[[MARKED]] * len(rows)),
    "a huge integer": lambda rows: rows.assign(map=pd.Series([10**400] * len(rows), dtype=object)),
    "times": lambda rows: rows.assign(map=pd.Timestamp("2020-01-01")),
    "complex": lambda rows: rows.assign(map=rows["map"].to_numpy() + 1j),
    "a level that is none": lambda rows: rows.assign(female=0.5),
    "a step twice": lambda rows: pd.concat([rows, rows.iloc[:1]]),
    "not from step 0": lambda rows: rows[rows["step"] > 0],
    "a step without number": lambda rows: rows.assign(step=np.nan),
    "a step left out": lambda rows: rows[rows["step"] != 1],
    "too long": lambda rows: pd.concat(
        [rows.iloc[[0]].assign(step=i, stay_id=MARK) for i in range(30)]
    ),
    "no dose before the last row": lambda rows: rows.assign(vasopressor=np.nan),
    "an age that changes": lambda rows: rows.assign(age=rows["age"] + rows["step"] % 2 / 4),
    "unknown age": lambda rows: rows.assign(age=np.nan),
    "a stay without name": lambda rows: rows.assign(stay_id=None),
    "a stay of a list": lambda rows: rows.assign(stay_id=[[MARK]] * len(rows)),
    "ten million letters": lambda rows: rows.assign(stay_id=MARK * 1_000_000).iloc[:1],
    "a column twice": lambda rows: pd.concat([rows, rows[["map"]]], axis=1),
}


@pytest.mark.parametrize("how", BAD)
def test_what_cannot_be_read_is_refused_without_a_row(
    model: Model, rows: pd.DataFrame, how: str
) -> None:
    with pytest.raises(QueryError) as refused:
        ask(model, BAD[how](rows.head(60)))
    told = str(refused.value)
    assert MARK not in told
    assert str(MARKED) not in told
    assert len(told) < 1000
    assert rows["stay_id"].iloc[0] not in told


def test_all_that_is_wrong_is_told_at_once(model: Model, rows: pd.DataFrame) -> None:
    with pytest.raises(
        QueryError, match=r"map: 5 values are no numbers.*temperature: 5 values out"
    ):
        ask(model, rows.head(5).assign(map="x", temperature=98.6))


def test_a_row_without_a_stay_is_told_as_such(model: Model, rows: pd.DataFrame) -> None:
    few = rows.head(5)
    gone = few.assign(stay_id=few["stay_id"].where(few["step"] != 3))
    with pytest.raises(QueryError, match=r"stay_id: 1 rows without a stay$"):
        ask(model, gone)


def test_a_frame_of_numbers_alone_is_left_as_it_was(model: Model, rows: pd.DataFrame) -> None:
    names = ["step", *model.cohort.states, *model.cohort.actions]
    values = rows.head(4)[names].to_numpy(float, na_value=np.nan)
    frame = pd.DataFrame(values, columns=pd.Index(names)).assign(stay_id=1)
    frame.loc[2, "map"] = np.inf
    before = frame.copy()
    with pytest.raises(QueryError, match="map: 1 values are infinite"):
        ask(model, frame)
    assert frame.equals(before)


def test_the_example_is_nobody_and_is_answered(model: Model) -> None:
    answers = ask(model, example(model.cohort))
    assert answers["stay_id"].tolist() == ["nobody"] * 2
    assert answers["verdict"].isin(["recommend", "defer"]).all()


def test_a_changed_file_is_refused_by_its_name(models: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    assert write_bundle(models, folder) == write_bundle(models, folder)
    check_bundle(folder)
    file = folder / "selected" / "sepsis.yaml"
    file.write_text(file.read_text().replace("max_change: 1000", "max_change: 2000"))
    with pytest.raises(ModelError, match=r"selected/sepsis.yaml: not what manifest.json says"):
        check_bundle(folder)
    write_bundle(models, folder)
    (folder / "guardian" / "more.txt").write_text("")
    with pytest.raises(ModelError, match=r"guardian/more.txt"):
        check_bundle(folder)


def test_a_gap_that_no_training_patient_had_is_refused_by_name(
    model: Model, rows: pd.DataFrame
) -> None:
    assert "sofa" not in model.history.preparation.indicators
    with pytest.raises(QueryError, match=r"^sofa: 3 gaps, and no patient .* leave these stays to"):
        ask(model, rows.assign(sofa=rows["sofa"].mask(rows.index < 3)))


def test_a_blank_chart_gets_no_dose(model: Model, rows: pd.DataFrame) -> None:
    blank = {name: float("nan") for name in model.history.preparation.indicators}
    answers = ask(model, rows.assign(**blank))
    assert set(answers["verdict"]) == {"defer"}
    assert answers["rule"].isin(["not_charted", "hazard:untreated_hypotension"]).all()
    assert set(ask(model, rows)["verdict"]) == {"recommend", "defer"}


@pytest.mark.parametrize("charted", [0, 1])
@pytest.mark.parametrize("name", ["map", "spo2", "urine"])
def test_who_was_not_charted_for_long_gets_no_dose(
    model: Model, rows: pd.DataFrame, name: str, charted: int
) -> None:
    """What was never charted, or at first alone: nobody in training went so long without."""
    longest = model.history.preparation.longest_gaps[name]
    answers = ask(model, rows.assign(**{name: rows[name].mask(rows["step"] >= charted)}))
    late = answers["step"] >= charted + longest
    assert late.any()
    assert set(answers.loc[late, "verdict"]) == {"defer"}
