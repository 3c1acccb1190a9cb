"""From sorted foreign rows to stays: steps from times, bins, shifts, the window, ends.

Called by `table` with parts of whole stays. Rows are never dropped without a line of attrition.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ogsrl.errors import SourceError
from ogsrl.sources.reading import Warned, count
from ogsrl.sources.table_columns import Mapping
from ogsrl.spec import Cohort
from ogsrl.trajectories import starts

Positions = npt.NDArray[np.int64]


class StayBuilder:
    """Turns parts of whole stays into parts of the trajectory table, and counts as it goes."""

    def __init__(self, cohort: Cohort, mapping: Mapping) -> None:
        self.cohort = cohort
        self.mapping = mapping
        self.attrition: list[dict[str, Any]] = []
        self._patients: set[int] = set()
        self._stays = 0
        self._rows = {"read": 0, "binned": 0, "kept": 0}
        self._beyond = 0
        self._assumed_deaths = 0

    def build(self, frame: pd.DataFrame) -> pd.DataFrame:
        """One part of the table."""
        self._patients.update(pd.util.hash_array(frame["patient_id"].unique()).tolist())
        self._rows["read"] += len(frame)
        frame = self._clock(frame)
        if self.mapping.clock == "hours":
            frame = _bin(frame, self.cohort)
        self._rows["binned"] += len(frame)
        first = starts(frame["stay_id"])
        self._stays += len(first)
        shifted = [n for n, c in self.cohort.observations.items() if not c.known_before_dose]
        if shifted:
            frame[shifted] = shift_a_step(frame[shifted], first)
        frame, cut = self._window(frame)
        self._rows["kept"] += len(frame)
        frame = self._ends(frame, cut)
        return self._typed(frame)

    def finish(self, warnings: list[Warned]) -> None:
        """Write down what was counted."""
        people = len(self._patients)
        self.attrition.append(count("in the source", people, self._stays, self._rows["read"]))
        if self._rows["binned"] != self._rows["read"]:
            row = count("one row a step", people, self._stays, self._rows["binned"])
            self.attrition.append(row)
        if self._rows["kept"] != self._rows["binned"]:
            name = f"first {self.cohort.max_steps} steps"
            self.attrition.append(count(name, people, self._stays, self._rows["kept"]))
            message = (
                f"step: {self._beyond} stays go on after step {self.cohort.max_steps - 1}; they "
                "end there as `horizon`; raise max_steps if later decisions should count"
            )
            warnings.append(Warned("beyond_max_steps", "step", self._beyond, message))

        if self._assumed_deaths:
            message = (
                f"died: {self._assumed_deaths} deaths are taken as deaths in the stay's last step, "
                "since the table has no column end; add one if some died later"
            )
            warnings.append(Warned("assumed_deaths", "died", self._assumed_deaths, message))

    def _check_agreement(self, died: pd.Series, stays: pd.Series) -> None:
        """A stay that says both that the patient died and did not is not to be believed."""
        known = died.dropna().astype(int).groupby(stays[died.notna()], sort=False)
        torn = int((known.max() != known.min()).sum()) if len(known) else 0
        if torn:
            raise SourceError(
                f"died: {torn} stays say both that the patient died and did not "
                "(rule died_disagrees); write the same on all rows of a stay, or on its last alone"
            )

    def _clock(self, frame: pd.DataFrame) -> pd.DataFrame:
        hours_a_step = self.cohort.time_step_hours
        if "hours" in frame:
            first = starts(frame["stay_id"])
            length = np.diff(np.append(first, len(frame)))
            hours = frame["hours"].to_numpy(np.float64)
            origin = np.minimum.reduceat(hours, first) if self.mapping.clock == "hours" else None
            if origin is None:
                origin = hours[first]
            frame["hours"] = np.round(hours - np.repeat(origin, length), 6)
            if "step" not in frame:
                frame["step"] = np.floor(frame["hours"] / hours_a_step + 1e-9)
        else:
            frame["hours"] = frame["step"] * hours_a_step
        return frame

    def _window(self, frame: pd.DataFrame) -> tuple[pd.DataFrame, npt.NDArray[np.bool_]]:
        beyond = (frame["step"] >= self.cohort.max_steps).to_numpy()
        stay = pd.factorize(frame["stay_id"])[0]
        cut = np.zeros(stay.max() + 1, bool)
        cut[stay[beyond]] = True
        self._beyond += int(cut.sum())
        if cut.any():
            frame = self._known_later(frame, pd.Series(cut[stay]))
        return frame.loc[~beyond].reset_index(drop=True), cut[stay[~beyond]]

    def _known_later(self, frame: pd.DataFrame, cut: pd.Series) -> pd.DataFrame:
        """Tell every row of a stay of a death that the window may cut off."""
        died = _stay_flag(_flags(frame), frame["stay_id"])
        if "end" in frame:
            end = frame["end"].astype("str").str.lower()
            dead = (end == "death").groupby(frame["stay_id"], sort=False).transform("max")
            alive = end.isin(["discharge", "horizon"])
            alive = alive.groupby(frame["stay_id"], sort=False).transform("max")
            unknown = died.isna()
            died = died.mask(unknown & alive, False).mask(dead & (unknown | cut), True)
        frame["died"] = died
        return frame

    def _ends(self, frame: pd.DataFrame, cut: npt.NDArray[np.bool_]) -> pd.DataFrame:
        first = starts(frame["stay_id"])
        last = np.zeros(len(frame), bool)
        last[np.append(first[1:], len(frame)) - 1] = True
        given = "died" in frame
        died = _flags(frame)
        self._check_agreement(died, frame["stay_id"])
        died = _stay_flag(died, frame["stay_id"])
        if "end" in frame:
            end = frame["end"].astype("str").str.lower()
            end = end.mask(pd.Series(cut & last), "horizon")
        else:
            full = (frame["step"] == self.cohort.max_steps - 1).to_numpy()
            known = died.notna().to_numpy()
            dead = died.fillna(False).to_numpy(bool) & ~cut
            self._assumed_deaths += int((dead & last).sum())
            name = np.where(full | cut, "horizon", np.where(known, "discharge", "censored"))
            end = pd.Series(np.where(dead, "death", name)).astype("str").where(last, None)
        frame["end"] = end
        dead = (end == "death").to_numpy() & last
        died = died.mask(pd.Series(dead) & died.isna(), True)
        if not given and self.cohort.outcome is not None:
            alive = end.isin(["discharge", "horizon"]).to_numpy() & last
            died = died.mask(pd.Series(alive & ~dead), False)
        frame["died"] = died.where(pd.Series(last), pd.NA)
        return frame

    def _typed(self, frame: pd.DataFrame) -> pd.DataFrame:
        if "site" not in frame:
            frame["site"] = None
        for name in ("patient_id", "stay_id", "site", "end"):
            frame[name] = frame[name].astype("str")
        frame["step"] = frame["step"].astype(np.int32)
        columns = list(self.cohort.table_columns)
        if self.mapping.has("split"):
            columns.append("split")
        return frame[columns]


def shift_a_step(columns: pd.DataFrame, first: Positions) -> pd.DataFrame:
    """Move each stay's values one row down: what a bin's chart said is known at the next dose.

    >>> frame = pd.DataFrame({"urine": [1.0, 2.0, 3.0, 7.0, 8.0]})
    >>> shift_a_step(frame, np.array([0, 3]))["urine"].tolist()
    [nan, 1.0, 2.0, nan, 7.0]
    """
    moved = columns.shift(1)
    moved.iloc[first] = np.nan
    return moved


def _bin(frame: pd.DataFrame, cohort: Cohort) -> pd.DataFrame:
    """One row a stay and step, each column by its declared statistic."""
    key = ["stay_id", "step"]
    if not frame.duplicated(key).any():
        frame["hours"] = frame["step"] * cohort.time_step_hours
        return frame
    during = [
        name
        for name, column in cohort.observations.items()
        if column.known_before_dose and column.statistic != "first" and not column.cumulative_of
    ]
    if during:
        raise SourceError(
            f"{', '.join(during)}: several rows fall into one step, so these hold what was charted "
            "while the dose was given (rule charted_during_dose); declare `statistic: first` or "
            "`known_before_dose: false` (ingest then moves them a step down)"
        )
    how: dict[str, str | Callable[[pd.Series], Any]] = {
        name: "last" for name in frame.columns if name not in key
    }
    how["patient_id"] = "first"
    for name, column in cohort.observations.items():
        how[name] = _summed if column.statistic == "sum" else column.statistic
    for name, action in cohort.actions.items():
        how[name] = _summed if action.statistic == "sum" else action.statistic
    binned = frame.groupby(key, sort=False, as_index=False).agg(how)
    binned["hours"] = binned["step"] * cohort.time_step_hours
    return binned


def _summed(values: pd.Series) -> float:
    return float(values.sum(min_count=1))


def _flags(frame: pd.DataFrame) -> pd.Series:
    if "died" in frame:
        return frame["died"].astype("boolean")
    return pd.Series(pd.NA, index=frame.index, dtype="boolean")


def _stay_flag(flags: pd.Series, stays: pd.Series) -> pd.Series:
    return flags.groupby(stays, sort=False).transform("max").astype("boolean")
