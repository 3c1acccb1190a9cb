"""params.yaml: closed, typed, with a cohort's overrides, and every mistake told at once."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from ogsrl.errors import SpecError
from pipelines.params import parse_params, read_params

REPOSITORY = Path(__file__).resolve().parents[2]
VALUES: dict[str, Any] = yaml.safe_load((REPOSITORY / "params.yaml").read_text())


def parse(overrides: dict[str, Any] | None = None, **changes: Any) -> Any:
    return parse_params({**VALUES, **changes}, overrides or {}, "params.yaml")


def test_the_committed_parameters_are_valid_and_complete() -> None:
    params = parse()
    assert params.cohort == "sepsis"
    told = params.model_dump(by_alias=True, mode="json")
    algorithms = told.pop("algorithms")  # settings that are not named keep their defaults
    assert told == {k: v for k, v in VALUES.items() if k != "algorithms"}, "a default is missing"
    assert set(params.train.algorithms) <= set(algorithms) == set(VALUES["algorithms"])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"prepare": {"history_step": 2}},
            "prepare.history_step: unknown key.*prepare.history_steps",
        ),
        ({"sed": 1}, "sed: unknown key; the nearest is seed"),
        ({"threads": 0}, "threads"),
        ({"seed": "many"}, "seed"),
        ({"validate": {"max_quarantine_share": 2}}, "validate.max_quarantine_share"),
        ({"prepare": {"split": {"train": 0.9, "test": 0.9}}}, "prepare.split"),
        (
            {"algorithms": {"ogsrl": {"ogsrl": {"hiddn": 64}}}},
            r"nearest is algorithms\.ogsrl\.ogsrl\.hidden",
        ),
    ],
)
def test_a_mistake_names_the_key(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        parse(**changes)


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(SpecError) as caught:
        parse(sed=1, threads=0)
    assert "sed" in str(caught.value)
    assert "threads" in str(caught.value)


def test_a_cohorts_overrides_replace_single_values() -> None:
    params = parse({"prepare": {"history_steps": 1}})
    assert params.prepare.history_steps == 1
    assert params.prepare.split_key == VALUES["prepare"]["split_key"]
    with pytest.raises(SpecError, match="nearest is prepare"):
        parse({"preparee": {}})


@pytest.mark.parametrize("wrong", [5, "algorithms", ["algorithms"], None])
@pytest.mark.parametrize("key", ["train", "algorithms", "select", "validate"])
def test_a_section_that_is_no_mapping_names_its_key(key: str, wrong: Any) -> None:
    said = rf"^params\.yaml: {key}: must be a mapping of parameters$"
    with pytest.raises(SpecError, match=said):
        parse({key: wrong})
    with pytest.raises(SpecError, match=said):
        parse(**{key: wrong})


def test_an_algorithm_that_is_no_mapping_names_its_key() -> None:
    for wrong, key in [({"bc": 5}, "bc"), ({"ogsrl": {"ogsrl": 5}}, r"ogsrl\.ogsrl")]:
        with pytest.raises(SpecError, match=rf"algorithms\.{key}: must be a mapping"):
            parse({"algorithms": wrong})


def test_a_broken_file_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("seed: 1\ncohort: [\n")
    with pytest.raises(SpecError, match=r"params.yaml: line \d"):
        read_params(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("- 1\n")
    with pytest.raises(SpecError, match="mapping"):
        read_params(tmp_path / "params.yaml")


@pytest.mark.parametrize(
    "module",
    ["pipelines.__main__", "pipelines.source", "pipelines.ingest", "pipelines.validate",
     "pipelines.prepare", "ogsrl.cli"],
)  # fmt: skip
def test_who_fits_nothing_does_not_wait_for_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=False).returncode == 0
