"""The parameters of evaluation, one typed field a key of `evaluate:` in params.yaml.

Read by the stage evaluate and by everything in this package. Holds no data.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Name = Literal[
    "fqe", "pdis", "pdis_clipped", "wis", "cwpdis", "dr", "wdr", "magic", "rollouts"
]  # fmt: skip
ALL: tuple[Name, ...] = (
    "fqe", "pdis", "pdis_clipped", "wis", "cwpdis", "dr", "wdr", "magic", "rollouts"
)  # fmt: skip


#: Patients below which nothing is estimated.
LEAST_PATIENTS = 20


class FqeParams(BaseModel):
    """Parameters of fitted Q evaluation."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    fits: int = Field(5, ge=1, le=100, description="Cold fits.")
    networks: int = Field(
        2, ge=1, le=20, description="Networks a fit, begun apart and fed the same patients."
    )
    hidden: int = Field(64, ge=4, le=2048, description="Units of each of two hidden layers.")
    start_steps: int = Field(200, ge=0, description="First steps, towards logged returns.")
    steps: int = Field(1500, ge=1, description="Gradient steps towards the policy's value.")
    batch_size: int = Field(256, ge=8, le=65536, description="Rows a network and step.")
    learning_rate: float = Field(4e-4, gt=0, le=1, description="Of Adam; falls to 0 as a cosine.")
    target_rate: float = Field(0.02, gt=0, le=1, description="How fast targets follow.")
    draws: int = Field(4, ge=1, le=64, description="Doses drawn a row where something is drawn.")
    dose_weight: float = Field(
        4.0, gt=0, le=100, description="Deviation of doses, given the state, as inputs."
    )


def kind(quantity: str) -> str:
    """mortality, value, cost or refusal.

    >>> kind("cost:hypoxia")
    'cost'
    """
    return quantity.partition(":")[0]


class Inflation(BaseModel):
    """How many times wider intervals are made: of a policy's own numbers, and of its gains."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    mortality: float = Field(1.22, ge=1, le=20)
    value: float = Field(1.47, ge=1, le=20)
    cost: float = Field(2.4, ge=1, le=20, description="Of every constraint.")
    refusal: float = Field(8.1, ge=1, le=20)
    mortality_gain: float = Field(1.2, ge=1, le=20)
    value_gain: float = Field(1.38, ge=1, le=20)
    cost_gain: float = Field(2.99, ge=1, le=20)

    def of(self, quantity: str, *, gain: bool) -> float:
        """That of a quantity; nobody gains refusals.

        >>> Inflation(cost=2.0, cost_gain=3.0).of("cost:hypoxia", gain=True)
        3.0
        """
        found: float = getattr(self, kind(quantity) + "_gain" * gain)
        return found


class EvaluateParams(BaseModel):
    """Parameters of the stage evaluate."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    estimators: tuple[Name, ...] = Field(
        ALL, min_length=1, description="Who is asked; `fqe` speaks for the panel."
    )
    confidence: float = Field(0.95, gt=0.5, lt=1, description="Of every two-sided interval.")
    bootstrap: int = Field(
        2000, ge=200, le=100_000, description="Samples of patients behind a weighted interval."
    )
    bandwidths: tuple[Annotated[float, Field(gt=0, le=5)], ...] = Field(
        (0.5, 0.25, 1.0),
        min_length=1,
        description="Of the kernel around an executed dose, on its natural log; the panel uses the "
        "first, the others show what it costs.",
    )
    folds: int = Field(
        5, ge=2, le=20, description="Folds of test patients; each fit is asked of patients that it "
        "was not fed.",
    )  # fmt: skip
    fqe: FqeParams = Field(
        FqeParams(
            fits=8,
            networks=1,
            batch_size=128,
            learning_rate=6e-4,
            target_rate=0.05,
            dose_weight=8,
        ),
        description="Fitted Q evaluation, cross-fitted on test patients; every fit is fed "
        "calibration patients too.",
    )
    values: FqeParams = Field(
        FqeParams(fits=1, networks=2, dose_weight=8),
        description="Fitted values of dr, wdr and magic, from training patients.",
    )
    tolerance: dict[str, Annotated[float, Field(ge=0)]] = Field(
        default_factory=dict,
        description="Of a dose, in its unit: how far policy and clinicians may be apart and still "
        "agree. None: one `increment`; an ordinal dose, its level; else 5 % of the bounds' width.",
    )
    gammas: tuple[Annotated[float, Field(ge=1, le=100)], ...] = Field(
        (1.1, 1.25, 1.5, 2.0, 3.0),
        description="Strengths of an unrecorded confounder that bounds are told for.",
    )
    robust: FqeParams = Field(
        FqeParams(fits=1, networks=2),
        description="Robust fitted Q evaluation of whoever was selected, at each of `gammas`.",
    )
    inflation: Inflation = Field(
        Inflation(),
        description="How many times wider the intervals of cold fits are made, by what they are "
        "of: what ten cohorts of the coverage benchmark's own found them too narrow by.",
    )
    limits_miss: float = Field(
        0.014,
        ge=0,
        le=1,
        description="What cold fits of costs miss beyond what they say, as a standard deviation: "
        "upper bounds of what must not exceed a limit allow for it.",
    )
    limits_miss_lower: float = Field(
        0.008,
        ge=0,
        le=1,
        description="The same of policies that do not cost more than the clinicians: where a cost "
        "is surely below theirs, a limit that asks for no less is judged with it.",
    )
    truth_patients: int = Field(
        20_000,
        ge=0,
        description="Fresh patients treated to the end where the cohort knows its truth; 0: none.",
    )

    @property
    def of_fits(self) -> dict[str, float]:
        """Numbers that cold fits' intervals hang on, by which a measured coverage is known again.

        >>> EvaluateParams().of_fits["folds"], EvaluateParams().of_fits["inflation_mortality"]
        (5.0, 1.22)
        """
        fits = {f"fqe_{name}": value for name, value in self.fqe.model_dump().items()}
        wide = {f"inflation_{name}": value for name, value in self.inflation.model_dump().items()}
        rest = {"folds": self.folds, "confidence": self.confidence}
        return {name: float(value) for name, value in (fits | wide | rest).items()}

    @property
    def surer(self) -> list[str]:
        """Settings by which it claims to be surer than by default; the card shows them.

        >>> EvaluateParams(limits_miss=0.0, inflation=Inflation(cost=5.0)).surer
        ['evaluate.limits_miss: 0 instead of 0.014']
        """
        usual = EvaluateParams()
        widths = ("confidence", "limits_miss", "limits_miss_lower")
        pairs = {name: (getattr(self, name), getattr(usual, name)) for name in widths} | {
            f"inflation.{name}": (factor, getattr(usual.inflation, name))
            for name, factor in self.inflation.model_dump().items()
        }
        told = [f"{name}: {x:g} instead of {least:g}" for name, (x, least) in pairs.items()
                if x < least]  # fmt: skip
        unasked = [name for name in usual.estimators if name not in self.estimators]
        told += [f"estimators: without {', '.join(unasked)}"] if unasked else []
        return [f"evaluate.{one}" for one in told]
