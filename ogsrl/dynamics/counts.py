"""Dynamics of cohorts with one categorical state and ordinal doses: counts, shrunk.

Called by the stage dynamics and by planners of such cohorts. A pair seen once is believed little:
its counts are shrunk to what follows the state under any dose. It never holds what fewer than ten
patients tell, in memory no more than on disk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from ogsrl.constraints import constraint_rules
from ogsrl.dynamics.answers import Next
from ogsrl.dynamics.codes import check_codes
from ogsrl.dynamics.config import NEEDED_PATIENTS, TooFewPatients
from ogsrl.dynamics.measures import FEWEST, chance_report
from ogsrl.dynamics.outcomes import check_varied
from ogsrl.dynamics.saved import read, write
from ogsrl.dynamics.told import Told, tell
from ogsrl.errors import ModelError
from ogsrl.modeldir import rebuilding
from ogsrl.preparation.history import History
from ogsrl.preparation.tensors import StayTensors
from ogsrl.spec import Cohort

FORM = "counts"
PSEUDO_COUNTS = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
#: Those of planners, rising.
PLANNING_COUNTS = (1.0, 3.0, 10.0, 30.0, 50.0, 100.0, 200.0, 300.0)


def has_counts(cohort: Cohort) -> bool:
    """Whether the cohort is one categorical state and ordinal doses."""
    columns = list(cohort.states.values())
    one = len(columns) == 1 and columns[0].kind == "categorical"
    return one and all(action.kind == "ordinal" for action in cohort.actions.values())


@dataclass(frozen=True)
class CountDynamics:
    r"""Transitions of a table.

    P(o|s,a) = (n(s,a,o) + k m(o|s)) / (n(s,a) + k), where outcomes o are the next states, death
    and discharge, m(o|s) what follows state s under any dose, and k the pseudo-count under which
    validation patients are likeliest. n(s,a,o) is exact where ten patients tell it; a pair's other
    transitions are spread as the state's other transitions are (see `Told`).

    Planners count training patients' transitions themselves (they save none of them), and shrink
    them by a count of their own: the one under which the mean risk of what follows a pair is told
    best, in squares, of validation patients. Chances of single outcomes are another question.

    Attributes:
        history: The layout of states.
        told: What the transitions tell of many.
        pseudo_count: k.
        planning_count: That of planners.
    """

    history: History
    told: Told
    pseudo_count: float
    planning_count: float = 100.0

    @property
    def states(self) -> int:
        """Number of states."""
        return _levels(self.history.preparation.cohort)[0]

    @property
    def cells(self) -> int:
        """Number of combinations of doses."""
        return _levels(self.history.preparation.cohort)[1]

    @property
    def pairs(self) -> torch.Tensor:
        """(states, cells) how often each pair was seen, as far as ten patients tell it."""
        return self.told.pairs

    @property
    def state_mean(self) -> torch.Tensor:
        """(states, outcomes) what follows each state under any dose."""
        return self.told.state_mean

    def table(self) -> torch.Tensor:
        """(states, cells, outcomes): the chance of each outcome of each pair."""
        count, k = self.told.counts, self.pseudo_count
        return (count + k * self.state_mean[:, None]) / (count.sum(2, keepdim=True) + k)

    @cached_property
    def _table(self) -> torch.Tensor:
        return self.table()

    def chances(self, states: torch.Tensor, doses: torch.Tensor) -> torch.Tensor:
        """(rows, outcomes): the next states, then death, then discharge."""
        self._check(states, doses)
        return self._table[_pairs(states, doses, self.history)]

    @torch.no_grad()
    def step(self, states: torch.Tensor, doses: torch.Tensor, generator: torch.Generator) -> Next:
        """Draw what follows each row; the next code as if the stay went on, also where it ended."""
        chances = self.chances(states, doses)
        on, p_death = chances[:, : self.states], chances[:, self.states]
        ends, threshold = torch.rand((2, len(states)), generator=generator)
        died = ends < p_death
        discharged = ~died & (ends < p_death + chances[:, self.states + 1])
        # a row's last sum may be a little under 1
        sums = on.cumsum(1) / on.sum(1, keepdim=True).clip(min=1e-9)
        following = (sums <= threshold[:, None]).sum(1).clip(max=self.states - 1)
        following = following.to(states.dtype)[:, None]
        missing = states.new_zeros(len(states), len(self.history.preparation.indicators))
        return Next(
            states=self.history.advance(states, doses, following, missing),
            observed=following,
            expected=following,
            missing=missing,
            p_death=p_death,
            p_discharge=chances[:, self.states + 1],
            p_late_death=torch.zeros_like(p_death),
            died=died,
            discharged=discharged,
            horizon=torch.zeros_like(died),
            unsafe=self._chance_unsafe(chances),
            disagreement=None,
        )

    def _chance_unsafe(self, chances: torch.Tensor) -> torch.Tensor:
        """(rows, constraints) of the next code, if the stay goes on."""
        on = chances[:, : self.states]
        unsafe = unsafe_codes(self.history).to(chances.dtype)
        return (on / on.sum(1, keepdim=True).clip(min=1e-9)) @ unsafe.T

    def log_likelihood(self, stays: StayTensors) -> float:
        """Mean log chance of what followed each decision."""
        keys, _ = transitions(stays)
        if not len(keys):
            raise ModelError("no transition in these stays; prepare the cohort again")
        chances = self._table[keys[:, 0], keys[:, 1], keys[:, 2]]
        return float(chances.double().clip(min=1e-12).log().mean())

    def _check(self, states: torch.Tensor, doses: torch.Tensor) -> None:
        wanted = len(self.history.columns), len(self.history.preparation.doses)
        if (states.shape[1], doses.shape[1]) != wanted:
            raise ModelError("states or doses have other columns than the dynamics know")
        if not (bool(torch.isfinite(states).all()) and bool(torch.isfinite(doses).all())):
            raise ModelError("a state or dose is no number; prepare the rows first")

    def save(self, directory: Path) -> None:
        """Write the model's directory: what the transitions tell of many, never a stay."""
        config = {"pseudo_count": self.pseudo_count, "planning_count": self.planning_count}
        write(directory, FORM, self.history, config, self.told.arrays())

    @classmethod
    def load(cls, directory: Path, history: History) -> CountDynamics:
        """Read it back, for states of the same layout."""
        config, arrays = read(directory, FORM, history)
        with rebuilding(directory):
            told = Told.of(arrays, *_levels(history.preparation.cohort))
            counts = float(config["pseudo_count"]), float(config["planning_count"])
            return cls(history, told, *counts)


def unsafe_codes(history: History) -> torch.Tensor:
    """(constraints, codes) whether each code is unsafe."""
    cohort = history.preparation.cohort
    codes, (name,) = _levels(cohort)[0], tuple(history.preparation.states)
    met = []
    for rule in constraint_rules(cohort).values():
        if not frozenset(rule.columns) <= {name}:
            others = ", ".join(sorted(frozenset(rule.columns) - {name}))
            raise ModelError(f"constraints.{rule.name}: {others}: a table knows {name} alone")
        known = {column: torch.arange(codes, dtype=torch.float64) for column in rule.columns}
        met.append(rule.torch(known).double().nan_to_num(0.0).expand(codes))
    return torch.stack(met) if met else torch.zeros(0, codes, dtype=torch.float64)


def describe_counts(
    dynamics: CountDynamics,
    validation: StayTensors,
    pseudo_counts: Sequence[float] = PSEUDO_COUNTS,
) -> dict[str, Any]:
    """The report of such a cohort: likelihood by pseudo-count, and chances of the ends."""
    keys, _ = transitions(validation)
    made = validation.transitions()
    patient = validation.patient[made.row]
    patients = len(torch.unique(patient))
    if patients < FEWEST:
        return {"status": "too_few_validation_patients", "needed": FEWEST}
    chances = dynamics.chances(made.states, made.doses)
    death = validation.death[made.row]
    before_last = validation.step[made.row] < dynamics.history.preparation.cohort.max_steps - 1
    left = made.terminal & ~death & before_last
    d, s = dynamics.states, dynamics.states + 1
    return {
        "status": "fitted",
        "kind": "counts",
        "patients": {"validation": patients},
        "transitions": len(keys),
        "pseudo_count": dynamics.pseudo_count,
        "planning_count": dynamics.planning_count,
        "told": {  # training transitions
            "exactly": int(dynamics.told.exact.sum()),
            "by_pair": int(dynamics.told.rare_pair.sum()),
            "by_state": int(dynamics.told.rare_state.sum()),
        },
        "likelihood": [
            {
                "pseudo_count": k,
                "log_likelihood": replace(dynamics, pseudo_count=k).log_likelihood(validation),
            }
            for k in pseudo_counts
        ],
        "ends": {
            "death": chance_report(chances[:, d], death, patient),
            "discharge": chance_report(
                chances[before_last, s], left[before_last], patient[before_last]
            ),
        },
    }


def fit_counts(
    train: StayTensors,
    validation: StayTensors,
    pseudo_counts: Sequence[float] = PSEUDO_COUNTS,
) -> CountDynamics:
    """Count training transitions; validation patients choose how far they are shrunk.

    Raises:
        TooFewPatients: Fewer than NEEDED_PATIENTS training patients.
        ModelError: Another kind of cohort, or one of identical patients.
    """
    cohort = train.history.preparation.cohort
    if not has_counts(cohort):
        raise ModelError(
            f"{cohort.name}: counts are for cohorts with one categorical state and ordinal doses"
        )
    if len(torch.unique(train.patient[train.decision])) < NEEDED_PATIENTS:
        raise TooFewPatients(NEEDED_PATIENTS)
    check_varied(train)
    seen, who = transitions(train)
    told = tell(seen, who, *_levels(cohort))
    tried = [CountDynamics(train.history, told, k) for k in pseudo_counts]
    best = max(tried, key=lambda one: one.log_likelihood(validation))
    new = transitions(validation)[0]
    return replace(best, planning_count=_planning(told, seen, new))


def _planning(told: Told, seen: torch.Tensor, new: torch.Tensor) -> float:
    """The least count under which new transitions' risk is told as well as under any.

    As well: by no more than a standard error worse. Shrunk further a plan forgets what sets doses
    apart (docs/decisions/0018).
    """
    errors = torch.stack([_errors(told, seen, new, k) for k in PLANNING_COUNTS])
    worse = errors - errors[errors.mean(1).argmin()]
    alike = worse.mean(1) <= worse.std(1) / len(new) ** 0.5
    return PLANNING_COUNTS[int(alike.nonzero()[0])]


def _errors(told: Told, seen: torch.Tensor, new: torch.Tensor, k: float) -> torch.Tensor:
    """(new transitions,) squared error of the mean risk of what follows their pairs."""
    risk, cells = told.risk, told.pairs.shape[1]
    pair, size = seen[:, 0] * cells + seen[:, 1], told.pairs.numel()
    count = torch.bincount(pair, minlength=size)
    total = torch.bincount(pair, weights=risk[seen[:, 2]], minlength=size)
    usual = (told.state_mean.double() @ risk).repeat_interleave(cells)
    expected = (total + k * usual) / (count + k)
    return (risk[new[:, 2]] - expected[new[:, 0] * cells + new[:, 1]]).square()


def transitions(stays: StayTensors) -> tuple[torch.Tensor, torch.Tensor]:
    """(transitions, 3): state, dose cell, outcome, without horizons, which tell nothing; whose."""
    cohort = stays.history.preparation.cohort
    made = stays.transitions()
    states, _ = _levels(cohort)
    check_codes(made.next_states[:, :1], list(cohort.states), [states])
    outcome = made.next_states[:, 0].round().long()
    death = stays.death[made.row]
    outcome = torch.where(made.terminal, torch.full_like(outcome, states + 1), outcome)
    outcome = torch.where(death, torch.full_like(outcome, states), outcome)
    horizon = made.terminal & ~death & (stays.step[made.row] >= cohort.max_steps - 1)
    keys = torch.stack([*_pairs(made.states, made.doses, stays.history), outcome], dim=1)
    return keys[~horizon], stays.patient[made.row][~horizon]


def _levels(cohort: Cohort) -> tuple[int, int]:
    """Number of states and of dose combinations."""
    cells = 1
    for action in cohort.actions.values():
        cells *= len(action.levels)
    return len(next(iter(cohort.states.values())).levels), cells


def _pairs(
    states: torch.Tensor, doses: torch.Tensor, history: History
) -> tuple[torch.Tensor, torch.Tensor]:
    """Code of the state, and doses as one number: the last dose counts fastest."""
    preparation = history.preparation
    cohort, scaled = preparation.cohort, enumerate(preparation.doses.values())
    given = [transform.inverse_torch(doses[:, i]) for i, transform in scaled]
    levels = [_levels(cohort)[0], *(len(cohort.actions[n].levels) for n in preparation.doses)]
    values = torch.stack([states[:, 0], *given], dim=1)
    check_codes(values, [*cohort.states, *preparation.doses], levels)
    state, *codes = values.round().long().unbind(1)
    cell = torch.zeros_like(state)
    for code, count in zip(codes, levels[1:], strict=True):
        cell = cell * count + code
    return state, cell
