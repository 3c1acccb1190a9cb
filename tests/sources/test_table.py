"""The table source: names, types, time, ends and shifts; and what it says to bad files."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from benchmarks._tables import random_table
from ogsrl.errors import SourceError
from ogsrl.sources import Reading, SourceSettings, table
from ogsrl.spec import Cohort

REPOSITORY = Path(__file__).resolve().parents[2]
SPEC = yaml.safe_load((REPOSITORY / "data_contracts" / "sepsis.yaml").read_text())


def cohort(path: Path, **changes: Any) -> Cohort:
    source = {"kind": "table", "path": str(path), **changes.pop("source", {})}
    return Cohort.model_validate({**SPEC, "source": source, **changes})


def read(made: Cohort, **settings: Any) -> tuple[pd.DataFrame, Reading]:
    reading = table.read(made, SourceSettings(**settings))
    return pd.concat(list(reading.parts), ignore_index=True), reading


@pytest.fixture
def clean(tmp_path: Path) -> pd.DataFrame:
    return random_table(cohort(tmp_path), 60, 3)


def test_csv_and_shuffled_parquet_and_shards_give_the_same_table(
    clean: pd.DataFrame, tmp_path: Path
) -> None:
    clean.to_csv(tmp_path / "a.csv", index=False)
    clean.sample(frac=1, random_state=1).to_parquet(tmp_path / "b.parquet")
    (tmp_path / "shards" / "deep").mkdir(parents=True)
    half = clean.iloc[::2], clean.iloc[1::2]
    half[0].to_parquet(tmp_path / "shards" / "one.parquet")
    half[1].to_parquet(tmp_path / "shards" / "deep" / "two.parquet")
    for name in ("a.csv", "b.parquet", "shards"):
        found, reading = read(cohort(tmp_path / name))
        pd.testing.assert_frame_equal(found, clean)
        assert reading.attrition[-1]["rows"] == len(clean)


def test_stays_come_whole_and_sorted_whatever_the_part(
    clean: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clean.sample(frac=1, random_state=2).to_parquet(tmp_path / "a.parquet")
    monkeypatch.setattr(table, "PART_ROWS", 50)
    reading = table.read(cohort(tmp_path / "a.parquet"), SourceSettings())
    parts = list(reading.parts)
    stays = [set(part["stay_id"]) for part in parts]
    assert sum(map(len, stays)) == len(set().union(*stays)) == 60
    pd.testing.assert_frame_equal(pd.concat(parts, ignore_index=True), clean)


def test_foreign_names_are_mapped_and_other_columns_are_named_as_ignored(
    clean: pd.DataFrame, tmp_path: Path
) -> None:
    foreign = clean.rename(columns={"spo2": "O2 sat (%)", "stay_id": "icustay"})
    foreign["remarks"] = "x"
    foreign["Mrs Marker 1932-04-12"] = "x"
    foreign.to_csv(tmp_path / "a.csv", index=False)
    names = {"spo2": "O2 sat (%)", "stay_id": "icustay"}
    found, reading = read(cohort(tmp_path / "a.csv", source={"columns": names}))
    pd.testing.assert_frame_equal(found, clean)
    assert [w.rule for w in reading.warnings] == ["unknown_columns"]
    assert "remarks (1 with odd names)" in reading.warnings[0].message
    assert "Marker" not in reading.warnings[0].message


def test_steps_are_made_from_times_and_several_rows_of_a_bin_become_one(tmp_path: Path) -> None:
    made = random_table(cohort(tmp_path), 1, 5).iloc[:2].copy()
    made["fluid_total"] = 0.0
    four = pd.concat([made.iloc[[0]]] * 2 + [made.iloc[[1]]] * 2, ignore_index=True)
    four["time"] = pd.to_datetime(
        ["2150-01-01 22:00", "2150-01-02 01:59", "2150-01-02 02:00", "2150-01-02 05:00"]
    )
    four["iv_fluid"] = [100.0, 250.0, 50.0, np.nan]
    four["vasopressor"] = [0.1, 0.3, 0.2, 0.0]
    four["urine"] = [10.0, np.nan, np.nan, np.nan]
    four["map"] = [60.0, 70.0, 80.0, np.nan]
    four.drop(columns=["step", "hours", "end"]).to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(SourceError, match="charted_during_dose"):
        read(cohort(tmp_path / "a.csv"))
    first = {n: {**c, "statistic": "first"} for n, c in SPEC["observations"].items()}
    during = {"known_before_dose": False, "statistic": "last"}
    first["map"] = {**first["map"], **during}
    first["urine"] = {**first["urine"], **during, "statistic": "sum"}
    found, reading = read(cohort(tmp_path / "a.csv", observations=first))
    assert found["step"].tolist() == [0, 1]
    assert found["hours"].tolist() == [0, 4]
    assert found["iv_fluid"].tolist() == [350, 50], "doses of a bin are summed"
    assert found["vasopressor"].tolist() == [0.3, 0.2], "the largest rate of a bin"
    assert found["heart_rate"].tolist() == [made["heart_rate"].iloc[0], made["heart_rate"].iloc[1]]
    assert found["map"].isna().tolist() == [True, False]
    assert found["map"].iloc[1] == 70, "the last value of the bin before"
    assert found["urine"].iloc[1] == 10, "the sum of the bin before"
    assert [row["rows"] for row in reading.attrition] == [4, 2]
    assert {"step", "end"} <= set(reading.provenance["derived"])


def test_what_is_charted_in_the_bin_of_the_dose_moves_to_the_next_row(
    clean: pd.DataFrame, tmp_path: Path
) -> None:
    clean.to_parquet(tmp_path / "a.parquet")
    observations = {**SPEC["observations"]}
    observations["urine"] = {**observations["urine"], "known_before_dose": False}
    found, reading = read(cohort(tmp_path / "a.parquet", observations=observations))
    expected = clean.groupby("stay_id")["urine"].shift(1)
    pd.testing.assert_series_equal(found["urine"], expected)
    assert reading.provenance["shifted"] == ["urine"]


def test_a_stay_beyond_the_window_ends_at_the_horizon_and_keeps_its_later_death(
    clean: pd.DataFrame, tmp_path: Path
) -> None:
    clean.to_parquet(tmp_path / "a.parquet")
    found, reading = read(cohort(tmp_path / "a.parquet", max_steps=5))
    last = found.groupby("stay_id").tail(1).set_index("stay_id")
    before = clean.groupby("stay_id").tail(1).set_index("stay_id")
    cut = before["step"] > 4
    assert (last["end"][cut] == "horizon").all()
    assert (last["died"][cut & (before["end"] == "death")]).all()
    assert (last["end"][~cut] == before["end"][~cut]).all()
    assert [w.rule for w in reading.warnings] == ["beyond_max_steps"]
    assert reading.warnings[0].count == cut.sum()


def test_a_death_beyond_the_window_is_kept_though_the_table_has_no_died(
    clean: pd.DataFrame, tmp_path: Path
) -> None:
    clean.drop(columns="died").to_csv(tmp_path / "a.csv", index=False)
    found, _ = read(cohort(tmp_path / "a.csv", max_steps=5))
    last = found.groupby("stay_id").tail(1).set_index("stay_id")
    source = clean.groupby("stay_id").tail(1).set_index("stay_id")["end"]
    assert last["died"][source == "death"].all()
    assert not last["died"][source.isin(["discharge", "horizon"])].any()
    assert last["died"][source == "censored"].isna().all(), "unknown is not alive"


def test_a_stay_that_both_died_and_did_not_is_refused(clean: pd.DataFrame, tmp_path: Path) -> None:
    torn = clean.copy()
    first = torn["stay_id"].iloc[0]
    torn.loc[torn["stay_id"] == first, "died"] = [True] + [False] * (
        (torn["stay_id"] == first).sum() - 1
    )
    torn.to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(SourceError, match="1 stays say both"):
        read(cohort(tmp_path / "a.csv"))


def test_ends_are_derived_from_deaths_and_the_window(clean: pd.DataFrame, tmp_path: Path) -> None:
    known = clean[clean.groupby("stay_id")["end"].transform("last") != "censored"]
    flagged = known.drop(columns="end").copy()
    flagged["died"] = known.groupby("stay_id")["died"].transform("last").astype(int)
    flagged.to_csv(tmp_path / "a.csv", index=False)
    found, reading = read(cohort(tmp_path / "a.csv"))
    assert [w.rule for w in reading.warnings] == ["assumed_deaths"]
    pd.testing.assert_series_equal(found["end"], known["end"].reset_index(drop=True))
    pd.testing.assert_series_equal(found["died"], known["died"].reset_index(drop=True))


def test_categories_become_codes_by_name_never_by_order_of_appearance(
    clean: pd.DataFrame, tmp_path: Path
) -> None:
    statics = {**SPEC["static"], "female": {"unit": "1", "kind": "categorical"}}
    statics["female"]["levels"] = ["Male", "Female"]
    text = clean.assign(female=clean["female"].map({0.0: "male", 1.0: "FEMALE "}))
    text.iloc[::-1].to_csv(tmp_path / "a.csv", index=False)
    found, _ = read(cohort(tmp_path / "a.csv", static=statics))
    pd.testing.assert_series_equal(found["female"], clean["female"])


def test_codes_of_levels_are_read_too_unless_a_level_is_named_by_a_number(
    clean: pd.DataFrame, tmp_path: Path
) -> None:
    clean.to_csv(tmp_path / "a.csv", index=False)
    named = {"unit": "1", "kind": "categorical", "levels": ["none", "Female"]}
    found, _ = read(cohort(tmp_path / "a.csv", static={**SPEC["static"], "female": named}))
    pd.testing.assert_series_equal(found["female"], clean["female"])
    numbered = named | {"levels": ["1", "2"]}
    with pytest.raises(SourceError, match="unknown_level"):
        read(cohort(tmp_path / "a.csv", static={**SPEC["static"], "female": numbered}))


def test_so_many_patients_are_the_same_ones_whatever_the_order(
    clean: pd.DataFrame, tmp_path: Path
) -> None:
    clean.to_parquet(tmp_path / "a.parquet")
    clean.iloc[::-1].to_csv(tmp_path / "b.csv", index=False)
    one, _ = read(cohort(tmp_path / "a.parquet"), patients=7)
    two, _ = read(cohort(tmp_path / "b.csv"), patients=7)
    assert one["patient_id"].nunique() == 7
    pd.testing.assert_frame_equal(one, two)


def spoil_text(frame: pd.DataFrame, column: str, rows: slice, change: Any) -> pd.DataFrame:
    text = frame.astype(object).copy()
    position = text.columns.get_loc(column)
    text.iloc[rows, position] = [change(value) for value in text.iloc[rows, position]]
    return text


BAD = {
    "decimal_comma": lambda f: spoil_text(
        f, "map", slice(3, 8), lambda v: f"{v:.1f}".replace(".", ",")
    ),
    "not_a_number": lambda f: spoil_text(f, "map", slice(3, 8), lambda v: "high 7713"),
    "missing_patient_id": lambda f: spoil_text(f, "patient_id", slice(3, 8), lambda v: None),
    "missing_step": lambda f: spoil_text(f, "step", slice(3, 8), lambda v: ""),
    "ambiguous_ids": lambda f: spoil_text(f, "patient_id", slice(3, 8), lambda v: v.lower()),
    "not_whole": lambda f: spoil_text(f, "step", slice(3, 8), lambda v: v + 0.5),
    "not_a_flag": lambda f: spoil_text(f, "died", slice(3, 8), lambda v: "perhaps 7713"),
    "missing_column": lambda f: f.drop(columns="map"),
    "no_rows": lambda f: f.iloc[:0],
}


@pytest.mark.parametrize("rule", BAD)
def test_a_bad_csv_is_refused_by_name_without_showing_a_cell(
    rule: str, clean: pd.DataFrame, tmp_path: Path
) -> None:
    BAD[rule](clean).to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(SourceError, match=rf"\(rule {rule}\)") as caught:
        read(cohort(tmp_path / "a.csv"))
    assert "7713" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_times_with_and_without_a_zone_are_refused(clean: pd.DataFrame, tmp_path: Path) -> None:
    times = pd.Timestamp("2150-01-01") + pd.to_timedelta(clean["hours"], unit="h")
    text = times.dt.strftime("%Y-%m-%d %H:%M:%S")
    text[::3] += "+02:00"
    clean.drop(columns=["step", "hours"]).assign(time=text).to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(SourceError, match="mixed_timezones"):
        read(cohort(tmp_path / "a.csv"))


def test_all_mistakes_of_a_file_are_told_at_once(clean: pd.DataFrame, tmp_path: Path) -> None:
    bad = BAD["decimal_comma"](BAD["missing_patient_id"](clean))
    bad.to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(SourceError) as caught:
        read(cohort(tmp_path / "a.csv"))
    assert "map: 5 of" in str(caught.value)
    assert "patient_id: 5 of" in str(caught.value)


def test_damaged_files_are_refused(clean: pd.DataFrame, tmp_path: Path) -> None:
    whole = tmp_path / "a.parquet"
    clean.to_parquet(whole)
    whole.write_bytes(whole.read_bytes()[:-200])
    with pytest.raises(SourceError, match="truncated_file"):
        read(cohort(whole))
    (tmp_path / "b.csv").write_bytes(b"")
    with pytest.raises(SourceError, match="empty_file"):
        read(cohort(tmp_path / "b.csv"))
    clean.to_csv(tmp_path / "c.csv", index=False, encoding="utf-16")
    with pytest.raises(SourceError, match="encoding"):
        read(cohort(tmp_path / "c.csv"))
    with pytest.raises(SourceError, match="does not exist"):
        read(cohort(tmp_path / "d.csv"))


def test_shards_that_differ_in_type_are_refused(clean: pd.DataFrame, tmp_path: Path) -> None:
    clean.iloc[:300].to_parquet(tmp_path / "a.parquet")
    clean.iloc[300:].assign(map="12").to_parquet(tmp_path / "b.parquet")
    with pytest.raises(SourceError, match="mixed_types"):
        read(cohort(tmp_path))
    clean.iloc[300:].drop(columns="map").to_parquet(tmp_path / "b.parquet")
    with pytest.raises(SourceError, match="mixed_columns"):
        read(cohort(tmp_path))


def test_identifiers_stored_as_floating_point_are_refused(
    clean: pd.DataFrame, tmp_path: Path
) -> None:
    codes = pd.factorize(clean["patient_id"])[0].astype(float)
    clean.assign(patient_id=codes).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(SourceError, match="float_ids"):
        read(cohort(tmp_path / "a.parquet"))
