"""Counts of a table of transitions, none of them of fewer than ten patients.

Called by `counts`. What it returns is all that a count model is made of, in memory and on disk; it
must never hold a count of fewer patients, nor two that differ by fewer, nor a mean that tells one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from ogsrl.dynamics.measures import FEWEST
from ogsrl.dynamics.tilt import tilted

_ENDS = 2  # death and discharge, after the states
_LATER = 0.99  # weight of a death a step later: risks are known even where no stay ends
_STATE_PSEUDO_COUNT = 1.0  # of the state's own mean towards the cohort's: nothing is impossible
_RISK_STEP = 0.01  # to which a mean risk is rounded
_UNTOLD = -1.0
_FEWEST_OUTCOMES = 4  # over which a mean risk is told
_VAGUE = 3.0  # transitions that a mean risk must leave open
_BLOCK = 2048


@dataclass(frozen=True)
class Told:
    """What is told of a table; every number is 0 or of at least `FEWEST` different patients.

    A transition that is not told exactly is rare. Of rare ones two sums are told, by pair and by
    what followed the state, over the same transitions; what is rare even of its state, by outcome.
    A pair's rare outcomes are taken to be the state's, tilted to the pair's own mean risk, where
    that is told. Times `rare_pair`, a mean risk is nearly the number of deaths where those who live
    risk little: so it is told only where deaths are of nobody or of many, and survivors too; in the
    same way where the outcomes possible have two kinds of risk (see `telling`).

    Attributes:
        exact: (states, cells, outcomes) transitions told exactly.
        rare_pair: (states, cells) rare transitions of each pair.
        rare_risk: (states, cells) mean `risk` of where those went, rounded to a hundredth; -1 where
            it would tell how many of few went somewhere, or too few outcomes were possible.
        rare_state: (states, outcomes) rare transitions of each state, by outcome.
        rare_other: (states,) rare transitions of each state to outcomes not in `rare_state`.
        elsewhere: (outcomes,) transitions not told by `exact` or `rare_state`, by outcome.
    """

    exact: torch.Tensor
    rare_pair: torch.Tensor
    rare_risk: torch.Tensor
    rare_state: torch.Tensor
    rare_other: torch.Tensor
    elsewhere: torch.Tensor

    def arrays(self) -> dict[str, Any]:
        """As arrays by name; the exact ones as the places where there are any."""
        rest = {f.name: getattr(self, f.name).numpy() for f in fields(self) if f.name != "exact"}
        place = self.exact.nonzero()
        return {**rest, "place": place.numpy(), "count": self.exact[tuple(place.T)].numpy()}

    @classmethod
    def of(cls, arrays: Mapping[str, Any], states: int, cells: int) -> Told:
        """The way back, for a table of this size."""
        rest = {
            f.name: torch.from_numpy(arrays[f.name].copy())
            for f in fields(cls)
            if f.name != "exact"
        }
        exact = np.zeros((states, cells, states + _ENDS), np.float32)
        exact[tuple(arrays["place"].T)] = arrays["count"]
        pairs = states, cells
        wanted = pairs, pairs, (states, states + _ENDS), (states,), (states + _ENDS,)
        if tuple(tuple(part.shape) for part in rest.values()) != wanted:
            raise ValueError("counts of another table")
        return cls(exact=torch.from_numpy(exact), **rest)

    @property
    def pairs(self) -> torch.Tensor:
        """(states, cells) transitions of each pair, as far as they are told."""
        return self.exact.sum(2) + self.rare_pair

    @cached_property
    def everywhere(self) -> torch.Tensor:
        """(outcomes,) what follows any state; what is never told weighs one transition in all."""
        return _shares(self.exact.sum((0, 1)) + self.rare_state.sum(0) + self.elsewhere)

    @cached_property
    def state_mean(self) -> torch.Tensor:
        """(states, outcomes) what follows each state under any dose."""
        seen = self.exact.sum(1) + self._rare
        k = _STATE_PSEUDO_COUNT
        return (seen + k * self.everywhere) / (seen.sum(1, keepdim=True) + k)

    @cached_property
    def risk(self) -> torch.Tensor:
        """(outcomes,) chance to die in the end, of those who come there, under usual doses."""
        states = len(self.exact)
        mean = self.state_mean.double()
        stays = torch.eye(states, dtype=torch.float64) - _LATER * mean[:, :states]
        risk = torch.linalg.solve(stays, mean[:, states]).clip(0, 1)
        return torch.cat([risk, torch.tensor([1.0, 0.0], dtype=torch.float64)])

    @cached_property
    def counts(self) -> torch.Tensor:
        """(states, cells, outcomes): exact ones, and a pair's rare ones as the state's, tilted."""
        counts = self.exact.clone()
        for some in torch.split(self.rare_pair.nonzero(), _BLOCK):
            state, cell = some.unbind(1)
            exact, mean = self.exact[state, cell], self.rare_risk[state, cell]
            usual = self._rare[state] * (exact == 0)
            usual = usual.where(usual.sum(1, keepdim=True) > 0, self.everywhere)
            shares = tilted(usual, self.risk, mean.where(mean >= 0, torch.nan))
            counts[state, cell] = exact + self.rare_pair[state, cell, None] * shares.float()
        return counts

    def rare_outcomes(self) -> torch.Tensor:
        """(states, cells) to how many outcomes a pair's rare transitions can have gone."""
        return ((self._rare > 0)[:, None] & (self.exact == 0)).sum(2) * (self.rare_pair > 0)

    def telling(self) -> torch.Tensor:
        """(states, cells) risk from which a mean risk nearly tells how many went; 2 if none such.

        That is above the widest gap between the risks of a pair's rare outcomes, where those of
        either side are so alike that their number is known to less than `_VAGUE`.
        """
        risk, order = self.risk.sort(stable=True)
        found = torch.full_like(self.rare_pair, 2.0, dtype=risk.dtype)
        for some in torch.split(self.rare_pair.nonzero(), _BLOCK):
            state, cell = some.unbind(1)
            possible = ((self._rare[state] > 0) & (self.exact[state, cell] == 0))[:, order]
            least = risk.where(possible, torch.inf).amin(1)
            most = risk.where(possible, -torch.inf).amax(1)
            below = risk.where(possible, -torch.inf).cummax(1).values[:, :-1]
            gaps = (risk[1:] - below).where(possible[:, 1:] & below.isfinite(), -1.0)
            gap, place = gaps.max(1)
            above = risk[1:][place]
            spread = torch.maximum(most - above, above - gap - least) + _RISK_STEP
            told = self.rare_pair[state, cell] * spread < _VAGUE * gap
            found[state, cell] = above.where(told, 2.0)
        return found

    @cached_property
    def _rare(self) -> torch.Tensor:
        """(states, outcomes) rare transitions of each state, `rare_other` spread as elsewhere."""
        weight = _shares(self.elsewhere) * (self.rare_state == 0)
        share = weight / weight.sum(1, keepdim=True).clip(min=1e-30)
        return self.rare_state + self.rare_other[:, None] * share


def tell(keys: torch.Tensor, patient: torch.Tensor, states: int, cells: int) -> Told:
    """Count transitions (rows of state, cell, outcome), each as exactly as ten patients allow.

    Where all but fewer than ten patients of a pair would be told, its least told transition is
    held to be rare too: the pair's total tells no difference.

    >>> a, b, c = [0, 0, 0], [0, 0, 1], [0, 1, 1]
    >>> told = tell(torch.tensor([a] * 30 + [b] * 12 + [c] * 9), torch.arange(51), 1, 2)
    >>> told.exact[0].int().tolist()
    [[30, 12, 0], [0, 0, 0]]
    >>> told.elsewhere.int().tolist()  # nine patients' are told nowhere
    [0, 0, 0]
    """
    outcomes = states + _ENDS
    state, cell, outcome = keys.unbind(1)
    transition = (state * cells + cell) * outcomes + outcome
    exact = _exact(transition, patient, states * cells, outcomes)
    kept = exact.flatten()[transition]
    count = torch.bincount(transition[kept], minlength=exact.numel())
    state, cell, outcome, patient = (part[~kept] for part in (state, cell, outcome, patient))
    row, column, inside = _margins(state, cell, outcome, patient, (cells, outcomes))
    by_row = _table(state[inside], row[inside], (states, cells + 1))
    by_column = _table(state[inside], column[inside], (states, outcomes + 1))
    left = ~inside | (column == outcomes)
    left[left.clone()] = ~_few(outcome[left], patient[left])
    told = Told(
        exact=count.reshape(states, cells, outcomes).float(),
        rare_pair=by_row[:, :cells].clone(),
        rare_risk=torch.zeros(states, cells),
        rare_state=by_column[:, :outcomes].clone(),
        rare_other=by_column[:, outcomes].clone(),
        elsewhere=torch.bincount(outcome[left], minlength=outcomes).float(),
    )
    rare = torch.stack([state, row, outcome, patient], dim=1)[inside]
    return replace(told, rare_risk=_mean_risk(told, rare))


def _exact(
    transition: torch.Tensor, patient: torch.Tensor, pairs: int, outcomes: int
) -> torch.Tensor:
    """(pairs, outcomes) which are told exactly."""
    people = _people(transition, patient, pairs * outcomes).reshape(pairs, outcomes)
    exact = people >= FEWEST
    rest = ~exact.flatten()[transition]
    others = _people(transition[rest] // outcomes, patient[rest], pairs)
    few = (others > 0) & (others < FEWEST)
    least = people.where(exact, people.new_full((), torch.iinfo(people.dtype).max)).argmin(1)
    exact[few, least[few]] = False
    return exact


def _margins(
    state: torch.Tensor,
    cell: torch.Tensor,
    outcome: torch.Tensor,
    patient: torch.Tensor,
    size: tuple[int, int],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Row and column of each rare transition in its state's table, and whether it is in there.

    Rows and columns of few are one row and one column more; while even these are of few, what is
    in them leaves the table, so that rows and columns always sum the same transitions.
    """
    cells, outcomes = size
    row, column, inside = cell.clone(), outcome.clone(), torch.ones_like(cell, dtype=torch.bool)
    while True:
        own = inside.nonzero().squeeze(1)
        few_row = _few(state[own] * (cells + 1) + row[own], patient[own])
        few_column = _few(state[own] * (outcomes + 1) + column[own], patient[own])
        pooled = (few_row & (row[own] < cells)) | (few_column & (column[own] < outcomes))
        if bool(pooled.any()):
            row[own[few_row]], column[own[few_column]] = cells, outcomes
        elif bool((few_row | few_column).any()):
            inside[own[few_row | few_column]] = False
        else:
            return row, column, inside


def _mean_risk(told: Told, rare: torch.Tensor) -> torch.Tensor:
    """(states, cells) mean risk of rare transitions (state, row, outcome, patient), where told.

    Who survives in a state's untold pairs must be many as well, or another is untold: deaths told
    of the state are all in those. (Where these are of few, nothing tells the state's deaths.)
    """
    states, cells = told.rare_pair.shape
    own = rare[:, 1] < cells
    state, cell, outcome, patient = rare[own].unbind(1)
    place, risk = state * cells + cell, told.risk
    total = torch.bincount(place, weights=risk[outcome], minlength=states * cells)
    mean = torch.round(total.reshape(states, cells) / told.rare_pair.clip(min=1) / _RISK_STEP)
    high = risk[outcome] >= told.telling()[state, cell]
    few = _split_of_few(place, outcome == states, patient, states * cells)
    few = (few | _split_of_few(place, high, patient, states * cells)).reshape(states, cells)
    shown = (told.rare_pair > 0) & ~few & (told.rare_outcomes() >= _FEWEST_OUTCOMES)
    shown = torch.cat([shown, torch.zeros(states, 1, dtype=torch.bool)], dim=1)
    size = torch.cat([told.rare_pair, torch.zeros(states, 1)], dim=1)
    while True:
        state, _, outcome, patient = rare[~shown[rare[:, 0], rare[:, 1]]].unbind(1)
        survived = _people(state[outcome != states], patient[outcome != states], states)
        more = (survived > 0) & (survived < FEWEST) & shown.any(1)
        if not bool(more.any()):
            return (mean * _RISK_STEP).float().where(shown[:, :cells], _UNTOLD)
        shown[more, size.where(shown, torch.inf).argmin(1)[more]] = False


def _split_of_few(
    group: torch.Tensor, first: torch.Tensor, patient: torch.Tensor, groups: int
) -> torch.Tensor:
    """(groups,) whether those who are `first`, or those who are not, are some but few patients."""
    sides = [_people(group[side], patient[side], groups) for side in (first, ~first)]
    return torch.stack([(people > 0) & (people < FEWEST) for people in sides]).any(0)


def _people(group: torch.Tensor, patient: torch.Tensor, groups: int) -> torch.Tensor:
    """Different patients of each group."""
    pairs = torch.unique(torch.stack([group, patient], dim=1), dim=0)
    return torch.bincount(pairs[:, 0], minlength=groups)


def _few(group: torch.Tensor, patient: torch.Tensor) -> torch.Tensor:
    """Whether each entry's group is of few patients."""
    groups = int(group.max()) + 1 if len(group) else 0
    return (_people(group, patient, groups) < FEWEST)[group]


def _table(row: torch.Tensor, column: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    count = torch.bincount(row * shape[1] + column, minlength=shape[0] * shape[1])
    return count.reshape(shape).float()


def _shares(count: torch.Tensor) -> torch.Tensor:
    """Shares of all; what was never counted weighs as one count in all: nothing is impossible."""
    floored = count.where(count > 0, count.new_full((), 1 / len(count)))
    return floored / floored.sum()
