"""Policies that the oracle's searches move: bedside rules in a few numbers, kept inside the region.

Called by benchmarks._oracle. They read what a state holds, as any policy does, and nothing latent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.simulator import RANGES
from ogsrl.guardian.protocol import Guardian
from ogsrl.policies.deployed import Actor, Deployed
from ogsrl.policies.orders import Orders
from ogsrl.preparation.history import History
from ogsrl.sources.simulator import DOSE_BOUNDS, Protocol, ProtocolSettings

Floats = NDArray[np.float64]
Charted = Mapping[str, Floats]
#: Doses in clinical units, of the charted values of many rows and the doses last given there.
Rule = Callable[[Charted, Charted], Mapping[str, Floats]]
#: Where the search looks, by the name of each number.
Ranges = Mapping[str, tuple[float, float]]
#: The grid of doses where a proposal is refused: so many of each, evenly over the scaled range.
GRID: Final = 7
#: How many of them are tried, the nearest first, the next only where none was supported.
TRIED: Final = (4, 12)


@dataclass(frozen=True)
class ByRule:
    """An actor of a rule in clinical units."""

    rule: Rule
    history: History

    def propose(self, states: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """The rule's doses, scaled; a rule draws nothing."""
        del generator
        made = self.history.preparation
        places = zip(made.states, self.history.place("current"), strict=True)
        wide = states.double()
        charted = {name: made.states[name].inverse_torch(wide[:, i]).numpy() for name, i in places}
        share = wide[:, self.history.place("step")[0]].numpy()
        charted["step"] = np.round(share * made.cohort.max_steps)
        given = Orders.of(self.history).last_given(states).double().numpy()
        doses = self.rule(charted, {name: given[:, j] for j, name in enumerate(made.doses)})
        scaled = [
            scale.forward(np.clip(doses[name], *DOSE_BOUNDS[name]))
            for name, scale in made.doses.items()
        ]
        return torch.from_numpy(np.stack(scaled, 1))


@dataclass(frozen=True)
class Nearest:
    """An actor that, where it would be refused, proposes the nearest supported dose of a grid.

    The region is known to whoever deploys a policy, so a policy may keep to it by itself; without
    this an oracle would be no bound for actors that learned where the region ends.
    """

    actor: Actor
    deployed: Deployed

    @classmethod
    def of(cls, actor: Actor, guardian: Guardian, history: History) -> Nearest:
        """Around an actor, for the region of a guardian."""
        return cls(actor, Deployed.of(None, guardian, history))

    def propose(self, states: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """The actor's doses where supported, else the nearest of the grid, else the actor's."""
        proposed = self.actor.propose(states, generator)
        refused = self.deployed.judge(states, proposed).deferred.nonzero().squeeze(1)
        if not len(refused):
            return proposed
        axis = torch.linspace(-1, 1, GRID)
        grid = torch.cartesian_prod(*[axis] * proposed.shape[1]).to(proposed)
        far = (grid[None] - proposed[refused][:, None]).square().sum(2)
        order = far.argsort(dim=1, stable=True)
        moved = proposed.clone()
        first = 0
        for count in TRIED:
            tried = order[:, first : first + count]
            first += count
            asked = states[refused].repeat_interleave(tried.shape[1], 0)
            verdict = self.deployed.judge(asked, grid[tried].flatten(0, 1)).deferred
            fine = ~verdict.reshape(tried.shape)
            found = fine.any(1)
            best = tried.gather(1, fine.int().argmax(1, keepdim=True)).squeeze(1)
            moved[refused[found]] = grid[best[found]]
            refused, order = refused[~found], order[~found]
            if not len(refused):
                break
        return moved


def protocol(numbers: Mapping[str, float]) -> Rule:
    """A bedside protocol: see `ogsrl.sources.simulator.Protocol`."""
    acting = Protocol(ProtocolSettings(**numbers))
    rng = np.random.default_rng(0)  # a protocol draws nothing

    def rule(charted: Charted, previous: Charted) -> Mapping[str, Floats]:
        acting.reset(len(charted["map"]))
        return acting.act(0, charted, previous, rng)

    return rule


PROTOCOL_RANGES: Final[Ranges] = RANGES


def _signs(charted: Charted, previous: Charted) -> dict[str, Floats]:
    """What a chart says of a patient, each about 0 to 1 in size."""
    output = charted["urine"] / (4.0 * charted["weight"])
    return {
        "always": np.ones_like(output),
        "low_pressure": np.clip(72.0 - charted["map"], 0.0, 30.0) / 10.0,
        "high_pressure": np.clip(charted["map"] - 72.0, 0.0, 40.0) / 10.0,
        "little_urine": np.clip(0.8 - output, 0.0, 0.8),
        "lactate": np.clip(charted["lactate"] - 2.0, 0.0, 8.0) / 4.0,
        "full_veins": np.clip(charted["cvp"] - 6.0, 0.0, 12.0) / 6.0,
        "wet_lungs": np.clip(300.0 - charted["pf_ratio"], 0.0, 250.0) / 100.0,
        "severity": np.clip(charted["sofa"] - 6.0, 0.0, 12.0) / 6.0,
        "early": np.maximum(3.0 - charted["step"], 0.0) / 3.0,
        "running": previous["vasopressor"] / 0.3,
    }


#: Range of what one unit of a sign adds: mL in 4 h, and ug/kg/min.
_FLUID: Final[Ranges] = {
    "always": (0.0, 700.0),
    "low_pressure": (0.0, 400.0),
    "high_pressure": (-200.0, 50.0),
    "little_urine": (0.0, 800.0),
    "lactate": (0.0, 300.0),
    "full_veins": (-500.0, 50.0),
    "wet_lungs": (-250.0, 50.0),
    "severity": (-200.0, 200.0),
    "early": (-200.0, 400.0),
    "running": (-200.0, 200.0),
}
_PRESSOR: Final[Ranges] = {
    "always": (-0.05, 0.1),
    "low_pressure": (0.0, 0.3),
    "high_pressure": (-0.15, 0.0),
    "little_urine": (-0.05, 0.1),
    "lactate": (-0.05, 0.05),
    "full_veins": (-0.05, 0.05),
    "wet_lungs": (-0.05, 0.05),
    "severity": (-0.05, 0.05),
    "early": (-0.05, 0.1),
    "running": (0.05, 0.3),
}
SUMS_RANGES: Final[Ranges] = {
    **{f"iv_fluid.{name}": ends for name, ends in _FLUID.items()},
    **{f"vasopressor.{name}": ends for name, ends in _PRESSOR.items()},
}


def sums(numbers: Mapping[str, float]) -> Rule:
    """Each dose as a sum over signs at the bedside."""

    def rule(charted: Charted, previous: Charted) -> Mapping[str, Floats]:
        signs = _signs(charted, previous)
        return {
            dose: np.sum([numbers[f"{dose}.{name}"] * sign for name, sign in signs.items()], axis=0)
            for dose in DOSE_BOUNDS
        }

    return rule
