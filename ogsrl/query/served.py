"""What MLflow loads for a registered model; named in its MLmodel file.

Called by mlflow.pyfunc, in process and behind `mlflow models serve`, and by our own service. No
error that leaves here holds a row: a ValueError's words are shown, and nothing else may have any.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ogsrl.errors import OgsrlError, without_values
from ogsrl.query.answer import ask
from ogsrl.query.model import Model, check_bundle


class Refused(ValueError):
    """Rows that are not answered, and why; MLflow answers it with status 400."""


@dataclass(frozen=True)
class Served:
    """A model that answers frames."""

    model: Model

    @classmethod
    def load(cls, folder: Path) -> Served:
        """From the folder that was registered, if every file in it is what it was."""
        check_bundle(folder)
        return cls(Model.load(folder))

    def predict(self, rows: Any, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """One answer a row; `{"similar": true}` adds what patients like this were given.

        MLflow hands no parameters on (see `open_inputs`); our own service does.
        """
        asked = bool((params or {}).get("similar", False))
        try:
            return ask(self.model, rows, similar=asked)
        except OgsrlError as error:
            told = str(error)
        except Exception as error:
            os.environ.pop("OGSRL_DEBUG", None)  # here nobody debugs
            told = " ".join(without_values(error)[:-1])
        raise Refused(told)


def _load_pyfunc(path: str) -> Served:
    """As mlflow.pyfunc calls it, with the folder that was registered."""
    return Served.load(Path(path))
