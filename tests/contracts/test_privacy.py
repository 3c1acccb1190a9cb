"""No patient value and no id leaves the contract, whatever fails."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks._corruptions_catalogue import CATALOGUE
from benchmarks._corruptions_kinds import Case
from ogsrl.contracts import Contract
from ogsrl.contracts.data_docs import write_data_docs
from ogsrl.errors import ContractError
from ogsrl.spec import Cohort
from tests.markers import Markers, plant


def leaks(
    cohort: Cohort,
    case: Case,
    markers: Markers,
    folder: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> list[str]:
    """Markers in anything that checking and reporting this case gives out."""
    caplog.set_level(logging.DEBUG)
    said = ""
    verdict = Contract(cohort).check(
        case.frame,
        reference=case.reference,
        others={name: [ids] for name, ids in case.others.items()},
        max_quarantine_share=0.0,
    )
    write_data_docs(verdict, folder)
    try:
        verdict.raise_if_failed()
    except ContractError as error:
        said = f"{error!r} {error}"
    printed = capfd.readouterr()
    texts = [said, json.dumps(verdict.summary), repr(verdict.results), caplog.text]
    texts += [printed.out, printed.err]
    return [*(mark for text in texts for mark in markers.in_text(text)), *markers.found_in(folder)]


def test_the_search_finds_what_was_planted(
    cohort: Cohort, clean: pd.DataFrame, tmp_path: Path
) -> None:
    planted, markers = plant(clean, cohort, breaking=True)
    planted["end"] = planted["end"].astype("str")
    planted.to_parquet(tmp_path / "leak.parquet")
    (tmp_path / "leak.json").write_text(json.dumps(planted["lactate"].dropna().tolist()))
    (tmp_path / "leak.bin").write_bytes(planted["wbc"].to_numpy().tobytes())
    (tmp_path / "data").mkdir()
    planted.to_csv(tmp_path / "data" / "private.csv")
    found = markers.found_in(tmp_path)
    for name in ("leak.parquet", "leak.json", "leak.bin"):
        assert any(line.startswith(name) for line in found), name
    assert not any(line.startswith("data") for line in found)
    names = {line.split("column ")[1].split(":")[0] for line in found if "column " in line}
    assert names >= {*cohort.states, *cohort.actions, "patient_id", "stay_id", "site", "end"}


@pytest.mark.parametrize("breaking", [False, True])
def test_nothing_planted_in_any_column_comes_out(
    breaking: bool,
    cohort: Cohort,
    clean: pd.DataFrame,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    planted, markers = plant(clean, cohort, breaking=breaking)
    case = Case(planted, clean, {"earlier": planted["patient_id"].iloc[:1]})
    assert leaks(cohort, case, markers, tmp_path, caplog, capfd) == []
    failed = {result.key for result in Contract(cohort).check(planted).failing}
    assert ("plausible_range:lactate" in failed) is breaking


TYPES = ("numbers_as_text", "ids_of_two_types", "an_unknown_column", "rows_shuffled")


@pytest.mark.parametrize(
    "corruption",
    [
        pytest.param(one, id=one.name, marks=() if one.name in TYPES else pytest.mark.slow)
        for one in CATALOGUE
    ],
)
def test_no_corruption_makes_the_contract_tell(
    corruption: object,
    cohort: Cohort,
    clean: pd.DataFrame,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    planted, markers = plant(clean, cohort, breaking=False)
    case = corruption.apply(Case(planted), cohort, np.random.default_rng(0))  # type: ignore[attr-defined] # a Corruption
    assert leaks(cohort, case, markers, tmp_path, caplog, capfd) == []


def test_a_header_that_holds_a_patient_is_not_repeated(
    cohort: Cohort, clean: pd.DataFrame, tmp_path: Path
) -> None:
    planted, markers = plant(clean, cohort, breaking=True)
    headless = planted.copy()
    headless.columns = [str(value) for value in planted.iloc[0]]
    verdict = Contract(cohort).check(headless)
    assert not verdict.passed
    assert markers.in_text(json.dumps(verdict.summary)) == []
