"""The rules of a cohort's contract, written from its cohort file: one `Rule` an expectation.

Read by `judge`, which turns each into a Great Expectations expectation, and by `verdict`, which
words what failed. A rule never sees data, and nothing else decides what is allowed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from ogsrl.spec import ENDS, KEYS, Action, Cohort, Static

Severity = Literal["error", "warning"]
Level = Literal["rows", "stays", "columns", "sites", "cohort"]

#: Largest and least number that is not infinite.
_FINITE: Final = 1.7e308
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


def _structural(
    name: str,
    column: str | None,
    finding: str,
    advice: str,
    *,
    per_column: bool = False,
    severity: Severity = "error",
    level: Level = "rows",
) -> Rule:
    measure = flag(name, column if per_column else None)
    return Rule(name, column, level, measure, severity, finding, advice, high=0, low=0)


def number(value: float) -> str:
    """A limit in a message: the shortest form."""
    return f"{value:.6g}"


def _outside(low: float, high: float, unit: str) -> str:
    return f"outside {number(low)} to {number(high)}{f' {unit}' if unit != '1' else ''}"


def row_rules(cohort: Cohort) -> Iterator[Rule]:
    """Rules of single rows and of the rows of a stay; breaking an error quarantines the stay."""
    yield from _keys(cohort)
    yield from _ends(cohort)
    for name, column in cohort.states.items():
        yield from _state(name, column)
    for name in cohort.static:
        yield _structural(
            "static_constant",
            name,
            "changes within a stay",
            "it is declared static: correct it, or declare it an observation",
            per_column=True,
        )
    for name, action in cohort.actions.items():
        yield from _dose(name, action)
    yield _structural(
        "dose_after_death",
        ", ".join(cohort.actions),
        "above zero after a death",
        "no dose can follow a death: check the time of death or remove the later rows",
    )
    yield _structural(
        "dose_when_censored",
        ", ".join(cohort.actions),
        "given on a censored stay's last row, which is a state only",
        "leave doses empty there; preparation ignores them",
        severity="warning",
    )
    for name, observed in cohort.observations.items():
        if observed.cumulative_of is not None:
            yield _structural(
                "cumulative_rising",
                name,
                "falls within a stay",
                "it is declared cumulative: check for resets or corrections",
                per_column=True,
            )
            yield _structural(
                "cumulative_sum",
                name,
                f"is not the sum of the stay's earlier {observed.cumulative_of}",
                "the dose of the row itself must not be in it (that would be a leak): recompute it",
                per_column=True,
            )


def _keys(cohort: Cohort) -> Iterator[Rule]:
    step_hours = number(cohort.time_step_hours)
    for name in ("patient_id", "stay_id"):
        yield _structural(
            "id_given", name, "empty", "every row needs one: correct the export", per_column=True
        )
    yield _structural(
        "one_patient",
        "patient_id",
        "changes within a stay",
        "a stay belongs to one patient: give each stay an id of its own",
    )
    yield _structural(
        "site_constant",
        "site",
        "changes within a stay",
        "a stay has one site: take the admitting one, or split the stay",
    )
    yield _structural(
        "step_from_zero", "step", "does not start at 0", "number a stay's rows from 0"
    )
    yield _structural(
        "step_unique",
        "step",
        "is repeated within a stay",
        "keep one row a step: bin several measurements into one",
    )
    yield _structural(
        "step_contiguous",
        "step",
        "does not follow the step before by one",
        "add the rows that are missing and sort by stay and step",
    )
    yield _structural(
        "hours_declared",
        "hours",
        f"is not step x {step_hours} h",
        f"time_step_hours is {step_hours}: bin to it, or correct it in the cohort file",
    )
    yield _structural(
        "hours_rising",
        "hours",
        "does not rise within a stay",
        "check clock changes and time zones, and sort by time",
    )
    yield _structural(
        "stay_length",
        "step",
        f"goes beyond the {cohort.max_steps} decisions of the longest stay",
        "cut the stay there with end `horizon`, or raise max_steps",
    )


def _ends(cohort: Cohort) -> Iterator[Rule]:
    yield Rule(
        "end_known",
        "end",
        "rows",
        "end",
        "error",
        "is not a known end",
        f"write one of {', '.join(ENDS)}",
        levels=(0, *END_CODES.values()),
    )
    yield _structural(
        "end_present",
        "end",
        "is empty on a stay's last row",
        "say how each stay ended; `censored` if it is not known",
    )
    yield _structural(
        "end_last",
        "end",
        "stands before a stay's last row",
        "remove the rows after the end, or the end",
    )
    yield _structural("end_once", "end", "stands more than once in a stay", "keep the last one")
    if cohort.outcome is not None:
        yield _structural(
            "died_agrees",
            "died",
            "contradicts the stay's end, or itself",
            "a stay that ends in `death` has died true; decide which is right",
        )
        yield _structural(
            "died_given",
            "died",
            "is empty on the last row of a stay that is not censored",
            "write false for survivors, or end the stay `censored`",
        )


def _state(name: str, column: Static) -> Iterator[Rule]:
    if column.kind == "numeric":
        low, high = column.range
        yield Rule(
            "plausible_range",
            name,
            "rows",
            name,
            "error",
            _outside(low, high, column.unit),
            "check the unit, and leave missing values empty instead of coding them as a number",
            low=low,
            high=high,
        )
        yield _finite(name)
    else:
        codes = tuple(range(int(column.range[1]) + 1))
        yield Rule(
            "known_level",
            name,
            "rows",
            name,
            "error",
            f"is none of the codes 0 to {codes[-1]}",
            "map each value to a declared level, or leave it empty",
            levels=codes,
        )
    if column.missing == "never":
        yield Rule(
            "value_given",
            name,
            "rows",
            name,
            "error",
            "missing",
            "it is declared `missing: never`: fill it at the source, or allow gaps",
            required=True,
        )


def _dose(name: str, action: Action) -> Iterator[Rule]:
    low, high = action.range
    if action.kind == "ordinal":
        yield Rule(
            "known_level",
            name,
            "rows",
            name,
            "error",
            f"is none of the codes 0 to {number(high)}",
            "map each dose to a declared level",
            levels=tuple(range(int(high) + 1)),
        )
    else:
        yield Rule(
            "dose_bounds",
            name,
            "rows",
            name,
            "error",
            _outside(low, high, action.unit),
            "check the unit and the sign, or widen bounds if such doses are really given",
            low=low,
            high=high,
        )
        yield _finite(name)
    yield _structural(
        "dose_given",
        name,
        "missing",
        "write 0 where nothing was given; only a censored stay's last row has no dose",
        per_column=True,
    )
    if action.max_change is not None:
        yield _structural(
            "max_change",
            name,
            f"changes by more than {number(action.max_change)} in a step",
            "for your information: max_change binds the policy, not history",
            per_column=True,
            severity="warning",
        )


def _finite(name: str) -> Rule:
    return Rule(
        "finite",
        name,
        "rows",
        name,
        "error",
        "infinite",
        "usually a division by zero at the source: leave the value empty",
        low=-_FINITE,
        high=_FINITE,
    )


def stay_rules(others: Mapping[str, object]) -> Iterator[Rule]:
    """Rules that compare a stay with all others."""
    yield _structural(
        "stay_id_unique",
        "stay_id",
        "stands in more than one place",
        "sort the table by stay and step, and give each stay an id of its own",
        level="stays",
    )
    yield _structural(
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
