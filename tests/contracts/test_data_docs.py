"""The pages of a verdict: they load nothing, run nothing, and put the verdict first."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ogsrl.contracts import Contract, Verdict
from ogsrl.contracts.data_docs import write_data_docs
from ogsrl.spec import Cohort

LOADS = re.compile(
    r"""<(?:script|link|img|iframe|source|object)\b[^>]*(?:src|href|data)\s*=\s*["'](?:https?:)?//"""
    r"""|url\(\s*["']?(?:https?:)?//|@import""",
    re.IGNORECASE,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, clean_verdict: Verdict) -> Path:
    made = tmp_path_factory.mktemp("docs")
    write_data_docs(clean_verdict, made)
    return made


def test_no_page_loads_anything_from_another_machine(folder: Path) -> None:
    pages = [*folder.rglob("*.html"), *folder.rglob("*.css")]
    assert len(pages) > 8
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert not LOADS.search(text), page.name
        assert "<script" not in text.lower()


def test_the_site_is_made_by_great_expectations_from_the_suites_that_judged(folder: Path) -> None:
    pages = {page.parts[-4] for page in folder.rglob("validations/*/*/*/*.html")}
    assert pages == {"cohort", "columns", "sites", "stays", "rows"}
    rows = next(folder.rglob("validations/rows/*/*/*.html")).read_text()
    assert "cumulative_sum:fluid_total" in rows
    suite = (folder / "gx" / "expectations" / "rows.html").read_text()
    assert "plausible_range:spo2" in suite
    assert "Success" in rows or "Failed" in rows
    index = (folder / "gx" / "index.html").read_text()
    for link in re.findall(r'href="([^"#:]+\.html)"', index):
        assert (folder / "gx" / link).exists(), link


def test_the_summary_says_the_verdict_first_and_then_what_failed(
    folder: Path, cohort: Cohort, clean: object, tmp_path: Path
) -> None:
    page = (folder / "summary.html").read_text()
    assert page.index("The data keep the contract") < page.index("<h2>")
    assert page.index("max_change") > page.index("<h2>Warnings")
    frame = clean.copy()  # type: ignore[attr-defined] # a fixture's frame
    frame["wbc"] = 9.0
    write_data_docs(Contract(cohort).check(frame), tmp_path)
    page = (tmp_path / "summary.html").read_text()
    assert "The data break the contract" in page
    assert "validation says no" in page
    assert page.index("not_constant") < page.index("<h2>Warnings")


def test_writing_again_leaves_one_run(folder: Path, clean_verdict: Verdict) -> None:
    before = len(list(folder.rglob("*.html")))
    write_data_docs(clean_verdict, folder)
    assert len(list(folder.rglob("*.html"))) == before
