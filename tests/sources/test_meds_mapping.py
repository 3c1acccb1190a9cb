"""What codes mean: units, patterns, and what is said of a file that is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from ogsrl.errors import SourceError
from ogsrl.sources.meds.mapping import CodeMap, load_mapping
from ogsrl.spec import CohortFileError
from tests.demo import demo_events, needs_demo

MAPPINGS = Path(__file__).resolve().parents[2] / "mappings"
SMALL: dict[str, Any] = {
    "name": "small",
    "version": 1,
    "concepts": {
        "temperature": {
            "unit": "C",
            "plausible": [30, 43],
            "codes": {"T": {"F": {"factor": 5 / 9, "offset": -160 / 9}, "C": 1}},
        }
    },
    "drugs": {
        "norepinephrine": {
            "start": "START//1",
            "end": "END//1",
            "unit": "ug/kg/min",
            "plausible": [0, 5],
            "rates": {"": 1, "ug/min": {"per_kg": True}},
            "minute": {"factor": 0.001, "per_kg": True},
        }
    },
    "moments": {"antibiotic": {"codes": ["GIVEN//vanco*"], "but": ["*enema*"]}},
}


@pytest.fixture
def small() -> CodeMap:
    return CodeMap.model_validate(SMALL)


def written(tmp_path: Path, **changes: Any) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump({**SMALL, **changes}), encoding="utf-8")
    return path


def test_the_unit_is_what_follows_the_code_or_what_is_told_beside_it(small: CodeMap) -> None:
    found = small.meanings([("T//F", None), ("T", "C"), ("T//F", "C"), ("START//1", "ug/min")])
    fahrenheit = found["T//F", None][0].conversion
    assert 98.6 * fahrenheit.factor + fahrenheit.offset == pytest.approx(37.0)
    assert found["T", "C"][0].conversion == found["T//F", "C"][0].conversion
    assert found["T", "C"][0].conversion.factor == 1
    assert found["START//1", "ug/min"][0].conversion.per_kg


def test_a_code_of_another_name_is_another_code(small: CodeMap) -> None:
    assert small.meanings([("TT//F", None), ("START//11", None), ("START", None)]) == {}


def test_units_that_nobody_named_are_an_error_that_lists_them_all(small: CodeMap) -> None:
    codes = [("T//K", None), ("T", None), ("START//1", "mg/kg/h"), ("T//F", None)]
    with pytest.raises(SourceError, match="3 units") as error:
        small.meanings(codes)
    for unit in ("temperature: K", "temperature: none", "norepinephrine: mg/kg/h"):
        assert unit in str(error.value)


def test_a_pattern_matches_in_any_case_but_what_it_leaves_out(small: CodeMap) -> None:
    given = small.meanings([("GIVEN//Vancomycin//x", None), ("GIVEN//VANCO Enema", None)])
    assert list(given) == [("GIVEN//Vancomycin//x", None)]
    assert given["GIVEN//Vancomycin//x", None][0].name == "antibiotic"


def test_mistakes_of_a_file_are_told_at_once_with_their_place(tmp_path: Path) -> None:
    wrong = {**SMALL["concepts"], "ph": {"unit": "1", "plausible": [7], "codes": {}}}
    sets = {"somebody": {"source": "x", "of": {"adrenaline": 1}}}
    with pytest.raises(CohortFileError) as error:
        load_mapping(written(tmp_path, concepts=wrong, moment={}))
    paths = {mistake.path for mistake in error.value.mistakes}
    assert {"moment", "concepts.ph.codes"} <= paths
    with pytest.raises(CohortFileError, match="adrenaline: no drug of this file"):
        load_mapping(written(tmp_path, equivalents=sets))
    with pytest.raises(CohortFileError, match="must be the file's name"):
        load_mapping(written(tmp_path, name="other"))
    with pytest.raises(SourceError, match=r"no mappings/none\.yaml"):
        load_mapping(tmp_path / "none.yaml")


@pytest.mark.parametrize("path", sorted(MAPPINGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_mapping_of_ours_is_sound(path: Path) -> None:
    made = load_mapping(path)
    for concept in made.concepts.values():
        low, high = concept.plausible
        assert low < high
    assert made.equivalents


@needs_demo
def test_the_demo_has_no_unit_that_we_do_not_know_and_every_vital_sign() -> None:
    counts = demo_events()["code"].value_counts()
    found = load_mapping(MAPPINGS / "mimic_iv.yaml").meanings((code, None) for code in counts.index)
    of: dict[tuple[str, str], int] = {}
    for (code, _), each in found.items():
        for one in each:
            of[one.kind, one.name] = of.get((one.kind, one.name), 0) + int(counts[code])
    assert of["concept", "heart_rate"] == 13_913
    assert of["rate", "norepinephrine"] == of["amount", "norepinephrine"] == 947
    assert of["moment", "icu_in"] == of["moment", "icu_out"] == 140
    assert of["moment", "death"] == 31
    oral = [code for code, _ in found if "oral liquid" in code.lower() or "ophth" in code.lower()]
    assert not oral
