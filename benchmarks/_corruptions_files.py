"""What goes wrong in files: clean simulated cohorts, written so that reading them must complain.

Used by `benchmarks.corruptions`; the rules named here are those of ogsrl.sources.table, or of the
contract where reading cannot know better.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

Rng = np.random.Generator


@dataclass(frozen=True)
class FileCorruption:
    """One way to break a file; `write` gives the path to be named in the cohort file."""

    name: str
    rule: str
    write: Callable[[pd.DataFrame, Path, Rng], Path]


FILES: list[FileCorruption] = []


def _breaks(rule: str) -> Callable[..., None]:
    def register(write: Callable[[pd.DataFrame, Path, Rng], Path]) -> None:
        FILES.append(FileCorruption(write.__name__.strip("_"), rule, write))

    return register


def csv(frame: pd.DataFrame, folder: Path) -> Path:
    """Write a clean CSV file."""
    path = folder / "table.csv"
    frame.to_csv(path, index=False)
    return path


def parquet(frame: pd.DataFrame, folder: Path, name: str = "table.parquet") -> Path:
    """Write a clean parquet file."""
    path = folder / name
    frame.to_parquet(path)
    return path


def timed(frame: pd.DataFrame) -> pd.DataFrame:
    """The table with a time of day instead of steps."""
    start = pd.Timestamp("2120-03-28 20:00")
    time = start + pd.to_timedelta(frame["hours"], unit="h")
    text = time.dt.strftime("%Y-%m-%d %H:%M:%S")
    return frame.drop(columns=["step", "hours"]).assign(time=text)


@_breaks("decimal_comma")
def _decimal_commas(frame: pd.DataFrame, folder: Path, rng: Rng) -> Path:
    path = folder / "table.csv"
    frame.to_csv(path, index=False, sep=";", decimal=",")
    return path


@_breaks("truncated_file")
def _truncated_parquet(frame: pd.DataFrame, folder: Path, rng: Rng) -> Path:
    path = parquet(frame, folder)
    path.write_bytes(path.read_bytes()[:-2000])
    return path


@_breaks("truncated_file")
def _rows_of_different_lengths(frame: pd.DataFrame, folder: Path, rng: Rng) -> Path:
    path = csv(frame, folder)
    lines = path.read_text().splitlines()
    lines[40:60] = [line + ",1,2,3" for line in lines[40:60]]
    path.write_text("\n".join(lines))
    return path


@_breaks("empty_file")
def _an_empty_file(frame: pd.DataFrame, folder: Path, rng: Rng) -> Path:
    path = folder / "table.csv"
    path.touch()
    return path


@_breaks("no_rows")
def _a_header_and_no_rows(frame: pd.DataFrame, folder: Path, rng: Rng) -> Path:
    return csv(frame.iloc[:0], folder)


@_breaks("no_header")
def _no_header(frame: pd.DataFrame, folder: Path, rng: Rng) -> Path:
    path = folder / "table.csv"
    frame.to_csv(path, index=False, header=False)
    return path


@_breaks("encoding")
def _utf_16(frame: pd.DataFrame, folder: Path, rng: Rng) -> Path:
    path = folder / "table.csv"
    frame.to_csv(path, index=False, encoding="utf-16")
    return path


@_breaks("encoding")
def _latin_1(frame: pd.DataFrame, folder: Path, rng: Rng) -> Path:
    path = folder / "table.csv"
    frame.assign(site=frame["site"] + " Süd").to_csv(path, index=False, encoding="latin-1")
    return path


@_breaks("repeated_column")
def _a_column_twice(frame: pd.DataFrame, folder: Path, rng: Rng) -> Path:
    path = folder / "table.csv"
    twice = pd.concat([frame, frame["lactate"]], axis=1)
    twice.to_csv(path, index=False)
    return path


@_breaks("mixed_types")
def _shards_of_two_types(frame: pd.DataFrame, folder: Path, rng: Rng) -> Path:
    half = len(frame) // 2
    parquet(frame.iloc[:half], folder, "one.parquet")
    parquet(frame.iloc[half:].assign(patient_id=1), folder, "two.parquet")
    return folder


@_breaks("mixed_columns")
def _a_column_in_some_shards(frame: pd.DataFrame, folder: Path, rng: Rng) -> Path:
    half = len(frame) // 2
    parquet(frame.iloc[:half], folder, "one.parquet")
    parquet(frame.iloc[half:].drop(columns="lactate"), folder, "two.parquet")
    return folder


@_breaks("missing_column")
def _a_column_not_exported(frame: pd.DataFrame, folder: Path, rng: Rng) -> Path:
    return csv(frame.drop(columns="creatinine"), folder)


@_breaks("missing_column")
def _a_column_renamed(frame: pd.DataFrame, folder: Path, rng: Rng) -> Path:
    return csv(frame.rename(columns={"heart_rate": "Heart Rate"}), folder)


@_breaks("unknown_columns")
def _unknown_columns(frame: pd.DataFrame, folder: Path, rng: Rng) -> Path:
    return csv(frame.assign(room=1, bed=2), folder)


@_breaks("mixed_id_types")
def _ids_from_two_systems(frame: pd.DataFrame, folder: Path, rng: Rng) -> Path:
    numbers = pd.Series(pd.factorize(frame["patient_id"])[0] + 100).astype("str")
    half = np.arange(len(frame)) < len(frame) // 2
    return csv(frame.assign(patient_id=numbers.where(half, frame["patient_id"])), folder)


@_breaks("ambiguous_ids")
def _ids_with_a_decimal_point(frame: pd.DataFrame, folder: Path, rng: Rng) -> Path:
    numbers = pd.Series(pd.factorize(frame["patient_id"])[0] + 100).astype("str")
    odd = rng.random(len(frame)) < 0.5
    return csv(frame.assign(patient_id=numbers.where(odd, numbers + ".0")), folder)


@_breaks("float_ids")
def _ids_as_fractions(frame: pd.DataFrame, folder: Path, rng: Rng) -> Path:
    return parquet(frame.assign(stay_id=pd.factorize(frame["stay_id"])[0] * 1.0), folder)


@_breaks("missing_patient_id")
def _rows_without_a_patient(frame: pd.DataFrame, folder: Path, rng: Rng) -> Path:
    lost = rng.random(len(frame)) < 0.01
    return csv(frame.assign(patient_id=frame["patient_id"].mask(lost)), folder)


@_breaks("not_a_number")
def _text_in_a_number(frame: pd.DataFrame, folder: Path, rng: Rng) -> Path:
    text = frame["lactate"].astype("str").where(rng.random(len(frame)) > 0.01, "haemolysed")
    return csv(frame.assign(lactate=text), folder)


@_breaks("not_a_number")
def _a_flag_as_a_word(frame: pd.DataFrame, folder: Path, rng: Rng) -> Path:
    return csv(frame.assign(female=frame["female"].map({0.0: "male", 1.0: "femal"})), folder)


@_breaks("not_a_flag")
def _outcome_as_a_word(frame: pd.DataFrame, folder: Path, rng: Rng) -> Path:
    words = frame["died"].map({True: "perhaps", False: "no"})
    return csv(frame.assign(died=words), folder)


@_breaks("wrong_type")
def _numbers_as_dates(frame: pd.DataFrame, folder: Path, rng: Rng) -> Path:
    dates = pd.Timestamp("1900-01-01") + pd.to_timedelta(frame["sofa"], unit="D")
    return parquet(frame.assign(sofa=dates), folder)


@_breaks("mixed_timezones")
def _some_times_with_a_zone(frame: pd.DataFrame, folder: Path, rng: Rng) -> Path:
    table = timed(frame)
    zoned = frame["site"] == "B"
    return csv(table.assign(time=table["time"].where(~zoned, table["time"] + "+02:00")), folder)


@_breaks("unreadable_time")
def _times_in_words(frame: pd.DataFrame, folder: Path, rng: Rng) -> Path:
    table = timed(frame)
    chosen = rng.random(len(frame)) < 0.01
    return csv(table.assign(time=table["time"].where(~chosen, "Monday noon")), folder)


@_breaks("serial_dates")
def _times_as_excel_serials(frame: pd.DataFrame, folder: Path, rng: Rng) -> Path:
    table = timed(frame)
    return csv(table.assign(time=45000.5 + frame["hours"] / 24), folder)


@_breaks("beyond_max_steps")
def _an_hour_a_step(frame: pd.DataFrame, folder: Path, rng: Rng) -> Path:
    table = timed(frame.assign(hours=frame["hours"] * 4))
    return csv(table, folder)


@_breaks("end_known:end")
def _ends_in_another_language(frame: pd.DataFrame, folder: Path, rng: Rng) -> Path:
    return csv(frame.assign(end=frame["end"].replace({"discharge": "Entlassung"})), folder)
