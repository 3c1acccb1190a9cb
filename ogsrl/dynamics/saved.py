"""The directory of fitted dynamics, of either form: an ensemble, or counts of a table.

Called by the `save` and `load` of both, and by the stage where there are too few patients. It
never builds a model.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ogsrl.dynamics.config import TooFewPatients
from ogsrl.dynamics.layout import check_fitted_on
from ogsrl.errors import ModelError
from ogsrl.modeldir import Arrays, load_model, rebuilding, save_model
from ogsrl.preparation.history import History

KIND = "dynamics"


def write(
    directory: Path, form: str, history: History, config: Mapping[str, Any], arrays: Arrays
) -> None:
    """Write fitted dynamics, with what they were fitted on."""
    fitted_on = {
        "states": list(history.names),
        "doses": list(history.preparation.doses),
        "transforms": history.preparation.fingerprint,
    }
    save_model(directory, KIND, {"status": "fitted", "form": form, **fitted_on, **config}, arrays)


def save_too_few(directory: Path, needed: int) -> None:
    """Write that there were too few patients, where the model would be."""
    save_model(directory, KIND, {"status": "too_few_patients", "needed": needed}, {})


def read(directory: Path, form: str, history: History) -> tuple[dict[str, Any], dict[str, Any]]:
    """Config and arrays of dynamics of this form, fitted on states of this layout.

    Raises:
        TooFewPatients: There were too few to fit either form.
        ModelError: Another form, another layout, or no such directory.
    """
    config, arrays = load_model(directory, KIND)
    with rebuilding(directory):
        if config["status"] == "too_few_patients":
            raise TooFewPatients(int(config["needed"]))
        if config["form"] != form:
            raise ModelError(
                f"{directory.name}: holds dynamics of form {config['form']!r}; expected {form!r}: "
                "only cohorts with one categorical state and ordinal doses are counted"
            )
        check_fitted_on(config, history)
    return config, arrays
