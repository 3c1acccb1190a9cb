"""The rules of single rows and of the rows of a stay, written from the cohort file.

Read by `contract`. Breaking an error among them puts the whole stay aside. Like `rules`, this
module never sees data.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ogsrl.contracts.rules import END_CODES, Rule, number, structural
from ogsrl.spec import ENDS, Action, Cohort, Static

#: Largest and least number that is not infinite.
_FINITE: Final = 1.7e308


def _outside(low: float, high: float, unit: str) -> str:
    return f"outside {number(low)} to {number(high)}{f' {unit}' if unit != '1' else ''}"


def row_rules(cohort: Cohort) -> Iterator[Rule]:
    """Rules of single rows and of the rows of a stay; breaking an error quarantines the stay."""
    yield from _keys(cohort)
    yield from _ends(cohort)
    for name, column in cohort.states.items():
        yield from _state(name, column)
    for name in cohort.static:
        yield structural(
            "static_constant",
            name,
            "changes within a stay",
            "it is declared static: correct it, or declare it an observation",
            per_column=True,
        )
    for name, action in cohort.actions.items():
        yield from _dose(name, action)
    yield structural(
        "dose_after_death",
        ", ".join(cohort.actions),
        "above zero after a death",
        "no dose can follow a death: check the time of death or remove the later rows",
    )
    yield structural(
        "dose_when_censored",
        ", ".join(cohort.actions),
        "given on a censored stay's last row, which is a state only",
        "leave doses empty there; preparation ignores them",
        severity="warning",
    )
    for name, observed in cohort.observations.items():
        if observed.cumulative_of is not None:
            yield structural(
                "cumulative_rising",
                name,
                "falls within a stay",
                "it is declared cumulative: check for resets or corrections",
                per_column=True,
            )
            yield structural(
                "cumulative_sum",
                name,
                f"is not the sum of the stay's earlier {observed.cumulative_of}",
                "the dose of the row itself must not be in it (that would be a leak): recompute it",
                per_column=True,
            )


def _keys(cohort: Cohort) -> Iterator[Rule]:
    step_hours = number(cohort.time_step_hours)
    for name in ("patient_id", "stay_id"):
        yield structural(
            "id_given", name, "empty", "every row needs one: correct the export", per_column=True
        )
    yield structural(
        "one_patient",
        "patient_id",
        "changes within a stay",
        "a stay belongs to one patient: give each stay an id of its own",
    )
    yield structural(
        "site_constant",
        "site",
        "changes within a stay",
        "a stay has one site: take the admitting one, or split the stay",
    )
    yield structural("step_from_zero", "step", "does not start at 0", "number a stay's rows from 0")
    yield structural(
        "step_unique",
        "step",
        "is repeated within a stay",
        "keep one row a step: bin several measurements into one",
    )
    yield structural(
        "step_contiguous",
        "step",
        "does not follow the step before by one",
        "add the rows that are missing and sort by stay and step",
    )
    yield structural(
        "hours_declared",
        "hours",
        f"is not step x {step_hours} h",
        f"time_step_hours is {step_hours}: bin to it, or correct it in the cohort file",
    )
    yield structural(
        "hours_rising",
        "hours",
        "does not rise within a stay",
        "check clock changes and time zones, and sort by time",
    )
    yield structural(
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
    yield structural(
        "end_present",
        "end",
        "is empty on a stay's last row",
        "say how each stay ended; `censored` if it is not known",
    )
    yield structural(
        "end_last",
        "end",
        "stands before a stay's last row",
        "remove the rows after the end, or the end",
    )
    yield structural("end_once", "end", "stands more than once in a stay", "keep the last one")
    if cohort.outcome is not None:
        yield structural(
            "died_agrees",
            "died",
            "contradicts the stay's end, or itself",
            "a stay that ends in `death` has died true; decide which is right",
        )
        yield structural(
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
    yield structural(
        "dose_given",
        name,
        "missing",
        "write 0 where nothing was given; only a censored stay's last row has no dose",
        per_column=True,
    )
    if action.max_change is not None:
        yield structural(
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
