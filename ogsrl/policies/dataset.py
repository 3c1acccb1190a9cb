"""The dataset constraint as settings say it: an index of training rows under one metric.

Called by the loops of training. What is made here holds rows of patients: it is never saved.
"""

from __future__ import annotations

import torch

from ogsrl.errors import ModelError
from ogsrl.policies.config import DatasetParams
from ogsrl.policies.index import DatasetIndex
from ogsrl.policies.problem import Problem
from ogsrl.preparation.history import History, StateColumn

#: The key of `Problem.shared` under which rows are found by their states.
ROWS = "rows by state"
#: Stands for a row where a state is in several stays.
SEVERAL = -2


def dataset_index(problem: Problem, params: DatasetParams) -> DatasetIndex:
    """Of a problem's rows; the same settings give the same index, made once."""
    key = f"dataset {params.model_dump_json(exclude={'weight'})}"
    made = problem.shared.get(key)
    if not isinstance(made, DatasetIndex):
        places, weights = metric(problem.history, params)
        states, rows = problem.rows.states[:, places] * weights, len(problem.rows.row)
        listed = rows if params.listed is None else min(params.listed, rows)
        made = DatasetIndex.of(
            states,
            problem.rows.doses,
            problem.stay,
            beta=params.beta,
            k=params.neighbours,
            listed=torch.arange(listed) * rows // listed,
        )
        problem.shared[key] = made
    return made


def rows_of(problem: Problem, states: torch.Tensor) -> torch.Tensor:
    """Which training rows these states are; a state that is none is an error."""
    shared = problem.shared.get(ROWS)
    known: dict[bytes, int] = shared if isinstance(shared, dict) else {}
    if not known:
        stay = problem.stay.tolist()
        for i, row in enumerate(problem.rows.states.cpu().numpy()):
            before = known.setdefault(row.tobytes(), i)
            if before != SEVERAL and stay[before] != stay[i]:
                known[row.tobytes()] = SEVERAL
        problem.shared[ROWS] = known
    found = [known.get(row.tobytes(), -1) for row in states.cpu().numpy()]
    strange = found.count(-1)
    if strange:
        raise ModelError(
            f"dataset.weight: {strange} of {len(found)} states given are no training rows of the "
            "attached problem, so that their own stay cannot be left out; give its own rows"
        )
    if SEVERAL in found:
        raise ModelError(
            f"dataset.weight: {found.count(SEVERAL)} of {len(found)} states given are in several "
            "stays, so that which is their own is not known; set it to 0, or use fit"
        )
    return torch.tensor(found)


def metric(history: History, params: DatasetParams) -> tuple[list[int], torch.Tensor]:
    """Places of the columns that count, and what each weighs."""
    chosen = [i for i, c in enumerate(history.columns) if _counts(history, c, params.metric)]
    names = [history.columns[i].name for i in chosen]
    strange = sorted(set(params.weights) - set(names))
    if strange:
        raise ModelError(
            f"dataset.weights: {', '.join(strange)} is no column of the metric "
            f"{params.metric!r}; there are {', '.join(names)}"
        )
    weighed = [(i, params.weights.get(n, 1.0)) for i, n in zip(chosen, names, strict=True)]
    weighed = [(i, weight) for i, weight in weighed if weight > 0]
    if not weighed:
        raise ModelError(f"dataset.metric: {params.metric!r} has no column here; choose all")
    return [i for i, _ in weighed], torch.tensor([weight for _, weight in weighed])


def _counts(history: History, column: StateColumn, kind: str) -> bool:
    if kind == "all":
        return True
    if column.role != "current":
        return False
    observed = history.preparation.cohort.observations
    return kind == "current" or (column.of in observed and observed[column.of].kind == "numeric")
