"""The AI-Clinician's table: nobody knows before a dose what was charted during it; its defects."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from ogsrl.errors import SourceError
from ogsrl.sources import Reading, SourceSettings, open_source
from ogsrl.spec import Cohort
from tests.aiclinician_data import EARLY, layout, named, simulated

REPOSITORY = Path(__file__).resolve().parents[2]
SPEC = yaml.safe_load((REPOSITORY / "data_contracts" / "aiclinician.yaml").read_text())
MARKER = 987_654_321


@pytest.fixture(scope="module")
def stays() -> pd.DataFrame:
    return simulated(80)


@pytest.fixture
def table(stays: pd.DataFrame) -> pd.DataFrame:
    return layout(stays)


def read(
    root: Path, made: pd.DataFrame, contract: dict[str, Any] | None = None, **options: Any
) -> tuple[pd.DataFrame, Reading]:
    named(made).to_csv(root / "table.csv", index=False)
    return opened(root, contract, **options)


def opened(
    root: Path, contract: dict[str, Any] | None = None, **options: Any
) -> tuple[pd.DataFrame, Reading]:
    told = {"patients": "unknown", **options}
    source = {"kind": "aiclinician", "path": "table.csv", "options": told}
    cohort = Cohort.model_validate({**SPEC, **(contract or {}), "source": source})
    reading = open_source(cohort, SourceSettings(root=root))
    return pd.concat(list(reading.parts), ignore_index=True), reading


def warned(reading: Reading) -> dict[str, int]:
    return {one.rule: one.count for one in reading.warnings if one.rule != "caveat"}


def holes(reading: Reading) -> dict[str | None, int]:
    return {one.column: one.count for one in reading.warnings if one.rule == "hole_in_sofa"}


def test_each_row_holds_what_was_known_before_its_dose(
    stays: pd.DataFrame, table: pd.DataFrame, tmp_path: Path
) -> None:
    found, reading = read(tmp_path, table)
    number = stays.groupby("stay_id", sort=False).cumcount()
    length = stays.groupby("stay_id", sort=False)["step"].transform("size")
    there = (number >= EARLY) & (number < np.minimum(length - 1, EARLY + 12))
    then = stays[there].reset_index(drop=True)
    assert len(found) == len(then)
    for name in ("map", "spo2", "fio2", "urine", "lactate", "gcs", "ventilated"):
        assert found[name].to_numpy() == pytest.approx(then[name].to_numpy(float)), name
    for name in ("iv_fluid", "vasopressor", "age", "female"):
        assert found[name].to_numpy() == pytest.approx(then[name].to_numpy(float)), name
    dose = found.groupby("stay_id")["iv_fluid"]
    assert found["fluid_total"].tolist() == pytest.approx(
        (dose.cumsum() - found["iv_fluid"]).tolist()
    )
    assert found["step"].tolist() == (number[there] - EARLY).tolist()
    died = found.groupby("stay_id", sort=False)["died"].last().astype(bool)
    truth = stays.groupby("stay_id", sort=False)["died"].last().fillna(False).astype(bool)
    assert died.tolist() == truth.tolist()
    ends = found.groupby("stay_id", sort=False)["end"].last()
    assert set(ends) == {"discharge", "horizon"}
    assert (found.groupby("stay_id", sort=False)["step"].last()[ends == "horizon"] == 11).all()
    assert [line["step"] for line in reading.attrition] == [
        "in the table",
        "from the presumed onset on",
        "first 12 steps without a gap",
    ]
    assert set(reading.provenance["shifted"]) >= {"map", "sofa", "urine"}


def test_whoever_begins_at_the_onset_has_nothing_charted_before(
    table: pd.DataFrame, tmp_path: Path
) -> None:
    found, _ = read(tmp_path, table.assign(onset=table.groupby("stay")["time"].transform("min")))
    first = found["step"] == 0
    assert found.loc[first, ["map", "urine", "sofa", "weight"]].isna().all(axis=None)
    assert found.loc[~first, ["map", "urine", "sofa"]].notna().all(axis=None)


def test_hours_without_a_row_end_a_stay_with_the_state_before_them(
    table: pd.DataFrame, tmp_path: Path
) -> None:
    whole, _ = read(tmp_path, table)
    stay = table["stay"].iloc[0]
    gone = (table["stay"] == stay) & (table["row"] == EARLY + 1)
    found, reading = read(tmp_path, table[~gone])
    assert warned(reading)["hours_without_a_row"] == 1
    cut = found[found["stay_id"] == str(stay)]
    assert cut["step"].tolist() == [0, 1]
    assert cut["end"].tolist()[-1] == "censored"
    assert pd.isna(cut["died"].iloc[-1])
    assert cut[["iv_fluid", "vasopressor"]].iloc[-1].isna().all()
    same = ["map", "spo2", "urine", "fluid_total"]
    then = whole[whole["stay_id"] == str(stay)].iloc[:2]
    assert cut[same].to_numpy() == pytest.approx(then[same].to_numpy())
    early = (table["stay"] == stay) & (table["row"] == EARLY - 1)
    found, reading = read(tmp_path, table[~early])
    assert "hours_without_a_row" not in warned(reading)
    one = found[found["stay_id"] == str(stay)]
    assert pd.isna(one["map"].iloc[0]), "it was of other hours"
    assert len(one) == len(whole[whole["stay_id"] == str(stay)])


def test_what_is_wrong_is_found_counted_and_named(table: pd.DataFrame, tmp_path: Path) -> None:
    found, reading = read(tmp_path, table)
    given = int(((table["iv_fluid"] > 0) | (table["vasopressor"] > 0)).sum())
    before = holes(reading)
    assert {*warned(reading)} == {"filled", "dose_in_state", "hole_in_sofa"}
    assert warned(reading)["filled"] == 36
    assert warned(reading)["dose_in_state"] == given
    text = " ".join(reading.provenance["caveats"])
    for word in ("filled from the nearest row", "decided by what came later", "not added"):
        assert word in text
    spoilt = table.copy()
    spoilt.loc[3:5, "bilirubin"] = 12.0
    spoilt.loc[3:5, "their_sofa"] = spoilt.loc[3:5, "their_sofa"] - 4
    spoilt.loc[7, "action"] = 6 - spoilt.loc[7, "action"]
    spoilt.loc[spoilt["stay"] == spoilt["stay"].iloc[-1], "age"] = 91.4 * 365.25
    again, reading = read(tmp_path, spoilt)
    told = warned(reading)
    assert holes(reading) == before | {"bilirubin": 3}
    assert told["another_sofa"] == 3
    assert told["another_action"] == 1
    assert told["oldest"] == int((spoilt["stay"] == spoilt["stay"].iloc[-1]).sum())
    assert again["sofa"].max() <= 24
    assert len(again) == len(found)


def test_stays_of_one_patient_are_one_patients(table: pd.DataFrame, tmp_path: Path) -> None:
    ids = sorted(table["stay"].unique())
    whose = pd.DataFrame({"ROW_ID": 1, "SUBJECT_ID": np.arange(len(ids)) // 2, "ICUSTAY_ID": ids})
    whose.to_csv(tmp_path / "ICUSTAYS.csv", index=False)
    found, reading = read(tmp_path, table, patients="ICUSTAYS.csv")
    assert found["patient_id"].nunique() == (len(ids) + 1) // 2
    assert not any("Stays stand for patients" in one for one in reading.provenance["caveats"])
    assert len(reading.provenance["files"]) == 2
    _, reading = read(tmp_path, table)
    assert reading.provenance["caveats"][0].startswith("Stays stand for patients")
    whose.iloc[1:].to_csv(tmp_path / "ICUSTAYS.csv", index=False)
    with pytest.raises(SourceError, match=r"1 of \d+ stays are not in ICUSTAYS.csv"):
        opened(tmp_path, patients="ICUSTAYS.csv")
    whose.drop(columns="SUBJECT_ID").to_csv(tmp_path / "ICUSTAYS.csv", index=False)
    with pytest.raises(SourceError, match="lacks ICUSTAY_ID or SUBJECT_ID"):
        opened(tmp_path, patients="ICUSTAYS.csv")


def _with(**columns: Any) -> Callable[[pd.DataFrame], pd.DataFrame]:
    return lambda made: made.assign(**columns)


def _scaled(made: pd.DataFrame) -> pd.DataFrame:
    return made.assign(heart_rate=(made["heart_rate"] - 90) / 15)


def _early_reward(made: pd.DataFrame) -> pd.DataFrame:
    made = made.copy()
    made.loc[0, "reward"] = -0.5
    return made


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_scaled, "o:HR: half of its"),
        (lambda made: made.assign(fio2=made["fio2"] * 100), "o:FiO2_1: half of its"),
        (lambda made: made.assign(age=made["age"] / 365.25), "o:age: half of its"),
        (lambda made: made.assign(female=made["female"] + 1), "o:gender: "),
        (lambda made: pd.concat([made, made.iloc[:4]]), "4 rows are there twice"),
        (_with(traj=1), "traj: "),
        (_early_reward, "r:reward: not 0 in 1 rows before"),
        (_with(reward=0.0), "r:reward: not 0 in 0 rows before a stay's last, 0 in "),
        (_with(map=f"MARK{MARKER}"), "o:MeanBP: "),
        (_with(onset=np.nan), "m:presumed_onset: "),
    ],
)
def test_another_table_is_refused_without_showing_anybody(
    table: pd.DataFrame,
    tmp_path: Path,
    change: Callable[[pd.DataFrame], pd.DataFrame],
    said: str,
) -> None:
    with pytest.raises(SourceError) as error:
        read(tmp_path, change(table))
    assert said in str(error.value)
    assert str(MARKER) not in str(error.value)


def test_columns_that_are_missing_or_differ_are_named(table: pd.DataFrame, tmp_path: Path) -> None:
    made = named(table)
    made.drop(columns=["o:GCS", "r:reward"]).to_csv(tmp_path / "table.csv", index=False)
    with pytest.raises(SourceError, match="r:reward, o:GCS: 2 of"):
        opened(tmp_path)
    variant = made.drop(columns="a:action").assign(**{"a:max_dose_vaso": made["o:max_dose_vaso"]})
    variant.to_csv(tmp_path / "table.csv", index=False)
    assert len(opened(tmp_path)[0])
    variant.loc[2:3, "a:max_dose_vaso"] += 1
    variant.to_csv(tmp_path / "table.csv", index=False)
    with pytest.raises(SourceError, match=r"in 2 of \d+ rows they are not the same dose"):
        opened(tmp_path)
    (tmp_path / "table.csv").write_bytes(b"\xff\xfe\x00" * 40)
    with pytest.raises(SourceError):
        opened(tmp_path)
    (tmp_path / "table.csv").unlink()
    with pytest.raises(SourceError, match="no such file"):
        opened(tmp_path)


def test_a_cohort_file_that_says_otherwise_is_refused(table: pd.DataFrame, tmp_path: Path) -> None:
    named(table).to_csv(tmp_path / "table.csv", index=False)
    known = {**SPEC["observations"], "map": {**SPEC["observations"]["map"]}}
    del known["map"]["known_before_dose"]
    with pytest.raises(SourceError, match="map: in this table charted while the dose was given"):
        opened(tmp_path, {"observations": known})
    with pytest.raises(SourceError, match="horizon: 90 days"):
        opened(tmp_path, deaths="90_days")
    with pytest.raises(SourceError, match="time_step_hours: 2"):
        opened(tmp_path, {"time_step_hours": 2})
    nobody = {"kind": "aiclinician", "path": "table.csv"}
    cohort = Cohort.model_validate({**SPEC, "source": nobody})
    with pytest.raises(SourceError, match="patients: Field required"):
        open_source(cohort, SourceSettings(tmp_path))
