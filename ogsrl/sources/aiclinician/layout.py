"""Columns of the AI-Clinician's table (MIMIC-III, by microsoft/mimic_sepsis) and their units.

Called by the source. It knows names and units, and says no to what is another table: one in which
columns were scaled, or whose units differ. It never shows a value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import duckdb
import pandas as pd

from ogsrl.errors import SourceError

DAYS_A_YEAR = 365.25
#: Ages above 150 years, which is how the oldest are written in MIMIC-III, became this many days.
OLDEST_DAYS = 91.4 * DAYS_A_YEAR
STATICS: Mapping[str, str] = MappingProxyType(
    {"age": "o:age", "female": "o:gender", "weight": "o:Weight_kg", "readmission": "o:re_admission"}
)
#: Ours -> theirs, of what is charted during the step of a row. Ours are in the units of theirs.
CHARTED: Mapping[str, str] = MappingProxyType(
    {
        "heart_rate": "o:HR",
        "sbp": "o:SysBP",
        "map": "o:MeanBP",
        "dbp": "o:DiaBP",
        "resp_rate": "o:RR",
        "temperature": "o:Temp_C",
        "spo2": "o:SpO2",
        "fio2": "o:FiO2_1",
        "gcs": "o:GCS",
        "potassium": "o:Potassium",
        "sodium": "o:Sodium",
        "chloride": "o:Chloride",
        "glucose": "o:Glucose",
        "magnesium": "o:Magnesium",
        "calcium": "o:Calcium",
        "hemoglobin": "o:Hb",
        "wbc": "o:WBC_count",
        "platelets": "o:Platelets_count",
        "ptt": "o:PTT",
        "pt": "o:PT",
        "inr": "o:INR",
        "ph": "o:Arterial_pH",
        "pao2": "o:paO2",
        "paco2": "o:paCO2",
        "base_excess": "o:Arterial_BE",
        "bicarbonate": "o:HCO3",
        "lactate": "o:Arterial_lactate",
        "bun": "o:BUN",
        "creatinine": "o:Creatinine",
        "ast": "o:SGOT",
        "alt": "o:SGPT",
        "bilirubin": "o:Total_bili",
        "pf_ratio": "o:PaO2_FiO2",
        "sirs": "o:SIRS",
        "shock_index": "o:Shock_Index",
        "ventilated": "o:mechvent",
        "urine": "o:output_4hourly",
        "urine_total": "o:output_total",
        "balance": "o:cumulated_balance",
    }
)
#: Of both, the published table names the second, the OGSRL variant may have the first too.
DOSES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "iv_fluid": ("a:input_4hourly", "o:input_4hourly"),
        "vasopressor": ("a:max_dose_vaso", "o:max_dose_vaso"),
    }
)
META: Mapping[str, str] = MappingProxyType(
    {
        "traj": "traj",
        "row": "step",
        "onset": "m:presumed_onset",
        "time": "m:charttime",
        "stay": "m:icustayid",
        "reward": "r:reward",
    }
)
#: Theirs, of no use but to find what is wrong.
CHECKED: Mapping[str, str] = MappingProxyType({"their_sofa": "o:SOFA"})
MAY_BE_MISSING: Mapping[str, str] = MappingProxyType({"action": "a:action"})


@dataclass(frozen=True)
class _Unit:
    """Where a column's median lies in the unit that we read it as."""

    low: float
    high: float
    said: str


#: A median outside is of another unit, or of a table whose columns were scaled.
UNITS: Mapping[str, _Unit] = MappingProxyType(
    {
        "age": _Unit(15 * DAYS_A_YEAR, 120 * DAYS_A_YEAR, "in days"),
        "weight": _Unit(30, 200, "in kg"),
        "heart_rate": _Unit(40, 160, "in beats a minute"),
        "map": _Unit(40, 130, "in mmHg"),
        "temperature": _Unit(33, 41, "in degrees Celsius"),
        "fio2": _Unit(0.2, 1, "a fraction"),
        "spo2": _Unit(80, 100, "in %"),
    }
)


def load(path: Path) -> pd.DataFrame:
    """Every column by our name, as numbers in their units; rows by stay and time.

    Raises:
        SourceError: Naming the column and how many cells, if this is not such a table.
    """
    if not path.is_file():
        raise SourceError(
            "source.path: there is no such file; it is the table that mimic_sepsis writes, "
            "sepsis_final_data_RAW_withTimes.csv"
        )
    with duckdb.connect() as database:
        relation = "read_csv(?, all_varchar=true, header=true)"
        try:
            described = database.execute(f"DESCRIBE SELECT * FROM {relation}", [str(path)])
            there = {str(row[0]) for row in described.fetchall()}
            wanted = _wanted(there)
            numbers = ", ".join(
                f'TRY_CAST("{theirs}" AS DOUBLE) AS "{ours}", '
                f'("{theirs}" IS NOT NULL AND TRY_CAST("{theirs}" AS DOUBLE) IS NULL) '
                f'AS "{ours}?"'
                for ours, theirs in wanted.items()
            )
            found = database.execute(f"SELECT {numbers} FROM {relation}", [str(path)]).df()
        except duckdb.Error:
            raise SourceError(
                f"{path.name}: not a whole CSV in UTF-8 with one header line and rows of one "
                "length; write it again"
            ) from None
    if found.empty:
        raise SourceError(f"{path.name}: the table has no rows")
    wrong = {theirs: int(found[f"{ours}?"].sum()) for ours, theirs in wanted.items()}
    told = [f"{name}: {number} of {len(found)} cells" for name, number in wrong.items() if number]
    if told:
        raise SourceError(f"{'; '.join(told)} are no number; write the table again, or mend them")
    table = found[list(wanted)]
    _check(table, wanted)
    return table.sort_values(["stay", "time"], kind="stable").reset_index(drop=True)


def _wanted(there: set[str]) -> dict[str, str]:
    """Ours -> theirs of every column of the layout, and of those that may be there."""
    doses = {name: theirs for name, (_, theirs) in DOSES.items()}
    wanted = {**META, **STATICS, **CHARTED, **CHECKED, **doses}
    missing = [theirs for theirs in wanted.values() if theirs not in there]
    if missing:
        raise SourceError(
            f"{', '.join(missing)}: {len(missing)} of {len(wanted)} columns are missing; the table "
            "is the one that mimic_sepsis writes with --process_raw"
        )
    own = {f"own_{name}": ours for name, (ours, _) in DOSES.items()}
    more = {ours: theirs for ours, theirs in {**MAY_BE_MISSING, **own}.items() if theirs in there}
    return wanted | more


def _check(table: pd.DataFrame, named: Mapping[str, str]) -> None:
    """Whether it is the table, in its units, and its rows can be told apart."""
    for name, unit in UNITS.items():
        median = table[name].median()
        if not unit.low <= median <= unit.high:
            raise SourceError(
                f"{named[name]}: half of its {len(table)} rows say something else than "
                f"{unit.said}; the table without scaling has RAW in its name"
            )
    for name in ("female", "ventilated", "readmission"):
        other = int((~table[name].dropna().isin([0, 1])).sum())
        if other:
            raise SourceError(f"{named[name]}: {other} of {len(table)} cells are not 0 or 1")
    for name in META:
        gaps = int(table[name].isna().sum())
        if gaps:
            raise SourceError(f"{named[name]}: {gaps} of {len(table)} cells are empty")
    twice = int(table.duplicated(["stay", "time"]).sum())
    if twice:
        raise SourceError(f"m:icustayid, m:charttime: {twice} rows are there twice; keep one")
    torn = int((table.groupby("stay")["traj"].nunique() > 1).sum())
    torn += int((table.groupby("traj")["stay"].nunique() > 1).sum())
    if torn:
        raise SourceError(f"traj: {torn} stays are in several, or several in one; write it again")
    for name in DOSES:
        own = f"own_{name}"
        if own in table and (apart := int((table[own] != table[name]).sum())):
            raise SourceError(
                f"{named[own]}, {named[name]}: in {apart} of {len(table)} rows they are not the "
                "same dose; the second must be as mimic_sepsis wrote it"
            )
