"""A verdict as pages: a Great Expectations Data Docs site, and a summary that stands alone.

Called by the validate stage. Pages are made from the verdict's counts, never from data, and load
nothing from the network. Data Docs carry a time, so nothing may depend on them.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ogsrl.contracts.judge import expectation, quiet_context
from ogsrl.contracts.rules import Rule
from ogsrl.contracts.summary_page import summary_page
from ogsrl.contracts.verdict import RuleResult, Verdict

if TYPE_CHECKING:
    from great_expectations.core.expectation_validation_result import (
        ExpectationSuiteValidationResult,
    )

SUMMARY: Final = "summary.html"
_SITE: Final = "gx"
#: What GX's pages load or run; none of it works without the network, so all of it goes.
_SCRIPTS: Final = re.compile(r"<script\b.*?</script>", re.IGNORECASE | re.DOTALL)
_OUTSIDE: Final = re.compile(
    r"""<link\b[^>]*\bhref\s*=\s*["'](?:https?:)?//[^>]*>"""
    r"""|<img\b[^>]*\bsrc\s*=\s*["'](?:https?:)?//[^>]*>"""
    r"""|@import\s+(?:url\()?\s*["']?(?:https?:)?//[^;]*;""",
    re.IGNORECASE | re.DOTALL,
)
_ADVERTISEMENT: Final = re.compile(r"<p>[^<]*newsletter.*?</p>", re.IGNORECASE | re.DOTALL)
_UNUSED: Final = ("*.gif", "iterative-dev-loop.png")
#: Stands in for the style sheets from the network; scripts would have opened what is collapsed.
_STYLE: Final = (
    "<style>body{font-family:system-ui,sans-serif;margin:1rem;max-width:70rem}"
    "table{border-collapse:collapse}td,th{border:1px solid #ccc;padding:.25rem .5rem;"
    "text-align:left;vertical-align:top}button,.d-none,.cta-footer,.cooltip .top{display:none}"
    ".collapse{display:block}ul{padding-left:1rem}"
    ".ge-success-icon::before{content:'\\2714'}.ge-failed-icon::before{content:'\\2718'}"
    ".text-success{color:#1b7837}.text-danger{color:#b2182b}"
    "[style*='color:red']{color:#555!important}</style>"
)


def write_data_docs(verdict: Verdict, folder: Path) -> None:
    """Write the Data Docs site and `summary.html` into a folder, replacing what was there."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SUMMARY).write_text(summary_page(verdict), encoding="utf-8")
    site = folder / _SITE
    shutil.rmtree(site, ignore_errors=True)
    _build_site(verdict, site)
    for page in sorted(site.rglob("*.html")) + sorted(site.rglob("*.css")):
        page.write_text(offline(page.read_text(encoding="utf-8")), encoding="utf-8")
    for pattern in _UNUSED:
        for file in site.rglob(pattern):
            file.unlink()
    _list_pages(site)


def _list_pages(site: Path) -> None:
    """Name the pages on the index, whose own table needs scripts from the network."""
    pages = sorted(site.glob("validations/*/*/*/*.html"))
    links = "".join(
        f'<li><a href="{page.relative_to(site).as_posix()}">{page.relative_to(site).parts[1]}</a>'
        "</li>"
        for page in pages
    )
    index = site / "index.html"
    listed = f'<h2>Judged frames</h2><ul><li><a href="../{SUMMARY}">Summary</a></li>{links}</ul>'
    text = index.read_text(encoding="utf-8")
    index.write_text(text.replace("<body>", f"<body>{listed}", 1), encoding="utf-8")


def offline(page: str) -> str:
    """A page without anything that a browser would fetch from another machine, or run.

    >>> offline('<head><script src="https://x.org/a.js"></script></head>')[:20]
    '<head><style>body{fo'
    """
    page = _ADVERTISEMENT.sub("", _OUTSIDE.sub("", _SCRIPTS.sub("", page)))
    page = re.sub(r"""url\(\s*["']?(?:https?:)?//[^)]*\)""", "none", page)
    return page.replace("</head>", f"{_STYLE}</head>", 1)


def _build_site(verdict: Verdict, site: Path) -> None:
    from great_expectations import ExpectationSuite  # noqa: PLC0415 - slow to import
    from great_expectations.core.run_identifier import RunIdentifier  # noqa: PLC0415 - the same
    from great_expectations.data_context.types.resource_identifiers import (  # noqa: PLC0415 - the same
        ExpectationSuiteIdentifier,
        ValidationResultIdentifier,
    )

    context = quiet_context()
    for name in list(context.get_site_names()):
        context.delete_data_docs_site(name)
    context.add_data_docs_site(
        site_name=verdict.cohort,
        site_config={
            "class_name": "SiteBuilder",
            "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
            "store_backend": {
                "class_name": "TupleFilesystemStoreBackend",
                "base_directory": str(site.resolve()),
            },
        },
    )
    by_rule = _by_rule(verdict.results)
    run = RunIdentifier(run_name="validate")
    for level in ("cohort", "columns", "sites", "stays", "rows"):
        rules = [rule for rule in verdict.rules if rule.level == level and rule.key in by_rule]
        if not rules:
            continue
        suite = ExpectationSuite(name=level, expectations=[expectation(rule) for rule in rules])
        context.suites.add(suite)
        key = ValidationResultIdentifier(
            expectation_suite_identifier=ExpectationSuiteIdentifier(name=level),
            run_id=run,
            batch_identifier=verdict.cohort,
        )
        context.validation_results_store.set(key, _suite_result(level, rules, by_rule))
    context.build_data_docs()


def _by_rule(results: Iterable[RuleResult]) -> dict[str, list[RuleResult]]:
    """Results of each rule; those on summaries have one for each column and site."""
    found: dict[str, list[RuleResult]] = {}
    for result in results:
        whole = result.level in ("rows", "stays")
        key = f"{result.name}:{result.column}" if whole else result.name
        if result.name == "check" and result.severity == "warning":
            key = "check_warning"
        found.setdefault(key, []).append(result)
    return found


def _suite_result(
    level: str, rules: list[Rule], by_rule: dict[str, list[RuleResult]]
) -> ExpectationSuiteValidationResult:
    from great_expectations.core.expectation_validation_result import (  # noqa: PLC0415 - slow to import
        ExpectationSuiteValidationResult,
        ExpectationValidationResult,
    )

    results = []
    for rule in rules:
        found = by_rule[rule.key]
        checked = sum(result.checked for result in found)
        failed = sum(result.failed_rows for result in found)
        share = 100 * failed / checked if checked else 0.0
        counts: dict[str, Any] = {
            "element_count": checked,
            "unexpected_count": failed,
            "unexpected_percent": share,
            "unexpected_percent_total": share,
        }
        results.append(
            ExpectationValidationResult(
                success=all(result.passed for result in found),
                expectation_config=expectation(rule).configuration,
                result=counts,
                exception_info={
                    "raised_exception": False,
                    "exception_message": None,
                    "exception_traceback": None,
                },
            )
        )
    good = sum(bool(result.success) for result in results)
    return ExpectationSuiteValidationResult(
        success=good == len(results),
        results=results,
        suite_name=level,
        statistics={
            "evaluated_expectations": len(results),
            "successful_expectations": good,
            "unsuccessful_expectations": len(results) - good,
            "success_percent": 100 * good / len(results),
        },
    )
