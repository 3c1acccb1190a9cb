"""What the policy says of each row: recommend or defer, why, and what to expect of it.

Called by the command line and by the registered model, in process or behind a server. It asks
`Deployed` alone: what is answered is what was measured.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from ogsrl.evaluation.quantities import COST, MORTALITY, VALUE
from ogsrl.policies.deployed import HAZARD, Decisions
from ogsrl.query.evidence import Evidence
from ogsrl.query.model import Model
from ogsrl.query.predictions import Predicted
from ogsrl.query.request import STAY, STEP, Floats, Request
from ogsrl.trajectories import Stays

RECOMMEND, DEFER = "recommend", "defer"
#: Where patients are like no other, or not known: those of the nearest cell are not like them.
NOBODY = ["patient", "never_seen", "not_charted", "not_a_number"]
#: Rows answered at a time, so that memory stays flat; a stay is never torn.
BLOCK = 8_192
#: Rules in words; of a hazard, its label in the cohort file.
REASONS = {
    "no_policy": "nobody was put forward for this cohort",
    "not_a_number": "a value of the state cannot be read",
    "not_charted": "too little was charted so far, or too long ago, to judge any dose",
    "too_few_patients": "too few patients to know what is supported",
    "never_seen": "a level or a constant of this patient was never seen",
    "patient": "no patients like this one among those it learned from",
    "pair": "no such dose for such a patient among those it learned from",
    "dose": "the dose is unusual for such a patient",
    "evidence": "too few patients near this state and dose",
    "count": "too few patients were given this dose in this state",
    "density": "too few patients near this state and dose",
    "distance": "too few patients near this state and dose",
}


def ask(model: Model, frame: pd.DataFrame, *, similar: bool = False) -> pd.DataFrame:
    """One answer a row, in the order of the rows; null where there is nothing to tell.

    Args:
        model: Who is asked.
        frame: Rows as `Request.of` takes them.
        similar: Whether to add what patients like this were given and how they fared.
    """
    request = Request.of(frame, model.history.preparation)
    parts = [_block(model, part, stays, similar) for part, stays in _blocks(request)]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    back = np.empty(len(request.place), np.int64)
    back[request.place] = np.arange(len(back))
    answers = {STAY: np.array(request.stay, object), STEP: request.stays.step, **columns}
    told = np.empty((len(back), len(answers)), object)
    for j, values in enumerate(answers.values()):
        told[:, j] = _told(values[back])
    return pd.DataFrame(told, columns=pd.Index(answers, dtype=object), dtype=object)


def summary(answers: pd.DataFrame) -> dict[str, Any]:
    """Counts over all answers: nothing of a single row."""
    rules = answers["rule"].dropna().value_counts()
    return {
        "stays": int(answers[STAY].nunique()),
        "rows": len(answers),
        "recommended": int((answers["verdict"] == RECOMMEND).sum()),
        "deferred": int((answers["verdict"] == DEFER).sum()),
        "rules": {str(rule): int(count) for rule, count in rules.sort_index().items()},
    }


def _blocks(request: Request) -> Iterator[tuple[dict[str, Floats], Stays]]:
    """Whole stays, so many rows at a time."""
    begin, stays = 0, request.stays
    ends = np.append(stays.start[1:], stays.rows)
    for i, end in enumerate(ends):
        if end - stays.start[begin] >= BLOCK or i == len(ends) - 1:
            rows = slice(int(stays.start[begin]), int(end))
            part = Stays(stays.start[begin : i + 1] - rows.start, stays.length[begin : i + 1])
            yield {name: values[rows] for name, values in request.values.items()}, part
            begin = i + 1


@torch.no_grad()
def _block(
    model: Model, values: dict[str, Floats], stays: Stays, similar: bool
) -> dict[str, npt.NDArray[Any]]:
    preparation = model.history.preparation
    prepared = preparation.state_arrays(values, stays)
    doses = {name: scale.forward(values[name]) for name, scale in preparation.doses.items()}
    states = torch.from_numpy(model.history.of_arrays({**prepared, **doses}, stays))
    decided = model.deployed.decide(states, torch.Generator().manual_seed(0))
    deferred = decided.deferred.numpy()
    rules = _rules(model, states, decided)
    found: dict[str, npt.NDArray[Any]] = {
        "verdict": np.where(deferred, DEFER, RECOMMEND).astype(object),
        "rule": rules,
        "reason": np.array([_reason(model, rule) for rule in rules], object),
    }
    for j, (name, order) in enumerate(model.deployed.orders.orders.items()):
        dose = order.scale.inverse(decided.doses[:, j].numpy())
        found[f"dose_{name}"] = np.where(deferred, np.nan, dose)
    guardian = model.deployed.guardian
    limit = None if guardian is None or guardian.threshold is None else guardian.threshold.value
    found["score"] = decided.score.double().numpy()
    found["score_threshold"] = np.full(len(states), np.nan if limit is None else limit)
    found |= _predicted(model, states, decided)
    nobody = np.isin(rules, NOBODY)
    for name, told in _similar(model.evidence, states, model, similar).items():
        found[name] = _told(told)
        found[name][nobody] = None
    return found


def _rules(model: Model, states: torch.Tensor, decided: Decisions) -> npt.NDArray[Any]:
    """Why each row was deferred; only of those is it asked."""
    rules = np.full(len(states), None, object)
    some = decided.deferred.nonzero().squeeze(1)
    if len(some):
        parts = (getattr(decided, field.name)[some] for field in fields(Decisions))
        rules[some.numpy()] = model.deployed.rules(states[some], Decisions(*parts))
    return rules


def _reason(model: Model, rule: str | None) -> str | None:
    """A rule in words."""
    if rule is None:
        return None
    if rule.startswith(HAZARD):
        return model.cohort.hazards[rule.removeprefix(HAZARD)].label
    return REASONS.get(rule, "outside what its data support")


def _predicted(
    model: Model, states: torch.Tensor, decided: Decisions
) -> dict[str, npt.NDArray[Any]]:
    """What is expected of the answer, and of clinicians who go on as they did."""
    predictions = model.predictions
    if predictions is None:
        return {}
    given = model.behaviour.spread(states, predictions.draws)
    found: dict[str, npt.NDArray[Any]] = {}
    told = (("", predictions.of_policy(states, decided, given)),)
    theirs = (("clinician_", predictions.of_clinicians(states, given)),)
    for prefix, each in (*told, *theirs):
        for quantity, one in each.items():
            found |= _columns(prefix + column_of(quantity), one)
    return found


def column_of(quantity: str) -> str:
    """A quantity's column.

    >>> column_of("mortality"), column_of("cost:hypoxia")
    ('p_death', 'cost_hypoxia')
    """
    names = {MORTALITY: "p_death", VALUE: "value"}
    return names.get(quantity) or f"cost_{quantity.removeprefix(COST)}"


def _columns(name: str, one: Predicted) -> dict[str, npt.NDArray[Any]]:
    return {
        name: one.mean.numpy(),
        f"{name}_lo": one.low.numpy(),
        f"{name}_hi": one.high.numpy(),
    }


def _similar(
    evidence: Evidence | None, states: torch.Tensor, model: Model, asked: bool
) -> dict[str, npt.NDArray[Any]]:
    """How many patients were like this; if asked, what they were given, and how they fared."""
    nothing = np.full(len(states), np.nan)
    if evidence is None:
        return {"n_similar": nothing}
    near = evidence.of(states)
    found = {"n_similar": near.patients.numpy()}
    if asked:
        for j, name in enumerate(model.history.preparation.doses):
            found[f"similar_given_{name}"] = near.given[:, j].numpy()
            found[f"similar_mean_{name}"] = near.mean[:, j].numpy()
        found["similar_died"] = near.died.numpy()
    return found


def _told(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Null, never NaN or infinite."""
    told = values.astype(object)
    if values.dtype != object:
        told[~np.isfinite(values)] = None
    return told
