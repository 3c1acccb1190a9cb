"""DiscreteOGSRL on a table: exact constrained planning over codes and ordinal doses.

Called by training for cohorts of one categorical state. It plans in what was counted and shrunk,
inside the region, and draws nothing: every seed gives the same table.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from ogsrl.errors import NoFormError
from ogsrl.policies.actors import TableActor
from ogsrl.policies.config import OgsrlParams
from ogsrl.policies.deployed import Deployed
from ogsrl.policies.limits import refusals_allowed
from ogsrl.policies.multipliers import ExactMultipliers
from ogsrl.policies.problem import REFUSAL
from ogsrl.policies.table import Table, TableProblem, Valued

#: Gains nearer to the best than this share of their size are as good.
ALIKE = 1e-9
#: How far above its limit a value may lie by rounding.
NEAR = 1e-9
#: Tables whose values are remembered.
REMEMBERED = 16


class DiscreteOGSRL:
    r"""One plan.

    A step values the table exactly (V_k at first decisions), moves the multipliers by the sign of
    what is broken (`integral` is their first step), and changes the proposal of each code to

        pi(s) = argmax_a sum_t rho_t(s) [ Q_r,t / R - sum_j mu_j Q_j,t - mu_g Q_g,t ](s, a),

    rho_t(s) the chance to decide there at step t. Without limits that is policy iteration for
    tables that do not know the step. Where proposals are alike, a supported one is taken before one
    that is deferred, then what clinicians do most. Proposed is what `least_patients` were given in
    the code (where nothing was, what most were), or what is deferred: deferring is better than a
    poor dose, and limited as a cost. Kept is the best table seen that meets every limit; while none
    does, the one that is least beyond them. Limits are `aim` of the cohort's. There is no dataset
    constraint and no disagreement here: what is not supported is deferred.
    """

    def __init__(self, problem: TableProblem, params: OgsrlParams, seed: int, steps: int) -> None:
        """`seed` and `steps` are there for the interface: nothing is drawn, no rate falls."""
        self.problem, self.params, self.seed, self.steps = problem, params, seed, steps
        own = problem.history.preparation.cohort.discount
        rewards = own if params.discount is None else params.discount
        quantities = len(problem.quantities)
        # costs and refusals are shares of steps: never discounted
        discounts = torch.tensor([rewards, *[1.0] * (quantities - 1)])
        self.table = Table(problem, discounts, guarded=params.guardian)
        for name, asked, known in (
            ("multipliers", params.multipliers, ("adapted", "fixed")),
            ("on_refusal", params.on_refusal, ("go_on",)),
        ):
            if asked not in known:
                raise NoFormError(
                    f"ogsrl.{name}: {asked} has no form for a table; set {' or '.join(known)}"
                )
        limits = params.aim * torch.tensor(list(problem.limits.values()))
        fixed = 0.0 if params.multipliers == "adapted" else params.fixed_multiplier
        self.costs = ExactMultipliers.at(limits, fixed, params.integral or 1.0)
        self.refusals = ExactMultipliers.at(
            torch.tensor([refusals_allowed(params.refusal_limit, problem.lived)]),
            params.refusal_start if params.guardian else 0.0,
            params.refusal_integral or 1.0,
        )
        self.proposed = self._may_be_proposed()
        self.cells = self._usual()
        self.kept = self.cells
        self.step = 0
        self._valued: dict[bytes, Valued] = {}

    def _usual(self) -> torch.Tensor:
        """A clone is the clinicians' likeliest dose, whatever may be proposed."""
        usual = self.problem.clinicians
        if not self.params.cloning_only:
            usual = usual.where(self.proposed, -1.0)
        return usual.argmax(1)

    def _may_be_proposed(self) -> torch.Tensor:
        """(codes, combinations): what enough were given, or else most; and what is deferred."""
        patients = self.problem.patients
        enough = patients >= self.params.least_patients
        most = patients == patients.amax(1, keepdim=True)
        return torch.where(enough.any(1, keepdim=True), enough, most) | self.table.deferred

    @property
    def policy(self) -> TableActor:
        """The best table so far."""
        return TableActor(self.kept.clone(), self.problem.levels)

    @property
    def deployed(self) -> Deployed:
        """What acts for it; without the guardian, an ablation."""
        return self.table.deployed(self.kept, self.params.guardian)

    def begin(self) -> None:
        """Start from what clinicians do most in each code, of what may be proposed."""
        self.cells = self.kept = self._usual()

    def train(self, steps: int) -> Iterator[dict[str, float]]:
        """So many steps more; what was measured, once a refresh."""
        for _ in range(steps):
            if self.step % self.params.refresh == 0:
                yield self.measured()
            self.advance()

    def advance(self) -> None:
        """Value, move the multipliers, change the table."""
        params, seen = self.params, self._value(self.cells)
        if self._better(seen, self._value(self.kept)):
            self.kept = self.cells
        if params.constraints and params.multipliers == "adapted":
            self.costs.update(seen.totals[1:-1].float())
        if params.guardian:
            self.refusals.update(seen.totals[-1:].float())
        worth = (seen.gains * self._weights()).sum(2)
        best = worth.where(self.proposed, -torch.inf).amax(1, keepdim=True)
        alike = self.proposed & (worth >= best - ALIKE * worth.abs().amax(1, keepdim=True))
        rank = self.problem.clinicians + 2.0 * ~self.table.deferred
        self.cells = torch.where(alike, rank, -1.0).argmax(1)
        self.step += 1

    def measured(self) -> dict[str, float]:
        """The log's row: what the kept table comes to, and the multipliers now."""
        seen = self._value(self.kept)
        totals = dict(zip(self.problem.quantities, seen.totals.tolist(), strict=True))
        said = {
            "step": float(self.step),
            "deaths": seen.deaths,
            "value": float(seen.totals[0]),
            "refusal": totals[REFUSAL],
            "deferred": seen.deferred,
            f"mu_{REFUSAL}": float(self.refusals.values[0]),
            f"active_{REFUSAL}": float(self.refusals.active[0]),
            "scale": float(seen.totals.abs().mean()),
            "feasible": float(self._excess(seen) <= NEAR),
        }
        for j, (name, limit) in enumerate(self.problem.limits.items()):
            said[f"cost_{name}"] = totals[name]
            said[f"limit_{name}"] = limit
            said[f"mu_{name}"] = float(self.costs.values[j])
            said[f"active_{name}"] = float(self.costs.active[j])
        return said

    def _weights(self) -> torch.Tensor:
        costs = self.costs.values * self.params.constraints
        reward = torch.tensor([1 / self.problem.spread])
        return torch.cat([reward, -costs, -self.refusals.values]).double()

    def _value(self, cells: torch.Tensor) -> Valued:
        """Of a table; the last ones are remembered, since plans turn to and fro at a limit."""
        key = cells.numpy().tobytes()
        seen = self._valued.pop(key, None) or self.table.value(cells)
        self._valued[key] = seen
        if len(self._valued) > REMEMBERED:
            self._valued.pop(next(iter(self._valued)))
        return seen

    def _excess(self, seen: Valued) -> float:
        """The farthest beyond any limit that counts; at most 0 where all are met."""
        beyond = seen.totals[1:] - torch.cat([self.costs.limits, self.refusals.limits]).double()
        counts = [self.params.constraints] * len(self.problem.limits) + [self.params.guardian]
        held = beyond[torch.tensor(counts)]
        return float(held.max()) if len(held) else 0.0

    def _better(self, seen: Valued, kept: Valued) -> bool:
        mine, theirs = self._excess(seen), self._excess(kept)
        if mine > NEAR or theirs > NEAR:
            return mine < theirs
        gained = float(seen.totals[0] - kept.totals[0])
        rarer = seen.deferred < kept.deferred - NEAR
        return gained > NEAR or (gained > -NEAR and rarer)

    def tensors(self) -> dict[str, torch.Tensor]:
        """All that goes on from one step to the next."""
        found = {"cells": self.cells, "kept": self.kept, "step": torch.tensor(self.step)}
        for name, held in (("costs", self.costs), ("refusals", self.refusals)):
            found |= {f"{name}.{key}": value for key, value in held.tensors().items()}
        return {name: value.clone() for name, value in found.items()}

    def restore(self, tensors: dict[str, torch.Tensor]) -> None:
        """Go on from a checkpoint."""
        self.cells, self.kept = tensors["cells"].clone(), tensors["kept"].clone()
        for name, held in (("costs", self.costs), ("refusals", self.refusals)):
            held.restore({key: tensors[f"{name}.{key}"] for key in held.tensors()})
        self.step = int(tensors["step"])
