"""The loader of a model: all that acts, from the folder that the pipeline wrote.

Called by the command line. It reads a cohort file, moments and weights; there is no row of a
patient in them, and none is looked for.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ogsrl.behaviour.policy import Behaviour
from ogsrl.errors import ModelError
from ogsrl.guardian.members import GUARDIANS
from ogsrl.modeldir import MANIFEST
from ogsrl.policies.deployed import Deployed
from ogsrl.policies.saved import load_policy
from ogsrl.preparation import Preparation
from ogsrl.preparation.history import History
from ogsrl.query.evidence import Evidence
from ogsrl.query.predictions import Predictions
from ogsrl.spec import Cohort, load_cohort

#: Where each part lies in a model's folder.
SELECTED, BEHAVIOUR, GUARDIAN = "selected", "behaviour", "guardian"
#: And in the folder of who was selected.
PREDICTIONS, EVIDENCE = "predictions", "evidence"


@dataclass(frozen=True)
class Model:
    """Who was put forward, and all that is needed to ask them.

    Attributes:
        cohort: Whose policy it is.
        behaviour: The clinicians' policy.
        deployed: What acts.
        about: Algorithm, seed and step.
        predictions: What to expect; None where patients were too few.
        evidence: Patients like this; None where there are none.
    """

    cohort: Cohort
    behaviour: Behaviour
    deployed: Deployed
    about: dict[str, Any]
    predictions: Predictions | None = None
    evidence: Evidence | None = None

    @property
    def history(self) -> History:
        """The layout of states."""
        return self.deployed.history

    @classmethod
    def load(cls, directory: Path) -> Model:
        """From a cohort's folder of models, e.g. models/sepsis."""
        selected = directory / SELECTED
        files = sorted(selected.glob("*.yaml"))  # the cohort's, as it was when it was selected
        if len(files) != 1:
            raise ModelError(
                f"{directory}: no model here; give the folder of a cohort's models, e.g. "
                "models/sepsis, after `make repro`"
            )
        cohort = load_cohort(files[0])
        preparation = Preparation.load(selected, cohort)
        history = History.of(preparation)
        behaviour = Behaviour.load(directory / BEHAVIOUR, preparation)
        if behaviour.status != "fitted":
            raise ModelError(
                f"{directory}: the clinicians' policy was never fitted, there were too few "
                "patients; nothing can be measured with it"
            )
        kind = _guardian_kind(directory / GUARDIAN)
        guardian = GUARDIANS[kind].load(directory / GUARDIAN, history, behaviour)
        actor, about = load_policy(selected, history, behaviour)
        predictions, evidence = selected / PREDICTIONS, selected / EVIDENCE
        return cls(
            cohort,
            behaviour,
            Deployed.of(actor, guardian, history),
            about,
            Predictions.load(predictions, history) if predictions.exists() else None,
            Evidence.load(evidence, history) if evidence.exists() else None,
        )


def save_beside(cohort_file: Path, preparation: Preparation, selected: Path) -> None:
    """Put into a selected policy's folder what `Model.load` needs beside the policy itself."""
    shutil.copyfile(cohort_file, selected / cohort_file.name)
    preparation.save(selected)


def write_bundle(models: Path, directory: Path) -> str:
    """All that is registered, as one folder with a manifest of every file; the manifest's sha256.

    Args:
        models: A cohort's folder of models.
        directory: Where the folder is made.
    """
    shutil.rmtree(directory, ignore_errors=True)
    for part in (SELECTED, BEHAVIOUR, GUARDIAN):
        shutil.copytree(models / part, directory / part)
    text = json.dumps(_hashes(directory), indent=1) + "\n"
    (directory / MANIFEST).write_text(text, encoding="utf-8")
    return hashlib.sha256(text.encode()).hexdigest()


def check_bundle(directory: Path) -> None:
    """Refuse a folder whose files are not what its manifest says."""
    try:
        told = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
        found = _hashes(directory)
    except (OSError, ValueError):
        raise ModelError(f"{directory.name}: no whole model; register it again") from None
    if told != found:
        said = told if isinstance(told, dict) else {}
        changed = sorted(n for n in {*found, *said} if said.get(n) != found.get(n))
        raise ModelError(
            f"{', '.join(changed)}: not what {MANIFEST} says; somebody changed the model, register "
            "it again"
        )


def _hashes(directory: Path) -> dict[str, str]:
    """sha256 of every file but the manifest itself, in order."""
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return {
        path.relative_to(directory).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path != directory / MANIFEST
    }


def _guardian_kind(directory: Path) -> str:
    """Which guardian it is; whether its files are whole is for its own loader to say."""
    try:
        found = json.loads((directory / "config.json").read_text(encoding="utf-8"))
        kind = str(found["kind"]).removeprefix("guardian:")
    except (OSError, ValueError, KeyError, TypeError):
        kind = ""
    if kind not in GUARDIANS:
        raise ModelError(
            f"{directory.name}: not a whole guardian's folder; run stage guardian again"
        )
    return kind
