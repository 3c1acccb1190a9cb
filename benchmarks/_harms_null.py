"""Policies that are no better than the clinicians, or hardly, and what the panel says of them.

Used by `benchmarks.harms`. Doses drawn from the clinicians' fitted policy are not it: nobody's
habits last in them and the guardian stops blunders, so that truly fewer die (decision 28).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from benchmarks._coverage_policies import BlendActor
from benchmarks._harms_planted import last_trained
from benchmarks._truth_cohorts import NAME, Place
from benchmarks._truth_measure import Patients, truth_of
from ogsrl.behaviour.policy import Behaviour
from ogsrl.evaluation.evaluate import Grounds, Subject, evaluate
from ogsrl.evaluation.known import Truths
from ogsrl.evaluation.quantities import primary
from ogsrl.evaluation.report import flat
from ogsrl.policies.deployed import Actor, Deployed
from ogsrl.sources.simulator import Clinicians
from pipelines.models import load_dynamics
from pipelines.parts import load_parts
from pipelines.stage import Stage

#: Halvings of how far a policy goes away from what was learned.
HALVINGS = 7


@dataclass(frozen=True)
class Clinician:
    """Doses as clinicians draw them, step by step: nobody's habits last, so fewer die."""

    behaviour: Behaviour

    def propose(self, states: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Drawn, one set a row."""
        return self.behaviour.sample(states, generator)


def away(place: Place, share: float) -> Actor:
    """Clinicians' doses, drawn, so far away from what was learned."""
    return BlendActor(Clinician(place.behaviour), last_trained(place)[0], -share)


def equal(place: Place, patients: int) -> dict[str, float]:
    """How far away as many die as under the clinicians, of so many fresh patients."""
    fresh = Patients(patients, place.stage.params.seed + 500_000)
    theirs = truth_of(Clinicians(place.config), place, fresh).mortality

    def apart(share: float) -> float:
        acting = Deployed.of(away(place, share), place.guardian, place.history)
        return truth_of(acting, place, fresh).mortality - theirs

    low, high = 0.0, 0.5
    for _ in range(HALVINGS):
        share = (low + high) / 2
        low, high = (share, high) if apart(share) < 0 else (low, share)
    return {"share": high, "apart": apart(high)}


def panel_says(place: Place, actor: Actor) -> dict[str, Any]:
    """What the panel says of a policy, with our guardian."""
    stage = Stage("evaluate", NAME, place.root)
    parts = load_parts(stage, "train", "calibration", "test")
    dynamics = load_dynamics(stage, place.history)
    acting = Deployed.of(actor, place.guardian, place.history)
    grounds = Grounds(
        parts["test"], place.behaviour, parts["train"], parts["calibration"], dynamics
    )
    generator = torch.Generator().manual_seed(place.stage.params.seed)
    params = place.stage.params.evaluate
    evaluation = evaluate([Subject("null", acting)], grounds, params, generator, lambda _more: None)
    told = flat(evaluation, Truths())
    begin = f"null.{primary(place.cohort)}.gain."
    return {name: told[begin + name] for name in ("word", "estimate", "lo", "hi")}
