"""What goes wrong in tables of stays: clean simulated cohorts, each broken in one way.

Used by `benchmarks.corruptions` and its test. Each corruption names the rule that must catch it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from benchmarks._corruptions_kinds import Case, Corruption, Rng
from benchmarks._corruptions_units import UNITS
from ogsrl.spec import Cohort

CATALOGUE: list[Corruption] = [*UNITS]


def _corrupts(rule: str) -> Callable[[Any], Any]:
    """Register a function from frame to frame, or that changes a case."""

    def register(function: Callable[..., pd.DataFrame | None]) -> Callable[..., Any]:
        def apply(case: Case, cohort: Cohort, rng: Rng) -> Case:
            changed = Case(case.frame.copy(), case.reference, dict(case.others))
            frame = function(changed, rng)
            if frame is not None:
                changed.frame = frame.reset_index(drop=True)
            return changed

        CATALOGUE.append(Corruption(function.__name__.strip("_"), rule, apply))
        return function

    return register


def _rows(case: Case, rng: Rng, many: int = 20, where: Any = None) -> pd.Index:
    """Some rows."""
    rows = case.frame.index if where is None else case.frame.index[where]
    return pd.Index(rng.choice(rows, min(many, len(rows)), replace=False))


def _stays(case: Case, rng: Rng, many: int = 10, at_least: int = 6) -> list[str]:
    """Some stays with enough rows."""
    sizes = case.frame.groupby("stay_id").size()
    return list(rng.choice(sizes.index[sizes >= at_least], many, replace=False))


def _last(frame: pd.DataFrame) -> pd.Series:
    return ~frame["stay_id"].duplicated(keep="last")


@_corrupts("plausible_range:lactate")
def _sentinel_minus_999(case: Case, rng: Rng) -> None:
    case.frame.loc[_rows(case, rng), "lactate"] = -999.0


@_corrupts("plausible_range:map")
def _zero_for_missing(case: Case, rng: Rng) -> None:
    case.frame.loc[_rows(case, rng), "map"] = 0.0


@_corrupts("plausible_range:urine")
def _sign_flipped(case: Case, rng: Rng) -> None:
    case.frame.loc[_rows(case, rng, where=case.frame["urine"] > 0), "urine"] *= -1


@_corrupts("plausible_range:heart_rate")
def _an_extra_digit(case: Case, rng: Rng) -> None:
    case.frame.loc[_rows(case, rng), "heart_rate"] *= 10


@_corrupts("finite:lactate")
def _infinite_value(case: Case, rng: Rng) -> None:
    case.frame.loc[_rows(case, rng), "lactate"] = np.inf


@_corrupts("finite:vasopressor")
def _infinite_dose(case: Case, rng: Rng) -> None:
    case.frame.loc[_rows(case, rng), "vasopressor"] = np.inf


@_corrupts("dose_given:iv_fluid")
def _missing_dose(case: Case, rng: Rng) -> None:
    case.frame.loc[_rows(case, rng), "iv_fluid"] = np.nan


@_corrupts("dose_bounds:iv_fluid")
def _negative_dose(case: Case, rng: Rng) -> None:
    case.frame.loc[_rows(case, rng), "iv_fluid"] = -250.0


@_corrupts("dose_bounds:vasopressor")
def _dose_above_bound(case: Case, rng: Rng) -> None:
    case.frame.loc[_rows(case, rng), "vasopressor"] = 15.0


@_corrupts("known_level:ventilated")
def _flag_of_two(case: Case, rng: Rng) -> None:
    case.frame.loc[_rows(case, rng), "ventilated"] = 2.0


@_corrupts("known_level:female")
def _flag_between(case: Case, rng: Rng) -> None:
    case.frame["female"] = case.frame["female"] + 0.5


@_corrupts("value_given:age")
def _age_missing(case: Case, rng: Rng) -> None:
    case.frame.loc[case.frame["stay_id"].isin(_stays(case, rng)), "age"] = np.nan


@_corrupts("missing_share:heart_rate")
def _too_many_gaps(case: Case, rng: Rng) -> None:
    case.frame.loc[rng.random(len(case.frame)) < 0.5, "heart_rate"] = np.nan


@_corrupts("plausible_range:temperature")
def _columns_shifted(case: Case, rng: Rng) -> pd.DataFrame:
    names = ["heart_rate", "sbp", "map", "resp_rate", "temperature", "spo2", "fio2"]
    rows = case.frame["stay_id"].isin(_stays(case, rng))
    shifted = case.frame.loc[rows, names].to_numpy()
    case.frame.loc[rows, names[1:]] = shifted[:, :-1]
    return case.frame


def _swapped(first: str, second: str) -> Callable[[Case, Rng], pd.DataFrame]:
    def swap(case: Case, rng: Rng) -> pd.DataFrame:
        return case.frame.rename(columns={first: second, second: first})

    swap.__name__ = f"{first}_and_{second}_swapped"
    return swap


_corrupts("check:pressures_ordered")(_swapped("sbp", "map"))
_corrupts("check:urea_above_creatinine")(_swapped("creatinine", "bun"))
_corrupts("check:breaths_below_beats")(_swapped("resp_rate", "heart_rate"))
_corrupts("check:platelets_above_white_cells")(_swapped("wbc", "platelets"))


@_corrupts("step_contiguous:step")
def _time_reversed(case: Case, rng: Rng) -> pd.DataFrame:
    chosen = case.frame["stay_id"].isin(_stays(case, rng))
    order = np.where(chosen, -case.frame["step"], case.frame["step"])
    return case.frame.assign(order=order).sort_values(["stay_id", "order"]).drop(columns="order")


@_corrupts("step_unique:step")
def _steps_repeated(case: Case, rng: Rng) -> pd.DataFrame:
    again = case.frame.loc[_rows(case, rng, where=~_last(case.frame))]
    both = pd.concat([case.frame, again])
    return both.sort_values(["stay_id", "step"], kind="stable")


@_corrupts("step_contiguous:step")
def _a_step_left_out(case: Case, rng: Rng) -> pd.DataFrame:
    chosen = case.frame["stay_id"].isin(_stays(case, rng)) & (case.frame["step"] == 3)
    return case.frame.loc[~chosen]


@_corrupts("step_from_zero:step")
def _steps_from_one(case: Case, rng: Rng) -> None:
    case.frame["step"] += 1
    case.frame["hours"] += 4


@_corrupts("stay_id_unique:stay_id")
def _rows_shuffled(case: Case, rng: Rng) -> pd.DataFrame:
    return case.frame.sample(frac=1, random_state=rng)


@_corrupts("hours_declared:hours")
def _hourly_steps(case: Case, rng: Rng) -> None:
    case.frame["hours"] /= 4


@_corrupts("hours_rising:hours")
def _clock_set_back(case: Case, rng: Rng) -> None:
    chosen = case.frame["stay_id"].isin(_stays(case, rng)) & (case.frame["step"] >= 4)
    case.frame.loc[chosen, "hours"] -= 5  # a time zone changed in the middle of a stay


@_corrupts("hours_declared:hours")
def _hours_in_minutes(case: Case, rng: Rng) -> None:
    case.frame["hours"] *= 60


@_corrupts("dose_after_death:iv_fluid, vasopressor")
def _doses_after_death(case: Case, rng: Rng) -> pd.DataFrame:
    dead = case.frame.loc[case.frame["end"] == "death"].head(10)
    after = dead.assign(step=dead["step"] + 1, hours=dead["hours"] + 4, iv_fluid=500.0, end=None)
    both = pd.concat([case.frame, after])
    return both.sort_values(["stay_id", "step"], kind="stable")


@_corrupts("end_once:end")
def _two_ends(case: Case, rng: Rng) -> None:
    case.frame.loc[_rows(case, rng, where=~_last(case.frame)), "end"] = "discharge"


@_corrupts("end_last:end")
def _rows_after_the_end(case: Case, rng: Rng) -> None:
    last = np.flatnonzero(_last(case.frame) & (case.frame["step"] > 2))[:10]
    case.frame.loc[last - 1, "end"] = "discharge"
    case.frame.loc[last, "end"] = None


@_corrupts("end_present:end")
def _no_end(case: Case, rng: Rng) -> None:
    case.frame.loc[case.frame["stay_id"].isin(_stays(case, rng)), "end"] = None


@_corrupts("end_known:end")
def _end_misspelt(case: Case, rng: Rng) -> None:
    case.frame["end"] = case.frame["end"].replace({"death": "Deceased"})


@_corrupts("died_agrees:died")
def _alive_after_death(case: Case, rng: Rng) -> None:
    dead = case.frame.index[case.frame["end"] == "death"][:10]
    case.frame.loc[dead, "died"] = False


@_corrupts("died_given:died")
def _outcome_left_blank(case: Case, rng: Rng) -> None:
    case.frame.loc[case.frame["end"] == "discharge", "died"] = pd.NA


@_corrupts("dose_when_censored:iv_fluid, vasopressor")
def _dose_after_transfer(case: Case, rng: Rng) -> None:
    case.frame.loc[case.frame["end"] == "censored", "iv_fluid"] = 250.0


@_corrupts("static_constant:weight")
def _weight_changes(case: Case, rng: Rng) -> None:
    chosen = case.frame["stay_id"].isin(_stays(case, rng)) & (case.frame["step"] > 2)
    case.frame.loc[chosen, "weight"] += 5


@_corrupts("site_constant:site")
def _site_changes(case: Case, rng: Rng) -> None:
    chosen = case.frame["stay_id"].isin(_stays(case, rng)) & (case.frame["step"] > 2)
    case.frame.loc[chosen, "site"] = "Z"


@_corrupts("site_given:site")
def _site_left_blank(case: Case, rng: Rng) -> None:
    case.frame.loc[case.frame["stay_id"].isin(_stays(case, rng)), "site"] = ""


@_corrupts("one_patient:patient_id")
def _stay_of_two_patients(case: Case, rng: Rng) -> None:
    chosen = case.frame["stay_id"].isin(_stays(case, rng)) & (case.frame["step"] > 2)
    case.frame.loc[chosen, "patient_id"] += "x"


@_corrupts("stay_not_copied:stay_id")
def _stay_copied_under_another_id(case: Case, rng: Rng) -> pd.DataFrame:
    copied = case.frame.loc[case.frame["stay_id"].isin(_stays(case, rng))].copy()
    copied["stay_id"] += "c"
    copied["patient_id"] += "c"
    return pd.concat([case.frame, copied])


@_corrupts("stay_id_unique:stay_id")
def _two_stays_of_one_id(case: Case, rng: Rng) -> pd.DataFrame:
    first, second = _stays(case, rng, 2)
    other = case.frame["stay_id"] == second
    moved = case.frame.loc[other].assign(stay_id=first)
    return pd.concat([case.frame.loc[~other], moved])


@_corrupts("patients_disjoint:patient_id")
def _patient_in_two_cohorts(case: Case, rng: Rng) -> None:
    case.others["earlier"] = case.frame["patient_id"].drop_duplicates().head(3)


@_corrupts("cumulative_rising:fluid_total")
def _running_total_reset(case: Case, rng: Rng) -> None:
    chosen = case.frame["stay_id"].isin(_stays(case, rng)) & (case.frame["step"] >= 5)
    case.frame.loc[chosen, "fluid_total"] = 0.0


@_corrupts("cumulative_sum:fluid_total")
def _running_total_holds_its_own_dose(case: Case, rng: Rng) -> None:
    case.frame["fluid_total"] += case.frame["iv_fluid"].fillna(0)


@_corrupts("stay_length:step")
def _stays_too_long(case: Case, rng: Rng) -> pd.DataFrame:
    last = case.frame.loc[_last(case.frame) & (case.frame["end"] == "horizon")].head(10)
    earlier = case.frame.copy()
    earlier.loc[last.index, ["end", "died"]] = None
    after = last.assign(step=last["step"] + 1, hours=last["hours"] + 4)
    after["fluid_total"] += last["iv_fluid"]
    both = pd.concat([earlier, after])
    return both.sort_values(["stay_id", "step"], kind="stable")


@_corrupts("id_given:patient_id")
def _patient_not_named(case: Case, rng: Rng) -> None:
    case.frame.loc[case.frame["stay_id"].isin(_stays(case, rng)), "patient_id"] = " "


@_corrupts("id_given:stay_id")
def _stay_not_named(case: Case, rng: Rng) -> None:
    case.frame.loc[case.frame["stay_id"].isin(_stays(case, rng, 1)), "stay_id"] = None


@_corrupts("drift:heart_rate")
def _drift_of_a_column(case: Case, rng: Rng) -> None:
    case.reference = case.frame.copy()
    case.frame["heart_rate"] += 12


@_corrupts("drift:age")
def _drift_of_case_mix(case: Case, rng: Rng) -> pd.DataFrame:
    case.reference = case.frame
    young = case.frame["age"] < 75
    return case.frame.loc[young]


@_corrupts("column_present:lactate")
def _a_column_missing(case: Case, rng: Rng) -> pd.DataFrame:
    return case.frame.drop(columns="lactate")


@_corrupts("column_known:column 35 (its name resembles lactate)")
def _an_unknown_column(case: Case, rng: Rng) -> None:
    case.frame["lactates"] = 1.0


@_corrupts("column_type:patient_id")
def _ids_of_two_types(case: Case, rng: Rng) -> None:
    ids = case.frame["patient_id"].astype(object)
    ids.iloc[: len(ids) // 2] = range(len(ids) // 2)
    case.frame["patient_id"] = ids


@_corrupts("not_empty")
def _no_rows(case: Case, rng: Rng) -> pd.DataFrame:
    return case.frame.iloc[:0]


@_corrupts("quarantine_share")
def _most_stays_broken(case: Case, rng: Rng) -> None:
    case.frame.loc[_rows(case, rng, len(case.frame) // 4), "spo2"] = 250.0
