"""Clinicians' policy fitted to simulated patients, once for all tests of this folder."""

from __future__ import annotations

from functools import cache

import torch

from ogsrl.behaviour.config import BehaviourParams, BoostedParams
from ogsrl.behaviour.fitting import fit
from ogsrl.behaviour.policy import Behaviour
from ogsrl.spec import Protocol
from tests.guardian.cohorts import simulated

BOOSTED = BoostedParams(trees=10, scale_trees=4, depth=3, learning_rate=0.3, min_leaf=30)

PROTOCOL = Protocol.model_validate(
    {
        "doses": {
            "iv_fluid": [
                {"when": "map < 65 and lactate > 2", "dose": 1000},
                {"when": "map < 65", "dose": 500},
                {"dose": 0},
            ],
            "vasopressor": [
                {"when": "map < 65", "change": 0.1},
                {"when": "map > 75", "change": -0.05},
                {"change": 0},
            ],
        }
    }
)


@cache
def behaviour(seed: int = 0, trees: int = 10) -> Behaviour:
    """b(a|s), coarse."""
    parts = simulated()[0]
    boosted = BOOSTED.model_copy(update={"trees": trees})
    return fit(
        parts["train"],
        parts["calibration"],
        parts["validation"],
        BehaviourParams(kinds=("boosted",), knots=8, boosted=boosted),
        torch.Generator().manual_seed(seed),
    )
