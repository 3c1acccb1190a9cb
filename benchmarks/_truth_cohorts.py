"""Simulated cohorts for the benchmark of truth, made by the pipeline's own stages, and as loaded.

Called by benchmarks.truth. A stage that was finished is not run again; test patients are not read.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from benchmarks._report import ROOT
from ogsrl.behaviour.policy import Behaviour
from ogsrl.dynamics.interventions import simulator_config
from ogsrl.guardian.members import GUARDIANS
from ogsrl.guardian.protocol import Guardian
from ogsrl.preparation.history import History
from ogsrl.preparation.tensors import StayTensors
from ogsrl.sources.simulator import SimulatorConfig
from ogsrl.spec import Cohort
from pipelines.parts import load_parts, load_preparation
from pipelines.stage import Stage

NAME = "sepsis"
#: Stages until the guardian stands; training and selection follow by other means.
STAGES = ("ingest", "validate", "prepare", "behaviour", "dynamics", "guardian")
#: What they read of params.yaml, and the code that they are made of.
PARAMS = ("seed", "source", "validate", "prepare", "behaviour", "dynamics", "guardian")
CODE = (
    "ogsrl/sources/simulator",
    "ogsrl/preparation",
    "ogsrl/behaviour",
    "ogsrl/dynamics",
    "ogsrl/guardian",
)
#: Code that decides what happens at the bedside, whoever acts.
BEDSIDE = (
    "ogsrl/sources/simulator",
    "ogsrl/evaluation/bedside.py",
    "ogsrl/evaluation/simulated.py",
    "ogsrl/policies/deployed.py",
    "ogsrl/policies/orders.py",
    "ogsrl/policies/limits.py",
    "ogsrl/guardian",
    "ogsrl/preparation",
    "ogsrl/constraints.py",
)
#: What each cohort's simulator is told otherwise than the default cohort's.
HARDER: Mapping[str, Mapping[str, Any]] = {
    "few_patients": {"patients": 2_000},
    "confounded": {"confounding": 0.5},
    "unsafe_acts": {"unsafe_share": 0.09},
}


@dataclass(frozen=True)
class Place:
    """A cohort in a folder of its own, with everything that stages made of it.

    Attributes:
        root: The folder that holds data_contracts/, data/ and models/.
    """

    root: Path

    @cached_property
    def stage(self) -> Stage:
        """The cohort's files and parameters."""
        return Stage("benchmark", NAME, self.root)

    @property
    def cohort(self) -> Cohort:
        """The cohort file."""
        return self.stage.cohort

    @cached_property
    def config(self) -> SimulatorConfig:
        """The simulator's settings."""
        return simulator_config(self.cohort)

    @cached_property
    def history(self) -> History:
        """The layout of states."""
        return History.of(load_preparation(self.stage))

    @cached_property
    def guardian(self) -> Guardian:
        """The region, as its stage fitted it."""
        member = GUARDIANS[self.stage.params.guardian.kind]
        asked = self.behaviour if self.behaviour.status == "fitted" else None
        return member.load(self.stage.model("guardian"), self.history, asked)

    @cached_property
    def behaviour(self) -> Behaviour:
        """The clinicians' policy, as its stage fitted it."""
        return Behaviour.load(self.stage.model("behaviour"), self.history.preparation)

    @property
    def max_refusal(self) -> float:
        """Largest share of steps that a feasible policy may have refused."""
        return self.stage.params.guardian.max_refusal

    def parts(self) -> dict[str, StayTensors]:
        """Training, calibration and validation stays."""
        return load_parts(self.stage, "train", "calibration", "validation")

    @cached_property
    def fingerprint(self) -> str:
        """Of what a policy is measured in: all that a bedside is made of, and the limits."""
        made = [self.stage.data("prepared", "transforms.json")]
        made += [self.stage.model(name, "manifest.json") for name in ("behaviour", "guardian")]
        contents = [file.read_bytes() for file in (*made, *code_files(BEDSIDE))]
        return digest(contents, self.cohort.model_dump(mode="json"), self.max_refusal)


def make(
    folder: Path,
    options: Mapping[str, Any],
    seed: int,
    changes: Mapping[str, str],
    margin: float = 0.0,
) -> Place:
    """A cohort like the default one but for `options`, through every stage; finished ones stay.

    Args:
        folder: Where cohorts are made; this one's folder is named after all that it is made of.
        options: Of the simulator, instead of the cohort file's.
        seed: Of the simulator and of everything fitted.
        changes: Texts of params.yaml and what replaces them.
        margin: Added to every limit.
    """
    text = yaml.safe_load((ROOT / "data_contracts" / f"{NAME}.yaml").read_text(encoding="utf-8"))
    text["source"]["options"] |= options
    for constraint in text["constraints"].values():
        constraint["limit"]["margin"] += margin
    cohort = yaml.safe_dump(text, sort_keys=False, allow_unicode=True)
    params = (ROOT / "params.yaml").read_text(encoding="utf-8")
    for old, new in {"\nseed: 0\n": f"\nseed: {seed}\n", **changes}.items():
        if old not in params:
            raise SystemExit(f"params.yaml: has no {old.strip()!r}, which this benchmark replaces")
        params = params.replace(old, new)
    values = yaml.safe_load(params)
    used = {name: values[name] for name in PARAMS}
    root = folder / digest([file.read_bytes() for file in code_files(CODE)], cohort, used)
    (root / "data_contracts").mkdir(parents=True, exist_ok=True)
    (root / "data_contracts" / f"{NAME}.yaml").write_text(cohort, encoding="utf-8")
    (root / "params.yaml").write_text(params, encoding="utf-8")
    for stage in STAGES:
        _run(stage, root)
    return Place(root)


def _run(stage: str, root: Path) -> None:
    """One stage, as it runs for users, unless it was finished here."""
    done = root / f".done-{stage}"
    if done.exists():
        return
    print(f"cohort {root.name}: {stage}", flush=True)
    with (root / f"{stage}.log").open("w", encoding="utf-8") as log, redirect_stdout(log):
        importlib.import_module(f"pipelines.{stage}").run(Stage(stage, NAME, root))
    done.touch()


def code_files(places: Sequence[str]) -> list[Path]:
    """Python files of the repository under these places, in order."""
    found = [ROOT / name for name in places]
    return sorted(
        file for each in found for file in ([each] if each.is_file() else each.rglob("*.py"))
    )


def digest(contents: Sequence[bytes], *settings: object) -> str:
    """A short name for all of it."""
    made = hashlib.blake2b(digest_size=10)
    for content in contents:
        made.update(hashlib.blake2b(content, digest_size=32).digest())
    made.update(json.dumps(settings, sort_keys=True, default=repr).encode())
    return made.hexdigest()
