"""What was done beside the doses of an invented patient, how far it is known, and who ends how."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ogsrl.errors import SourceError
from ogsrl.sources import Reading, SourceSettings, open_source
from ogsrl.spec import Cohort
from tests.meds_data import write_meds
from tests.sources.test_meds import REPOSITORY, SPEC, STATIC, patient

BESIDE = {
    name: {"label": name, "unit": "1", "kind": "binary"}
    for name in ("replacement", "antibiotics", "steroids")
}
BALANCE = {"balance": {"label": "Balance", "unit": "mL", "plausible": [-9000, 40000], "normal": 0}}
WEAKER = "Suspected infection is taken from antibiotics alone"


def read(
    path: Path, outcome: dict[str, Any] | None = None, **options: Any
) -> tuple[pd.DataFrame, Reading]:
    told = {**SPEC, "static": STATIC, "outcome": SPEC["outcome"] | (outcome or {})}
    told["observations"] = {**SPEC["observations"], **BESIDE, **BALANCE}
    told["source"] = {
        "kind": "meds",
        "path": str(path),
        "options": {"mapping": "mimic_iv", **options},
    }
    reading = open_source(Cohort.model_validate(told), SourceSettings(root=REPOSITORY))
    return pd.concat(list(reading.parts), ignore_index=True), reading


def caveats(reading: Reading) -> str:
    return "; ".join(reading.provenance["caveats"])


def test_machines_drugs_and_the_balance_are_seen_as_far_as_they_were_known(tmp_path: Path) -> None:
    more = [
        (8.0, "PROCEDURE//START//225802", None),
        (15.0, "PROCEDURE//END//225802", None),
        (10.0, "MEDICATION//START//Hydrocortisone Na Succ.", None),
        (6.0, "MEDICATION//START//Hydrocortisone Cream 2.5%", None),
    ]
    found, _ = read(write_meds(tmp_path, {"0": patient(1, *more)}))
    # rows stand at hours 5, 9, 13 and 17
    assert found["replacement"].tolist() == [0, 1, 1, 0]
    assert found["steroids"].tolist() == [0, 0, 1, 1]
    assert found["antibiotics"].tolist() == [1, 1, 1, 1]
    # 500 mL in each of the first two steps; 100 mL of urine in the first
    assert found["balance"].tolist() == pytest.approx([0, 400, 900, 900])


def test_comfort_care_ends_what_is_decided_and_a_death_of_it_counts(tmp_path: Path) -> None:
    order = "MEDICATION//START//Morphine Infusion \N{EN DASH} Comfort Care Guidelines"
    dead = [(15.0, "MEDS_DEATH", None), (15.0, "HOSPITAL_DISCHARGE//DIED", None)]
    late = write_meds(tmp_path / "late", {"0": patient(1, (14.0, order, None), *dead)})
    found, reading = read(late)
    assert len(found) == 3
    assert found["end"].tolist()[-1] == "discharge"
    assert bool(found["died"].tolist()[-1])
    assert "known from infusions ordered for it" in caveats(reading)
    two = pd.concat([patient(), patient(2, (4.0, order, None))])
    found, reading = read(write_meds(tmp_path / "early", {"0": two}))
    assert set(found["patient_id"]) == {"1"}
    last = {line["step"]: line["stays"] for line in reading.attrition}
    assert last["with sepsis in intensive care"] == 2
    assert last["not treated for comfort alone by then"] == 1


def test_without_cultures_the_weaker_definition_is_used_and_named(tmp_path: Path) -> None:
    found, reading = read(
        write_meds(tmp_path, {"0": patient()}), infection="antibiotic_and_culture"
    )
    assert len(found) == 4
    assert reading.provenance["asked"]["infection"] == "antibiotic_and_culture"
    assert reading.provenance["options"]["infection"] == "antibiotic_alone"
    assert WEAKER in caveats(reading)
    assert any(WEAKER in warning.message for warning in reading.warnings)


def test_with_cultures_both_are_asked_for(tmp_path: Path) -> None:
    root = tmp_path / "repository"
    (root / "mappings").mkdir(parents=True)
    text = (REPOSITORY / "mappings" / "mimic_iv.yaml").read_text()
    told = text.replace("culture: {codes: [], note: ", 'culture: {codes: ["CULTURE"], note: ')
    (root / "mappings" / "mimic_iv.yaml").write_text(told)
    two = pd.concat([patient(1, (2.5, "CULTURE", None)), patient(2)])
    path = write_meds(tmp_path / "data", {"0": two})
    source = {"kind": "meds", "path": str(path), "options": {"mapping": "mimic_iv"}}
    made = Cohort.model_validate({**SPEC, "static": STATIC, "source": source})
    reading = open_source(made, SourceSettings(root=root))
    found = pd.concat(list(reading.parts))
    assert set(found["patient_id"]) == {"1"}
    assert WEAKER not in caveats(reading)


def test_deaths_of_90_days_count_when_both_say_so(tmp_path: Path) -> None:
    died = {}
    for day in (80, 100):
        frame = patient(1, (24.0 * day, "MEDS_DEATH", None))
        path = write_meds(tmp_path / str(day), {"0": frame})
        found, _ = read(path, {"horizon": "90 days"}, deaths="90_days")
        died[day] = bool(found["died"].tolist()[-1])
        assert not bool(read(path)[0]["died"].tolist()[-1])
    assert died == {80: True, 100: False}
    with pytest.raises(SourceError, match="horizon: 90 days"):
        read(path, deaths="90_days")


def splits(root: Path, **parts: list[Any]) -> None:
    schema = pa.schema([("subject_id", pa.int64()), ("split", pa.string())])
    pq.write_table(pa.table(parts, schema), root / "metadata" / "subject_splits.parquet")


def test_parts_of_the_dataset_are_told(tmp_path: Path) -> None:
    path = write_meds(tmp_path, {"0": pd.concat([patient(1), patient(2), patient(3)])})
    assert "split" not in read(path)[0]
    splits(path, subject_id=[1, 2], split=["train", "held_out"])
    told = read(path)[0].groupby("patient_id")["split"].first()
    assert told.to_dict() == {"1": "train", "2": "held_out", "3": None}


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"subject_id": [1, 1], "split": ["train", "held_out"]}, "1 subjects are in two parts"),
        ({"subject_id": [1], "split": ["test"]}, "1 subjects are in none of train, tuning, held"),
    ],
)
def test_parts_that_cannot_be_are_told(tmp_path: Path, parts: dict[str, Any], said: str) -> None:
    path = write_meds(tmp_path, {"0": patient()})
    splits(path, **parts)
    with pytest.raises(SourceError, match=said):
        read(path)


@pytest.mark.parametrize("name", ["subject_splits.parquet", "dataset.json"])
def test_metadata_that_are_not_whole_are_told(tmp_path: Path, name: str) -> None:
    path = write_meds(tmp_path, {"0": patient()})
    (path / "metadata" / name).write_bytes(b"{")
    with pytest.raises(SourceError, match=f"metadata/{name}"):
        read(path)
    (path / "metadata" / name).unlink()
    assert len(read(path)[0]) == 4
