"""Planners on counts of ICU-Sepsis's logs: the reference, and two that are commonly tried.

Called by benchmarks.icu_sepsis. Settings are chosen from the logs alone, by cross-validation over
patients; nobody here knows the truth.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ogsrl.sources.icu_sepsis import COMBINATIONS, STATES
from ogsrl.sources.icu_sepsis.published import LEVELS, Floats

FOLDS = 4
PSEUDO_COUNTS = (3.0, 10.0, 30.0, 100.0, 300.0)
SUPPORTS = (1, 3, 5, 7, 10, 15, 20, 40)
PENALTIES = (0.0, 0.1, 0.2, 0.3, 0.5, 1.0)
#: Of a planner that trusts its counts: only so that what was never seen has chances at all.
LEAST = 1e-3
#: Of the held-out model in which plans of the other folds are valued.
JUDGED_BY = 30.0
_ROUNDS = 60


@dataclass(frozen=True)
class Logs:
    """Decisions as codes.

    Attributes:
        patient: Number of the patient of each.
        state: (decisions,).
        given: (decisions,) the combination.
        outcome: (decisions,) the next state, then death, then discharge.
        begun: (states,) share of stays that begin there.
    """

    patient: NDArray[np.int64]
    state: NDArray[np.int64]
    given: NDArray[np.int64]
    outcome: NDArray[np.int64]
    begun: Floats

    @classmethod
    def of(cls, table: pd.DataFrame) -> Logs:
        """Of a trajectory table; what a censored stay ends with is no decision."""
        state = table["state"].to_numpy(np.int64)
        ends = table["end"].map({"death": STATES, "discharge": STATES + 1, "censored": -1})
        outcome = np.where(table["end"].isna(), np.append(state[1:], -1), ends.fillna(-1))
        kept = outcome >= 0
        doses = table[["fluid", "vasopressor"]].fillna(0).to_numpy(np.int64)
        begun = np.bincount(state[table["step"] == 0], minlength=STATES)
        return cls(
            patient=pd.factorize(table["patient_id"])[0][kept],
            state=state[kept],
            given=(doses @ [LEVELS, 1])[kept],
            outcome=outcome[kept].astype(np.int64),
            begun=begun / begun.sum(),
        )

    def where(self, rows: NDArray[np.bool_]) -> Logs:
        """Some of the decisions; stays begin as in all."""
        parts = (part[rows] for part in (self.patient, self.state, self.given, self.outcome))
        return Logs(*parts, self.begun)

    @cached_property
    def counts(self) -> Floats:
        """(states, combinations, outcomes)."""
        shape = STATES, COMBINATIONS, STATES + 2
        place = np.ravel_multi_index((self.state, self.given, self.outcome), shape)
        return np.bincount(place, minlength=int(np.prod(shape))).reshape(shape).astype(float)

    @cached_property
    def pairs(self) -> Floats:
        """(states, combinations) how often each was given."""
        return self.counts.sum(2)

    @cached_property
    def clinicians(self) -> Floats:
        """(states, combinations) how often each is given there, shrunk by one to everywhere."""
        usual = self.pairs.sum(0) / self.pairs.sum()
        return (self.pairs + usual) / (self.pairs.sum(1, keepdims=True) + 1)

    @cached_property
    def mean(self) -> Floats:
        """(states, outcomes) what follows a state, shrunk by one to what follows any."""
        everywhere = np.maximum(self.counts.sum((0, 1)), LEAST)
        here = self.counts.sum(1)
        total = here.sum(1, keepdims=True) + 1
        return (here + everywhere / everywhere.sum()) / total

    def model(self, k: float) -> Floats:
        """Chances, shrunk to the state's mean by k pseudo-counts."""
        total = self.pairs[..., None] + k
        return (self.counts + k * self.mean[:, None]) / total


def planned(logs: Logs, model: Floats, allowed: NDArray[np.bool_], price: Floats) -> Floats:
    """The policy of greatest survival less prices; where nothing is allowed clinicians act.

    Args:
        logs: Whose clinicians.
        model: (states, combinations, outcomes).
        allowed: (states, combinations) what may be given.
        price: (states, combinations) what each costs.

    Returns:
        (states, combinations) chances; a row without any is left to the clinicians.
    """
    some, place = allowed.any(1), np.arange(STATES)
    usual = np.einsum("sa,sao->so", logs.clinicians, model)
    cells = np.where(allowed, logs.clinicians, -1.0).argmax(1)
    for _ in range(_ROUNDS):
        follows = np.where(some[:, None], model[place, cells], usual)
        paid = follows[:, STATES + 1] - np.where(some, price[place, cells], 0.0)
        value = np.linalg.solve(np.eye(STATES) * (1 + 1e-12) - follows[:, :STATES], paid)
        worth = model[..., :STATES] @ value + model[..., STATES + 1] - price
        worth = np.where(allowed, worth, -np.inf)
        better = some & (worth.max(1) > worth[place, cells] + 1e-10)
        if not better.any():
            break
        cells = np.where(better, worth.argmax(1), cells)
    policy = np.zeros((STATES, COMBINATIONS))
    policy[place[some], cells[some]] = 1.0
    return policy


def survival(logs: Logs, model: Floats, policy: Floats) -> float:
    """Of a policy in a model, these logs' clinicians where it leaves a row empty."""
    treated = np.where(policy.any(1, keepdims=True), policy, logs.clinicians)
    follows = np.einsum("sa,sao->so", treated, model)
    stays_on = np.eye(STATES) * (1 + 1e-12) - follows[:, :STATES]
    return float(logs.begun @ np.linalg.solve(stays_on, follows[:, STATES + 1]))


@dataclass(frozen=True)
class Planned:
    """A plan and its settings."""

    policy: Floats
    settings: Mapping[str, float]


def reference(logs: Logs, support: int | None = None) -> Planned:
    """Support of n, transitions shrunk by k: k tells risk best, n plans best, in other patients.

    Args:
        logs: All there are.
        support: n; None: it is chosen.
    """
    folds = [
        (logs.where(logs.patient % FOLDS != f), logs.where(logs.patient % FOLDS == f))
        for f in range(FOLDS)
    ]
    errors = dict.fromkeys(PSEUDO_COUNTS, 0.0)
    for fitted, held in folds:
        risk = _risk(fitted)
        first, second = held.counts @ risk, held.counts @ risk**2
        for k in PSEUDO_COUNTS:
            told = fitted.model(k) @ risk
            errors[k] += float((second - 2 * told * first + held.pairs * told**2).sum())
    k = min(errors, key=lambda one: errors[one])
    worth = dict.fromkeys(SUPPORTS if support is None else (support,), 0.0)
    free = np.zeros((STATES, COMBINATIONS))
    for fitted, held in folds:
        model, judge = fitted.model(k), held.model(JUDGED_BY)
        for n in worth if len(worth) > 1 else ():
            allowed = fitted.pairs >= max(1.0, n * (FOLDS - 1) / FOLDS)
            worth[n] += survival(held, judge, planned(fitted, model, allowed, free))
    n = max(worth, key=lambda one: worth[one])
    policy = planned(logs, logs.model(k), logs.pairs >= n, free)
    return Planned(policy, {"pseudo_counts": k, "support": n})


def greedy(logs: Logs) -> Planned:
    """What was seen is what is."""
    free = np.zeros((STATES, COMBINATIONS))
    return Planned(planned(logs, logs.model(LEAST), logs.pairs > 0, free), {})


def penalised(logs: Logs) -> Planned:
    """The same with a price of c / sqrt(n); c plans best in other patients."""
    worth = dict.fromkeys(PENALTIES, 0.0)
    for f in range(FOLDS):
        fitted = logs.where(logs.patient % FOLDS != f)
        held = logs.where(logs.patient % FOLDS == f)
        model, judge = fitted.model(LEAST), held.model(JUDGED_BY)
        for c in PENALTIES:
            price = c / np.sqrt(np.maximum(fitted.pairs, 1))
            policy = planned(fitted, model, fitted.pairs > 0, price)
            worth[c] += survival(held, judge, policy)
    c = max(worth, key=lambda one: worth[one])
    price = c / np.sqrt(np.maximum(logs.pairs, 1))
    policy = planned(logs, logs.model(LEAST), logs.pairs > 0, price)
    return Planned(policy, {"penalty": c})


def _risk(logs: Logs) -> Floats:
    """(outcomes,) chance to leave alive from each, under clinicians."""
    follows = np.einsum("sa,sao->so", logs.clinicians, logs.model(max(PSEUDO_COUNTS)))
    stays_on = np.eye(STATES) * (1 + 1e-12) - follows[:, :STATES]
    value = np.linalg.solve(stays_on, follows[:, STATES + 1])
    return np.append(value, [0.0, 1.0])
