"""The sepsis cohort of a MEDS dataset: who, from when, to when; and the table of their stays.

Called by `read` with chunks of whole subjects. Every exclusion is a line of attrition; nobody is
left out by what was charted after a decision.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import Field

from ogsrl.sources.meds.alongside import (
    DRUGS,
    MACHINES,
    active,
    comfort,
    lately,
    open_ended,
    ran,
)
from ogsrl.sources.meds.charts import charted
from ogsrl.sources.meds.doses import Given, doses_given
from ogsrl.sources.meds.hours import DAY, HOUR, Hours, of_stays
from ogsrl.sources.meds.icu import YEAR, Chunk, icu_stays
from ogsrl.sources.meds.mapping import CodeMap
from ogsrl.sources.meds.sepsis import EARLIER, Infection, suspicions, time_zero
from ogsrl.sources.meds.steps import Steps, fluid, observed, pressor
from ogsrl.sources.sofa import sofa, total
from ogsrl.spec import Cohort
from ogsrl.spec.model import Observation, Section

Doubles = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]

#: Hours before an admission that scores look at: two days before a suspicion, and a day back.
BEFORE = EARLIER + 2 * DAY
#: Columns that are made of others, beside those that the mapping charts.
STATICS, MADE = ("age", "female", "weight"), ("sofa", "balance", *MACHINES, *DRUGS)
DOSES = ("iv_fluid", "vasopressor")
#: What is said in a cohort file of deaths that count.
HORIZONS = {"in_hospital": "in hospital", "90_days": "90 days"}


class MedsOptions(Section):
    """`source.options` of a cohort of kind meds."""

    mapping: str = Field(description="A file of mappings/, without .yaml.")
    infection: Infection = Field(
        "antibiotic_and_culture", description="What a suspected infection is."
    )
    conversion: str = Field("goradia_2020", description="Of the mapping's equivalents.")
    deaths: Literal["in_hospital", "90_days"] = Field(
        "in_hospital", description="Which count; days are counted from time zero."
    )
    lookback_hours: float = Field(24, ge=0, description="What row 0 may still know.")
    min_age: float = Field(18, ge=0, description="Years.")


@dataclass
class Counted:
    """What is told of a reading: who is left after each exclusion, and what was left out.

    Attributes:
        patients: Of each exclusion, who is left.
        stays: The same of stays.
        events: The same of known events of those patients.
        values: Charted values left out, by why and concept.
        findings: What was wrong with stays and infusions, and how often.
        rows: Of the table.
    """

    patients: Counter[str] = field(default_factory=Counter)
    stays: Counter[str] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)
    values: Counter[tuple[str, str]] = field(default_factory=Counter)
    findings: Counter[str] = field(default_factory=Counter)
    rows: int = 0

    def left(self, step: str, stays: pd.DataFrame, events: pd.DataFrame) -> pd.DataFrame:
        """The same stays, counted, with the events of their patients."""
        self.patients[step] += stays["subject"].nunique()
        self.stays[step] += len(stays)
        self.events[step] += int(events["subject"].isin(stays["subject"]).sum())
        return stays


@dataclass(frozen=True)
class Read:
    """A chunk, and what was made of it.

    Attributes:
        chunk: Its events.
        charts: By name, what was charted.
        given: Infusions.
        machines: By column, when one ran: `subject`, `start`, `end`, `value` 1.
        equivalents: What 1 unit of each drug counts.
        tonicity: What 1 mL of each fluid counts.
    """

    chunk: Chunk
    charts: dict[str, pd.DataFrame]
    given: Given
    machines: dict[str, pd.DataFrame]
    equivalents: dict[str, float]
    tonicity: dict[str, float]

    @classmethod
    def of(cls, chunk: Chunk, mapping: CodeMap, options: MedsOptions, counted: Counted) -> Read:
        given = doses_given(chunk, mapping)
        counted.findings.update(given.findings)
        return cls(
            chunk,
            charted(chunk, mapping, counted.values),
            given,
            {column: ran(chunk, machine) for column, machine in MACHINES.items()},
            mapping.equivalents[options.conversion].of,
            {name: one.tonicity for name, one in mapping.fluids.items()},
        )


def table(
    chunk: Chunk, cohort: Cohort, mapping: CodeMap, options: MedsOptions, counted: Counted
) -> pd.DataFrame:
    """The trajectory table of a chunk's septic stays."""
    read = Read.of(chunk, mapping, options, counted)
    stays, hours, score = septic(read, options, counted)
    steps = _steps(stays, cohort)
    at = steps.zero[steps.stay] + steps.step * steps.width
    scores = score[hours.row(stays["place"].to_numpy()[steps.stay], at)]
    made = _rows(read, cohort, stays, steps, scores, options.lookback_hours * HOUR, counted)
    counted.rows += len(made)
    return made


def septic(
    read: Read, options: MedsOptions, counted: Counted
) -> tuple[pd.DataFrame, Hours, Doubles]:
    """Stays with sepsis: `zero`, and `place` in the hours, whose scores are told too."""
    chunk = read.chunk
    stays, untimed = icu_stays(chunk)
    counted.findings.update(untimed)
    counted.patients["in the dataset"] += chunk.events["subject"].nunique()
    counted.stays["in the dataset"] += len(chunk.of("moment", "icu_in"))
    counted.events["in the dataset"] += len(chunk.events)
    stays["number"] = stays.groupby("subject", sort=False).cumcount()
    stays = counted.left("in intensive care, from and to known times", stays, chunk.events)
    age = (stays["icu_in"] - stays["birth"]) / YEAR
    stays = counted.left(
        f"{options.min_age:g} years or older", stays[age >= options.min_age], chunk.events
    )
    stays = stays.reset_index(drop=True)
    suspected = suspicions(
        chunk.of("moment", "antibiotic"), chunk.of("moment", "culture"), options.infection
    )
    near = of_stays(
        suspected.assign(minute=suspected["at"]),
        stays,
        stays["icu_in"].to_numpy() - EARLIER * HOUR,
        stays["icu_out"].to_numpy(),
    )
    length = np.floor((stays["icu_out"] - stays["icu_in"]).to_numpy() / HOUR).astype(np.int64)
    hours = Hours(stays["icu_in"].to_numpy(np.float64), length + 1, BEFORE)
    score = _hourly_sofa(read, stays, hours)
    zero = time_zero(hours, score, near)
    suspect = np.isin(np.arange(len(stays)), near["stay"].to_numpy())
    counted.left("with a suspected infection", stays[suspect], chunk.events)
    ill = ~np.isnan(zero)
    stays = stays.assign(
        zero=zero,
        place=np.arange(len(stays)),
        comfort=comfort(chunk, stays, EARLIER * HOUR),
        died=_died(stays, zero, options),
    )
    stays = counted.left("with sepsis in intensive care", stays[ill], chunk.events)
    treated = ~(stays["comfort"] <= stays["zero"])
    stays = counted.left("not treated for comfort alone by then", stays[treated], chunk.events)
    return stays.reset_index(drop=True), hours, score


def _died(stays: pd.DataFrame, zero: Doubles, options: MedsOptions) -> npt.NDArray[np.bool_]:
    """Whose death counts."""
    in_hospital = stays["died_in_hospital"].to_numpy(bool)
    if options.deaths == "in_hospital":
        return in_hospital
    when = stays["death"].fillna(stays["hospital_out"].where(in_hospital)).to_numpy(np.float64)
    soon: npt.NDArray[np.bool_] = when <= zero + 90 * DAY * HOUR
    return soon


def _hourly_sofa(read: Read, stays: pd.DataFrame, hours: Hours) -> Doubles:
    """SOFA at each hour: of the worst of the day before it."""
    begin = hours.start - (hours.before + 1) * HOUR
    end = stays["icu_out"].to_numpy(np.float64)

    def of(name: str) -> tuple[Places, Doubles, Doubles]:
        found = of_stays(read.charts[name], stays, begin, end)
        return found["stay"].to_numpy(), found["minute"].to_numpy(), found["value"].to_numpy()

    worst = {
        name: hours.lowest_of_day(hours.lowest(*of(name)))
        for name in ("pf_ratio", "platelets", "map", "gcs")
    }
    worst |= {
        name: hours.highest_of_day(hours.highest(*of(name))) for name in ("bilirubin", "creatinine")
    }
    worst["urine_day"] = hours.sum_of_day(hours.total(*of("urine")))
    rates = read.given.rates
    rates = open_ended(rates.assign(value=rates["told"])).dropna(subset=["start", "value"])
    dopamine = rates["name"] == "dopamine"
    worst["dopamine"] = hours.highest_of_day(_running(hours, stays, rates[dopamine]))
    others = rates[~dopamine]
    others = others.assign(value=others["value"] * others["name"].map(read.equivalents))
    worst["pressors"] = hours.highest_of_day(_running(hours, stays, others))
    worst["ventilated"] = hours.highest_of_day(_running(hours, stays, read.machines["ventilated"]))
    return total(sofa(worst))


def _running(hours: Hours, stays: pd.DataFrame, spans: pd.DataFrame) -> Doubles:
    """The highest value in each hour of what ran in it."""
    lasts = np.full(len(stays), np.inf)
    found = of_stays(spans.assign(minute=spans["start"]), stays, -lasts, lasts)
    stay, start, end, value = (found[name].to_numpy() for name in ("stay", "start", "end", "value"))
    return hours.running(stay.astype(np.int64), start, end, value)


def _steps(stays: pd.DataFrame, cohort: Cohort) -> Steps:
    """To the horizon, or until they left, died, or were treated for comfort alone."""
    until = stays[["icu_out", "death", "comfort"]].min(axis=1).to_numpy(np.float64)
    until = np.maximum(until, stays["zero"].to_numpy() + 1)  # a death noted early, by its day
    return Steps.of(stays["zero"].to_numpy(np.float64), until, cohort)


def _rows(
    read: Read,
    cohort: Cohort,
    stays: pd.DataFrame,
    steps: Steps,
    scores: Doubles,
    lookback: float,
    counted: Counted,
) -> pd.DataFrame:
    stay, step = steps.stay, steps.step
    subject = stays["subject"].astype("str")
    frame = pd.DataFrame(
        {
            "patient_id": subject.to_numpy()[stay],
            "stay_id": (subject + "-" + stays["number"].astype("str")).to_numpy()[stay],
            "step": step.astype(np.int32),
            "hours": step * cohort.time_step_hours,
            "site": None,
        }
    )
    age = ((stays["zero"] - stays["birth"]) / YEAR).to_numpy(np.float64)
    for name in cohort.states:
        if name == "age":
            frame[name] = age[stay]
        elif name == "female":
            frame[name] = stays["female"].to_numpy(np.float64)[stay]
        elif name == "sofa":
            frame[name] = scores
        elif name in MACHINES:
            frame[name] = active(steps, stays, read.machines[name])
        elif name in DRUGS:
            frame[name] = active(steps, stays, lately(read.chunk, DRUGS[name]))
        elif name == "balance":
            frame[name] = _balance(read, stays, steps)
        elif name in cohort.static:
            first = observed(steps, stays, read.charts[name], "last", np.inf)[steps.first]
            frame[name] = first[stay]
        elif cohort.observations[name].cumulative_of is None:
            column = cohort.observations[name]
            some = _plausible(read.charts[name], name, column, counted)
            frame[name] = observed(steps, stays, some, column.statistic, lookback)
    frame["iv_fluid"], lost = fluid(steps, stays, read.given.volumes, read.tonicity)
    frame["vasopressor"], unsure = pressor(steps, stays, read.given.rates, read.equivalents)
    for name, column in cohort.observations.items():
        if column.cumulative_of is not None:
            dose = frame[column.cumulative_of]
            frame[name] = dose.groupby(stay).cumsum() - dose
    ended = _ended(frame, stays, steps, lost | unsure)
    return ended.loc[:, list(cohort.table_columns)]


def _plausible(
    charts: pd.DataFrame, name: str, column: Observation, counted: Counted
) -> pd.DataFrame:
    """A ratio of two plausible values may still be none: the fraction was not of that sample."""
    if name != "pf_ratio" or column.plausible is None:
        return charts
    inside = charts["value"].between(*column.plausible)
    counted.values["implausible", name] += int((~inside).sum())
    return charts[inside]


def _balance(read: Read, stays: pd.DataFrame, steps: Steps) -> Doubles:
    """Since time zero: mL of fluid that came in, as given, less urine that was charted."""
    came, _ = fluid(steps, stays, read.given.volumes, dict.fromkeys(read.tonicity, 1.0))
    left = np.nan_to_num(observed(steps, stays, read.charts["urine"], "sum", 0.0))
    left[steps.first] = 0.0
    kept = pd.Series(came - left).groupby(steps.stay).cumsum().to_numpy(np.float64)
    balance: Doubles = kept - came
    return balance


def _ended(
    frame: pd.DataFrame, stays: pd.DataFrame, steps: Steps, unknown: npt.NDArray[np.bool_]
) -> pd.DataFrame:
    """Rows up to the first whose dose is not known, with how each stay ended on its last.

    Care for comfort alone ends what is decided, as a discharge does: who dies of it later counts.
    """
    last = steps.first + steps.count - 1
    close = steps.zero + steps.count * steps.width
    died = stays["died"].to_numpy(bool)
    comforted = stays["comfort"].to_numpy(np.float64) <= steps.until
    dead = (stays["death"].to_numpy() <= close) & died & ~comforted
    full = (steps.count * steps.width + steps.zero) < steps.until
    end = np.where(dead, "death", np.where(full, "horizon", "discharge"))
    frame["end"] = pd.Series([None] * len(frame), dtype="object")
    frame["died"] = pd.Series(pd.NA, index=frame.index, dtype="boolean")
    frame.loc[last, "end"] = end
    frame.loc[last, "died"] = died
    cut = pd.Series(unknown).groupby(steps.stay).cumsum().to_numpy()
    frame.loc[(cut == 1) & unknown, "end"] = "censored"
    frame.loc[(cut == 1) & unknown, "died"] = pd.NA
    frame.loc[(cut == 1) & unknown, ["iv_fluid", "vasopressor"]] = np.nan
    kept = (cut == 0) | ((cut == 1) & unknown)
    followed: pd.DataFrame = frame.loc[kept].reset_index(drop=True)
    return followed
