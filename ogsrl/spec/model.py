"""What a cohort is, as typed and frozen values; one class a section of data_contracts/NAME.yaml.

Read by everything else. Field descriptions are the reference documentation of each key. Nothing
here reads files; cross-checks between sections live in reader.py, where lines are known.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from ogsrl.spec.expressions import Expression, parse_expression

Transform = Literal["identity", "log", "log1p", "sqrt"]
Statistic = Literal["last", "first", "mean", "min", "max", "sum"]
Harm = Literal["low", "high", "both", "none"]
Missing = Literal["carry", "median", "normal", "never"]
End = Literal["death", "discharge", "horizon", "censored"]
Interval = tuple[float, float]
Share = Annotated[float, Field(ge=0, le=1)]

ENDS: tuple[End, ...] = ("death", "discharge", "horizon", "censored")
KEYS: tuple[str, ...] = ("patient_id", "stay_id", "step", "hours", "site")
#: A number of levels may be as large as this.
MOST_LEVELS = 10_000
RESERVED: tuple[str, ...] = (*KEYS, "time", "end", "died", "split")


def _named(levels: Any) -> Any:
    """A number of levels instead of their names: 0, 1, 2 and so on.

    >>> _named(3)
    ('0', '1', '2')
    """
    if isinstance(levels, list):
        return tuple(levels)
    whole = isinstance(levels, int) and not isinstance(levels, bool)
    return tuple(map(str, range(levels))) if whole and 0 <= levels <= MOST_LEVELS else levels


#: Names of levels, or how many there are.
Levels = Annotated[tuple[str, ...], BeforeValidator(_named)]


class Section(BaseModel):
    """A section of a cohort file: frozen, and closed to keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Static(Section):
    """A column that does not change within a stay."""

    label: str = Field("", description="The column's name as a clinician says it.")
    unit: str = Field(description="Clinical unit of the values, e.g. mmHg; '1' for none.")
    kind: Literal["numeric", "binary", "categorical"] = Field(
        "numeric", description="binary: 0 or 1; categorical: one of `levels`, stored as its code."
    )
    levels: Levels = Field(
        (), description="Names of a categorical column's levels, or their number: then 0, 1, ..."
    )
    plausible: Interval | None = Field(
        None, description="Lowest and highest value that a living patient's chart can show."
    )
    missing: Missing = Field(
        "carry",
        description="What fills a gap: the last known value (then the training median), the "
        "training median, the `normal` value, or `never` (a gap is an error).",
    )
    normal: float | None = Field(None, description="A healthy person's value.")
    max_missing: Share = Field(
        default_factory=lambda given: 0.0 if given.get("missing") == "never" else 0.5,
        description="Largest share of rows that may be missing: 0.5, or 0 if missing is never.",
    )
    transform: Transform = Field("identity", description="Applied before scaling.")

    @property
    def range(self) -> Interval:
        """Plausible range; a binary's is (0, 1), a categorical's its codes."""
        if self.kind == "binary":
            return (0.0, 1.0)
        if self.kind == "categorical":
            return (0.0, float(len(self.levels) - 1))
        assert self.plausible is not None  # guaranteed by the reader
        return self.plausible


class Observation(Static):
    """A column charted over time, known before the dose of its row."""

    statistic: Statistic = Field("last", description="How several values of one bin become one.")
    known_before_dose: bool = Field(
        True, description="False: charted during the bin of the dose; ingest shifts it a step."
    )
    harm: Harm = Field("none", description="Which direction is bad for the patient.")
    cumulative_of: str | None = Field(
        None, description="The dose whose sum over earlier steps this column is."
    )


class Action(Section):
    """A dose that the policy chooses."""

    label: str = Field("", description="The dose's name as a clinician says it.")
    unit: str = Field(description="Clinical unit of the dose.")
    kind: Literal["continuous", "ordinal"] = Field("continuous", description="Kind of dose.")
    levels: Levels = Field(
        (), description="Names of an ordinal dose's levels, rising, or their number."
    )
    bounds: Interval | None = Field(None, description="Least and largest dose ever allowed.")
    zero_inflated: bool = Field(False, description="Whether no dose at all is a common choice.")
    min_dose: float = Field(0.0, ge=0, description="Below this a dose is not given: zero.")
    increment: float | None = Field(None, gt=0, description="Doses are multiples of this.")
    max_change: float | None = Field(
        None, gt=0, description="Largest change a step from the dose last given."
    )
    transform: Literal["identity", "sqrt", "log1p"] = Field(
        "identity", description="Applied before scaling to [-1, 1]."
    )
    statistic: Statistic = Field("sum", description="How several doses of one bin become one.")

    @property
    def range(self) -> Interval:
        """Bounds of the dose; an ordinal's are its codes."""
        if self.kind == "ordinal":
            return (0.0, float(len(self.levels) - 1))
        assert self.bounds is not None  # guaranteed by the reader
        return self.bounds


class Outcome(Section):
    """What a stay's end means."""

    death: str = Field("died", description="Column of later death, on a stay's last row.")
    horizon: str = Field(description="Until when deaths count, e.g. '90 days', 'in hospital'.")
    censoring: str = Field(description="What a censored stay means, in words.")


class Terminal(Section):
    """Reward at a stay's end."""

    death: float = Field(description="Reward of a death, inside the window or later.")
    discharge: float = Field(description="Reward of leaving alive.")
    horizon: float = Field(description="Reward of reaching the last step alive.")


class Reward(Section):
    """What is maximised."""

    terminal: Terminal | None = Field(None, description="Reward per end of a stay.")
    step: str | None = Field(None, description="Expression on the next row; counts in the value.")
    shaping: str | None = Field(
        None,
        description="Expression for training alone, prepared beside the reward; it never enters a "
        "result, and no algorithm here reads it yet.",
    )


class Limit(Section):
    """How much of a constraint's cost is allowed."""

    relative: float | None = Field(None, gt=0, description="Multiple of the clinicians' share.")
    margin: float = Field(0.0, description="Added to relative x the clinicians' share.")
    absolute: Share | None = Field(None, description="Largest share of steps.")


class Constraint(Section):
    """A physiological cost that is bounded on average."""

    label: str = Field("", description="The constraint's name as a clinician says it.")
    expression: str = Field(description="True where the next row is unsafe, e.g. `spo2 < 92`.")
    kind: Literal["share", "ever"] = Field("share", description="Share of steps, or ever.")
    limit: Limit = Field(description="relative (with margin), absolute, or both.")

    @property
    def parsed(self) -> Expression:
        """The expression, compiled."""
        return parse_expression(self.expression)


class Hazard(Section):
    """A state-and-dose rule never to be recommended."""

    label: str = Field("", description="The hazard's name as a clinician says it.")
    expression: str = Field(description="True where the doses must not be recommended.")
    reference: str = Field("", description="Where the rule was published.")

    @property
    def parsed(self) -> Expression:
        """The expression, compiled."""
        return parse_expression(self.expression)


class ProtocolRule(Section):
    """One line of a protocol: a dose, or a change of the dose last given."""

    when: str | None = Field(
        None,
        description="Expression on the state, gaps filled as `missing` says; the first line that "
        "holds counts. None: always.",
    )
    dose: float | None = Field(None, description="The dose, in its unit.")
    change: float | None = Field(None, description="Added to the dose last given; 0 keeps it.")


class Protocol(Section):
    """A written rule of treatment, which policies are compared with; it is never enforced."""

    label: str = Field("", description="The protocol's name as a clinician says it.")
    reference: str = Field("", description="Where it was published.")
    doses: dict[str, tuple[ProtocolRule, ...]] = Field(
        description="Of every dose its lines, the last one without `when`."
    )


class Check(Section):
    """What must hold between the columns of a row, e.g. that mean pressure is below systolic."""

    label: str = Field("", description="The check in words.")
    expression: str = Field(description="True where a row is right, e.g. `map <= sbp`.")
    max_share: Share = Field(0.0, description="Largest share of rows in which it may be false.")
    severity: Literal["error", "warning"] = Field("error", description="error: validate says no.")


class GuardianColumns(Section):
    """What the guardian looks at."""

    columns: tuple[str, ...] = Field(description="At most 16 columns; doses come on top.")


class Subgroup(Section):
    """Patients reported apart."""

    label: str = Field("", description="Name of the grouping.")
    column: str = Field(description="Column at a stay's first step, or `site`.")
    cuts: tuple[float, ...] = Field((), description="Cut points, rising; none: each value.")


class CardTexts(Section):
    """What the model card says that no measurement can; what is not written is `not stated`."""

    developer: str = Field("", description="Who answers for the model.")
    contact: str = Field("", description="Where to ask.")
    stage: str = Field("", description="E.g. research; clinical trial 0123.")
    availability: str = Field("", description="Where it may be had.")
    regulation: str = Field("", description="Approvals, or that there are none.")
    intended_use: str = Field("", description="What it is for, and where in the work of a ward.")
    users: str = Field("", description="Who reads its recommendations.")
    directions: str = Field("", description="What they do with them.")
    population: str = Field("", description="For which patients.")
    out_of_scope: str = Field("", description="For which patients and settings it is not.")
    risks: str = Field("", description="Known risks, beside what the audit found.")
    ethics: str = Field("", description="Known biases and what follows from them.")
    risk_level: str = Field("", description="Of clinical harm.")
    co_interventions: str = Field(
        "", description="Treatments beside the doses, and how they enter."
    )
    conversion: str = Field("", description="How doses of several drugs became one number.")
    bias_mitigation: str = Field("", description="What was done against biases.")
    maintenance: str = Field("", description="Who watches it, how often, and for what.")
    change_plan: str = Field("", description="What may change without asking again.")
    rollback: str = Field("", description="Who takes it back, and when.")
    security: str = Field("", description="How it is protected.")
    funding: str = Field("", description="Who paid.")
    third_parties: str = Field("", description="Others' parts in it.")
    stakeholders: str = Field("", description="Who was asked, patients among them.")
    consent: str = Field("", description="Whether patients were asked or told.")
    publications: str = Field("", description="Where it is described.")
    trials: str = Field("", description="Clinical trials of it.")


class Source(Section):
    """Where trajectories come from."""

    kind: Literal["aiclinician", "icu_sepsis", "meds", "simulator", "table"] = Field(
        description="Reader in ogsrl/sources/."
    )
    path: str | None = Field(None, description="File or folder, relative to the repository.")
    columns: dict[str, str] = Field(
        default_factory=dict, description="Our name -> the name in the foreign table."
    )
    options: dict[str, Any] = Field(default_factory=dict, description="Settings of the reader.")


class Cohort(Section):
    """One cohort: data_contracts/NAME.yaml."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,39}$", description="Also the model's name.")
    version: int = Field(ge=1, description="Raised by hand when the file's meaning changes.")
    description: str = Field("", description="Who these patients are, in a sentence or two.")
    time_step_hours: float = Field(gt=0, description="Length of a step.")
    max_steps: int = Field(ge=1, le=1000, description="Decisions in the longest stay.")
    discount: float = Field(gt=0, le=1, description="Discount of rewards per step.")
    source: Source
    overrides: dict[str, Any] = Field(
        default_factory=dict, description="params.yaml values of this cohort alone."
    )
    static: dict[str, Static] = Field(default_factory=dict)
    observations: dict[str, Observation] = Field(min_length=1)
    actions: dict[str, Action] = Field(min_length=1)
    outcome: Outcome | None = None
    reward: Reward
    constraints: dict[str, Constraint] = Field(default_factory=dict)
    hazards: dict[str, Hazard] = Field(default_factory=dict)
    protocol: Protocol | None = None
    checks: dict[str, Check] = Field(default_factory=dict)
    guardian: GuardianColumns
    subgroups: dict[str, Subgroup] = Field(default_factory=dict)
    card: CardTexts = Field(default_factory=CardTexts)

    @property
    def states(self) -> dict[str, Static]:
        """Statics and observations by name, in file order."""
        return {**self.static, **self.observations}

    @property
    def table_columns(self) -> tuple[str, ...]:
        """Columns of the trajectory table, in order (`split` is optional and comes last)."""
        return (*KEYS, *self.static, *self.observations, *self.actions, "end", "died")


def overridden(values: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters with a cohort's own, key by key.

    >>> overridden({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 4}})
    {'a': {'b': 4, 'c': 2}, 'd': 3}
    """
    made = dict(values)
    for key, value in overrides.items():
        old = made.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        made[key] = overridden(old, value) if both else value  # type: ignore[arg-type] # checked
    return made
