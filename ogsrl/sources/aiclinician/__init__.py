"""The AI-Clinician's table of septic patients (MIMIC-III, microsoft/mimic_sepsis) as a source.

Called by `open_source`. A row of that table is four hours: the mean of what was charted during
them, and the doses given during them. So whatever was charted moves a step down, for nobody knew it
before the hours were over; decisions begin at the presumed onset, and what lies before is history.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import Field, ValidationError

from ogsrl.errors import SourceError
from ogsrl.sources.aiclinician import defects
from ogsrl.sources.aiclinician.layout import CHARTED, DAYS_A_YEAR, DOSES, STATICS, load
from ogsrl.sources.reading import Reading, SourceSettings, Warned, count, file_hash, some_of
from ogsrl.spec import Cohort
from ogsrl.spec.model import Section
from ogsrl.trajectories import starts

#: Seconds between rows of a stay; charted times may be off by less than one.
STEP = 4 * 3600.0
#: What is said in a cohort file of deaths that count.
HORIZONS = {"48_hours": "48 hours after intensive care", "90_days": "90 days"}
#: Columns made here, beside those that are read.
MADE = ("sofa",)
#: What nobody knew before the hours of its row were over.
MOVED = [*CHARTED, *MADE, "weight"]
ONE_EACH = (
    "Stays stand for patients, since nobody told whose each is: a patient with several stays may "
    "be in two parts of the split, and what is measured may flatter"
)


class AiClinicianOptions(Section):
    """`source.options` of a cohort of kind aiclinician."""

    patients: str = Field(
        description="MIMIC-III's ICUSTAYS.csv, which says whose each stay is; or `unknown`, which "
        "the card tells."
    )
    deaths: Literal["48_hours", "90_days"] = Field(
        "48_hours",
        description="Which deaths the rewards of the table stand for: within 48 hours of leaving "
        "intensive care, as mimic_sepsis has it unless it was changed, or within 90 days.",
    )


def read(cohort: Cohort, settings: SourceSettings) -> Reading:
    """Open the table at `source.path`."""
    try:
        options = AiClinicianOptions.model_validate(cohort.source.options)
    except ValidationError as error:
        told = "; ".join(f"{one['loc'][0]}: {one['msg']}" for one in error.errors())
        raise SourceError(f"source.options: {told}") from None
    if cohort.source.path is None:
        raise SourceError("source.path: write where the table is")
    _check(cohort, options)
    path = settings.root / cohort.source.path
    files = [path]
    if options.patients != "unknown":
        files.append(settings.root / options.patients)
    table = load(path)
    table["patient"] = _patients(table["stay"], options, settings.root)
    caveats = [] if options.patients != "unknown" else [ONE_EACH]
    provenance = {
        "kind": "aiclinician",
        "files": {file.name: file_hash(file) for file in files},
        "options": options.model_dump(mode="json"),
        "caveats": [*caveats, *defects.BY_MAKING],
        "shifted": [n for n, c in cohort.observations.items() if not c.known_before_dose],
    }
    reading = Reading(iter(()), provenance)
    reading.warnings.extend(defects.found(table))
    reading.warnings.extend(
        Warned("caveat", None, 1, caveat) for caveat in [*caveats, *defects.BY_MAKING]
    )
    reading.parts = _parts(table, cohort, settings, reading)
    return reading


def _check(cohort: Cohort, options: AiClinicianOptions) -> None:
    """Whether the cohort file says what this table is."""
    cumulative = {n for n, c in cohort.observations.items() if c.cumulative_of is not None}
    known = {*STATICS, *CHARTED, *MADE, *cumulative}
    strange = sorted({*cohort.states} - known) + sorted({*cohort.actions} ^ {*DOSES})
    if strange:
        raise SourceError(
            f"{', '.join(strange)}: not of this source; columns are {', '.join(sorted(known))}, "
            f"doses {' and '.join(DOSES)}"
        )
    early = [
        name
        for name, column in cohort.observations.items()
        if column.known_before_dose and name not in cumulative
    ]
    if early:
        raise SourceError(
            f"{', '.join(early)}: in this table charted while the dose was given; write "
            "`known_before_dose: false` (ingest moves them a step down)"
        )
    if cohort.time_step_hours * 3600 != STEP:
        raise SourceError(f"time_step_hours: {cohort.time_step_hours:g}; the table has steps of 4")
    if cohort.outcome is None or cohort.outcome.horizon != HORIZONS[options.deaths]:
        raise SourceError(
            f"source.options.deaths: {options.deaths} is told as "
            f"`outcome.horizon: {HORIZONS[options.deaths]}`; write both alike"
        )


def _patients(stays: pd.Series, options: AiClinicianOptions, root: Path) -> pd.Series:
    """Whose each stay is, as text."""
    if options.patients == "unknown":
        return stays.astype("int64").astype("str")
    path = root / options.patients
    try:
        told = pd.read_csv(path, usecols=lambda name: name.upper() in ("ICUSTAY_ID", "SUBJECT_ID"))
    except (OSError, ValueError):
        raise SourceError(
            f"source.options.patients: {path.name} is not a CSV that can be read; it is "
            "MIMIC-III's ICUSTAYS.csv, with ICUSTAY_ID and SUBJECT_ID"
        ) from None
    told.columns = told.columns.str.lower()
    if {*told.columns} != {"icustay_id", "subject_id"}:
        raise SourceError(f"source.options.patients: {path.name} lacks ICUSTAY_ID or SUBJECT_ID")
    several = int((told.dropna().groupby("icustay_id")["subject_id"].nunique() > 1).sum())
    if several:
        raise SourceError(f"source.options.patients: {several} stays are of several patients")
    whose = told.dropna().drop_duplicates("icustay_id").set_index("icustay_id")["subject_id"]
    found = stays.map(whose)
    unknown = int(stays[found.isna()].nunique())
    if unknown:
        raise SourceError(
            f"source.options.patients: {unknown} of {stays.nunique()} stays are not in {path.name}"
        )
    return found.astype("int64").astype("str")


def _parts(
    table: pd.DataFrame, cohort: Cohort, settings: SourceSettings, reading: Reading
) -> Iterator[pd.DataFrame]:
    def left(step: str, frame: pd.DataFrame) -> pd.DataFrame:
        people, stays = frame["patient"].nunique(), frame["stay"].nunique()
        reading.attrition.append(count(step, people, stays, len(frame)))
        return frame

    table = left("in the table", table)
    if settings.patients is not None:
        chosen = some_of(table["patient"].unique(), settings.patients)
        table = left("chosen", table[table["patient"].isin(chosen)].reset_index(drop=True))
    table = table.assign(died=_died(table), sofa=defects.score(table))
    table = left("from the presumed onset on", _since_onset(_known(table)))
    table = left(f"first {cohort.max_steps} steps without a gap", _followed(table, cohort, reading))
    if len(table):
        yield _frame(table, cohort)


def _died(table: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Of each row's stay, by the sign of the reward of its last row."""
    first = starts(table["stay"])
    last = np.append(first[1:], len(table)) - 1
    reward = table["reward"].to_numpy(np.float64)
    early = int((np.delete(reward, last) != 0).sum())
    none = int((reward[last] == 0).sum())
    if early or none:
        raise SourceError(
            f"r:reward: not 0 in {early} rows before a stay's last, 0 in {none} last ones; it must "
            "say, on a stay's last row alone, who lived (above 0) and who died (below)"
        )
    died: npt.NDArray[np.bool_] = np.repeat(reward[last] < 0, np.diff(np.append(first, len(table))))
    return died


def _known(table: pd.DataFrame) -> pd.DataFrame:
    """What each row's dose could be chosen by: what was charted in the row before.

    >>> stays = {"stay": [1, 1, 2], "map": [60.0, 70.0, 80.0], "time": [0.0, STEP, 0.0]}
    >>> found = _known(pd.DataFrame({**dict.fromkeys((*CHARTED, "weight", "sofa"), 0.0), **stays}))
    >>> found["map"].tolist()
    [nan, 60.0, nan]
    """
    before = table[MOVED].shift(1)
    first = starts(table["stay"])
    before.iloc[first] = np.nan
    gap = (table["time"].diff() - STEP).abs() > 1
    gap.iloc[first] = False
    return table.assign(gap=gap, **{name: before[name] for name in MOVED})


def _since_onset(table: pd.DataFrame) -> pd.DataFrame:
    """Rows whose four hours begin at the presumed onset or later."""
    kept: pd.DataFrame = table[table["time"] >= table["onset"]].reset_index(drop=True)
    too_old = kept["gap"].to_numpy() & ~kept["stay"].duplicated().to_numpy()
    kept.loc[too_old, MOVED] = np.nan
    kept.loc[too_old, "gap"] = False
    return kept


def _followed(table: pd.DataFrame, cohort: Cohort, reading: Reading) -> pd.DataFrame:
    """Rows with their `number` in the stay, up to the horizon or a gap, and how stays ended.

    Nothing is known of a gap's doses: the stay ends `censored` with the state before it.
    """
    first = starts(table["stay"])
    length = np.diff(np.append(first, len(table)))
    number = np.arange(len(table)) - np.repeat(first, length)
    gap = table["gap"].to_numpy(bool)
    gaps = pd.Series(gap).groupby(table["stay"]).cumsum().to_numpy()
    kept = ((gaps == 0) | (gap & (gaps == 1))) & (number < cohort.max_steps)
    beyond = np.repeat(length > cohort.max_steps, length)
    table = table.assign(number=number, beyond=beyond)[kept].reset_index(drop=True)
    last = ~table["stay"].duplicated(keep="last")
    end = np.where(table["gap"], "censored", np.where(table["beyond"], "horizon", "discharge"))
    full = table["number"] == cohort.max_steps - 1
    table["end"] = pd.Series(np.where(full & ~table["gap"], "horizon", end)).where(last, None)
    table.loc[table["gap"], list(DOSES)] = np.nan
    cut = int(table["gap"].sum())
    if cut:
        message = f"m:charttime: {cut} stays have hours without a row, and end there as censored"
        reading.warnings.append(Warned("hours_without_a_row", None, cut, message))
    return table


def _frame(table: pd.DataFrame, cohort: Cohort) -> pd.DataFrame:
    """The trajectory table."""
    stay = table["stay"]
    died = table["died"].astype("boolean")
    known = table["end"].notna() & (table["end"] != "censored")
    frame = pd.DataFrame(
        {
            "patient_id": table["patient"],
            "stay_id": stay.astype("int64").astype("str"),
            "step": table["number"].astype(np.int32),
            "hours": table["number"] * cohort.time_step_hours,
            "site": pd.Series([None] * len(table), dtype="object"),
            "end": table["end"].astype("object"),
            "died": died.where(known),
        }
    )
    first = starts(stay)  # of the first row, even where that has a gap
    length = np.diff(np.append(first, len(table)))
    for name in cohort.static:
        scale = DAYS_A_YEAR if name == "age" else 1.0
        frame[name] = np.repeat(table[name].to_numpy(np.float64)[first] / scale, length)
    for name in (*cohort.observations, *DOSES):
        if name in table:
            frame[name] = table[name].to_numpy(np.float64)
    for name, column in cohort.observations.items():
        if column.cumulative_of is not None:
            dose = frame[column.cumulative_of]
            frame[name] = dose.groupby(stay).cumsum().groupby(stay).shift(1, fill_value=0.0)
    return frame[list(cohort.table_columns)]


__all__ = ["read"]
