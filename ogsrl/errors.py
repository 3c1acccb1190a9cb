"""The project's exceptions: every error that a user can mend is one of these.

A message names the column or key, says what was found and how often, and what to do next. It
never contains a patient's value or identifier: counts and names only.
"""

from __future__ import annotations

import os
import traceback
from pathlib import Path

#: Exit status of a defect of the program.
DEFECT = 70


class OgsrlError(Exception):
    """Base of all errors that a user can mend; shown without a traceback."""


class SpecError(OgsrlError):
    """A cohort file, an expression or a parameter is wrong."""


class SourceError(OgsrlError):
    """Trajectories could not be read, mapped or simulated."""


class ContractError(OgsrlError):
    """The data break the cohort's contract beyond what may be quarantined."""


class LeakageError(OgsrlError):
    """Something that is not known before the dose, or in another part, entered the state."""


class PreparationError(OgsrlError):
    """Validated data could not be prepared for learning."""


class ModelError(OgsrlError):
    """A fitted model could not be fitted, read back, or asked."""


class NoFormError(ModelError):
    """An algorithm has no form for this cohort; a matrix for several cohorts may hold it."""


class SupportError(ModelError):
    """A guardian was asked something that it cannot answer."""


class EstimateError(OgsrlError):
    """What a policy would come to cannot be said from these logs."""


class QueryError(OgsrlError):
    """A policy was asked about rows that cannot be read."""


def without_values(error: Exception) -> list[str]:
    """Lines that say where a defect showed itself, without its message, which may quote a patient.

    OGSRL_DEBUG=1 raises it instead.
    """
    if os.environ.get("OGSRL_DEBUG"):
        raise error
    lines = [f"unexpected {type(error).__name__}, a defect of the program:"]
    for frame in traceback.extract_tb(error.__traceback__):
        name = Path(frame.filename)
        lines.append(f"  {name.parent.name}/{name.name}:{frame.lineno} in {frame.name}")
    hint = "its message is withheld, since it may quote a patient's value; OGSRL_DEBUG=1 shows it"
    return [*lines, hint]
