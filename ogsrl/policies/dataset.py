"""The dataset constraint as settings say it: an index of training rows under one metric.

Called by the loop without a model. What is made here holds rows of patients: it is never saved.
"""

from __future__ import annotations

import torch

from ogsrl.errors import ModelError
from ogsrl.policies.config import DatasetParams
from ogsrl.policies.index import DatasetIndex
from ogsrl.policies.problem import Problem
from ogsrl.preparation.history import History, StateColumn


def dataset_index(problem: Problem, params: DatasetParams) -> DatasetIndex:
    """Of a problem's rows; the same settings give the same index, made once."""
    key = f"dataset {params.model_dump_json(exclude={'weight'})}"
    made = problem.shared.get(key)
    if not isinstance(made, DatasetIndex):
        places, weights = metric(problem.history, params)
        states = problem.rows.states[:, places] * weights
        made = DatasetIndex.of(
            states, problem.rows.doses, problem.stay, beta=params.beta, k=params.neighbours
        )
        problem.shared[key] = made
    return made


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
