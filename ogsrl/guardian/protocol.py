"""What every guardian is: fit, score, calibrate, supported, explain, save and load.

Everything that asks whether a dose is supported talks to `Guardian` alone. A row that cannot be
read scores inf and is never supported; an uncalibrated guardian answers no verdict.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from ogsrl.errors import SupportError
from ogsrl.guardian.columns import Layout
from ogsrl.guardian.config import GuardianParams
from ogsrl.guardian.conformal import REFUSED, Status, Threshold, conformal_threshold
from ogsrl.guardian.explain import Explanation, explain
from ogsrl.guardian.shortage import Shortage
from ogsrl.modeldir import load_model, rebuilding, save_model
from ogsrl.preparation.blocks import blocks, side_by_side
from ogsrl.preparation.history import History
from ogsrl.trajectories import Stays

if TYPE_CHECKING:
    from ogsrl.preparation.fitting import Preparation
    from ogsrl.preparation.tensors import StayTensors


#: The name of the answer to: was every level and constant ever seen?
NEVER_SEEN = "never_seen"


class LogDensity(Protocol):
    """The clinicians' policy as a guardian needs it: log b(a|s), one a row."""

    def log_prob(self, states: torch.Tensor, doses: torch.Tensor) -> torch.Tensor:
        """Log density (or log probability) of doses given states."""
        ...


@dataclass(frozen=True)
class Rows:
    """Decisions of whole patients: what a fit is fed, a shard at a time.

    Attributes:
        states: (rows, state columns), as History builds them.
        doses: (rows, doses) in [-1, 1].
        patient: (rows,) number of the patient; all rows of a patient are in one shard.
        stay: (rows,) number of the stay, for a guardian that counts stays.
    """

    states: torch.Tensor
    doses: torch.Tensor
    patient: torch.Tensor
    stay: torch.Tensor | None = None

    @classmethod
    def of(cls, tensors: StayTensors) -> Rows:
        """The decisions among prepared rows; a censored last row is none."""
        kept = tensors.decision
        return cls(
            tensors.states[kept], tensors.doses[kept], tensors.patient[kept], tensors.stay[kept]
        )

    def __len__(self) -> int:
        return len(self.states)

    def take(self, rows: torch.Tensor) -> Rows:
        """Some of the rows, by position or mask."""
        stay = None if self.stay is None else self.stay[rows]
        return Rows(self.states[rows], self.doses[rows], self.patient[rows], stay)


#: Shards of whole patients. A fit passes over them more than once: a list, or an object whose
#: `__iter__` reads them anew, but no generator.
Shards = Iterable[Rows]


@dataclass(frozen=True)
class Cases:
    """What a guardian is asked: `z` what it reads (columns, then doses), states and doses whole."""

    z: torch.Tensor
    states: torch.Tensor
    doses: torch.Tensor


@dataclass(frozen=True)
class Guardian(ABC):
    """A set of supported (s, a): where score(s, a) <= threshold.

    Attributes:
        layout: Which columns are read, and where they lie.
        threshold: None until calibrated.
        shortage: Which patients were too few to fit at all; it then refuses everything.
    """

    kind: ClassVar[str]
    #: Whether it holds rows of patients: such a guardian is never registered.
    holds_rows: ClassVar[bool]
    #: Whether calibration sets its threshold to keep a promise; else its rule is fixed.
    promises: ClassVar[bool] = True

    layout: Layout
    threshold: Threshold | None
    shortage: Shortage | None

    @classmethod
    @abstractmethod
    def fit(
        cls,
        batches: Shards,
        layout: Layout,
        params: GuardianParams,
        generator: torch.Generator,
        log_density: LogDensity | None = None,
    ) -> Self:
        """Fit on training patients (`Layout.of(history)` says what is read); not yet calibrated."""

    @abstractmethod
    def ranks(self, cases: Cases) -> dict[str, torch.Tensor]:
        """Each question's answer, one a row, larger is further out; all finite if z is finite."""

    @abstractmethod
    def parts(self) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
        """What `save` writes: plain values, and arrays."""

    @classmethod
    @abstractmethod
    def from_parts(
        cls,
        config: Mapping[str, Any],
        arrays: Mapping[str, npt.NDArray[Any]],
        layout: Layout,
        log_density: LogDensity | None,
    ) -> Self:
        """A guardian from what `parts` gave, without threshold and shortage."""

    def beyond(self, z: torch.Tensor) -> torch.Tensor | None:
        """How far each row is from what was ever seen, above 0 where it is refused whatever else.

        E.g. of a level never seen, or another dose where only one was given. None: not checked.
        """
        return None

    def seen_values(self) -> dict[int, torch.Tensor]:
        """The only values that columns of what is read may have, by place; none by default."""
        return {}

    @property
    def status(self) -> Status:
        """ready, uncalibrated, or why everything is refused."""
        if self.shortage is not None:
            return "too_few_patients"
        return "uncalibrated" if self.threshold is None else self.threshold.status

    @property
    def lacking(self) -> Shortage | None:
        """Which patients are too few, and how many are needed; None where there are enough."""
        made = self.threshold
        if self.shortage is None and made is not None and made.status == "too_few_patients":
            return Shortage("calibration", made.needed)
        return self.shortage

    @property
    def needed(self) -> int | None:
        """How many patients are needed where there are too few; `lacking` says which."""
        return None if self.lacking is None else self.lacking.needed

    @property
    def alpha(self) -> float | None:
        """The promise, once calibrated; None for a guardian that promises nothing."""
        return None if self.threshold is None else self.threshold.alpha

    def questions(self, states: torch.Tensor, doses: torch.Tensor) -> dict[str, torch.Tensor]:
        """The answer to each question; inf where a row cannot be read."""
        z = self.layout.read(states, doses)
        if self.shortage is not None:
            return {"patients": torch.full((len(z),), torch.inf)}
        parts = side_by_side(lambda block: self._block(*block), blocks(z, states, doses))
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _block(
        self, z: torch.Tensor, states: torch.Tensor, doses: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        unreadable = ~torch.isfinite(z).all(dim=1)
        if bool(unreadable.any()):
            z, states, doses = (torch.nan_to_num(x, 0.0, 0.0, 0.0) for x in (z, states, doses))
        ranks = self.ranks(Cases(z, states, doses))
        ranks = {name: rank.nan_to_num(torch.inf, torch.inf) for name, rank in ranks.items()}
        beyond = self.beyond(z)
        if beyond is not None:
            ranks[NEVER_SEEN] = torch.where(beyond > 0, REFUSED + beyond, -torch.inf)
        if bool(unreadable.any()):
            ranks = {n: rank.masked_fill(unreadable, torch.inf) for n, rank in ranks.items()}
        return ranks

    def score(self, states: torch.Tensor, doses: torch.Tensor) -> torch.Tensor:
        """How far out each case lies: the largest answer; differentiable in the doses."""
        ranks = list(self.questions(states, doses).values())
        return torch.stack(ranks).amax(dim=0) if len(ranks) > 1 else ranks[0]

    def supported(self, states: torch.Tensor, doses: torch.Tensor) -> torch.Tensor:
        """Whether each case is inside; False where it cannot be read."""
        with torch.no_grad():
            return self.accepts(self.score(states, doses))

    def accepts(self, scores: torch.Tensor) -> torch.Tensor:
        """Whether these scores are inside: below `REFUSED` and at most the threshold."""
        if self.shortage is not None:
            return torch.zeros_like(scores, dtype=torch.bool)
        if self.threshold is None:
            raise SupportError("guardian: not calibrated; call `calibrate` with calibration rows")
        if self.threshold.value is None:
            return torch.zeros_like(scores, dtype=torch.bool)
        return (scores < REFUSED) & (scores <= self.threshold.value)

    def rules(self, states: torch.Tensor, doses: torch.Tensor) -> list[str | None]:
        """Why each case is refused: the question answered furthest out; None where supported."""
        if self.shortage is not None or (self.threshold and self.threshold.value is None):
            return [self.status] * len(states)
        with torch.no_grad():
            answers = self.questions(states, doses)
            furthest, question = torch.stack(list(answers.values())).max(dim=0)
            supported = self.accepts(furthest)
        names = list(answers)
        return [
            None if fine else "not_a_number" if far == torch.inf else names[which]
            for fine, far, which in zip(
                supported.tolist(), furthest.tolist(), question.tolist(), strict=True
            )
        ]

    def explain(
        self, states: torch.Tensor, doses: torch.Tensor, preparation: Preparation
    ) -> Explanation:
        """Which question failed, what pushes each case out, and how far back inside lies."""
        return explain(self, states, doses, preparation)

    def calibrate(
        self, states: torch.Tensor, doses: torch.Tensor, patient: torch.Tensor, alpha: float
    ) -> Self:
        """The same guardian with a threshold from calibration decisions (no training patient)."""
        with torch.no_grad():
            scores = self.score(states, doses)
        return replace(self, threshold=conformal_threshold(scores, patient, alpha))

    def score_frame(self, prepared: pd.DataFrame, history: History) -> npt.NDArray[np.float32]:
        """Scores of the rows of whole prepared stays, whatever the order of their columns."""
        doses = list(self.layout.doses)
        made = history.preparation
        indicators = (f"missing_{name}" for name in made.indicators)
        read = ["stay_id", "step", *made.states, *indicators, *made.doses, *self.layout.names]
        absent = [name for name in dict.fromkeys(read) if name not in prepared]
        if absent:
            raise SupportError(f"{', '.join(absent)}: the column is missing; prepare the rows")
        states = torch.from_numpy(history.build(prepared, Stays.of(prepared["stay_id"])))
        given = torch.from_numpy(np.array(prepared[doses].to_numpy(np.float32)))
        with torch.no_grad():
            return np.asarray(self.score(states, given).numpy(), np.float32)

    def save(self, directory: Path) -> None:
        """Write a model directory."""
        config, arrays = self.parts()
        threshold = None if self.threshold is None else self.threshold.to_json()
        content = {
            "layout": self.layout.to_json(),
            "threshold": threshold,
            "shortage": None if self.shortage is None else self.shortage.to_json(),
            "fitted": config,
        }
        save_model(directory, f"guardian:{self.kind}", content, arrays)

    @classmethod
    def load(cls, directory: Path, history: History, log_density: LogDensity | None = None) -> Self:
        """Read what `save` wrote, for the same columns and the same scaling."""
        config, arrays = load_model(directory, f"guardian:{cls.kind}")
        with rebuilding(directory):
            layout = Layout.matching(config["layout"], history)
            guardian = cls.from_parts(config["fitted"], arrays, layout, log_density)
            threshold, short = config["threshold"], config["shortage"]
            return replace(
                guardian,
                threshold=None if threshold is None else Threshold(**threshold),
                shortage=None if short is None else Shortage(**short),
            )
