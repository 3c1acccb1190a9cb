"""What clinical measures are made of: logged decisions beside what the policy gives in them.

Called by `ogsrl.evaluation.clinical` and `clinical_risks`. Doses and columns have names here, and
clinical units; nothing is said of fewer than ten patients.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ogsrl.constraints import constraint_rules
from ogsrl.evaluation.clustered import Beside, Measured, Steps, dotted
from ogsrl.evaluation.executed import Executed
from ogsrl.preparation.coverage import DoseAxis, cells, plane
from ogsrl.preparation.history import History
from ogsrl.preparation.tensors import StayTensors
from ogsrl.preparation.transforms import DoseTransform

#: Doses nearer than this part of the bounds' width are the same.
NEAR = 1e-4
#: Tolerance of a dose that has no increment, in parts of the bounds' width.
WIDE = 0.05


@dataclass(frozen=True)
class Decided:
    """Logged decisions, what the clinicians gave in them and what the policy gives.

    Attributes:
        history: The layout of states.
        states: (rows, columns).
        step: (rows,) number of the step.
        given: (rows, doses) scaled.
        last_given: (rows, doses) in clinical units, the step before; 0 at a stay's first step.
        executed: (draws, rows, doses) scaled.
        deferred: (draws, rows).
        every: All of these steps.
    """

    history: History
    states: torch.Tensor
    step: torch.Tensor
    given: torch.Tensor
    last_given: torch.Tensor
    executed: torch.Tensor
    deferred: torch.Tensor
    every: Steps

    @classmethod
    def of(cls, stays: StayTensors, executed: Executed, level: float) -> Decided:
        """All rows where a dose was chosen."""
        row = stays.decision.nonzero().squeeze(1)
        offered, deferred = executed.doses[:, row], executed.deferred[:, row]
        # where it defers, a clinician's dose was drawn: of no matter here
        same = torch.where(deferred[..., None], 0.0, offered)
        if bool((same == same[:1]).all()) and bool((deferred == deferred[:1]).all()):
            offered, deferred = offered[:1], deferred[:1]  # nothing is drawn
        return cls(
            history=stays.history,
            states=stays.states[row],
            step=stays.step[row],
            given=stays.doses[row],
            last_given=stays.last_given[row].double(),
            executed=offered,
            deferred=deferred,
            every=Steps(stays.patient[row], torch.ones_like(deferred, dtype=torch.float64), level),
        )

    @cached_property
    def recommended(self) -> Steps:
        """Steps where the policy offers a dose."""
        return self.every.among(~self.deferred)

    @cached_property
    def doses(self) -> dict[str, OneDose]:
        """Each dose by name."""
        scales = self.history.preparation.doses
        return {
            name: OneDose(
                scale=scale,
                policy_scaled=self.executed[..., j].double(),
                given_scaled=self.given[:, j].double(),
                last_given=self.last_given[:, j],
            )
            for j, (name, scale) in enumerate(scales.items())
        }

    def charted(self) -> dict[str, npt.NDArray[np.float64]]:
        """Columns of the states in clinical units, gaps filled as the policy sees them."""
        return self.history.clinical(self.states, self.history.preparation.states)

    def unsafe(self) -> dict[str, torch.Tensor]:
        """(rows,) whether the row itself meets each constraint."""
        cohort, known = self.history.preparation.cohort, self.charted()
        return {
            name: torch.from_numpy(rule.numpy(known) == 1)
            for name, rule in constraint_rules(cohort).items()
        }


def dose_planes(decided: Decided) -> dict[str, dict[str, Any]]:
    """The plane of the first two doses where the policy recommends: its own, and as given."""
    row = (~decided.deferred[0]).nonzero().squeeze(1)
    if not len(row):
        return {}
    actions = decided.history.preparation.cohort.actions
    names = list(decided.doses)[:2]
    patient = decided.every.patient[row].numpy()

    def of(who: str) -> dict[str, Any]:
        both = []
        for name in (names[0], names[-1]):
            dose = decided.doses[name]
            values = dose.policy[0] if who == "policy" else dose.given
            both.append((DoseAxis(name, actions[name], dose.scale), values[row].numpy()))
        return plane(both[0], both[1], patient)

    return {who: of(who) for who in ("clinicians", "policy")}


@dataclass(frozen=True)
class OneDose:
    """One dose, scaled and in clinical units: of the policy, (draws, rows), and as given."""

    scale: DoseTransform
    policy_scaled: torch.Tensor
    given_scaled: torch.Tensor
    last_given: torch.Tensor

    @property
    def width(self) -> float:
        """Of the bounds."""
        return self.scale.high - self.scale.low

    @cached_property
    def policy(self) -> torch.Tensor:
        """What the policy gives, in clinical units."""
        return torch.from_numpy(self.scale.inverse(self.policy_scaled.numpy()))

    @cached_property
    def given(self) -> torch.Tensor:
        """What was given, in clinical units."""
        return torch.from_numpy(self.scale.inverse(self.given_scaled.numpy()))

    @cached_property
    def last_scaled(self) -> torch.Tensor:
        """What was given the step before, scaled."""
        return torch.from_numpy(self.scale.forward(self.last_given.numpy())).double()

    def concordant(self, tolerance: float) -> torch.Tensor:
        """(draws, rows) whether policy and clinicians are within the tolerance."""
        return (self.policy - self.given).abs() <= tolerance + NEAR * self.width


def intensified(doses: Mapping[str, OneDose]) -> tuple[torch.Tensor, torch.Tensor]:
    """Whether policy, (draws, rows), and clinicians give more of some dose and less of none."""
    made = []
    for chosen in ("policy", "given"):
        changes = [
            (getattr(dose, chosen) - dose.last_given) / (NEAR * dose.width or NEAR)
            for dose in doses.values()
        ]
        change = torch.stack(changes)
        made.append((change > 1).any(0) & ~(change < -1).any(0))
    return made[0], made[1]


@dataclass(frozen=True)
class DoseUse:
    """How one dose is used.

    Attributes:
        axis: Its bins.
        mean: In clinical units.
        zero: Share of steps without any; None for a dose that is not `zero_inflated`.
        change: Mean distance from the dose last given, in clinical units.
        change_scaled: The same as learners see it.
        jump: Share of steps with a larger change than the cohort file allows; None where it allows
            all.
        bins: Share of steps in each bin, none given first, of policy and clinicians; None where
            it is of too few patients.
    """

    axis: DoseAxis
    mean: Beside
    zero: Beside | None
    change: Beside
    change_scaled: Beside
    jump: Beside | None
    bins: tuple[tuple[Measured | None, Measured | None], ...]

    def plain(self) -> dict[str, float | None]:
        """For JSON, dotted; without the bins."""
        told = {"mean": self.mean, "change": self.change, "change_scaled": self.change_scaled}
        told |= {} if self.zero is None else {"zero": self.zero}
        told |= {} if self.jump is None else {"jump": self.jump}
        return dotted(**{name: one.plain() for name, one in told.items()})

    def distribution(self) -> dict[str, Any]:
        """For the figure: the dose, its bins, and of each the shares."""
        names = ("policy", "clinicians")
        bins = [
            {n: None if one is None else one.plain() for n, one in zip(names, each, strict=True)}
            for each in self.bins
        ]
        return {**self.axis.as_dict(), "bins": bins}


def dose_use(decided: Decided, name: str) -> DoseUse:
    """How a dose is used, in the steps where the policy recommends one."""
    dose, some = decided.doses[name], decided.recommended
    action = decided.history.preparation.cohort.actions[name]
    axis = DoseAxis(name, action, dose.scale)
    later = some.among(decided.step > 0)  # before the first nothing is known to have been given
    near = NEAR * dose.width
    zero = None
    if action.zero_inflated:
        zero = some.beside(dose.policy.abs() <= near, (dose.given.abs() <= near).double())
    jump = None
    if action.max_change is not None:
        most = action.max_change + near
        mine, theirs = ((x - dose.last_given).abs() > most for x in (dose.policy, dose.given))
        jump = later.beside(mine, theirs.double())
    return DoseUse(
        axis=axis,
        mean=some.beside(dose.policy, dose.given, action.range),
        zero=zero,
        change=later.beside(
            (dose.policy - dose.last_given).abs(),
            (dose.given - dose.last_given).abs(),
            (0.0, dose.width),
        ),
        change_scaled=later.beside(
            (dose.policy_scaled - dose.last_scaled).abs(),
            (dose.given_scaled - dose.last_scaled).abs(),
            (0.0, 2.0),
        ),
        jump=jump,
        bins=tuple(
            zip(*(_bins(axis, doses, some) for doses in (dose.policy, dose.given)), strict=True)
        ),
    )


def _bins(axis: DoseAxis, doses: torch.Tensor, some: Steps) -> list[Measured | None]:
    """Share of the steps in each bin; doses are (draws, rows) or (rows,)."""
    doses = doses.expand(some.counts.shape)
    counted = some.counts > 0
    place = torch.full(doses.shape, -1)
    place[counted] = torch.from_numpy(axis.place(doses[counted].numpy()))
    who = some.patient.expand(doses.shape)[counted].numpy()
    hidden = cells(place[counted].numpy(), who, axis.bins, total_known=True).suppressed
    return [None if i in hidden else some.measured(place == i) for i in range(axis.bins)]
