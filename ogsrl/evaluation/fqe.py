"""Fitted Q evaluation of what policies do as `Deployed`, all policies and fits side by side.

Called by selection, and by everything that needs a policy's value from logged patients. Cold fits:
each begins with weights of its own. It never looks at other patients than those it is given.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from ogsrl.errors import ModelError
from ogsrl.evaluation.config import FqeParams
from ogsrl.evaluation.executed import BLOCK, Clinicians, Executed
from ogsrl.evaluation.fqe_parts import Heads, Inputs, Seen, Task, first_decisions
from ogsrl.evaluation.fqe_table import Tables, is_table, known_chances, solve
from ogsrl.evaluation.quantities import REFUSAL, default_quantities, quantities
from ogsrl.policies.deployed import Deployed
from ogsrl.policies.networks import Adam, Perceptrons, Shape
from ogsrl.preparation.tensors import StayTensors

__all__ = ["Fqe", "Sampling", "first_decisions", "fit_fqe"]


@dataclass(frozen=True)
class Sampling:
    """Which patients a fit is fed.

    Attributes:
        resample: Each fit its own bootstrap sample of patients.
        folds: With more than one, each fit has a network a fold of patients, fed all others; its
            value of a patient is that of the network that never saw them.
        tables: Whether values are solved on a table where a state is one code; never what is
            saved, for its cells are of few patients.
        others: More patients, fed to every network; no value is asked of them.
    """

    resample: bool = False
    folds: int = 1
    tables: bool = True
    others: StayTensors | None = None


#: All patients, whoever is evaluated.
WHOLE = Sampling()


@dataclass(frozen=True)
class Networks:
    """Q of each policy, network and quantity, trained.

    Attributes:
        stack: (policies x networks), one output a quantity.
        inputs: What they see.
        heads: What their answers mean.
    """

    stack: Perceptrons
    inputs: Inputs
    heads: Heads

    @classmethod
    def drawn(
        cls, task: Task, inputs: Inputs, params: FqeParams, folds: int, generator: torch.Generator
    ) -> Networks:
        """Every policy's begin alike, and see the same rows: luck is shared by differences."""
        heads = task.heads()
        each = params.fits * folds * params.networks
        shape = Shape(each, inputs.columns, params.hidden, len(heads.low))
        stack = Perceptrons.drawn(shape, generator).repeated(len(heads.start))
        return cls(stack, inputs, heads)

    def values(self, policy: int, states: torch.Tensor, doses: torch.Tensor) -> torch.Tensor:
        """(networks, rows, quantities) Q."""
        each = self.stack.shape.networks // len(self.heads.start)
        theirs = self.stack.some(slice(policy * each, (policy + 1) * each))
        answers = theirs.answer(*self.inputs(states, doses))
        return self.heads.values(torch.sigmoid(answers + self.heads.start[policy]))

    def seen(self, states: torch.Tensor, unusual: torch.Tensor, rows: torch.Tensor) -> Seen:
        """(policies x networks, rows, .): each network its own rows, each policy its own doses."""
        policies, networks, batch, count = unusual.shape
        flat = self.inputs.beside(states[rows.flatten()], unusual.reshape(policies, -1, count))
        return flat.each(lambda one: one.reshape(policies * networks, batch, -1))


@dataclass(frozen=True)
class Fqe:
    r"""Q(s, x) of each policy, quantity and fit; x are executed doses.

        y = paid + discount going (refused'/max_steps + Q^(s', x')),   Q^ a slow copy,
        L = mean w [ -y log Q - (1 - y) log(1 - Q) ],   in shares of each quantity's range,

    where x' is the dose ordered in s' or, where the policy defers, a draw of b, and refused' is 1
    there (in the quantity `refusal` alone); going is 0 after a terminal step, which is fitted like
    any other. The quantities of a policy and fit share hidden layers; w is the inverse of what
    logged shares deviate by, so that what patients differ little in is learned as well.

    Attributes:
        policies: Their names.
        quantities: Their names.
        params: How it was fitted.
        max_steps: Of the cohort.
        answers: Networks (fits x theirs), or tables where a state is one code.
        patients: (stays,) number of the patient of each stay with a decision.
        fold: (fits, stays) which fold each stay's patient is in; all 0 without folds.
        executed: By policy: what it does in each row of the stays of the fit.
        first_values: By policy and quantity: (networks, stays) values at the first decisions, of
            networks that never saw the patient where there are folds.
    """

    policies: tuple[str, ...]
    quantities: tuple[str, ...]
    params: FqeParams
    max_steps: int
    answers: Networks | Tables
    patients: torch.Tensor
    fold: torch.Tensor
    executed: Mapping[str, Executed]
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
        found = torch.cat([self.answers.values(place, *part) for part in parts], 1)
        return {name: found[..., k] for k, name in enumerate(self.quantities)}

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

    def at_own_first(
        self, stays: StayTensors, executed: Mapping[str, Executed]
    ) -> dict[str, dict[str, torch.Tensor]]:
        """V(s) at first decisions of the patients of the fit, each by networks not fed them.

        Args:
            stays: Those of the fit.
            executed: What is done there, by whose values are asked.
        """
        found = self.at_first(stays, executed)
        return {
            name: {q: _of_others(value, self.fold, self.params) for q, value in of_policy.items()}
            for name, of_policy in found.items()
        }


def fit_fqe(
    stays: StayTensors,
    policies: Mapping[str, Deployed],
    behaviour: Clinicians,
    params: FqeParams,
    generator: torch.Generator,
    progress: Callable[[int], None] | None = None,
    names: Sequence[str] | None = None,
    *,
    sampling: Sampling = WHOLE,
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
        sampling: Which patients each fit is fed.
    """
    cohort = stays.history.preparation.cohort
    if not policies or not len(first_decisions(stays)):
        raise ModelError("fqe: no policy or no decision to evaluate; give at least one of each")
    names = tuple(names or default_quantities(cohort))
    fed = stays if sampling.others is None else stays.beside(sampling.others)
    everywhere = {
        name: Executed.of(deployed, behaviour, fed.states, params.draws, generator)
        for name, deployed in policies.items()
    }
    task = Task.of(fed, everywhere, quantities(fed, names))
    networks = None
    if not (sampling.tables and is_table(stays.history)):
        inputs = Inputs.of(fed, params.dose_weight)
        networks = Networks.drawn(task, inputs, params, sampling.folds, generator)
    counts = int(stays.patient.max()) + 1, int(fed.patient.max()) + 1
    fold = _folds(*counts, params, sampling.folds, generator)
    if networks is None:
        fold = fold[:1].expand_as(fold)  # tables of samples are centred: see Tables.centred_on
    pools = _pools(task, params, fold, generator, resample=sampling.resample)
    answers: Networks | Tables
    if networks is None:
        known = task, stays.history, policies, known_chances(behaviour), names
        answers = solve(*known, pools)
        if sampling.resample:
            whole = _pools(task, params, fold[:1], generator, resample=False)
            answers = answers.centred_on(solve(*known, whole), params.fits, task)
        if progress is not None:
            progress(params.start_steps + params.steps)
    else:
        answers = networks
        _train(networks, task, pools, params, generator, progress)
    patients = stays.patient[first_decisions(stays)]
    executed = {name: one.first(len(stays.states)) for name, one in everywhere.items()}
    fitted = Fqe(
        policies=tuple(policies),
        quantities=names,
        params=params,
        max_steps=cohort.max_steps,
        answers=answers,
        patients=patients,
        fold=fold[:, patients],
        executed=executed,
        first_values={},
    )
    return replace(fitted, first_values=fitted.at_own_first(stays, executed))


def _train(
    networks: Networks,
    task: Task,
    pools: Sequence[torch.Tensor],
    params: FqeParams,
    generator: torch.Generator,
    progress: Callable[[int], None] | None,
) -> None:
    """All steps: towards logged returns first, then towards the policies' own values."""
    stack, heads, weights = networks.stack, networks.heads, task.weights()
    unusual = networks.inputs.unusual(task.states, task.doses)
    then = networks.inputs.unusual(task.next_states, task.next_doses)
    targets, adam = replace(networks, stack=stack.twin()), Adam(stack, params.learning_rate)
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
            wanted = _targets(targets, task, rows, then[draw], task.refused[draw])
            done = (number - start) / params.steps
            adam.learning_rate = params.learning_rate * 0.5 * (1 + math.cos(math.pi * done))
        share = (wanted.clip(task.low, task.high) - task.low) / heads.span
        given = unusual[rows].expand(len(wanted), -1, -1, -1)
        answers = stack.forward(*networks.seen(task.states, given, rows))
        gap = (heads.shares(answers) - share) * task.counts[rows] * weights
        if not bool(torch.isfinite(gap).all()):
            raise ModelError(
                f"fqe: not finite at gradient step {number}; a state or dose of the stays is no "
                "number, or learning_rate is too large"
            )
        stack.backward((gap / params.batch_size).view_as(answers))
        adam.step()
        # the slow copy begins where the first steps ended
        rate = params.target_rate if number >= start else 1.0
        targets.stack.flat.lerp_(stack.flat, rate)
        if progress is not None:
            progress(1)


@torch.no_grad()
def _targets(
    targets: Networks, task: Task, rows: torch.Tensor, then: torch.Tensor, refused: torch.Tensor
) -> torch.Tensor:
    """(policies, networks, rows, quantities) y, of (policies, decisions, .) doses and refusals."""
    answers = targets.stack.answer(*targets.seen(task.next_states, then[:, rows], rows))
    after = targets.heads.values(targets.heads.shares(answers))
    return task.paid[rows] + task.going[rows] * after + refused[:, rows]


def _folds(
    asked: int, patients: int, params: FqeParams, folds: int, generator: torch.Generator
) -> torch.Tensor:
    """(fits, patients) which fold each of whom values are asked is in, the others -1."""
    found = torch.full((params.fits, patients), -1)
    if asked < folds:
        raise ModelError(f"fqe: {asked} patients cannot be parted into {folds} folds")
    for of_fit in found:
        places = torch.arange(asked) if folds == 1 else torch.randperm(asked, generator=generator)
        of_fit[:asked] = places % folds
    return found


def _pools(
    task: Task,
    params: FqeParams,
    fold: torch.Tensor,
    generator: torch.Generator,
    *,
    resample: bool,
) -> list[torch.Tensor]:
    """The decisions that each network draws from: fits, in each folds, in each its networks."""
    everyone, patients = torch.arange(len(task)), fold.shape[1]
    folds = int(fold.max()) + 1
    pools = []
    for of_fit in fold:
        times = torch.ones(patients, dtype=torch.int64)
        if resample:
            drawn = torch.randint(patients, (patients,), generator=generator)
            times = torch.bincount(drawn, minlength=patients)
        for k in range(folds):
            kept = times * (of_fit != k) if folds > 1 else times
            pools += [everyone.repeat_interleave(kept[task.patient])] * params.networks
    return pools


def _of_others(values: torch.Tensor, fold: torch.Tensor, params: FqeParams) -> torch.Tensor:
    """(fits x networks, stays) of the networks that never saw the stay's patient.

    Args:
        values: (fits x folds x networks, stays).
        fold: (fits, stays).
        params: Of the fits.
    """
    each = values.view(params.fits, -1, params.networks, values.shape[1])
    if each.shape[1] == 1:
        return values
    place = fold[:, None, None, :].expand(-1, 1, params.networks, -1)
    return each.gather(1, place).reshape(params.fits * params.networks, -1)


def _drawn(pool: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
    return pool[torch.randint(len(pool), (count,), generator=generator)]
