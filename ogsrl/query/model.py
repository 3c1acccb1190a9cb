"""The loader of a model: all that acts, from the folder that the pipeline wrote.

Called by the command line. It reads a cohort file, moments and weights; there is no row of a
patient in them, and none is looked for.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ogsrl.behaviour.policy import Behaviour
from ogsrl.errors import ModelError
from ogsrl.guardian.members import GUARDIANS
from ogsrl.policies.deployed import Deployed
from ogsrl.policies.saved import load_policy
from ogsrl.preparation import Preparation
from ogsrl.preparation.history import History
from ogsrl.spec import Cohort, load_cohort

#: Where each part lies in a model's folder.
SELECTED, BEHAVIOUR, GUARDIAN = "selected", "behaviour", "guardian"


@dataclass(frozen=True)
class Model:
    """Who was put forward, and all that is needed to ask them.

    Attributes:
        cohort: Whose policy it is.
        behaviour: The clinicians' policy.
        deployed: What acts.
        about: Algorithm, seed and step.
    """

    cohort: Cohort
    behaviour: Behaviour
    deployed: Deployed
    about: dict[str, Any]

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
        return cls(cohort, behaviour, Deployed.of(actor, guardian, history), about)


def save_beside(cohort_file: Path, preparation: Preparation, selected: Path) -> None:
    """Put into a selected policy's folder what `Model.load` needs beside the policy itself."""
    shutil.copyfile(cohort_file, selected / cohort_file.name)
    preparation.save(selected)


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
