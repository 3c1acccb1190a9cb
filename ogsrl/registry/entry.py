"""What is registered, what came of it, and the names of the tags that say so.

Called by all of this package. It asks MLflow nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema, TensorSpec
from mlflow.types.schema import AnyType

from ogsrl.errors import OgsrlError
from ogsrl.modeldir import MANIFEST

CHAMPION, CHALLENGER = "champion", "challenger"
#: Of a version or run.
IDENTITY, VERDICT, CARD = "ogsrl.identity", "ogsrl.verdict", "ogsrl.card_sha256"
WHOLE, PLACED = "ogsrl.whole", "ogsrl.placed"
GATE, REASON, EXTERNAL = "ogsrl.gate.", "ogsrl.alias", "ogsrl.external."
LOOSER = "ogsrl.looser_than_default"
#: Of a version: sha256 of its manifest, and the run with its newest card.
MADE_OF, CARD_RUN = "ogsrl.manifest_sha256", "ogsrl.card_run"
ROLLED_BACK = "ogsrl.rolled_back"
#: The champion beside which it was measured, and was not surely as good.
BEHIND = "ogsrl.behind"
PROMOTED_WHY, PROMOTED_ON = "ogsrl.promoted.reason", "ogsrl.promoted.date"
#: Of a registered model: versions that were champion, oldest first.
CHAMPIONS = "ogsrl.champions"
#: The longest description or reason.
LONGEST = 4_900


@dataclass(frozen=True)
class Entry:
    """What is registered.

    Attributes:
        name: The cohort's.
        identity: Of model and card together: the same is one run.
        verdict: Of the audit.
        gates: Verdict by gate.
        summary: For the version's description.
        card_sha256: Of card.json.
        bundle: The model's folder; None: a run is logged, and no version made.
        inputs: Columns that the model takes.
        example: Rows of nobody.
        requirements: Pinned packages.
        reports: Files and folders that are kept with the run.
        params: Of the pipeline, flat.
        metrics: Flat.
        datasets: sha256 by name of what it was made of.
        tags: E.g. revisions.
        looser: Limits and settings that let more pass than by default, in words.
    """

    name: str
    identity: str
    verdict: str
    gates: Mapping[str, str]
    summary: str
    card_sha256: str
    bundle: Path | None
    inputs: Sequence[str]
    example: pd.DataFrame
    requirements: Sequence[str]
    reports: Sequence[Path]
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    datasets: Mapping[str, str]
    tags: Mapping[str, str]
    looser: Sequence[str] = ()

    @property
    def told(self) -> dict[str, str]:
        """What run and version are tagged with."""
        gates = {GATE + name: verdict for name, verdict in self.gates.items()}
        looser = "; ".join(self.looser)[:LONGEST] or "none"
        about = {VERDICT: self.verdict, CARD: self.card_sha256, IDENTITY: self.identity}
        return {**about, LOOSER: looser, **gates}


@dataclass(frozen=True)
class Placed:
    """What came of it.

    Attributes:
        run: Its id.
        version: None where no version was made.
        alias: champion, challenger, or None.
        said: Why that one.
        new: Whether model or card were not there before.
    """

    run: str
    version: int | None
    alias: str | None
    said: str
    new: bool


#: The least that a version may be better than the champion, on the same patients; and in words.
Compare = Callable[[Path], tuple[float | None, str]]


def made_of(bundle: Path) -> str:
    """Of a model's folder: the sha256 of its manifest, which holds that of every file."""
    return hashlib.sha256((bundle / MANIFEST).read_bytes()).hexdigest()


def open_inputs(columns: Sequence[str]) -> ModelSignature:
    """Columns by name, of any type, none of them asked for: MLflow's own refusals repeat rows.

    There are no parameters either: MLflow refuses one of a wrong type with the rows beside it.
    """
    anything = AnyType()  # type: ignore[no-untyped-call]
    specs: list[ColSpec | TensorSpec] = [ColSpec(anything, one, required=False) for one in columns]
    return ModelSignature(inputs=Schema(specs))


@contextmanager
def as_ours(what: str) -> Iterator[None]:
    """MLflow's errors as ours: what was tried, and which kind of error it was."""
    try:
        yield
    except MlflowException as error:
        raise OgsrlError(f"{what} ({error.error_code})") from None
