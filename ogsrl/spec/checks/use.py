"""Checks of what is done with columns: where they come from, what the guardian sees, subgroups."""

from __future__ import annotations

from itertools import pairwise

from ogsrl.spec.checks.parts import Parts
from ogsrl.spec.grammar import format_number as number
from ogsrl.spec.mistakes import Path, suggestion
from ogsrl.spec.model import RESERVED, Source, Subgroup

MAX_GUARDIAN_COLUMNS = 16
_ONE_STAY_A_PATIENT = {"patient_id", "stay_id"}


def check_use(parts: Parts) -> None:
    """Source, outcome, guardian, subgroups and overrides."""
    if parts.source is not None:
        _check_source(parts, parts.source)
    _check_outcome(parts)
    if parts.guardian is not None:
        _check_guardian(parts, parts.guardian.columns)
    for name, subgroup in parts.subgroups.items():
        _check_subgroup(parts, name, subgroup)
    if parts.has("overrides", "cohort"):
        message = "a cohort's file cannot choose another cohort; remove it"
        parts.tree.add(("overrides", "cohort"), "override_cohort", message)


def _check_source(parts: Parts, source: Source) -> None:
    path_given = source.path is not None and source.path.strip() != ""
    needed = {
        "table": "a parquet file, a folder of them, or a CSV",
        "meds": "the dataset's folder",
        "aiclinician": "the CSV that mimic_sepsis writes",
    }
    if source.kind in needed and not path_given:
        where: Path = ("source", "path") if parts.has("source", "path") else ("source",)
        message = f"`path:` is missing: {needed[source.kind]}"
        parts.tree.add(where, "path_missing", message)
    if source.kind != "table":
        for key, found in (("path", source.path is not None), ("columns", bool(source.columns))):
            if found and not (key == "path" and source.kind in needed):
                message = f"{source.kind} is not read from a table; remove it"
                parts.tree.add(("source", key), "simulator_with_table", message)
    known = [*RESERVED, *parts.states, *parts.doses]
    ours: dict[str, str] = {}
    for name, foreign in source.columns.items():
        where = ("source", "columns", name)
        if name not in known:
            turned = " (write `our name: their name`)" if foreign in known else ""
            message = f"`{name}` is not a column of ours{turned}{suggestion(name, known)}"
            parts.tree.add(where, "source_column", message)
            continue
        if not foreign.strip():
            parts.tree.add(where, "source_empty", "the foreign table's name is empty")
        other = ours.get(foreign)
        if other is not None and {name, other} != _ONE_STAY_A_PATIENT:
            message = f"`{foreign}` is read as `{other}` already; one column, one meaning"
            parts.tree.add(where, "source_twice", message)
        elif foreign in known and foreign != name and foreign not in source.columns:
            message = f"`{foreign}` is also read under its own name; one column, one meaning"
            parts.tree.add(where, "source_twice", message)
        ours.setdefault(foreign, name)


def _check_outcome(parts: Parts) -> None:
    if parts.outcome is None:
        return
    mapped = parts.source.columns.get("died") if parts.source is not None else None
    if mapped is not None and parts.has("outcome", "death") and parts.outcome.death != mapped:
        message = f"found `{parts.outcome.death}`, but source.columns reads `{mapped}`; keep one"
        parts.tree.add(("outcome", "death"), "outcome_column", message)
    for key in ("horizon", "censoring"):
        if not getattr(parts.outcome, key).strip():
            message = "say it in words; the model card quotes it"
            parts.tree.add(("outcome", key), "outcome_empty", message)


def _check_guardian(parts: Parts, columns: tuple[str, ...]) -> None:
    path: Path = ("guardian", "columns")
    if not columns:
        message = "the guardian needs at least one column; which tell patients apart?"
        parts.tree.add(path, "guardian_empty", message)
    if len(columns) > MAX_GUARDIAN_COLUMNS:
        message = f"found {len(columns)} columns, at most {MAX_GUARDIAN_COLUMNS}; doses come on top"
        parts.tree.add(path, "guardian_many", message)
    for at, name in enumerate(columns):
        if name in columns[:at]:
            parts.tree.add((*path, at), "guardian_twice", f"`{name}` stands here twice")
        elif name in parts.doses and name not in parts.states:
            message = f"`{name}` is a dose; doses come on top, remove it"
            parts.tree.add((*path, at), "guardian_dose", message)
        elif name not in parts.states:
            message = f"unknown column `{name}`{suggestion(name, parts.states)}"
            parts.tree.add((*path, at), "guardian_column", message)


def _check_subgroup(parts: Parts, name: str, subgroup: Subgroup) -> None:
    path, cuts = ("subgroups", name), subgroup.cuts
    if any(left >= right for left, right in pairwise(cuts)):
        parts.tree.add((*path, "cuts"), "cuts_order", "cut points must rise")
    column = parts.columns.get(subgroup.column, ("", None))[1]
    if subgroup.column != "site" and subgroup.column not in parts.states:
        problem = " is a dose; groups are made before any dose"
        if subgroup.column not in parts.doses:
            near = suggestion(subgroup.column, [*parts.states, "site"])
            problem = f" is not a column{near}"
        message = f"`{subgroup.column}`{problem}"
        parts.tree.add((*path, "column"), "subgroup_column", message)
    elif subgroup.column == "site" or (column is not None and column.kind != "numeric"):
        if cuts:
            message = "only a numeric column has cut points; without them each value is a group"
            parts.tree.add((*path, "cuts"), "cuts_not_for", message)
    elif column is not None and not cuts:
        message = "a numeric column needs `cuts`, e.g. `cuts: [50, 65, 80]`"
        parts.tree.add(path, "cuts_missing", message)
    elif column is not None and column.plausible is not None:
        low, high = column.plausible
        outside = [cut for cut in cuts if not low < cut < high]
        if outside:
            message = (
                f"{number(outside[0])} is not inside plausible [{number(low)}, {number(high)}] of "
                f"{subgroup.column}; is the unit right?"
            )
            parts.tree.add((*path, "cuts"), "cuts_outside", message)
