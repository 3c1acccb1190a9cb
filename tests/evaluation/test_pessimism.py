"""The worst supported dose where a policy defers, in a ward whose values are known."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from ogsrl.evaluation.config import FqeParams
from ogsrl.evaluation.fqe import fit_fqe
from ogsrl.evaluation.pessimism import Worst
from ogsrl.policies.deployed import Decisions, Deployed
from tests.evaluation.ward import Ward, WardClinicians


@dataclass(frozen=True)
class Supports(Deployed):
    """Nothing but the dose of 1, or nothing at all."""

    anything: bool = True

    def judge(self, states: torch.Tensor, proposed: torch.Tensor) -> Decisions:
        decided = super().judge(states, proposed)
        refused = (proposed[:, 0] < 1) | (not self.anything)
        return replace(decided, deferred=decided.deferred | refused)


def test_where_it_defers_the_supported_dose_of_the_worst_value_is_given() -> None:
    ward = Ward.draw(3_000, 4)
    history = ward.stays.history
    nobody = Deployed.of(None, None, history)
    behaviour = WardClinicians()
    params = FqeParams(
        fits=2, networks=1, hidden=24, steps=400, batch_size=256, dose_weight=1, learning_rate=2e-3
    )
    g = torch.Generator().manual_seed(0)
    fqe = fit_fqe(ward.stays, {"nobody": nobody}, behaviour, params, g)
    ill = ward.stays.states[:, 0] > 0
    states = ward.stays.states[ill & (ward.stays.step < 3)]
    given = Worst(nobody, fqe, "nobody", behaviour).sample(states, g)
    assert float((given < 0).float().mean()) > 0.95, "of the ill, who is not treated dies"
    only = Supports(None, None, nobody.orders)
    assert torch.equal(
        Worst(only, fqe, "nobody", behaviour).sample(states, g), torch.ones(len(states), 1)
    )
    nothing = Supports(None, None, nobody.orders, anything=False)
    drawn = Worst(nothing, fqe, "nobody", behaviour).sample(
        states, torch.Generator().manual_seed(1)
    )
    theirs = behaviour.sample(states, torch.Generator().manual_seed(1))
    assert torch.equal(drawn, theirs), "where nothing is supported the clinicians act"
