"""The verdict as one page that a browser can show without a network.

Called by `data_docs`. Counts and column names only, each escaped; the verdict comes first.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Final

from ogsrl.contracts.verdict import RuleResult, Verdict

_STYLE: Final = """
body{font:16px/1.45 system-ui,sans-serif;color:#1a1a1a;background:#fff;margin:2rem auto;
max-width:64rem;padding:0 1rem}
h1{font-size:1.5rem;margin-bottom:.25rem}h2{font-size:1.15rem;margin-top:2rem}
.verdict{border-left:.5rem solid;padding:.75rem 1rem;background:#f6f6f6}
.yes{border-color:#1b7837}.no{border-color:#b2182b}
table{border-collapse:collapse;width:100%}
th,td{border-bottom:1px solid #ddd;padding:.35rem .6rem;text-align:left;vertical-align:top}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.error{color:#b2182b;font-weight:600}.warning{color:#8a5a00;font-weight:600}.good{color:#1b7837}
"""


def summary_page(verdict: Verdict) -> str:
    """The page as HTML."""
    aside, stays = verdict.quarantined_stays, verdict.stays
    errors = [result for result in verdict.failing if result.severity == "error"]
    warnings = [result for result in verdict.failing if result.severity == "warning"]
    word = "The data keep the contract" if verdict.passed else "The data break the contract"
    share = aside / stays if stays else 0.0
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f"<title>Contract of {escape(verdict.cohort)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>Contract of cohort {escape(verdict.cohort)}</h1>",
        f'<div class="verdict {"yes" if verdict.passed else "no"}"><strong>{word}.</strong> '
        f"{verdict.patients:,} patients, {stays:,} stays, {verdict.rows:,} rows. "
        f"{aside:,} stays ({share:.1%}) in quarantine, at most "
        f"{verdict.max_quarantine_share:.1%} allowed. {len(errors)} broken rules, "
        f"{len(warnings)} warnings.</div>",
        _failing("Broken rules", errors, "No rule is broken."),
        _failing("Warnings", warnings, "No warning."),
        _all_rules(verdict.results),
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def _failing(title: str, results: list[RuleResult], none: str) -> str:
    if not results:
        return f"<h2>{title}</h2><p>{none}</p>"
    rows = "".join(
        f'<tr><td class="{result.severity}">{escape(result.name)}</td>'
        f"<td>{escape(result.message)}</td><td>{_consequence(result)}</td></tr>"
        for result in results
    )
    return (
        f"<h2>{title}</h2><table><tr><th>Rule</th><th>What was found, and what to do</th>"
        f"<th>Consequence</th></tr>{rows}</table>"
    )


def _consequence(result: RuleResult) -> str:
    if result.severity == "warning":
        return "none"
    return "validation says no" if result.fails_cohort else "stays left out"


def _all_rules(results: Iterable[RuleResult]) -> str:
    grouped: dict[tuple[str, str, str], list[RuleResult]] = {}
    for result in results:
        grouped.setdefault((result.name, result.level, result.severity), []).append(result)
    rows = []
    for (name, level, severity), found in grouped.items():
        bad = [result for result in found if not result.passed]
        columns = sorted({str(result.column) for result in found if result.column})
        state = f'<span class="{severity}">{len(bad)} of {len(found)} fail</span>'
        good = f'<span class="good">all {len(found)} hold</span>'
        checked = max(result.checked for result in found)
        rows.append(
            f"<tr><td>{escape(name)}</td><td>{level}</td><td>{severity}</td>"
            f'<td>{escape(", ".join(columns))}</td><td class="n">{checked:,}</td>'
            f"<td>{state if bad else good if checked else 'not evaluable'}</td></tr>"
        )
    return (
        "<h2>All rules</h2><table><tr><th>Rule</th><th>Judged on</th><th>Severity</th>"
        '<th>Columns</th><th class="n">Checked</th><th>Result</th></tr>'
        f"{''.join(rows)}</table>"
    )
