"""Why a case is refused: the question that failed, what pushes it out, how far back inside lies.

Called through `Guardian.explain`, for reviewers. What it says of a dose is an explanation of the
region's edge and never a recommendation: nothing that acts may read it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from ogsrl.errors import SupportError
from ogsrl.preparation.fitting import Preparation
from ogsrl.preparation.transforms import ColumnTransform, DoseTransform

if TYPE_CHECKING:
    from ogsrl.guardian.protocol import Guardian

#: Values that each column is moved to, and halvings that then find the edge of the region.
GRID = 33
HALVINGS = 12
#: Numeric columns are moved within so many training deviations of their mean.
REACH = 4.0


@dataclass(frozen=True)
class Explanation:
    """Refused and supported cases, explained.

    Attributes:
        cases: One row a case: `supported`, `rule` (the question answered furthest out; null where
            supported), `score`, `threshold`, and each question's answer.
        moves: One row a refused case and column that is read, sorted by `drop`: `case`, `column`,
            `kind` (state or dose), `score` if this column alone took its best value, `drop` from
            the case's own score; and, where moving it alone is enough, the nearest supported value
            `inside` and the `change` to it, in clinical units (a level's code for levels).
    """

    cases: pd.DataFrame
    moves: pd.DataFrame


@dataclass(frozen=True)
class _Column:
    name: str
    kind: str
    values: torch.Tensor  # where it is moved to, scaled
    continuous: bool
    transform: ColumnTransform | DoseTransform


def explain(
    guardian: Guardian, states: torch.Tensor, doses: torch.Tensor, preparation: Preparation
) -> Explanation:
    """Explain some cases, a few hundred at most; all refused ones column by column."""
    with torch.no_grad():
        answers = guardian.questions(states, doses)
        score = guardian.score(states, doses)
        supported = guardian.accepts(score).numpy()
        rules = guardian.rules(states, doses)
        limit = guardian.threshold.value if guardian.threshold is not None else None
        cases = pd.DataFrame(
            {
                "supported": supported,
                "rule": pd.array(rules, dtype="string"),
                "score": score.double().numpy(),
                "threshold": np.nan if limit is None else limit,
                **{name: answer.double().numpy() for name, answer in answers.items()},
            }
        ).replace(-np.inf, np.nan)  # nothing to say
        readable = torch.isfinite(score) & ~torch.from_numpy(supported)
        which = readable.nonzero().squeeze(1) if limit is not None else torch.zeros(0).long()
        parts = [
            _moved(guardian, column, i, states[which], doses[which], score[which])
            for i, column in enumerate(_columns(guardian, preparation))
        ]
    moves = pd.concat([part.assign(case=which.numpy()) for part in parts], ignore_index=True)
    moves = moves.sort_values(["case", "drop"], ascending=[True, False], kind="stable")
    order = ["case", "column", "kind", "score", "drop", "inside", "change"]
    return Explanation(cases, moves[order].reset_index(drop=True))


def _columns(guardian: Guardian, preparation: Preparation) -> list[_Column]:
    layout, seen = guardian.layout, guardian.seen_values()
    if any(name not in preparation.states for name in layout.columns):
        raise SupportError("explain: prepared by another cohort; give the guardian's preparation")
    columns = []
    for i, (name, kind) in enumerate(zip(layout.columns, layout.kinds, strict=True)):
        made = preparation.states[name]
        values = seen.get(i)
        if values is None:
            values = _states_between(made) if kind == "numeric" else _levels(made)
        columns.append(_Column(name, "state", values, len(values) == GRID, made))
    for i, (name, kind) in enumerate(
        zip(layout.doses, layout.dose_kinds, strict=True), start=layout.width
    ):
        dose = preparation.doses[name]
        values = seen.get(i)
        if values is None:
            ordinal = torch.from_numpy(dose.forward(np.arange(dose.low, dose.high + 1)))
            values = torch.linspace(-1, 1, GRID) if kind == "continuous" else ordinal
        columns.append(_Column(name, "dose", values, kind == "continuous" and i not in seen, dose))
    return columns


def _states_between(made: ColumnTransform) -> torch.Tensor:
    """Values within reach and within the plausible range, in steps of equal scaled size."""
    low = max(made.low, 1e-9) if made.transform == "log" else made.low
    ends = made.forward(np.array([low, made.high]))
    return torch.linspace(max(-REACH, float(ends[0])), min(REACH, float(ends[1])), GRID)


def _levels(made: ColumnTransform) -> torch.Tensor:
    return torch.from_numpy(made.forward(np.arange(made.low, made.high + 1)))


def _moved(
    guardian: Guardian,
    column: _Column,
    place: int,
    states: torch.Tensor,
    doses: torch.Tensor,
    score: torch.Tensor,
) -> pd.DataFrame:
    """What moving one column alone does to each case."""
    at = place - guardian.layout.width if column.kind == "dose" else None
    where = guardian.layout.places[place] if at is None else at
    now = (states if at is None else doses)[:, where]

    def scored(values: torch.Tensor) -> torch.Tensor:
        there = (states if at is None else doses).clone()
        there[:, where] = values
        return guardian.score(there, doses) if at is None else guardian.score(states, there)

    found = torch.stack([scored(value.expand(len(now))) for value in column.values], dim=1)
    inside = guardian.accepts(found)
    gaps = (column.values - now[:, None]).abs().masked_fill(~inside, torch.inf)
    reached = inside.any(dim=1)
    near = column.values[gaps.argmin(dim=1)]
    if column.continuous:
        near = _edge(scored, guardian, now, near)
    best = found.amin(dim=1)
    changed = reached.numpy()
    to, since = _clinical(column, near), _clinical(column, now)
    return pd.DataFrame(
        {
            "column": column.name,
            "kind": column.kind,
            "score": best.double().numpy(),
            "drop": (score - best).double().clip(min=0).numpy(),
            "inside": np.where(changed, to, np.nan),
            "change": np.where(changed, to - since, np.nan),
        }
    )


def _edge(scored: Any, guardian: Guardian, out: torch.Tensor, near: torch.Tensor) -> torch.Tensor:
    """The supported value closest to an unsupported one, by halving the way between."""
    for _ in range(HALVINGS):
        middle = (out + near) / 2
        inside = guardian.accepts(scored(middle))
        out, near = torch.where(inside, out, middle), torch.where(inside, middle, near)
    return near


def _clinical(column: _Column, scaled: torch.Tensor) -> npt.NDArray[np.float64]:
    return column.transform.inverse(scaled.numpy())
