"""The MEDS source: an invented patient by hand, the demo's attrition, and nothing of the future."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from ogsrl.errors import SourceError
from ogsrl.sources import Reading, SourceSettings, open_source
from ogsrl.sources.meds.cohort import Counted, MedsOptions, Read, septic
from ogsrl.sources.meds.events import open_dataset, read_events
from ogsrl.sources.meds.icu import Chunk
from ogsrl.sources.meds.mapping import load_mapping
from ogsrl.spec import Cohort
from tests.demo import DEMO, demo_events, needs_demo
from tests.meds_data import events, write_meds

REPOSITORY = Path(__file__).resolve().parents[2]
SPEC = yaml.safe_load((REPOSITORY / "data_contracts" / "sepsis.yaml").read_text())
STATIC = {name: one for name, one in SPEC["static"].items() if name != "comorbidity"}


def cohort(path: Path, **options: Any) -> Cohort:
    told = {"mapping": "mimic_iv", "infection": "antibiotic_alone", **options}
    source = {"kind": "meds", "path": str(path), "options": told}
    return Cohort.model_validate({**SPEC, "static": STATIC, "source": source})


def read(path: Path, **options: Any) -> tuple[pd.DataFrame, Reading]:
    reading = open_source(cohort(path, **options), SourceSettings(root=REPOSITORY))
    parts = list(reading.parts)
    return (pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()), reading


def patient(subject: int = 1, *more: tuple[float | None, str, float | None]) -> pd.DataFrame:
    """In intensive care for 20 hours; septic at hour 5, when platelets of 90 are known."""
    charted: list[tuple[float | None, str, float | None]] = [
        (-24 * 365.25 * 50, "MEDS_BIRTH", None),
        (-2, "HOSPITAL_ADMISSION//EMERGENCY//X", None),
        (0, "ICU_ADMISSION//MICU", None),
        (0.5, "LAB//226512//kg", 80.0),
        (1, "LAB//220045//bpm", 100.0),
        (2, "MEDICATION//START//Cefepime", None),
        (3, "LAB//220045//bpm", 110.0),
        (4.5, "LAB//51265//K/uL", 90.0),
        (5, "LAB//220045//bpm", 120.0),
        (6, "LAB//220045//bpm", 130.0),
        (6, "INFUSION_START//221906", 0.2),
        (7, "INFUSION_START//225158", 250.0),
        (8, "INFUSION_END//221906", 0.2 * 80 * 120 / 1000),
        (8, "INFUSION_START//221906", 0.4),
        (8, "SUBJECT_FLUID_OUTPUT//226559//ml", 70.0),
        (9, "SUBJECT_FLUID_OUTPUT//226559//ml", 30.0),
        (10, "INFUSION_END//221906", 0.4 * 80 * 120 / 1000),
        (11, "INFUSION_END//225158", 1000.0),
        (14, "INFUSION_START//222315", 2.4),
        (15, "INFUSION_END//222315", 2.4),
        (20, "ICU_DISCHARGE//MICU", None),
        (90, "HOSPITAL_DISCHARGE//HOME", None),
        *more,
    ]
    static = [(None, "GENDER//F", None)]
    return events(subject, *static, *sorted(charted, key=lambda one: (one[0], "START" in one[1])))


def test_an_invented_patient_is_as_worked_out_by_hand(tmp_path: Path) -> None:
    found, reading = read(write_meds(tmp_path, {"train/0": patient()}))
    # time zero is hour 5: the antibiotic of hour 2, and two points for platelets by then
    assert found["step"].tolist() == [0, 1, 2, 3]
    assert found["hours"].tolist() == [0, 4, 8, 12]
    assert found["heart_rate"].tolist()[:2] == [120, 130]
    assert found["heart_rate"].isna().tolist() == [False, False, True, True]
    assert found["platelets"].tolist()[0] == 90
    assert found["urine"].fillna(-1).tolist() == [-1, 100, -1, -1]
    # 250 mL/h from hour 7 to 11: two hours in the first step, two in the second
    assert found["iv_fluid"].tolist() == pytest.approx([500, 500, 0, 0])
    assert found["fluid_total"].tolist() == pytest.approx([0, 500, 1000, 1000])
    # .2 until hour 8, then .4 until 10; vasopressin 2.4 U/h x 2.5 / 60 in hours 14 to 15
    assert found["vasopressor"].tolist() == pytest.approx([0.4, 0.4, 0.1, 0])
    assert found["sofa"].tolist() == [2, 6, 6, 6]
    assert found["end"].tolist()[-1] == "discharge"
    assert not bool(found["died"].tolist()[-1])
    assert found["age"].iloc[0] == pytest.approx(50, abs=0.01)
    assert found[["female", "weight"]].drop_duplicates().to_numpy().tolist() == [[1, 80]]
    assert [line["stays"] for line in reading.attrition] == [1] * 7
    assert reading.attrition[-1]["rows"] == 4
    assert {one.rule for one in reading.warnings} == {"caveat"}


def test_a_death_in_a_step_ends_it_and_a_later_one_is_told(tmp_path: Path) -> None:
    dead = [(18.0, "MEDS_DEATH", None), (18.0, "HOSPITAL_DISCHARGE//DIED", None)]
    found, _ = read(write_meds(tmp_path / "a", {"0": patient(1, *dead)}))
    assert found["end"].tolist()[-1] == "death"
    assert len(found) == 4
    later = [(60.0, "MEDS_DEATH", None), (60.0, "HOSPITAL_DISCHARGE//DIED", None)]
    found, _ = read(write_meds(tmp_path / "b", {"0": patient(1, *later)}))
    assert found["end"].tolist()[-1] == "discharge"
    assert bool(found["died"].tolist()[-1])


def test_where_a_dose_cannot_be_known_the_stay_is_no_longer_followed(tmp_path: Path) -> None:
    open_ended = patient(1, (12.0, "INFUSION_START//221906", 0.3))
    found, reading = read(write_meds(tmp_path, {"0": open_ended}))
    told = [warning.message for warning in reading.warnings if warning.rule != "caveat"]
    assert told == ["norepinephrine: starts without an end: 1"]
    assert found["end"].tolist() == [None, "censored"]
    assert found[["iv_fluid", "vasopressor"]].iloc[-1].isna().all()


def test_children_and_patients_without_antibiotics_or_a_rise_are_left_out(tmp_path: Path) -> None:
    base = patient()
    child = base.assign(subject_id=2)
    child.loc[child["code"] == "MEDS_BIRTH", "time"] += pd.Timedelta(days=365 * 40)
    well = base[base["code"] != "LAB//51265//K/uL"].assign(subject_id=3)
    well = well[~well["code"].str.contains("221906|222315")]
    untreated = base[~base["code"].str.startswith("MEDICATION")].assign(subject_id=4)
    everyone = pd.concat([base, child, well, untreated])
    found, reading = read(write_meds(tmp_path, {"0": everyone}))
    assert set(found["patient_id"]) == {"1"}
    assert [line["stays"] for line in reading.attrition] == [4, 4, 3, 2, 1, 1, 1]


def test_settings_and_columns_that_are_not_there_are_told(tmp_path: Path) -> None:
    path = write_meds(tmp_path, {"0": patient()})
    with pytest.raises(SourceError, match="conversion: somebody is not in mappings"):
        read(path, conversion="somebody")
    with pytest.raises(SourceError, match="no mappings/none"):
        read(path, mapping="none")
    with pytest.raises(SourceError, match="infections"):
        read(path, infections="x")
    made = cohort(path)
    more = made.model_copy(update={"static": Cohort.model_validate(SPEC).static})
    with pytest.raises(SourceError, match="comorbidity: not of this source"):
        open_source(more, SourceSettings(root=REPOSITORY))


@needs_demo
def test_of_the_demo_so_many_are_left_after_each_exclusion() -> None:
    found, reading = read(DEMO)
    told = [(line["patients"], line["stays"]) for line in reading.attrition]
    assert told == [(100, 140), (100, 140), (100, 140), (72, 97), *[(68, 90)] * 3]
    assert found["stay_id"].nunique() == 90
    assert found.groupby("stay_id")["end"].last().notna().all()
    low, high = found["map"] < 65, found["map"] > 80
    assert (found["vasopressor"] > 0)[low].mean() > (found["vasopressor"] > 0)[high].mean() + 0.1
    for name, (least, most) in {
        "heart_rate": (80, 100),
        "map": (70, 85),
        "lactate": (1.5, 3),
    }.items():
        assert least < found[name].median() < most, name


@needs_demo
def test_of_the_demo_no_row_knows_what_came_later(tmp_path: Path) -> None:
    found, _ = read(DEMO)
    seen = demo_events()
    placed = seen["code"].str.startswith(("ICU_", "HOSPITAL_", "MEDS_", "GENDER"))
    zero = _time_zeros()
    rng = np.random.default_rng(0)
    columns = [*STATIC, *SPEC["observations"]]
    cut, rows = [], {}
    for subject, stays in zero.groupby("subject"):
        one = stays.iloc[int(rng.integers(len(stays)))]
        stay = found[found["stay_id"] == f"{subject}-{one['number']}"]
        last = int(rng.integers(len(stay)))
        now = pd.Timestamp(one["zero"] * 60, unit="s") + pd.Timedelta(hours=4 * last)
        own = seen["subject_id"] == subject
        cut.append(seen[own & (placed | seen["time"].isna() | (seen["time"] <= now))])
        rows[stay["stay_id"].iloc[0]] = stay.iloc[: last + 1]
    again, _ = read(write_meds(tmp_path, {"0": pd.concat(cut)}))
    assert len(rows) == 68
    compared = 0
    for stay_id, before in rows.items():
        # what runs at that time has no end then: the stay is censored where it began
        now_known = again[again["stay_id"] == stay_id].iloc[: len(before)]
        assert len(now_known) == len(before) or now_known["end"].iloc[-1] == "censored"
        compared += len(now_known)
        pd.testing.assert_frame_equal(
            now_known[columns].reset_index(drop=True),
            before[columns].iloc[: len(now_known)].reset_index(drop=True),
        )
    assert compared > 0.6 * sum(map(len, rows.values()))


def _time_zeros() -> pd.DataFrame:
    mapping = load_mapping(REPOSITORY / "mappings" / "mimic_iv.yaml")
    dataset = open_dataset(DEMO, mapping)
    options = MedsOptions(mapping="mimic_iv", infection="antibiotic_alone")
    each = []
    for part in read_events(dataset):
        known = Read.of(Chunk(part, dataset.meanings), mapping, options, Counted())
        each.append(septic(known, options, Counted())[0])
    return pd.concat(each)
