"""Fitted Q evaluation of what policies do as `Deployed`, all policies and fits side by side.

Called by selection, and by everything that needs a policy's value from logged patients. Cold fits:
each begins with weights of its own. It never looks at other patients than those it is given.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from pydantic import BaseModel, ConfigDict, Field

from ogsrl.errors import ModelError
from ogsrl.evaluation.executed import BLOCK, Clinicians, Executed
from ogsrl.evaluation.quantities import REFUSAL, Quantity, default_quantities, quantities, to_go
from ogsrl.policies.codes import StateCodes
from ogsrl.policies.deployed import Deployed
from ogsrl.policies.networks import Adam, Perceptrons, Shape
from ogsrl.preparation.tensors import StayTensors

#: The least chance or share that a fit begins with, and the least deviation of a dose.
LEAST, LEAST_DEVIATION = 1e-3, 0.05


class FqeParams(BaseModel):
    """Parameters of fitted Q evaluation."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    fits: int = Field(5, ge=1, le=100, description="Cold fits.")
    networks: int = Field(
        2, ge=1, le=20, description="Networks a fit, begun apart and fed the same patients."
    )
    hidden: int = Field(64, ge=4, le=2048, description="Units of each of two hidden layers.")
    start_steps: int = Field(200, ge=0, description="First steps, towards logged returns.")
    steps: int = Field(1500, ge=1, description="Gradient steps towards the policy's value.")
    batch_size: int = Field(512, ge=8, le=65536, description="Rows a network and step.")
    learning_rate: float = Field(4e-4, gt=0, le=1, description="Of Adam; falls to 0 as a cosine.")
    target_rate: float = Field(0.02, gt=0, le=1, description="How fast targets follow.")
    draws: int = Field(4, ge=1, le=64, description="Doses drawn a row where something is drawn.")
    dose_weight: float = Field(
        4.0, gt=0, le=100, description="Deviation of doses, given the state, as inputs."
    )


@dataclass(frozen=True)
class Inputs:
    """What networks see: codes as columns, and doses wide enough for their part to be learned.

    Attributes:
        codes: How codes of a state go in.
        width: What each dose is multiplied with.
    """

    codes: StateCodes
    width: torch.Tensor

    @classmethod
    def of(cls, stays: StayTensors, weight: float) -> Inputs:
        """Doses get deviation `weight`, given what a linear function of the state says of them."""
        made = stays.transitions()
        codes = StateCodes.of(stays.history)
        x = torch.cat([codes.inputs(made.states), torch.ones(len(made.states), 1)], 1).double()
        y = made.doses.double()
        gram = x.T @ x + 1e-3 * len(x) * torch.eye(x.shape[1], dtype=x.dtype)
        left = (y - x @ torch.linalg.solve(gram, x.T @ y)).square().mean(0).sqrt()
        return cls(codes, (weight / left.clip(min=LEAST_DEVIATION)).float())

    @property
    def columns(self) -> int:
        """Number of inputs."""
        return self.codes.width + len(self.width)

    def __call__(self, states: torch.Tensor, doses: torch.Tensor) -> torch.Tensor:
        """(..., rows, columns) of states (rows, .) and doses (..., rows, .)."""
        seen = self.codes.inputs(states)
        return torch.cat([seen.expand(*doses.shape[:-1], -1), doses * self.width], -1)


@dataclass(frozen=True)
class Heads:
    """Answers of networks as values within their range: low + (high - low) sigmoid(z + start).

    Attributes:
        low: (quantities,).
        span: (quantities,) high - low.
        start: (policies, 1, 1, quantities) logits of the mean value that fits begin with.
    """

    low: torch.Tensor
    span: torch.Tensor
    start: torch.Tensor

    def shares(self, answers: torch.Tensor) -> torch.Tensor:
        """(policies, networks, rows, quantities) as shares of their range."""
        policies, quantities_ = self.start.shape[0], len(self.low)
        return torch.sigmoid(answers.view(policies, -1, answers.shape[1], quantities_) + self.start)

    def values(self, shares: torch.Tensor) -> torch.Tensor:
        """Shares of the range as values."""
        return self.low + self.span * shares


@dataclass(frozen=True)
class Fqe:
    r"""Q(s, x) of each policy, quantity and fit; x are executed doses.

        y = paid + discount going (refused'/max_steps + Q^(s', x')),   Q^ a slow copy,
        L = mean [ -y log Q - (1 - y) log(1 - Q) ],   in shares of each quantity's range,

    where x' is the dose ordered in s' or, where the policy defers, a draw of b, and refused' is 1
    there (in the quantity `refusal` alone); going is 0 after a terminal step, which is fitted like
    any other. The quantities of a policy and fit share hidden layers.

    Attributes:
        policies: Their names.
        quantities: Their names.
        params: How it was fitted.
        max_steps: Of the cohort.
        networks: (policies x fits x their networks), one output a quantity.
        inputs: What they see.
        heads: What their answers mean.
        patients: (stays,) number of the patient of each stay with a decision.
        first_values: By policy and quantity: (networks, stays) values at the first decisions.
    """

    policies: tuple[str, ...]
    quantities: tuple[str, ...]
    params: FqeParams
    max_steps: int
    networks: Perceptrons
    inputs: Inputs
    heads: Heads
    patients: torch.Tensor
    first_values: Mapping[str, Mapping[str, torch.Tensor]]

    @torch.no_grad()
    def value(
        self, policy: str, states: torch.Tensor, doses: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Q(s, x) by quantity, (networks, rows); a refusal in s itself is not in it."""
        if policy not in self.policies:
            raise ModelError(f"{policy}: not among the policies that were evaluated")
        place = self.policies.index(policy)
        parts = zip(torch.split(states, BLOCK), torch.split(doses, BLOCK), strict=True)
        found = torch.cat([self._answer(s, x)[place] for s, x in parts], 1)
        return {name: found[..., k] for k, name in enumerate(self.quantities)}

    def _answer(self, states: torch.Tensor, doses: torch.Tensor) -> torch.Tensor:
        answers = self.networks.answer(self.inputs(states, doses))
        return self.heads.values(self.heads.shares(answers))

    def at_first(
        self, stays: StayTensors, executed: Mapping[str, Executed]
    ) -> dict[str, dict[str, torch.Tensor]]:
        """V(s) at first decisions, of these or of other patients.

        Args:
            stays: Whole stays.
            executed: What each policy does in every row of them.
        """
        first = first_decisions(stays)
        found = {}
        for name, of_policy in executed.items():
            values: dict[str, list[torch.Tensor]] = {}
            for doses, deferred in zip(of_policy.doses, of_policy.deferred, strict=True):
                drawn = self.value(name, stays.states[first], doses[first])
                if REFUSAL in drawn:
                    drawn[REFUSAL] = drawn[REFUSAL] + deferred[first] / self.max_steps
                for quantity, value in drawn.items():
                    values.setdefault(quantity, []).append(value)
            found[name] = {q: torch.stack(each).mean(0) for q, each in values.items()}
        return found


def first_decisions(stays: StayTensors) -> torch.Tensor:
    """Rows of first decisions, one a stay that holds any."""
    return ((stays.step == 0) & stays.decision).nonzero().squeeze(1)


def fit_fqe(
    stays: StayTensors,
    policies: Mapping[str, Deployed],
    behaviour: Clinicians,
    params: FqeParams,
    generator: torch.Generator,
    progress: Callable[[int], None] | None = None,
    names: Sequence[str] | None = None,
    *,
    resample: bool = False,
) -> Fqe:
    """Evaluate policies on the patients of `stays`.

    Args:
        stays: Whole stays.
        policies: What acts, by name.
        behaviour: Who acts where a policy defers.
        params: Size and training.
        generator: Everything is drawn with it.
        progress: Called with 1 after each gradient step.
        names: Quantities; none: the primary one, every constraint's cost, refusal.
        resample: Whether each fit is fed its own bootstrap sample of patients.
    """
    cohort = stays.history.preparation.cohort
    if not policies or not len(first_decisions(stays)):
        raise ModelError("fqe: no policy or no decision to evaluate; give at least one of each")
    names = tuple(names or default_quantities(cohort))
    executed = {
        name: Executed.of(deployed, behaviour, stays.states, params.draws, generator)
        for name, deployed in policies.items()
    }
    task = _Task.of(stays, executed, quantities(stays, names))
    inputs = Inputs.of(stays, params.dose_weight)
    shape = Shape(params.fits * params.networks, inputs.columns, params.hidden, len(names))
    # every policy's begin alike, and see the same rows: luck is shared, and differences have little
    networks = Perceptrons.drawn(shape, generator).repeated(len(policies))
    fitted = Fqe(
        policies=tuple(policies),
        quantities=names,
        params=params,
        max_steps=cohort.max_steps,
        networks=networks,
        inputs=inputs,
        heads=task.heads(),
        patients=stays.patient[first_decisions(stays)],
        first_values={},
    )
    pools = _pools(task, params, generator, resample=resample)
    _train(fitted, task, pools, generator, progress)
    values = fitted.at_first(stays, executed)
    return Fqe(**{**fitted.__dict__, "first_values": values})


@dataclass(frozen=True)
class _Task:
    """Logged decisions, and what each policy would have done next."""

    states: torch.Tensor
    doses: torch.Tensor
    next_states: torch.Tensor
    next_doses: torch.Tensor  # (draws, policies, decisions, doses)
    paid: torch.Tensor  # (decisions, quantities)
    counts: torch.Tensor
    going: torch.Tensor  # discounted; (decisions, quantities)
    refused: torch.Tensor  # (draws, policies, decisions, quantities) after the step
    low: torch.Tensor
    high: torch.Tensor
    returns: torch.Tensor  # (policies, decisions, quantities) as logged
    known: torch.Tensor  # decisions of which that is known
    patient: torch.Tensor

    @classmethod
    def of(
        cls, stays: StayTensors, executed: Mapping[str, Executed], wanted: Sequence[Quantity]
    ) -> _Task:
        made = stays.transitions()
        following = stays.next_row[made.row].clip(min=0)
        going = (~made.terminal).float()
        paid = torch.stack([one.paid for one in wanted], 1)
        once = torch.tensor([one.once for one in wanted])
        discount = torch.tensor([one.discount for one in wanted])
        deferred = torch.stack([one.deferred[:, following] for one in executed.values()], 1)
        share = deferred * going / stays.history.preparation.cohort.max_steps
        refusal = torch.tensor([one.name == REFUSAL for one in wanted])
        returns = [to_go(stays, one) for one in wanted]
        logged = torch.stack([total for total, _ in returns], 1).repeat(len(executed), 1, 1)
        for j, one in enumerate(wanted):
            if one.name == REFUSAL:  # what the policy would refuse of the rows still to come
                for p, of_policy in enumerate(share.mean(0)):
                    theirs = Quantity(one.name, of_policy, one.counts, 1.0, 0.0, 1.0)
                    logged[p, :, j] = to_go(stays, theirs)[0]
        return cls(
            states=made.states,
            doses=made.doses,
            next_states=made.next_states,
            next_doses=torch.stack([one.doses[:, following] for one in executed.values()], 1),
            paid=paid,
            counts=torch.stack([one.counts for one in wanted], 1).float(),
            going=discount * going[:, None] * torch.where(once, 1 - paid, 1.0),
            refused=share[..., None] * refusal,
            low=torch.tensor([one.low for one in wanted]),
            high=torch.tensor([one.high for one in wanted]),
            returns=logged,
            known=returns[0][1].nonzero().squeeze(1),
            patient=stays.patient[made.row],
        )

    def __len__(self) -> int:
        return len(self.states)

    def heads(self) -> Heads:
        """Values that begin at the mean of what was logged."""
        span = (self.high - self.low).clip(min=1e-6)
        begun = (
            self.returns[:, self.known] if len(self.known) else self.paid.expand_as(self.returns)
        )
        mean = ((begun.mean(1) - self.low) / span).clip(LEAST, 1 - LEAST)
        return Heads(self.low, span, torch.logit(mean)[:, None, None])


def _train(
    fqe: Fqe,
    task: _Task,
    pools: Sequence[torch.Tensor],
    generator: torch.Generator,
    progress: Callable[[int], None] | None,
) -> None:
    """All steps: towards logged returns first, then towards the policies' own values."""
    params, networks = fqe.params, fqe.networks
    targets, adam = networks.twin(), Adam(networks, params.learning_rate)
    # each fit's own sample, as far as its stays' ends are known
    begun = [pool[torch.isin(pool, task.known)] for pool in pools]
    start = params.start_steps if all(len(pool) for pool in begun) else 0
    for number in range(start + params.steps):
        drawn_from = begun if number < start else pools
        rows = torch.stack([_drawn(pool, params.batch_size, generator) for pool in drawn_from])
        if number < start:
            wanted = task.returns[:, rows]
        else:
            draw = int(torch.randint(len(task.next_doses), (1,), generator=generator))
            wanted = _targets(fqe, targets, task, rows, draw)
            done = (number - start) / params.steps
            adam.learning_rate = params.learning_rate * 0.5 * (1 + math.cos(math.pi * done))
        share = (wanted.clip(task.low, task.high) - task.low) / fqe.heads.span
        given = task.doses[rows].expand(len(fqe.policies), -1, -1, -1)
        answers = networks.forward(_seen(fqe, task.states, given, rows))
        gap = (fqe.heads.shares(answers) - share) * task.counts[rows]
        if not bool(torch.isfinite(gap).all()):
            raise ModelError(
                f"fqe: not finite at gradient step {number}; a state or dose of the stays is no "
                "number, or learning_rate is too large"
            )
        networks.backward((gap / params.batch_size).view_as(answers))
        adam.step()
        # the slow copy begins where the first steps ended
        targets.flat.lerp_(networks.flat, params.target_rate if number >= start else 1.0)
        if progress is not None:
            progress(1)


@torch.no_grad()
def _targets(
    fqe: Fqe, targets: Perceptrons, task: _Task, rows: torch.Tensor, draw: int
) -> torch.Tensor:
    """(policies, networks, rows, quantities) y."""
    doses = task.next_doses[draw][:, rows]
    answers = targets.answer(_seen(fqe, task.next_states, doses, rows))
    after = fqe.heads.values(fqe.heads.shares(answers))
    return task.paid[rows] + task.going[rows] * after + task.refused[draw][:, rows]


def _seen(fqe: Fqe, states: torch.Tensor, doses: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """(policies x networks, rows, inputs): each network its own rows, each policy its own doses."""
    policies, fits, batch, count = doses.shape
    flat = fqe.inputs(states[rows.flatten()], doses.reshape(policies, fits * batch, count))
    return flat.view(policies * fits, batch, -1)


def _pools(
    task: _Task, params: FqeParams, generator: torch.Generator, *, resample: bool
) -> list[torch.Tensor]:
    """The decisions that each network draws from."""
    everyone = torch.arange(len(task))
    if not resample:
        return [everyone] * (params.fits * params.networks)
    patients = int(task.patient.max()) + 1
    pools = []
    for _ in range(params.fits):
        drawn = torch.randint(patients, (patients,), generator=generator)
        times = torch.bincount(drawn, minlength=patients)
        pools += [everyone.repeat_interleave(times[task.patient])] * params.networks
    return pools


def _drawn(pool: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
    return pool[torch.randint(len(pool), (count,), generator=generator)]
