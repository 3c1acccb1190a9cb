"""The rules of a cohort's contract, written from its cohort file: one `Rule` an expectation.

Read by `judge`, which turns each into a Great Expectations expectation, and by `verdict`, which
words what failed. A rule never sees data, and nothing else decides what is allowed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from ogsrl.spec import ENDS, KEYS, Cohort

Severity = Literal["error", "warning"]
Level = Literal["rows", "stays", "columns", "sites", "cohort"]

#: Sites with fewer stays are not compared; with fewer patients they are never named.
SITE_STAYS: Final = 30
SITE_PATIENTS: Final = 10
#: A column drifts when its population stability index passes this (the usual alarm value).
DRIFT: Final = 0.25
#: Codes of `end` in the judged rows; 0 is none and -1 one that is not known.
END_CODES: Final[dict[str, int]] = {name: code for code, name in enumerate(ENDS, start=1)}


@dataclass(frozen=True)
class Rule:
    """One thing that must hold, of one measure of a judged frame.

    Attributes:
        name: What the rule is called in every report.
        column: The cohort's column that it is about, if it is about one.
        level: The frame that it is judged on: rows, stays, columns, sites or the cohort.
        measure: Column of that frame; a table's column, or counted by `structure` or `summaries`.
        severity: error: rows and stays go to quarantine, the other levels fail the cohort.
        finding: What is wrong where it fails, after the column's name.
        advice: What to do.
        low: Least value allowed.
        high: Largest value allowed.
        levels: Values allowed, instead of an interval.
        required: Whether the value must be given, instead of where it must lie.
    """

    name: str
    column: str | None
    level: Level
    measure: str
    severity: Severity
    finding: str
    advice: str
    low: float | None = None
    high: float | None = None
    levels: tuple[int, ...] = ()
    required: bool = False

    @property
    def key(self) -> str:
        """Name and column, as in the quarantine: `plausible_range:spo2`."""
        return self.name if self.column is None else f"{self.name}:{self.column}"


def flag(name: str, column: str | None = None) -> str:
    """Name of the measure that counts breaches of a rule of structure."""
    return name if column is None else f"{name}:{column}"


def structural(
    name: str,
    column: str | None,
    finding: str,
    advice: str,
    *,
    per_column: bool = False,
    severity: Severity = "error",
    level: Level = "rows",
) -> Rule:
    """A rule that a measure of `structure` or `stays`, which counts breaches, is 0."""
    measure = flag(name, column if per_column else None)
    return Rule(name, column, level, measure, severity, finding, advice, high=0, low=0)


def number(value: float) -> str:
    """A limit in a message: the shortest form."""
    return f"{value:.6g}"


def stay_rules(others: Mapping[str, object]) -> Iterator[Rule]:
    """Rules that compare a stay with all others."""
    yield structural(
        "stay_id_unique",
        "stay_id",
        "stands in more than one place",
        "sort the table by stay and step, and give each stay an id of its own",
        level="stays",
    )
    yield structural(
        "stay_not_copied",
        "stay_id",
        "has the same observations and doses as an earlier stay under another id",
        "find out why the stay was exported twice; the first copy is kept",
        level="stays",
    )
    for name in others:
        yield Rule(
            "patients_disjoint",
            "patient_id",
            "stays",
            flag("patients_disjoint", name),
            "error",
            f"is also in the cohort {name}",
            "a patient may be in one of the two only: leave these out of one",
            low=0,
            high=0,
        )


def column_rules(cohort: Cohort, *, has_reference: bool) -> Iterator[Rule]:
    """Rules of whole columns; breaking an error fails the cohort."""

    def rule(name: str, severity: Severity, finding: str, advice: str, high: float = 0) -> Rule:
        return Rule(name, None, "columns", name, severity, finding, advice, high=high)

    yield rule("column_present", "error", "no such column", "add it, or map it in source.columns")
    yield rule(
        "column_known",
        "error",
        "not in the cohort file",
        "declare it under static, observations or actions, or leave it out",
    )
    yield rule("column_type", "error", "of another type than declared", "convert it when exporting")
    yield rule(
        "missing_share",
        "error",
        "missing more often than allowed",
        "check the extraction; raise max_missing only if it is really charted so rarely",
    )
    constant = "the same in every row"
    yield rule("not_constant", "error", constant, "check the export, or leave the column out")
    yield rule(
        "binary_constant", "warning", constant, "check the coding; such a column teaches nothing"
    )
    yield rule(
        "dose_size",
        "error",
        "mostly smaller than the least dose that can be ordered",
        "most likely another unit: convert it; or set min_dose to the least that is given",
    )
    yield rule(
        "site_given",
        "warning",
        "empty for some stays and given for others",
        "name the site of every stay, or of none",
    )
    if cohort.checks:
        yield rule("check", "error", "broken", "columns may be swapped or in another unit")
        yield rule("check_warning", "warning", "broken", "see whether columns were swapped")
    if has_reference:
        yield rule(
            "drift",
            "warning",
            "distributed otherwise than in the reference cohort",
            "compare units and case mix before using a policy across the two",
            high=DRIFT,
        )


def site_rules() -> Iterator[Rule]:
    """Rules that compare each site with the others, column by column."""
    yield Rule(
        "site_median",
        None,
        "sites",
        "shift",
        "error",
        "has another median than at the other sites",
        "most likely another unit: convert that site's values",
        high=1,
    )
    yield Rule(
        "site_missing",
        None,
        "sites",
        "unmeasured",
        "warning",
        "is missing far more often than at the other sites",
        "check that site's mapping of the column",
        high=1,
    )


def cohort_rules() -> Iterator[Rule]:
    """Rules of the cohort as a whole."""
    yield Rule(
        "not_empty",
        None,
        "cohort",
        "stays",
        "error",
        "no stay",
        "check the source and its filters",
        low=1,
    )
    yield Rule(
        "quarantine_share",
        None,
        "cohort",
        "quarantine_excess",
        "error",
        "too many stays in quarantine",
        "mend the rules above; raise validate.max_quarantine_share only knowingly",
        high=0,
    )


def expected_columns(cohort: Cohort) -> tuple[str, ...]:
    """Columns that the table must have; `died` only where deaths are an outcome."""
    end = ("end", "died") if cohort.outcome is not None else ("end",)
    return (*KEYS, *cohort.states, *cohort.actions, *end)
