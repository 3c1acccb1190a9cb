"""What the contract said: each rule's result, the quarantine and the summary of a report.

Made by `contract`, read by the validate stage and `data_docs`. Holds counts, column names and the
names of sites with enough patients; stay ids stand in the quarantine alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from ogsrl.contracts.rules import Level, Rule, Severity
from ogsrl.errors import ContractError


@dataclass(frozen=True)
class RuleResult:
    """One rule, judged over the whole table.

    Attributes:
        name: The rule.
        column: The column that it is about.
        site: The site, for rules that compare sites.
        severity: error or warning.
        level: What was judged: rows, stays, columns, sites or the cohort.
        checked: How many of those were judged; 0: not evaluable, since a column is missing.
        failed_rows: How many broke the rule.
        failed_stays: How many stays they are of, for rows and stays.
        message: What is wrong and what to do; empty if nothing is.
    """

    name: str
    column: str | None
    severity: Severity
    level: Level
    checked: int
    failed_rows: int = 0
    failed_stays: int = 0
    message: str = ""
    site: str | None = None

    @property
    def passed(self) -> bool:
        """Whether nothing broke the rule."""
        return not self.message

    @property
    def key(self) -> str:
        """Name, column and site: `plausible_range:spo2`."""
        return ":".join(part for part in (self.name, self.column, self.site) if part)

    @property
    def fails_cohort(self) -> bool:
        """Whether this result alone makes validation say no; rows and stays are quarantined."""
        return not self.passed and self.severity == "error" and self.level not in ("rows", "stays")

    def as_dict(self) -> dict[str, Any]:
        """For a report."""
        found: dict[str, Any] = {
            "rule": self.name,
            "column": self.column,
            "severity": self.severity,
            "level": self.level,
            "passed": self.passed,
            "checked": self.checked,
            "failed_rows": self.failed_rows,
            "failed_stays": self.failed_stays,
        }
        if self.site is not None:
            found["site"] = self.site
        if self.message:
            found["message"] = self.message
        return found


@dataclass(frozen=True)
class Verdict:
    """What the contract said of a whole table."""

    cohort: str
    results: tuple[RuleResult, ...]
    rules: tuple[Rule, ...]
    quarantine: pd.DataFrame = field(repr=False)  # it holds ids
    patients: int
    stays: int
    rows: int
    max_quarantine_share: float

    @property
    def passed(self) -> bool:
        """Whether the table may be used, without the stays in quarantine."""
        return not any(result.fails_cohort for result in self.results)

    @property
    def failing(self) -> tuple[RuleResult, ...]:
        """Results that are not as they should be, errors first."""
        bad = [result for result in self.results if not result.passed]
        return tuple(sorted(bad, key=lambda r: (r.severity != "error", not r.fails_cohort)))

    @property
    def quarantined_stays(self) -> int:
        """Number of stays in quarantine."""
        return int(self.quarantine["stay_id"].nunique(dropna=False))

    def keep(self, part: pd.DataFrame) -> pd.DataFrame:
        """A part of the table without the stays in quarantine."""
        bad = part["stay_id"].isin(self.quarantine["stay_id"].unique()) | part["stay_id"].isna()
        return part.loc[~bad].reset_index(drop=True) if bad.any() else part

    @property
    def summary(self) -> dict[str, Any]:
        """The report: the same for the same table, with no id, value, time or path."""
        return {
            "cohort": self.cohort,
            "passed": self.passed,
            "patients": self.patients,
            "stays": self.stays,
            "rows": self.rows,
            "quarantine": {
                "stays": self.quarantined_stays,
                "share": round(self.quarantined_stays / max(self.stays, 1), 6),
                "max_share": self.max_quarantine_share,
                "by_rule": {
                    result.key: result.failed_stays
                    for result in self.results
                    if result.failed_stays and result.severity == "error"
                },
            },
            "errors": sum(r.severity == "error" for r in self.failing),
            "warnings": sum(r.severity == "warning" for r in self.failing),
            "rules": [result.as_dict() for result in self.results],
        }

    def raise_if_failed(self) -> None:
        """Raise ContractError with every failing error, if validation says no."""
        if self.passed:
            return
        bad = [result for result in self.failing if result.severity == "error"]
        lines = "\n".join(f"  {result.key}: {result.message}" for result in bad)
        raise ContractError(
            f"{self.cohort}: {len(bad)} rules of the contract are broken; "
            f"{self.quarantined_stays} of {self.stays} stays in quarantine "
            f"(at most {self.max_quarantine_share:.1%} allowed)\n{lines}"
        )


@dataclass
class Count:
    """A rule's failures while parts stream by."""

    rule: Rule
    checked: int = 0
    rows: int = 0
    stays: int = 0
    could_judge: bool = True

    def result(self) -> RuleResult:
        """The result, worded."""
        rule = self.rule
        message = ""
        if not self.could_judge:
            message = f"{rule.column}: could not be judged; check the column's type"
        elif self.rows:
            what = "rows" if rule.level == "rows" else "stays"
            stays = f" ({self.stays} {'stay' if self.stays == 1 else 'stays'})"
            of_stays = stays if rule.level == "rows" else ""
            message = (
                f"{rule.column}: {rule.finding} in {self.rows} of {self.checked} {what}{of_stays}; "
                f"{rule.advice}"
            )
        return RuleResult(
            rule.name,
            rule.column,
            rule.severity,
            rule.level,
            self.checked,
            self.rows,
            self.stays,
            message,
        )


def summary_results(
    rule: Rule, frame: pd.DataFrame, failed: Sequence[int], could_judge: bool = True
) -> list[RuleResult]:
    """A result for each column (and site) of a summary that a rule was judged on."""
    results = []
    bad = set(failed)
    for place, row in frame.reset_index(drop=True).iterrows():
        if rule.measure not in frame or not np.isfinite(row[rule.measure]):
            continue
        site = str(row["site"]) if "site" in frame else None
        where = f" at site {site}" if site is not None else ""
        message = ""
        if place in bad or not could_judge:
            subject = f"{row['column']}: " if row["column"] is not None else ""
            message = f"{subject}{rule.finding}{where}{row['detail']}; {rule.advice}"
        results.append(
            RuleResult(
                rule.name.removesuffix("_warning"),
                row["column"],
                rule.severity,
                rule.level,
                1,
                int(bool(message)),
                0,
                message,
                site,
            )
        )
    return results
