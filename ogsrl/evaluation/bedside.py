"""A deployed policy at the simulator's bedside: it sees charts alone, as it would in a hospital.

Called by truth. The state is built row by row from what is charted and was given; nothing of the
simulator's latent bodies is ever read.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from ogsrl.policies.deployed import Deployed
from ogsrl.trajectories import Stays

Floats = npt.NDArray[np.float64]


class Bedside:
    """`ogsrl.sources.simulator.Policy` of a `Deployed`; doses are NaN where it defers."""

    def __init__(self, deployed: Deployed) -> None:
        self.deployed = deployed
        self._states: torch.Tensor | None = None
        self._known: dict[str, Floats] = {}

    def reset(self, n: int) -> None:
        """Begin with `n` unknown patients."""
        self._states = None
        self._known = {}

    def act(
        self,
        step: int,
        charted: Mapping[str, Floats],
        previous: Mapping[str, Floats],
        rng: np.random.Generator,
    ) -> dict[str, Floats]:
        """Doses for the row."""
        states = self._states = self._next(step, charted, previous)
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        with torch.no_grad():
            decided = self.deployed.decide(states, generator)
        deferred = decided.deferred.numpy()
        orders = self.deployed.orders.orders
        return {
            name: np.where(deferred, np.nan, order.scale.inverse(decided.doses[:, j].numpy()))
            for j, (name, order) in enumerate(orders.items())
        }

    def _next(
        self, step: int, charted: Mapping[str, Floats], previous: Mapping[str, Floats]
    ) -> torch.Tensor:
        """The state of the row: what is charted, carried forward, after all that was given."""
        history = self.deployed.history
        preparation = history.preparation
        now = {name: charted[name] for name in preparation.states}
        carried = {
            name: np.where(np.isnan(values), self._known[name], values)
            if name in self._known and preparation.states[name].missing == "carry"
            else values
            for name, values in now.items()
        }
        self._known = carried
        rows = len(next(iter(now.values())))
        alone = pd.Series(np.arange(rows))
        # ended stays go on with impossible rows: nothing is asked of them
        columns = {n: np.clip(v, *preparation.cohort.states[n].range) for n, v in carried.items()}
        frame = pd.DataFrame({"stay_id": alone, **columns})
        made = preparation.state_columns(frame, Stays.of(alone))
        gaps = [np.isnan(now[name]).astype(np.float32) for name in preparation.indicators]
        indicators = np.stack(gaps, 1) if gaps else np.zeros((rows, 0), np.float32)
        if self._states is None or step == 0:
            names = [f"missing_{name}" for name in preparation.indicators]
            first = made.assign(
                **dict(zip(names, indicators.T, strict=True)),
                **{name: np.float32(-1) for name in preparation.doses},
                stay_id=alone,
                step=0,
            )
            return torch.from_numpy(history.build(first, Stays.of(alone)))
        observed = torch.from_numpy(made[list(preparation.states)].to_numpy(np.float32).copy())
        scales = preparation.doses.items()
        given = np.stack([scale.forward(previous[name]) for name, scale in scales], 1)
        return history.advance(
            self._states, torch.from_numpy(given), observed, torch.from_numpy(indicators)
        )
