"""Records for estimators from prepared stays: what was logged, read for a policy.

Called by evaluation. Stays whose end is not known (censored) are left out, and counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from ogsrl.behaviour.policy import Behaviour
from ogsrl.errors import EstimateError
from ogsrl.evaluation.executed import BLOCK, Clinicians, Executed
from ogsrl.evaluation.fqe import Fqe
from ogsrl.evaluation.quantities import REFUSAL, Quantity
from ogsrl.evaluation.record import Record, Values
from ogsrl.evaluation.smoothed import Smoothing, ratios
from ogsrl.preparation.tensors import StayTensors


@dataclass(frozen=True)
class Layout:
    """Where logged decisions of whole stays lie in a record.

    Attributes:
        row: (decisions,) rows of the stays.
        decision: (decisions,) their places among all logged decisions.
        stay: (decisions,) number of the stay in the record.
        step: (decisions,) which decision of the stay it is.
        patient: (stays,) number of the patient in the record.
        censored: Stays left out.
    """

    row: torch.Tensor
    decision: torch.Tensor
    stay: torch.Tensor
    step: torch.Tensor
    patient: torch.Tensor
    censored: int

    @classmethod
    def of(cls, stays: StayTensors) -> Layout:
        """Of all stays that have a decision and a known end."""
        row = stays.decision.nonzero().squeeze(1)
        ended = torch.zeros(int(stays.stay.max()) + 1, dtype=torch.bool)
        ended[stays.stay[stays.terminal]] = True
        known = ended[stays.stay[row]]
        censored = len(torch.unique(stays.stay[row[~known]]))
        decision = known.nonzero().squeeze(1)
        row = row[decision]
        if not len(row):
            raise EstimateError(
                f"evaluation: none of {censored} stays has a known end; nothing can be estimated"
            )
        first = (stays.step[row] == 0).nonzero().squeeze(1)
        stay = torch.unique(stays.stay[row], return_inverse=True)[1]
        begun = torch.full((int(stay.max()) + 1,), len(row))
        begun.scatter_reduce_(0, stay, torch.arange(len(row)), "amin")
        if not torch.equal(begun, first):
            raise EstimateError("evaluation: stays must be whole and sorted by step")
        patient = torch.unique(stays.patient[row[first]], return_inverse=True)[1]
        step = torch.arange(len(row)) - begun[stay]
        return cls(row, decision, stay, step, patient, censored)

    def laid(self, values: torch.Tensor, fill: float = 0.0) -> torch.Tensor:
        """(stays, steps) of values of each decision here."""
        shape = len(self.patient), int(self.step.max()) + 1
        made = torch.full(shape, fill, dtype=torch.float64)
        made[self.stay, self.step] = values.double()
        return made


def log_density(behaviour: Behaviour, stays: StayTensors, layout: Layout) -> torch.Tensor:
    """(decisions,) log b of what was logged."""
    return behaviour.log_prob(stays.states[layout.row], stays.doses[layout.row])


def records(
    stays: StayTensors,
    layout: Layout,
    executed: Executed,
    log_b: torch.Tensor,
    smoothing: Smoothing,
    wanted: Sequence[Quantity],
    fitted: Mapping[str, Values] | None = None,
) -> dict[str, Record]:
    """A record a quantity, for one policy.

    Args:
        stays: Whole stays.
        layout: Of them.
        executed: What the policy does in every row of them.
        log_b: Of the decisions of the layout.
        smoothing: Of what it does.
        wanted: Quantities of the same stays.
        fitted: By quantity: (decisions,) q and v of the layout's decisions.
    """
    mine = Executed(executed.doses[:, layout.row], executed.deferred[:, layout.row])
    ratio = layout.laid(ratios(mine, stays.doses[layout.row], log_b, smoothing), 1.0)
    inside = layout.laid(torch.ones(len(layout.row))) > 0
    most = stays.history.preparation.cohort.max_steps
    made = {}
    for one in wanted:
        paid = (one.paid * one.counts)[layout.decision]
        if one.name == REFUSAL:
            paid = mine.deferred.double().mean(0) / most
        values = None
        if fitted is not None:
            going = one.counts[layout.decision]  # nothing more is paid once an `ever` was met
            q, v = fitted[one.name].q * going, fitted[one.name].v * going
            values = Values(layout.laid(q), layout.laid(v))
        made[one.name] = Record(
            patient=layout.patient,
            inside=inside,
            ratio=ratio,
            paid=layout.laid(paid),
            discount=one.discount,
            low=one.low,
            high=one.high,
            values=values,
        )
    return made


@torch.no_grad()
def fitted_values(
    fqe: Fqe,
    policy: str,
    stays: StayTensors,
    layout: Layout,
    executed: Executed,
    clinicians: Clinicians,
    smoothing: Smoothing,
    generator: torch.Generator,
) -> dict[str, Values]:
    """Q of what was logged and v of what the policy would give, smoothed as its ratios are.

    A refusal in a state is the policy's own: it is in both q and v.
    """
    states, most = stays.states[layout.row], stays.history.preparation.cohort.max_steps
    q = _mean(fqe, policy, states, stays.doses[layout.row])
    v: dict[str, torch.Tensor] = {name: torch.zeros(len(states)) for name in q}
    deferred = executed.deferred[:, layout.row]
    for doses, refused in zip(executed.doses[:, layout.row], deferred, strict=True):
        given = smoothing.drawn(doses, generator)
        if bool(refused.any()):
            given[refused] = clinicians.sample(states[refused], generator)
        for name, value in _mean(fqe, policy, states, given).items():
            v[name] += value / len(deferred)
    now = deferred.float().mean(0) / most
    for found in (q, v):
        if REFUSAL in found:
            found[REFUSAL] = found[REFUSAL] + now
    return {name: Values(q[name], v[name]) for name in q}


def _mean(
    fqe: Fqe, policy: str, states: torch.Tensor, doses: torch.Tensor
) -> dict[str, torch.Tensor]:
    parts = zip(torch.split(states, BLOCK), torch.split(doses, BLOCK), strict=True)
    found = [fqe.value(policy, *part) for part in parts]
    return {name: torch.cat([one[name].mean(0) for one in found]) for name in found[0]}
