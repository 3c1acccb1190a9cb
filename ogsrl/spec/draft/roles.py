"""Which role each column of a foreign table plays, guessed from its name and shape.

Used by drafts alone. Patients' values are looked at, never kept.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd

from ogsrl.errors import SpecError
from ogsrl.spec.draft.clinical import find_column, find_dose, slug
from ogsrl.spec.grammar import WORDS
from ogsrl.spec.mistakes import suggestion
from ogsrl.spec.model import ENDS, RESERVED

MIN_PATIENTS = 10
YAML_WORDS = frozenset(("yes", "no", "on", "off", "true", "false", "null", "y", "n"))
MAX_LEVELS = 12
_PATIENT = r"(patient|subject|person|participant|mrn|pid|pt)(_?(id|no|number|nr|key))?|id"
_STAY = (
    r"(stay|admission|hadm|adm|icustay|icu_stay|encounter|visit|episode|case|traj|trajectory|"
    r"hospitalization)(_?(id|no|number|nr|key))?|icustayid"
)
_STEP = r"step|bloc|block|time_?step|step_?(no|number|index)|t"
_HOURS = r"(hours?|hrs|h)(_(since|from|after|in).*)?|time_(h|hours?)|.*_hours?_since.*"
_TIME = r"(chart_?)?(time|datetime|date_time|timestamp|date)|charted_at|recorded_at"
_SITE = r"(site|hospital|centre|center|facility|unit_?name)(_?(id|name|no))?"
_DEATH = r"died|dead|death|deceased|expired"
_DEATH_TOKENS = r"(^|_)(died|death|mortality|mort\d*|deceased|expire|expired)(_|$)"
_OUTCOME = (
    r"(^|_)(los|length_of_stay|outcome|reward|discharge|disposition|readmit\w*|survived|survival|"
    r"alive)(_|$)"
)

Kind = Literal["numeric", "binary", "categorical"]


@dataclass(frozen=True)
class Column:
    """A column that was given a role."""

    name: str
    foreign: str
    kind: Kind
    levels: tuple[str, ...] = ()


@dataclass
class Roles:
    """What each column of the table seems to be; keys are our name -> the foreign one."""

    keys: dict[str, str] = field(default_factory=dict)
    static: list[Column] = field(default_factory=list)
    observations: list[Column] = field(default_factory=list)
    doses: list[Column] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    stays: pd.Series = field(default_factory=lambda: pd.Series(dtype="str"))

    @property
    def columns(self) -> list[Column]:
        """Every column that is not a key."""
        return [*self.static, *self.observations, *self.doses]


def guess_roles(frame: pd.DataFrame, doses: Sequence[str] = ()) -> Roles:
    """Give every column of a table of stays a role.

    >>> table = pd.DataFrame({"patient": [1, 1], "hour": [0, 4], "glucose": [5.5, 6.1],
    ...                       "insulin_units": [2.0, 0.0]})
    >>> roles = guess_roles(table)
    >>> roles.keys
    {'patient_id': 'patient', 'stay_id': 'patient', 'hours': 'hour'}
    >>> [column.name for column in roles.observations], [column.name for column in roles.doses]
    (['glucose'], ['insulin_units'])
    """
    if frame.empty or not frame.columns.is_unique:
        raise SpecError("the table needs at least one row, and every column its own name")
    unknown = [name for name in doses if name not in frame.columns]
    if unknown:
        near = suggestion(unknown[0], [str(name) for name in frame.columns])
        raise SpecError(f"--dose {unknown[0]}: no such column{near}")
    roles = Roles()
    foreign = {str(name): slug(str(name)) for name in frame.columns}
    _keys(frame, foreign, roles, set(doses))
    roles.stays = frame[roles.keys["stay_id"]].astype("str")
    patients = frame[roles.keys["patient_id"]].astype("str")
    taken: set[str] = set(roles.keys)
    for name, plain in foreign.items():
        if name in roles.keys.values() or name in roles.left_out:
            continue
        _place(frame[name], plain, roles, patients, taken, name in doses)
    _check(roles)
    return roles


def _keys(frame: pd.DataFrame, foreign: dict[str, str], roles: Roles, doses: set[str]) -> None:
    def first(*patterns: str) -> str | None:
        for pattern in patterns:
            for name, plain in foreign.items():
                free = name not in roles.keys.values() and name not in doses
                if free and re.fullmatch(pattern, plain):
                    return name
        return None

    patient, stay = first(_PATIENT), first(_STAY)
    if patient is None and stay is None:
        raise SpecError(
            f"none of {len(foreign)} columns looks like a patient or a stay; call one of them "
            "patient_id or stay_id"
        )
    roles.keys["patient_id"] = patient or stay or ""
    roles.keys["stay_id"] = stay or patient or ""
    for ours, pattern in (("step", _STEP), ("hours", _HOURS), ("time", _TIME)):
        found = first(pattern)
        if found is not None and (ours == "time" or pd.api.types.is_numeric_dtype(frame[found])):
            roles.keys[ours] = found
    if not {"step", "hours", "time"} & roles.keys.keys():
        raise SpecError(
            f"none of {len(foreign)} columns looks like a time; call one of them step "
            "(0, 1, 2 ...), hours, or time"
        )
    if "hours" in roles.keys and "time" in roles.keys:
        roles.left_out[roles.keys.pop("time")] = "the hours are used"
    if (site := first(_SITE)) is not None:
        roles.keys["site"] = site
    for name, plain in foreign.items():
        if re.fullmatch(r"end|end_reason|end_of_stay|outcome|disposition", plain):
            values = set(frame[name].dropna().astype("str").str.lower())
            if values and values <= set(ENDS):
                roles.keys["end"] = name
                break
    if (death := first(_DEATH, rf".*{_DEATH_TOKENS}.*")) is not None and _is_flag(frame[death]):
        roles.keys["died"] = death


def _is_flag(column: pd.Series) -> bool:
    values = set(column.dropna().astype("str").str.lower())
    return values <= {"0", "1", "0.0", "1.0", "true", "false", "yes", "no", "y", "n", "t", "f"}


def _place(
    column: pd.Series,
    plain: str,
    roles: Roles,
    patients: pd.Series,
    taken: set[str],
    is_dose: bool,
) -> None:
    foreign = str(column.name)
    if foreign in RESERVED or not foreign.strip():
        roles.left_out[foreign] = "needs another name, since this one is kept for the table itself"
        return
    if re.search(_DEATH_TOKENS, plain) or re.search(_OUTCOME, plain):
        roles.left_out[foreign] = "looks like an outcome, which is not known before the dose"
        return
    if column.isna().all():
        roles.left_out[foreign] = "has no value at all"
        return
    if column.nunique() == 1 and not is_dose:
        roles.left_out[foreign] = "has one value only"
        return
    kind, levels, problem = _kind(column, patients)
    if problem:
        roles.left_out[foreign] = problem
        return
    made = Column(_own_name(plain, taken), foreign, kind, levels)
    if is_dose or (
        kind != "categorical"
        and find_dose(plain) is not None
        and find_column(plain) is None
        and not _constant(column, roles)
    ):
        if kind == "categorical":
            raise SpecError(f"--dose {foreign}: is text; only numbers can be drafted as doses")
        roles.doses.append(made)
    elif _constant(column, roles):
        roles.static.append(made)
    else:
        roles.observations.append(made)


def _kind(column: pd.Series, patients: pd.Series) -> tuple[Kind, tuple[str, ...], str]:
    """Kind, levels, and why it cannot be used, empty if it can."""
    kind: Kind = "numeric"
    levels: tuple[str, ...] = ()
    problem = ""
    if pd.api.types.is_datetime64_any_dtype(column) or pd.api.types.is_timedelta64_dtype(column):
        problem = "is a date or time"
    elif pd.api.types.is_numeric_dtype(column):  # truth values are numeric too
        values = column.dropna().to_numpy(np.float64)
        kind = "binary" if np.isin(values, (0.0, 1.0)).all() else "numeric"
        problem = "" if np.isfinite(values).all() else "has infinite values"
    else:
        text = column.dropna().astype("str").str.strip()
        if pd.to_numeric(text, errors="coerce").notna().mean() > 0.5:
            return kind, (), "mixes numbers and text; mend it first"
        counts = patients[text.index].groupby(text.str.lower()).nunique()
        kind, levels = "categorical", tuple(sorted(counts.index))
        if not 2 <= len(counts) <= MAX_LEVELS or counts.min() < MIN_PATIENTS:
            problem = f"is text with levels of fewer than {MIN_PATIENTS} patients"
    return kind, levels if not problem else (), problem


def _constant(column: pd.Series, roles: Roles) -> bool:
    stays = roles.stays
    if stays.duplicated().sum() == 0:
        return False
    return bool((column.groupby(stays).nunique() <= 1).all())


def _own_name(plain: str, taken: set[str]) -> str:
    name = plain if re.fullmatch(r"[a-z][a-z0-9_]*", plain) else f"column_{plain}".rstrip("_")
    name = name[:50]
    if name in {*RESERVED, *WORDS, *YAML_WORDS} or name.startswith("cost_"):
        name = f"charted_{name}"
    own, at = name, 2
    while own in taken:
        own, at = f"{name}_{at}", at + 1
    taken.add(own)
    return own


def _check(roles: Roles) -> None:
    if not roles.doses:
        names = [column.foreign for column in roles.observations]
        shown = ", ".join(names[:12])
        raise SpecError(
            "no column looks like a dose; name it with --dose COLUMN"
            + (f" (numbers that change: {shown})" if shown else "")
        )
    if not roles.observations:
        raise SpecError("no column changes over a stay; a policy needs something to look at")
