"""The settings of training, one typed field a key of `train` and of `algorithms.<name>`.

Read by the train stage and by everything in this package. Holds no data.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

OnRefusal = Annotated[
    Literal["go_on", "stop"],
    Field(
        description="In the model the stay goes on with a clinician's dose, or it ends and counts "
        "as a death."
    ),
]
AlgorithmName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DatasetParams(_Frozen):
    """The dataset constraint: how near a proposal stays to some logged pair of another stay."""

    weight: float = Field(0.0, ge=0, description="Weight of the squared distance; 0: none at all.")
    beta: float = Field(0.25, gt=0, le=100, description="Weight of the state against the dose.")
    neighbours: int = Field(
        512, ge=1, le=4096, description="K: nearest rows of other stays known of each listed row."
    )
    listed: int | None = Field(
        None,
        ge=1,
        description="Training rows with such a list, evenly spread; null: all. The model's loop "
        "draws its real rows among them.",
    )
    metric: Literal["numeric", "current", "all"] = Field(
        "numeric",
        description="Columns that count: current numeric observations, all that is current, or all "
        "of the state.",
    )
    weights: dict[str, Annotated[float, Field(ge=0)]] = Field(
        default_factory=dict, description="By column; what is not named weighs 1, 0 leaves it out."
    )


class OfflineParams(_Frozen):
    """The loop without a model: TD3 on logged steps, as published but for what is set here."""

    alpha: float = Field(
        2.5, ge=0, description="Weight of the reward: alpha / mean |Q| times mean Q."
    )
    cloning: float = Field(
        0.0, ge=0, description="Weight of the squared distance from the logged dose."
    )
    discount: float | None = Field(None, gt=0, le=1, description="Of the reward; null: cohort's.")
    critic_rate: float = Field(3e-4, gt=0, le=1, description="Learning rate of the critics.")
    target_rate: float = Field(5e-3, gt=0, le=1, description="How fast targets follow.")
    noise: float = Field(0.2, ge=0, le=2, description="Deviation of the targets' dose.")
    noise_clip: float = Field(0.5, ge=0, le=2, description="Where that is cut off.")
    delay: int = Field(2, ge=1, description="Critics' steps for each step of actor and targets.")
    start_steps: int = Field(0, ge=0, description="Steps of copying before it begins.")
    critic_start_steps: int = Field(
        0, ge=0, description="Critics' first steps, towards the clinicians' own returns."
    )
    update_every: int = Field(25, ge=1, description="Steps between updates of the multipliers.")


class OgsrlParams(_Frozen):
    """Settings of OGSRL; every ablation is one of them."""

    model: bool = Field(
        True, description="Whether it learns from the model too; without, from logged steps alone."
    )
    cloning_only: bool = Field(
        False, description="Whether it ends with the first copy: behaviour cloning."
    )
    products: Literal["float32", "bfloat16"] = Field(
        "bfloat16",
        description="Factors of large products while networks learn, where the processor has "
        "instructions for it; sums, weights and who acts are always float32.",
    )
    hidden: int = Field(256, ge=4, le=4096, description="Units of each of two hidden layers.")
    batch_size: int = Field(256, ge=8, description="Rows of an actor's step, half of each source.")
    value_batch: int = Field(512, ge=8, description="Model rows of a critics' step.")
    actor_rate: float = Field(6e-4, gt=0, le=1, description="Learning rate of the actor.")
    critic_rate: float = Field(1e-3, gt=0, le=1, description="Learning rate of the critics.")
    target_rate: float = Field(0.05, gt=0, le=1, description="How fast targets follow critics.")
    discount: float | None = Field(
        1.0, gt=0, le=1, description="Of the reward in training; null: the cohort's."
    )
    start: Literal["mode", "logged"] = Field(
        "mode", description="What the actor first copies: b's mode, or the logged doses."
    )
    start_steps: int = Field(1200, ge=0, description="Steps of that copying.")
    critic_start_steps: int = Field(
        600, ge=0, description="Critics' first steps, towards the clinicians' own returns."
    )
    refresh: int = Field(150, ge=1, description="Steps between rollouts.")
    pool: int = Field(5, ge=1, description="So many refreshes' rollouts are learned from.")
    starts: int = Field(2000, ge=1, description="Training rows from which rollouts start.")
    horizon: int = Field(5, ge=1, description="Steps of a rollout.")
    first_decisions: int = Field(
        500, ge=10, description="Stays followed to their end for the multipliers."
    )
    guardian: bool = Field(True, description="Whether the guardian is in the environment.")
    on_refusal: OnRefusal = "go_on"
    constraints: bool = Field(True, description="Whether costs count at all.")
    aim: float = Field(
        0.8, gt=0, le=1, description="Share of each d_j that multipliers aim at: room for bounds."
    )
    multipliers: Literal["adapted", "fixed", "quadratic"] = Field(
        "adapted",
        description="PI on the estimated V_j, the same throughout, or a penalty on the square of "
        "the excess.",
    )
    fixed_multiplier: float = Field(1.0, ge=0, description="That one.")
    quadratic: float = Field(
        20.0,
        ge=0,
        description="k: that of mu_j = k max(0, V_j / d_j - 1), the slope of "
        "k d_j / 2 max(0, V_j / d_j - 1)^2.",
    )
    proportional: float = Field(1.0, ge=0, description="P of the multipliers.")
    integral: float = Field(0.1, ge=0, description="I of the multipliers.")
    refusal_limit: float = Field(
        0.04,
        gt=0,
        lt=1,
        description="d_g, a share of max_steps; at most twice this share of the steps lived.",
    )
    refusal_start: float = Field(1.0, ge=0, description="mu_g at the first step.")
    refusal_proportional: float = Field(0.5, ge=0, description="P of mu_g.")
    refusal_integral: float = Field(0.15, ge=0, description="I of mu_g.")
    margin: float = Field(0.03, gt=0, description="First tau of the softplus, in ranks.")
    last_margin: float = Field(
        0.015,
        gt=0,
        description="The last, reached at four fifths of the steps: wide while the actor still "
        "swings, narrow where it settles.",
    )
    margin_weight: float = Field(2.0, ge=0, description="Weight of the softplus.")
    clinicians: float = Field(
        0.0, ge=0, description="Weight of the squared distance from the logged dose."
    )
    disagreement: float = Field(
        0.5,
        ge=0,
        description="What a deviation of members' disagreement costs, in spreads of returns, "
        "beyond what is usual at logged decisions.",
    )
    least_patients: int = Field(
        3,
        ge=1,
        description="Of a table alone: training patients to whom a combination was given in a "
        "code, for it to be proposed there.",
    )
    dataset: DatasetParams = Field(
        DatasetParams(weight=0.01, listed=8000), description="The dataset constraint."
    )
    offline: OfflineParams = Field(OfflineParams(), description="Without a model alone.")

    @model_validator(mode="after")
    def _narrows(self) -> Self:
        if "last_margin" in self.model_fields_set and self.last_margin > self.margin:
            raise ValueError(f"last_margin: above margin, {self.margin}; it narrows, so set less")
        return self


class CpoParams(_Frozen):
    """Settings of the guarded CPO; without guardian and constraints it is TRPO in the model."""

    hidden: int = Field(64, ge=4, le=4096, description="Units of each of two hidden layers.")
    deviation: float = Field(0.25, gt=0, le=1, description="First deviation of proposed doses.")
    least_deviation: float = Field(0.02, gt=0, le=1, description="It never falls below.")
    start: Literal["mode", "logged"] = Field(
        "mode", description="What the actor first copies: b's mode, or the logged doses."
    )
    start_steps: int = Field(1200, ge=0, description="Steps of that copying.")
    critic_start_steps: int = Field(
        600, ge=0, description="Critics' first steps, towards the clinicians' own returns."
    )
    critic_rate: float = Field(1e-3, gt=0, le=1, description="Learning rate of the critics.")
    critic_steps: int = Field(40, ge=1, description="Critics' steps an update.")
    value_batch: int = Field(512, ge=8, description="Rows of a step of critics, or of copying.")
    stays: int = Field(800, ge=10, description="Stays followed to their end, an update.")
    steps_per_update: int = Field(
        25, ge=1, description="An update counts as so many of `train.steps`."
    )
    discount: float | None = Field(
        1.0, gt=0, le=1, description="Of the reward in training; null: the cohort's."
    )
    decay: float = Field(0.5, ge=0, le=1, description="lambda of the advantages.")
    radius: float = Field(0.02, gt=0, le=1, description="Most mean KL divergence of an update.")
    damping: float = Field(1e-3, ge=0, description="Added to the curvature.")
    conjugate_steps: int = Field(6, ge=1, description="Steps of the conjugate gradient.")
    curvature_rows: int = Field(2000, ge=10, description="Rows that the curvature is taken at.")
    backtracks: int = Field(12, ge=1, description="Tries of the line search.")
    guardian: bool = Field(True, description="Whether the guardian is in the environment.")
    constraints: bool = Field(True, description="Whether costs count at all.")
    refusal_limit: float = Field(
        0.04,
        gt=0,
        lt=1,
        description="d_g, a share of max_steps; at most twice this share of the steps lived.",
    )
    on_refusal: OnRefusal = "go_on"


class AlgorithmParams(_Frozen):
    """An entry of `algorithms`: settings of our loops, one of d3rlpy's, or a plain policy."""

    name: str = Field("", description="Its key; filled in when read.")
    ogsrl: OgsrlParams | None = Field(None, description="Settings of our loop.")
    cpo: CpoParams | None = Field(None, description="Settings of the guarded CPO.")
    peer: str | None = Field(None, description="Name of one of d3rlpy's algorithms.")
    plain: Literal["zero", "maximum", "marginal", "denoised", "protocol"] | None = Field(
        None,
        description="A policy that learns nothing: no dose, the largest doses, doses drawn as "
        "clinicians gave them whatever the state, clinicians' likeliest doses, or the cohort's "
        "`protocol`.",
    )

    @model_validator(mode="after")
    def _one(self) -> Self:
        given = [n for n in ("ogsrl", "cpo", "peer", "plain") if getattr(self, n) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)}: one of them, not more")
        return self


class TrainParams(_Frozen):
    """The train stage."""

    algorithms: tuple[AlgorithmName, ...] = Field(
        ("bc", "td3bc", "ogsrl"), min_length=1, description="Which entries of `algorithms`."
    )
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**63)], ...] = Field(
        (0, 1, 2), min_length=1, description="Each is trained anew."
    )
    steps: int = Field(1800, ge=1, description="Gradient steps.")
    checkpoint_every: int = Field(
        900,
        ge=1,
        description="Steps between policies kept, a multiple of each refresh; see decision 14 "
        "before keeping earlier ones.",
    )

    @field_validator("algorithms", "seeds")
    @classmethod
    def _once(cls, named: tuple[Any, ...]) -> tuple[Any, ...]:
        twice = [str(one) for one in dict.fromkeys(named) if named.count(one) > 1]
        if twice:
            raise ValueError(f"{', '.join(twice)}: named twice; each is trained once")
        return named


def named(algorithms: dict[str, AlgorithmParams]) -> dict[str, AlgorithmParams]:
    """Entries that know their own keys."""
    return {name: entry.model_copy(update={"name": name}) for name, entry in algorithms.items()}
