"""Small frames of aggregates, one row a column or a column and site, that rules are judged on.

Called by `contract` once a table has streamed by. Each row carries `detail`, the words for a
message: aggregates of at least ten patients only, never a value.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from ogsrl.contracts.rules import SITE_PATIENTS, SITE_STAYS, expected_columns
from ogsrl.contracts.sample import Sample, Tally
from ogsrl.contracts.structure import Ints
from ogsrl.spec import Cohort

Floats = npt.NDArray[np.float64]

#: A median this many interquartile ranges from the other sites' is another unit ...
_FAR: Final = 1.5
#: ... and so is one this many times theirs, if it is at least half a range away.
_TIMES: Final = 1.8
_NEAR: Final = 0.5
#: Share of rows more often missing, and part of the usual measurements, that is too far off.
_MISSING_MORE: Final = 0.35
_MEASURED_PART: Final = 0.2
#: Fewest values of which a median is taken, and fewest stays to compare distributions.
_MIN_VALUES: Final = 30
_DRIFT_STAYS: Final = 200
#: A constant column is judged from this many stays on.
_CONSTANT_STAYS: Final = 20
_ALLOWED: Final = {"split"}
#: Share of given doses that may be smaller than any that can be ordered: pumps that end early.
_SMALL_DOSES: Final = 0.5


def column_types(frame: pd.DataFrame, cohort: Cohort) -> pd.DataFrame:
    """One row a column: whether it is there, known and of its type."""
    expected = expected_columns(cohort)
    rows = []
    for name in expected:
        found = name in frame
        wrong = found and not _is_typed(frame[name], name, cohort)
        detail = f"; the table has {len(frame.columns)} columns" if not found else ""
        if wrong:
            detail = f"; found {frame[name].dtype}, needs {_needed(name)}, {len(frame)} rows"
        rows.append(
            {
                "column": name,
                "column_present": int(not found),
                "column_type": int(wrong),
                "column_known": 0,
                "detail": detail,
            }
        )
    for place, name in enumerate(frame.columns):
        if name not in expected and name not in _ALLOWED and name not in cohort.table_columns:
            rows.append(
                {
                    "column": _safe_name(str(name), place, expected),
                    "column_present": 0,
                    "column_type": 0,
                    "column_known": 1,
                    "detail": f"; {len(frame)} rows",
                }
            )
    return pd.DataFrame(rows)


def _safe_name(name: str, place: int, expected: Sequence[str]) -> str:
    """A column that we do not know may be named after a patient: a header line may be missing."""
    near = difflib.get_close_matches(name, expected, n=1, cutoff=0.8)
    return f"column {place + 1}" + (f" (its name resembles {near[0]})" if near else "")


def _needed(name: str) -> str:
    texts = {"patient_id": "text", "stay_id": "text", "site": "text", "end": "text"}
    return texts.get(name, {"step": "whole numbers", "died": "true or false"}.get(name, "numbers"))


def _is_typed(values: pd.Series, name: str, cohort: Cohort) -> bool:
    kind = _needed(name)
    inferred = pd.api.types.infer_dtype(values, skipna=True)
    if kind == "text":
        return inferred in {"string", "empty"} or (
            name in {"site", "end"} and bool(values.isna().all())
        )
    if kind == "true or false":
        return inferred in {"boolean", "empty"} or bool(values.isna().all())
    if kind == "whole numbers":
        return pd.api.types.is_integer_dtype(values) and not bool(values.isna().any())
    return pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)


def column_summary(
    cohort: Cohort, tally: Tally, usable: set[str], checks: dict[str, tuple[int, int]]
) -> pd.DataFrame:
    """One row a column: gaps beyond what is allowed, constancy; and one row a check."""
    rows: list[dict[str, Any]] = []
    many = tally.stays.sum() >= _CONSTANT_STAYS
    for name in tally.columns:
        if name not in usable:
            continue
        # a gap where there may be none puts its stay aside (value_given), not the whole cohort
        if name in cohort.states and cohort.states[name].missing != "never":
            share, allowed = tally.missing_share(name), cohort.states[name].max_missing
            words = f"; in {share:.1%} of rows, at most {allowed:.0%} allowed"
            excess = max(share - allowed, 0.0)
            rows.append({"column": name, "missing_share": excess, "detail": words})
        if many:
            kind = cohort.states[name].kind if name in cohort.states else "dose"
            rule = "binary_constant" if kind in {"binary", "categorical"} else "not_constant"
            same = float(tally.is_constant(name))
            rows.append({"column": name, rule: same, "detail": f"; {tally.rows.sum()} rows"})
    for name, given in tally.given.items() if many else ():
        if given:
            share, action = tally.small[name] / given, cohort.actions[name]
            words = f"; {share:.1%} of those given are below {action.min_dose:g} {action.unit}"
            excess = max(share - _SMALL_DOSES, 0.0)
            rows.append({"column": name, "dose_size": excess, "detail": words})
    if "site" in usable and None in tally.sites and len(tally.sites) > 1:
        without = int(tally.stays[tally.sites.index(None)])
        rows.append(
            {"column": "site", "site_given": float(without), "detail": f"; {without} stays"}
        )
    for name, (broken, known) in checks.items():
        if known == 0:
            continue  # not evaluable: a column is missing, which has a rule of its own
        check = cohort.checks[name]
        share = broken / max(known, 1)
        measure = "check" if check.severity == "error" else "check_warning"
        words = f"; `{check.expression}` is false in {broken} of {known} rows"
        rows.append(
            {
                "column": name,
                measure: max(share - check.max_share, 0.0),
                "detail": f"{words}, at most {check.max_share:.1%} allowed",
            }
        )
    return pd.DataFrame(rows)


def drift_summary(
    cohort: Cohort, sample: Sample, reference: Sample, usable: set[str]
) -> pd.DataFrame:
    """One row a column: its population stability index against the reference cohort."""
    rows = []
    if min(sample.stays, reference.stays) >= _DRIFT_STAYS:
        for name in sample.columns:
            theirs = reference.values(name)
            if name in usable and not np.isnan(theirs).all():
                index = stability_index(theirs, sample.values(name))
                words = f"; population stability index {index:.2f}"
                rows.append({"column": name, "drift": index, "detail": words})
    return pd.DataFrame(rows)


def stability_index(reference: npt.ArrayLike, values: npt.ArrayLike, bins: int = 10) -> float:
    """Population stability index over the reference's quantiles, gaps in a bin of their own.

    >>> rng = np.random.default_rng(0)
    >>> first, same, other = rng.normal(0, 1, 5000), rng.normal(0, 1, 5000), rng.normal(2, 1, 5000)
    >>> bool(stability_index(first, same) < 0.02), bool(stability_index(first, other) > 1)
    (True, True)
    """
    ours, theirs = np.asarray(values, np.float64), np.asarray(reference, np.float64)
    known = theirs[~np.isnan(theirs)]
    edges = np.unique(np.quantile(known, np.linspace(0, 1, bins + 1)[1:-1]))

    def shares(column: Floats) -> Floats:
        gaps = np.isnan(column)
        place = np.searchsorted(edges, column[~gaps], side="left")
        counts = np.append(np.bincount(place, minlength=len(edges) + 1), gaps.sum())
        return np.asarray((counts + 0.5) / (counts.sum() + 0.5 * len(counts)), np.float64)

    p, q = shares(theirs), shares(ours)
    return float(np.sum((q - p) * np.log(q / p)))


def site_summary(
    cohort: Cohort, tally: Tally, sample: Sample, usable: set[str], patients: Ints
) -> pd.DataFrame:
    """One row a column and site: how far its median and its gaps are from the other sites'.

    Args:
        cohort: The cohort.
        tally: Exact counts.
        sample: Sampled stays of each site.
        usable: Columns that exist with their type.
        patients: Number of patients of each site.
    """
    judged = [
        code
        for code, name in sorted(enumerate(tally.sites), key=lambda item: str(item[1]))
        if name is not None and tally.stays[code] >= SITE_STAYS and patients[code] >= SITE_PATIENTS
    ]
    rows: list[dict[str, Any]] = []
    if len(judged) > 1:
        for name in sample.columns:
            if name in usable:
                rows.extend(_medians(cohort, name, tally, sample, judged))
                rows.extend(_gaps(name, tally, judged))
    return pd.DataFrame(rows)


def _medians(
    cohort: Cohort, name: str, tally: Tally, sample: Sample, judged: list[int]
) -> Iterator[dict[str, Any]]:
    column = cohort.states.get(name)
    if column is not None and column.kind != "numeric":
        return
    values, sites = sample.values(name), sample.row_sites
    if name in cohort.static:
        values, sites = values[sample.firsts], sites[sample.firsts]
    usual = values[np.isfinite(values)]
    positive = len(usual) > 0 and bool(np.mean(usual > 0) < 0.7) and bool((usual >= 0).all())
    quartiles: dict[int, Floats] = {}
    for code in judged:
        here = values[(sites == code) & np.isfinite(values)]
        here = here[here > 0] if positive else here
        if len(here) >= _MIN_VALUES:
            quartiles[code] = np.quantile(here.astype(np.float64), [0.25, 0.5, 0.75])
    if len(quartiles) < 2:
        return
    width = float(np.median([q[2] - q[0] for q in quartiles.values()]))
    for code, (_, median, _) in quartiles.items():
        others = float(np.median([q[1] for site, q in quartiles.items() if site != code]))
        scale = max(width, 0.02 * abs(others), 1e-9)
        apart = abs(median - others) / scale
        shift = apart / _FAR
        words = f"; {apart:.1f} interquartile ranges away"
        if median > 0 and others > 0:
            times = median / others
            shift = max(shift, min(abs(np.log(times)) / np.log(_TIMES), apart / _NEAR))
            words = f"; {times:.2g} times theirs, {apart:.1f} interquartile ranges away"
        words += f", {tally.stays[code]} stays"
        yield {"column": name, "site": tally.sites[code], "shift": shift, "detail": words}


def _gaps(name: str, tally: Tally, judged: list[int]) -> Iterator[dict[str, Any]]:
    shares = tally.missing_shares(name)
    for code in judged:
        others = float(np.median([shares[site] for site in judged if site != code]))
        more = shares[code] - others
        part = (1 - shares[code]) / max(1 - others, 1e-9)
        enough = (1 - others) * tally.rows[code] >= _MIN_VALUES
        rarely = (1 - part) / (1 - _MEASURED_PART) if enough else 0.0
        yield {
            "column": name,
            "site": tally.sites[code],
            "unmeasured": max(more / _MISSING_MORE, rarely if rarely > 1 else 0.0),
            "detail": f"; in {shares[code]:.0%} of its {tally.rows[code]} rows, "
            f"elsewhere in {others:.0%}",
        }
