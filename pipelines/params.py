"""params.yaml as typed values; an unknown key is an error with the nearest known one.

Read by every stage. The cohort file's `overrides:` replace values for that cohort alone.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ogsrl.audit.config import AuditParams
from ogsrl.behaviour.config import BehaviourParams
from ogsrl.dynamics.config import DynamicsParams
from ogsrl.errors import SpecError
from ogsrl.evaluation.config import EvaluateParams
from ogsrl.guardian.config import GuardianParams
from ogsrl.policies.config import AlgorithmParams, TrainParams
from ogsrl.preparation import PrepareParams
from ogsrl.selection.config import SelectParams
from ogsrl.spec.model import overridden

COHORT_NAME = r"^[a-z][a-z0-9_]{0,39}$"
CohortName = Annotated[str, Field(pattern=COHORT_NAME)]


class Section(BaseModel):
    """A section of params.yaml: frozen, and closed to keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SourceParams(Section):
    """Settings of ingest that are not part of what the cohort is."""

    patients: int | None = Field(
        None, ge=1, description="Simulated patients, or this many of a table's."
    )


class ValidateParams(Section):
    """Settings of validate."""

    max_quarantine_share: float = Field(
        0.05, ge=0, le=1, description="Largest share of stays that may be put aside."
    )
    reference: CohortName | None = Field(
        None, description="Cohort with which columns are compared."
    )
    disjoint_with: tuple[CohortName, ...] = Field((), description="Cohorts that share no patient.")


class RegistryParams(Section):
    """Settings of register."""

    experiment: str = Field(
        "ogsrl", pattern=r"^[A-Za-z][\w .-]{0,99}$", description="MLflow's experiment."
    )
    margin: float = Field(
        -0.01,
        ge=-1,
        le=0,
        description="A new version becomes champion if the lower bound of its advantage over the "
        "champion, on the same test patients, is above this.",
    )


class Params(Section):
    """All of params.yaml."""

    cohort: CohortName = Field(description="Name of a file in data_contracts/.")
    seed: int = Field(0, ge=0, description="Seed of everything random.")
    threads: int = Field(2, ge=1, le=256, description="Threads of numerical libraries.")
    device: str = Field(
        "cpu",
        pattern=r"^(cpu|cuda(:[0-9]{1,2})?)$",
        description="Where train computes: cpu, cuda or cuda:1; all else runs on the processor.",
    )
    source: SourceParams = Field(default_factory=SourceParams)
    validate_: ValidateParams = Field(default_factory=ValidateParams, alias="validate")
    prepare: PrepareParams = Field(default_factory=PrepareParams)
    behaviour: BehaviourParams = Field(default_factory=BehaviourParams)
    dynamics: DynamicsParams = Field(default_factory=DynamicsParams)
    guardian: GuardianParams = Field(default_factory=GuardianParams)
    train: TrainParams = Field(default_factory=TrainParams)
    select: SelectParams = Field(default_factory=SelectParams)
    evaluate: EvaluateParams = Field(default_factory=EvaluateParams)
    audit: AuditParams = Field(default_factory=AuditParams)
    registry: RegistryParams = Field(default_factory=RegistryParams)
    algorithms: dict[str, AlgorithmParams] = Field(default_factory=dict)


def parse_params(values: Mapping[str, Any], overrides: Mapping[str, Any], where: str) -> Params:
    """Parameters with a cohort's overrides; every mistake at once.

    >>> parse_params({"cohort": "sepsis", "prepare": {"spilt": {}}}, {}, "params.yaml")
    Traceback (most recent call last):
    ...
    ogsrl.errors.SpecError: params.yaml: prepare.spilt: unknown key; the nearest is prepare.split
    """
    train = overrides.get("train")
    if isinstance(train, Mapping) and "algorithms" in train:
        raise SpecError(
            f"{where}: overrides.train.algorithms: dvc.yaml makes a stage of each algorithm of "
            "params.yaml; set train.algorithms there, or with `dvc exp run -S train.algorithms=...`"
        )
    merged = overridden(values, overrides)
    try:
        return Params.model_validate(merged)
    except ValidationError as error:
        raise SpecError("\n".join(_message(item, where) for item in error.errors())) from None


def read_params(path: Path) -> dict[str, Any]:
    """The mapping that a params.yaml holds."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SpecError(f"{path.name}: no such file; run stages from the repository") from None
    except yaml.YAMLError as error:
        line = getattr(getattr(error, "problem_mark", None), "line", -1) + 1
        raise SpecError(f"{path.name}: line {line}: not valid YAML") from None
    if not isinstance(values, dict):
        raise SpecError(f"{path.name}: must be a mapping of parameters")
    return values


def _message(item: Any, where: str) -> str:
    parts = [str(part) for part in item["loc"]]
    path = ".".join(parts)
    if item["type"] in ("model_type", "dict_type"):
        return f"{where}: {path}: must be a mapping of parameters"
    if item["type"] != "extra_forbidden":
        return f"{where}: {path}: {item['msg']}"
    entry = parts[1] if parts[0] == "algorithms" else "NAME"
    known = [key.replace("NAME", entry) for key in _known(Params)]
    near = difflib.get_close_matches(path, known, n=1, cutoff=0.0)
    return f"{where}: {path}: unknown key; the nearest is {near[0]}"


def _known(model: type[BaseModel], prefix: str = "") -> list[str]:
    """Keys of a model and of those in it, the entries of a mapping as NAME."""
    names: list[str] = []
    for name, field in model.model_fields.items():
        key = prefix + (field.alias or name)
        names.append(key)
        below = f"{key}.NAME." if get_origin(field.annotation) is dict else f"{key}."
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                names += _known(kind, below)
    return names
