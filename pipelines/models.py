"""Fitted models for the stages that stand on them: the clinicians' policy, the guardian, dynamics.

Called by train, select and evaluate. Too few patients for a model are a status, not an error.
"""

from __future__ import annotations

from ogsrl.behaviour.policy import Behaviour
from ogsrl.dynamics.config import TooFewPatients
from ogsrl.dynamics.counts import CountDynamics, has_counts
from ogsrl.dynamics.ensemble import Dynamics
from ogsrl.guardian.members import GUARDIANS
from ogsrl.guardian.protocol import Guardian
from ogsrl.preparation.history import History
from pipelines.stage import Stage


def load_behaviour(stage: Stage, history: History) -> Behaviour:
    """b; its status says whether it was fitted."""
    return Behaviour.load(stage.model("behaviour"), history.preparation)


def load_guardian(stage: Stage, history: History, behaviour: Behaviour) -> Guardian:
    """The region; one that was refused its patients refuses everything."""
    asked = behaviour if behaviour.status == "fitted" else None
    kind = GUARDIANS[stage.params.guardian.kind]
    return kind.load(stage.model("guardian"), history, asked)


def load_dynamics(stage: Stage, history: History) -> CountDynamics | Dynamics | None:
    """What patients do next; None where there were too few of them."""
    load = CountDynamics.load if has_counts(stage.cohort) else Dynamics.load
    try:
        return load(stage.model("dynamics"), history)
    except TooFewPatients:
        return None
