"""A ward of two states and two doses whose every value follows from counts, by backward induction.

A patient is well (x = -1) or ill (x = 1); a dose of 1 makes ill patients well more often. In each
step a patient dies, or is well or ill in the next; after STEPS steps all who live have reached the
horizon, and some of them die later.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from ogsrl.policies.deployed import Deployed
from ogsrl.preparation.history import History
from ogsrl.preparation.tensors import StayTensors
from tests.guardian.cohorts import planted

STEPS = 6
LATE = 0.1
#: Of (state, dose): the chance of death, and of being ill next.
DEATH = np.array([[0.02, 0.01], [0.16, 0.06]])
ILL = np.array([[0.3, 0.2], [0.85, 0.45]])
#: Clinicians give the dose to so many of the well and of the ill.
GIVEN = np.array([0.3, 0.6])
#: (step, state) -> chance of giving the dose.
Chance = Callable[[int, int], float]


def history(**more: Any) -> History:
    """States are x and the step; the dose is -1 or 1."""
    return planted(
        {"x": {"plausible": [-1, 1]}, "now": {"plausible": [-1, 1]}},
        {"a": {"bounds": [-1, 1]}},
        max_steps=STEPS,
        discount=0.9,
        outcome={"horizon": "in hospital", "censoring": "none"},
        reward={"terminal": {"death": -1, "discharge": 1, "horizon": 1}},
        constraints={
            "ill": {"expression": "x > 0", "limit": {"relative": 0.9}},
            "ever_ill": {"expression": "x > 0", "kind": "ever", "limit": {"relative": 0.9}},
        },
        **more,
    )


@dataclass(frozen=True)
class Ward:
    """Logged stays, and what they were made of, step by step; -1 where the stay was over."""

    stays: StayTensors
    state: np.ndarray[Any, Any]
    dose: np.ndarray[Any, Any]
    end: np.ndarray[Any, Any]

    @classmethod
    def draw(cls, patients: int, seed: int, **more: Any) -> Ward:
        """So many stays treated by the clinicians."""
        rng = np.random.default_rng(seed)
        state, dose, end = (np.full((STEPS, patients), -1) for _ in range(3))
        now, alive = (rng.random(patients) < 0.5).astype(int), np.ones(patients, bool)
        for t in range(STEPS):
            given = (rng.random(patients) < GIVEN[now]).astype(int)
            dies = rng.random(patients) < DEATH[now, given]
            following = (rng.random(patients) < ILL[now, given]).astype(int)
            late = rng.random(patients) < LATE
            over = np.select([dies, late], [2, 3], 4) if t == STEPS - 1 else np.where(dies, 2, 0)
            state[t, alive], dose[t, alive] = now[alive], given[alive]
            end[t, alive] = np.where(over > 0, over, following)[alive]
            alive, now = alive & (over == 0), following
        return cls(_stays(history(**more), state, dose, end), state, dose, end)

    def value(self, chance: Chance, quantity: str) -> float:
        """Of a policy at first decisions, in the ward as the log counts it.

        Ends are 0 or 1: well or ill next; 2 death, 3 horizon and later death, 4 horizon.
        """
        value = np.zeros(2)
        for t in range(STEPS - 1, -1, -1):
            now = np.zeros(2)
            for s in (0, 1):
                for a in (0, 1):
                    ends = self.end[t][(self.state[t] == s) & (self.dose[t] == a)]
                    p = np.bincount(ends, minlength=5) / len(ends)
                    weight = chance(t, s) if a else 1 - chance(t, s)
                    now[s] += weight * _paid_then(quantity, t, p, value)
            value = now
        return float(value[self.state[0]].mean())

    def censored(self, seed: int, share: float = 0.15) -> StayTensors:
        """The same stays, some of them lost from sight at any step: its row is a state only."""
        s = self.stays
        rng = np.random.default_rng(seed)
        stays = int(s.stay.max()) + 1
        lost = torch.from_numpy(np.minimum(rng.geometric(share, stays), STEPS))[s.stay]
        here, kept = s.step == lost, s.step <= lost
        cut = replace(
            s,
            decision=s.decision & ~here,
            terminal=s.terminal & ~here,
            death=s.death & ~here,
            next_row=torch.where(here, -1, s.next_row),
            rewards=torch.where(here, 0.0, s.rewards),
            costs=torch.where(here[:, None], 0.0, s.costs),
        )
        place = torch.cumsum(kept, 0) - 1
        fields = {
            name: getattr(cut, name)[kept]
            for name in StayTensors.__dataclass_fields__
            if name != "history"
        }
        following = fields["next_row"]
        fields["next_row"] = torch.where(following >= 0, place[following.clip(min=0)], -1)
        return StayTensors(s.history, **fields)


@dataclass(frozen=True)
class WardClinicians:
    """Those who treated the patients of the log."""

    def sample(self, states: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        chance = torch.tensor(GIVEN).float()[(states[:, 0] > 0).long()]
        drawn = torch.rand(len(states), generator=generator) < chance
        return 2 * drawn.float()[:, None] - 1


@dataclass(frozen=True)
class Always:
    """The same dose for everybody."""

    dose: float

    def propose(self, states: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        del generator
        return torch.full((len(states), 1), self.dose)


def acting(dose: float | None, at: History) -> Deployed:
    """Always this dose; None: always defers."""
    return Deployed.of(None if dose is None else Always(dose), None, at)


def clinicians(t: int, s: int) -> float:
    """How often clinicians give the dose."""
    del t
    return float(GIVEN[s])


def _paid_then(
    quantity: str, t: int, p: np.ndarray[Any, Any], value: np.ndarray[Any, Any]
) -> float:
    on = p[0] * value[0] + p[1] * value[1]
    if quantity == "mortality":
        return float(p[2] + p[3] + on)
    if quantity == "value":
        return float(p[4] - p[2] - p[3] + 0.9 * on)
    if quantity == "cost:ill":
        return float(p[2] * (STEPS - t) / STEPS + p[1] / STEPS + on)
    if quantity == "later steps ill":
        return float(p[1] + on)
    return float(p[2] + p[1] + p[0] * value[0])  # cost:ever_ill


def _stays(
    layout: History,
    state: np.ndarray[Any, Any],
    dose: np.ndarray[Any, Any],
    end: np.ndarray[Any, Any],
) -> StayTensors:
    stay, step = np.nonzero(state.T >= 0)
    s, a, e = state[step, stay], dose[step, stay], end[step, stay]
    over = e >= 2
    ill, dies = (e == 1).astype(float), (e == 2).astype(float)
    met = np.maximum(ill, dies)
    before = np.zeros(len(s))
    for t in range(1, STEPS):
        row = np.flatnonzero(step == t)
        before[row] = np.maximum(before[row - 1], met[row - 1])
    doses = (2.0 * a - 1)[:, None]
    columns = {
        "states": np.stack([2.0 * s - 1, 2.0 * step / (STEPS - 1) - 1], 1),
        "doses": doses,
        "given": doses,
        "last_given": np.zeros_like(doses),
        "rewards": np.select([over & (e < 4), e == 4], [-1.0, 1.0], 0.0),
        "shaping": np.zeros(len(s)),
        "costs": np.stack([dies * (STEPS - step) / STEPS + ill / STEPS, met * (1 - before)], 1),
    }
    return StayTensors(
        layout,
        **{name: torch.from_numpy(values).float() for name, values in columns.items()},
        decision=torch.ones(len(s), dtype=torch.bool),
        terminal=torch.from_numpy(over),
        death=torch.from_numpy(e == 2),
        next_row=torch.from_numpy(np.where(over, -1, np.arange(len(s)) + 1)),
        step=torch.from_numpy(step),
        stay=torch.from_numpy(stay),
        patient=torch.from_numpy(stay),
    )
