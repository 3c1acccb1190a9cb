"""What is wrong with an export and can be lived with: left out, counted, named.

What cannot be lived with is in `test_meds_events`, `test_meds_mapping` and `test_meds_alongside`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from ogsrl.errors import SourceError
from ogsrl.sources import SourceSettings, open_source
from tests.meds_data import write_meds
from tests.sources.test_meds import REPOSITORY, cohort, patient, read

Change = Callable[[pd.DataFrame], pd.DataFrame]
SUBJECT = 8_123_457


def told(frame: pd.DataFrame, code: str, turn: int = 0) -> int:
    """Place of an event."""
    return int(frame.index[frame["code"] == code][turn])


def valued(code: str, value: float, turn: int = 0) -> Change:
    def change(frame: pd.DataFrame) -> pd.DataFrame:
        frame.loc[told(frame, code, turn), "numeric_value"] = value
        return frame

    return change


def without(code: str, turn: int = 0) -> Change:
    return lambda frame: frame.drop(index=told(frame, code, turn))


def swapped(begun: str, ended: str) -> Change:
    """The end stands before the start."""

    def change(frame: pd.DataFrame) -> pd.DataFrame:
        frame["code"] = frame["code"].replace({begun: ended, ended: begun})
        return frame

    return change


def untimed(code: str) -> Change:
    def change(frame: pd.DataFrame) -> pd.DataFrame:
        frame.loc[told(frame, code), "time"] = pd.NaT
        return frame.sort_values("time", kind="stable", na_position="first")

    return change


def recoded(code: str, other: str) -> Change:
    return lambda frame: frame.assign(code=frame["code"].replace(code, other))


HEART, PRESSOR, SALINE = "LAB//220045//bpm", "221906", "225158"
START, END = f"INFUSION_START//{PRESSOR}", f"INFUSION_END//{PRESSOR}"
KINDS: dict[str, tuple[Change, str]] = {
    "a negative rate": (valued(START, -0.2), "norepinephrine: rates below 0: 1"),
    "a rate that nobody gives": (valued(START, 60), "norepinephrine: rates above 5 ug/kg/min: 1"),
    "a negative volume": (
        valued(f"INFUSION_END//{SALINE}", -5),
        "isotonic: volumes or flows below 0: 1",
    ),
    "a bag of fifty litres": (
        valued(f"INFUSION_END//{SALINE}", 50_000),
        "isotonic: volumes above 10000 mL: 1",
    ),
    "an end before its start": (
        swapped(f"INFUSION_START//{SALINE}", f"INFUSION_END//{SALINE}"),
        "isotonic: starts without an end: 1",
    ),
    "a start without an end": (without(END, 1), "norepinephrine: starts without an end: 1"),
    "an end without a start": (without(START), "norepinephrine: ends without a start: 1"),
    "an amount that is not what the rate gives": (
        valued(END, 40),
        "norepinephrine: rates that amounts contradict: 1",
    ),
    "an absolute rate without a weight": (
        lambda frame: recoded(START, f"{START}//mcg/min")(without("LAB//226512//kg")(frame)),
        "norepinephrine: rates without a weight: 2",
    ),
    "a heart rate of 900": (valued(HEART, 900), "heart_rate: 1 values left out: implausible"),
    "an infinite heart rate": (
        valued(HEART, float("inf")),
        "heart_rate: 1 values left out: no number",
    ),
    "a heart rate without a value": (
        valued(HEART, float("nan")),
        "heart_rate: 1 values left out: no number",
    ),
    "a heart rate without a time": (untimed(HEART), "heart_rate: 1 values left out: no time"),
    "a stay without a discharge": (
        without("ICU_DISCHARGE//MICU"),
        "no discharge from intensive care: 1",
    ),
    "a stay of no length": (
        lambda frame: frame.assign(
            time=frame["time"].mask(
                frame["code"] == "ICU_DISCHARGE//MICU",
                frame.loc[told(frame, "ICU_ADMISSION//MICU"), "time"],
            )
        ).sort_values("time", kind="stable", na_position="first"),
        "no length: 1",
    ),
    "a patient never born": (without("MEDS_BIRTH"), "18 years or older"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_counted_and_named_and_shows_nobody(kind: str, tmp_path: Path) -> None:
    change, said = KINDS[kind]
    spoilt = change(patient(SUBJECT).reset_index(drop=True)).reset_index(drop=True)
    both = pd.concat([patient(1), spoilt])
    found, reading = read(write_meds(tmp_path, {"0": both}))
    messages = [warning.message for warning in reading.warnings]
    if said == "18 years or older":
        left = {line["step"]: line["stays"] for line in reading.attrition}
        assert (left["in intensive care, from and to known times"], left[said]) == (2, 1)
    else:
        assert said in messages
    assert not any(str(SUBJECT) in message for message in messages)
    assert len(found[found["patient_id"] == "1"]) == 4, "who is beside it is as before"
    mine = found[found["patient_id"] == str(SUBJECT)]
    assert mine.empty or mine["end"].iloc[-1] in ("censored", "discharge")
    if any(word in said for word in ("norepinephrine", "isotonic")):
        assert mine["end"].tolist()[-1] == "censored", "a dose that is not known is not guessed"


def test_an_export_that_was_written_twice_is_refused(tmp_path: Path) -> None:
    frame = pd.concat([patient(one) for one in range(1, 6)])
    twice = pd.concat([frame, frame]).sort_values(
        ["subject_id", "time"], kind="stable", na_position="first"
    )
    with pytest.raises(SourceError, match="40 of 80 infusion events are there twice"):
        read(write_meds(tmp_path, {"0": twice}))


def test_some_patients_are_the_same_ones_whatever_the_shards(tmp_path: Path) -> None:
    everyone = [patient(one) for one in range(1, 9)]
    one = write_meds(tmp_path / "a", {"0": pd.concat(everyone)})
    parts = {"0": pd.concat(everyone[4:]), "1": pd.concat(everyone[:4])}
    other = write_meds(tmp_path / "b", parts)
    chosen = []
    for path in (one, other):
        settings = SourceSettings(root=REPOSITORY, patients=3)
        reading = open_source(cohort(path), settings)
        chosen.append({*pd.concat(list(reading.parts))["patient_id"]})
        assert reading.attrition[0]["patients"] == 3
    assert chosen[0] == chosen[1]
    assert len(chosen[0]) == 3
