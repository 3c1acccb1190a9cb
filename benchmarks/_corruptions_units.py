"""Columns in another unit, at one site or everywhere, and columns that say nothing.

Used by the catalogue of `benchmarks.corruptions`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from benchmarks._corruptions_kinds import SITE, Case, Corruption, Rng
from ogsrl.spec import Cohort

UNITS: list[Corruption] = []


def _unit(name: str, column: str, rule: str, change: Callable[[pd.DataFrame], Any]) -> None:
    """A column in another unit at one site."""

    def apply(case: Case, cohort: Cohort, rng: Rng) -> Case:
        frame = case.frame.copy()
        here = frame["site"] == SITE
        frame.loc[here, column] = change(frame.loc[here])
        return Case(frame, case.reference, case.others)

    UNITS.append(Corruption(name, rule, apply))


def _everywhere(name: str, column: str, rule: str, change: Callable[[pd.Series], Any]) -> None:
    def apply(case: Case, cohort: Cohort, rng: Rng) -> Case:
        frame = case.frame.copy()
        frame[column] = change(frame[column])
        return Case(frame, case.reference, case.others)

    UNITS.append(Corruption(name, rule, apply))


def _times(column: str, factor: float) -> Callable[[pd.DataFrame], Any]:
    return lambda frame: frame[column] * factor


for _name, _column, _factor in (
    ("fio2_in_percent", "fio2", 100.0),
    ("creatinine_in_umol", "creatinine", 88.42),
    ("urine_in_litres", "urine", 0.001),
    ("weight_in_pounds", "weight", 2.2046),
    ("lactate_in_mg_per_dl", "lactate", 9.008),
    ("bun_in_mmol", "bun", 0.357),
    ("bilirubin_in_umol", "bilirubin", 17.1),
    ("platelets_per_ul", "platelets", 1000.0),
    ("white_cells_per_ul", "wbc", 1000.0),
    ("pressure_in_kpa", "map", 0.1333),
    ("oxygenation_in_kpa", "pf_ratio", 0.1333),
    ("saturation_as_fraction", "spo2", 0.01),
    ("age_in_days", "age", 365.25),
    ("fluid_in_litres", "iv_fluid", 0.001),
    ("fluid_per_hour", "iv_fluid", 0.25),
):
    _unit(f"{_name}_at_a_site", _column, f"site_median:{_column}:{SITE}", _times(_column, _factor))
_unit(
    "temperature_in_fahrenheit_at_a_site",
    "temperature",
    f"site_median:temperature:{SITE}",
    lambda frame: frame["temperature"] * 1.8 + 32,
)
_unit(
    "vasopressor_in_mg_per_hour_at_a_site",
    "vasopressor",
    f"site_median:vasopressor:{SITE}",
    lambda frame: frame["vasopressor"] * frame["weight"] * 60 / 1000,
)
_unit("lactate_not_charted_at_a_site", "lactate", f"site_missing:lactate:{SITE}", lambda _: np.nan)
_everywhere(
    "temperature_in_fahrenheit",
    "temperature",
    "plausible_range:temperature",
    lambda c: c * 1.8 + 32,
)
_everywhere("pressor_per_second", "vasopressor", "dose_size:vasopressor", lambda c: c / 60)
_everywhere("weight_in_grams", "weight", "plausible_range:weight", lambda c: c * 1000)
_everywhere("ph_as_hydrogen_nmol", "ph", "plausible_range:ph", lambda c: 10 ** (9 - c))
_everywhere("a_constant_column", "wbc", "not_constant:wbc", lambda c: c * 0 + 9.0)
_everywhere("a_dose_never_given", "vasopressor", "not_constant:vasopressor", lambda c: c * 0)
_everywhere("a_constant_flag", "ventilated", "binary_constant:ventilated", lambda c: c * 0)
_everywhere("an_empty_column", "lactate", "missing_share:lactate", lambda c: c * np.nan)
_everywhere("numbers_as_text", "heart_rate", "column_type:heart_rate", lambda c: c.astype("str"))
_everywhere("steps_as_fractions", "step", "column_type:step", lambda c: c.astype(float))
