"""What evaluation asks of each estimator, for one policy after another.

Called by `ogsrl.evaluation.evaluate` alone. All that several policies share is made once: densities
of what was logged, samples of patients, fits, the model's luck.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch

from ogsrl.behaviour.policy import Behaviour
from ogsrl.evaluation.config import EvaluateParams
from ogsrl.evaluation.estimators import WEIGHTED, WITH_VALUES, Asked, Estimate
from ogsrl.evaluation.estimators.fitted import LARGEST_SPREAD, Fits, estimate
from ogsrl.evaluation.executed import Executed
from ogsrl.evaluation.fqe import Fqe, Sampling, fit_fqe
from ogsrl.evaluation.fqe_table import is_table, never_given
from ogsrl.evaluation.intervals import Interval, Samples
from ogsrl.evaluation.quantities import (
    REFUSAL,
    VALUE,
    Quantity,
    default_quantities,
    primary,
    quantities,
)
from ogsrl.evaluation.record import Record
from ogsrl.evaluation.records import Layout, fitted_values, log_density, records
from ogsrl.evaluation.rollouts import Expected, Model, Rollouts, by_patient
from ogsrl.evaluation.smoothed import Smoothing
from ogsrl.policies.deployed import Deployed
from ogsrl.preparation.tensors import StayTensors

#: The clinicians themselves, as they are told.
CLINICIANS = "clinicians"
FITTED, ROLLOUTS = "fqe", "rollouts"
#: Share of decisions that nobody was ever given, above which tables say nothing.
LARGEST_UNSEEN = 0.05
#: So many standard errors are no chance.
SURELY = 2.0


@dataclass(frozen=True)
class Grounds:
    """What is known of patients.

    Attributes:
        test: Whole stays of patients that nothing was fitted on.
        behaviour: b, of training patients.
        train: Training patients, for fitted values; None: estimators with values are not asked.
        others: Patients by whom no policy was trained or chosen: cross-fitted values learn from
            them too.
        model: Dynamics; None: `rollouts` is not asked.
        foreign: Whether the patients are of another place than b: then weights, which rest on b,
            have no vote, and fits are off by at least what they miss of what was logged.
    """

    test: StayTensors
    behaviour: Behaviour
    train: StayTensors | None = None
    others: StayTensors | None = None
    model: Model | None = None
    foreign: bool = False


def asked_quantities(grounds: Grounds) -> tuple[str, ...]:
    """The primary one, each constraint's cost, refusals, value."""
    names = default_quantities(grounds.test.history.preparation.cohort)
    return names if VALUE in names else (*names, VALUE)


@dataclass(frozen=True)
class Shared:
    """What all policies have in common.

    Attributes:
        grounds: Patients and models.
        params: Of evaluation.
        wanted: Quantities by name.
        layout: Logged decisions that estimators see.
        log_b: Of them.
        samples: Of patients.
        executed: By policy: what it does in each test row.
        fqe: Cross-fitted on test patients.
        values: Fitted on training patients.
        rollouts: Where policies are followed.
        followed: What came of the clinicians there.
        seed: Of what is drawn for one policy, the same for each.
    """

    grounds: Grounds
    params: EvaluateParams
    wanted: Mapping[str, Quantity]
    layout: Layout
    log_b: torch.Tensor
    samples: Samples
    executed: Mapping[str, Executed]
    fqe: Fqe
    values: Fqe | None
    rollouts: Rollouts | None
    followed: Expected | None
    seed: int

    @classmethod
    def of(
        cls,
        policies: Mapping[str, Deployed],
        grounds: Grounds,
        params: EvaluateParams,
        generator: torch.Generator,
        say: Callable[[int], None],
    ) -> Shared:
        """Fit what is to be fitted; the clinicians are among the policies."""
        test, behaviour = grounds.test, grounds.behaviour
        names = asked_quantities(grounds)
        layout = Layout.of(test)
        sampling = Sampling(resample=True, folds=params.folds, others=grounds.others)
        fqe = fit_fqe(
            test, policies, behaviour, params.fqe, generator, say, names, sampling=sampling
        )  # fmt: skip
        values = rollouts = followed = None
        if grounds.train is not None and any(name in WITH_VALUES for name in params.estimators):
            train = grounds.train
            values = fit_fqe(train, policies, behaviour, params.values, generator, say, names)
        if grounds.model is not None and ROLLOUTS in params.estimators:
            stays = len(fqe.patients)
            rollouts = Rollouts.of(grounds.model, behaviour, test, stays, generator)
            followed = rollouts.follow(policies[CLINICIANS])
        return cls(
            grounds=grounds,
            params=params,
            wanted={one.name: one for one in quantities(test, names)},
            layout=layout,
            log_b=log_density(behaviour, test, layout),
            samples=Samples(params.bootstrap, generator),
            executed=fqe.executed,
            fqe=fqe,
            values=values,
            rollouts=rollouts,
            followed=followed,
            seed=int(torch.randint(2**31, (1,), generator=generator)),
        )

    def asked(self, *, gain: bool) -> Asked:
        """What is asked of weighted estimators."""
        return Asked(self.params.confidence, self.samples, gain)

    def records(self, name: str, bandwidth: float) -> dict[str, Record]:
        """What was logged, read for a policy whose doses are spread so much."""
        test, behaviour = self.grounds.test, self.grounds.behaviour
        smoothing = Smoothing(behaviour.known.marginal.grids, bandwidth)
        mine, fitted = self.executed[name], None
        if self.values is not None:
            generator = torch.Generator().manual_seed(self.seed)
            fitted = fitted_values(
                self.values, name, test, self.layout, mine, behaviour, smoothing, generator
            )
        wanted = list(self.wanted.values())
        return records(test, self.layout, mine, self.log_b, smoothing, wanted, fitted)

    def trusted(self, weighted: Estimate) -> Estimate:
        """The same; without a vote where b is of another place."""
        if not self.grounds.foreign:
            return weighted
        told = "its weights rest on the clinicians of another place"
        said = f"{weighted.diagnosis}; {told}" if weighted.diagnosis else told
        return replace(weighted, votes=False, diagnosis=said)

    def fitted(self, name: str, quantity: str, *, gain: bool) -> Estimate:
        """What cold fits say."""
        values = by_patient(self.fqe.first_values[name][quantity], self.fqe.patients)
        return self.fits(name, values, quantity, gain=gain)

    def fits(self, name: str, of_policy: torch.Tensor, quantity: str, *, gain: bool) -> Estimate:
        """The same of (networks, patients) values of a policy, whose doses they rest on."""
        one = self.wanted[quantity]
        low, high = one.low, one.high
        if gain:
            theirs = self.fqe.first_values[CLINICIANS][quantity]
            of_policy = of_policy - by_patient(theirs, self.fqe.patients)
            low, high = low - high, high - low
        steps = int(self.grounds.test.decision.sum())
        fits = Fits(
            of_policy,
            self.fqe.params.networks,
            steps,
            low,
            high,
            gain,
            doubt=self.doubt(quantity) or self.unseen(name),
            missed=self.missed(quantity) if self.grounds.foreign else 0.0,
        )
        inflation = self.params.inflation.of(quantity, gain=gain)
        return estimate(fits, self.params.confidence, inflation)

    def seen(self, quantity: str) -> torch.Tensor:
        """(patients,) what was logged; of refusals, those of one who always defers."""
        one, layout = self.wanted[quantity], self.layout
        paid = (one.paid * one.counts)[layout.decision].double()
        if quantity == REFUSAL:
            most = self.grounds.test.history.preparation.cohort.max_steps
            paid = torch.full_like(paid, 1 / most)
        of_stay = torch.zeros(len(layout.patient), dtype=torch.float64)
        of_stay.index_add_(0, layout.stay, paid * one.discount**layout.step)
        return by_patient(of_stay[None], layout.patient)[0]

    def said(self, quantity: str) -> float:
        """What fits say of the clinicians."""
        theirs = self.fqe.first_values[CLINICIANS][quantity]
        return float(by_patient(theirs, self.fqe.patients).mean())

    def missed(self, quantity: str) -> float:
        """How far that is from what was logged."""
        return abs(self.said(quantity) - float(self.seen(quantity).mean()))

    def unseen(self, name: str) -> str | None:
        """Why fits are not to be believed of a policy that gives what nobody was given.

        Of a table, which says of such doses what it says of the code.
        """
        if not is_table(self.grounds.test.history):
            return None
        share = never_given(self.executed[name], self.grounds.test, self.grounds.train)
        if share <= LARGEST_UNSEEN:
            return None
        return f"{share:.3f} of its decisions give what nobody in that state was given"

    def doubt(self, quantity: str) -> str | None:
        """Why fits are not to be believed, if what they say of clinicians is not what was seen.

        Fits that learned too little agree with each other all the same.
        """
        one, seen = self.wanted[quantity], self.seen(quantity)
        error = float(seen.std()) / math.sqrt(len(seen))
        if self.missed(quantity) <= max(LARGEST_SPREAD * (one.high - one.low), SURELY * error):
            return None
        told = self.said(quantity), float(seen.mean())
        return "of the clinicians they say {:.3f} where {:.3f} was seen".format(*told)

    def rolled(self, expected: Expected, quantity: str, *, gain: bool) -> Estimate | None:
        """What the model says; None of what it does not follow."""
        one = self.wanted[quantity]
        each = expected.each.get(quantity)
        if each is None or self.followed is None:
            return None
        low, high = one.low, one.high
        if gain:
            each = each - self.followed.each[quantity]
            low, high = low - high, high - low
        mean, error = float(each.mean()), float(each.std()) / math.sqrt(len(each))
        share = torch.tensor((1 + self.params.confidence) / 2, dtype=torch.float64)
        half = float(torch.special.ndtri(share)) * error
        interval = Interval(mean - half, mean + half).within(low, high)
        return Estimate(
            estimate=mean,
            low=interval.low,
            high=interval.high,
            level=self.params.confidence,
            ess=None,
            max_weight=None,
            patients=len(each),
            steps=round(float(expected.steps.sum())),
            votes=False,
            diagnosis="followed in the model of training patients: it informs and has no vote; "
            "its interval knows of patients alone",
        )


@dataclass(frozen=True)
class Case:
    """One policy, asked about.

    Attributes:
        shared: What it has in common with others.
        name: Its own.
        records: At the panel's bandwidth.
        expected: In the model.
    """

    shared: Shared
    name: str
    records: Mapping[str, Record]
    expected: Expected | None

    @classmethod
    def of(cls, shared: Shared, name: str, deployed: Deployed) -> Case:
        """Read the logs for it, and follow it."""
        expected = None if shared.rollouts is None else shared.rollouts.follow(deployed)
        return cls(shared, name, shared.records(name, shared.params.bandwidths[0]), expected)

    def quantities(self, *, gain: bool) -> Iterator[str]:
        """What may be asked: clinicians refuse nothing, and gain nothing on themselves."""
        for quantity in self.shared.wanted:
            if quantity != REFUSAL or not (gain or self.name == CLINICIANS):
                yield quantity

    def estimates(self, quantity: str, *, gain: bool) -> dict[str, Estimate]:
        """By estimator, in the order of the parameters."""
        shared = self.shared
        found: dict[str, Estimate] = {}
        for name in shared.params.estimators:
            if name == FITTED:
                found[name] = shared.fitted(self.name, quantity, gain=gain)
            elif name == ROLLOUTS:
                rolled = self.expected and shared.rolled(self.expected, quantity, gain=gain)
                if rolled:
                    found[name] = rolled
            elif name not in WITH_VALUES or shared.values is not None:
                weighted = WEIGHTED[name](self.records[quantity], shared.asked(gain=gain))
                found[name] = shared.trusted(weighted)
        return found

    def first_dose(self, quantity: str, *, gain: bool) -> dict[str, Estimate]:
        """Of the policy that gives the first dose of a stay, clinicians all others.

        Its fitted value is the clinicians' own at that dose; those with values are not asked.
        """
        shared, record = self.shared, self.records[quantity]
        ratio = torch.ones_like(record.ratio)
        ratio[:, 0] = record.ratio[:, 0]
        found: dict[str, Estimate] = {
            name: shared.trusted(
                WEIGHTED[name](replace(record, ratio=ratio), shared.asked(gain=gain))
            )
            for name in shared.params.estimators
            if name in WEIGHTED and name not in WITH_VALUES
        }
        values = by_patient(self.first_values(quantity), shared.fqe.patients)
        return {FITTED: shared.fits(self.name, values, quantity, gain=gain), **found}

    def first_values(self, quantity: str) -> torch.Tensor:
        """(networks, stays) of the clinicians, at the first doses that the policy would give."""
        shared = self.shared
        asked = {CLINICIANS: shared.executed[self.name]}
        return shared.fqe.at_own_first(shared.grounds.test, asked)[CLINICIANS][quantity]

    def frontier(self) -> Iterator[tuple[str, float, Estimate]]:
        """Weighted estimates of the primary quantity, by bandwidth."""
        shared = self.shared
        decisive = primary(shared.grounds.test.history.preparation.cohort)
        for bandwidth in shared.params.bandwidths:
            first = bandwidth == shared.params.bandwidths[0]
            made = self.records if first else shared.records(self.name, bandwidth)
            for name in shared.params.estimators:
                if name in WEIGHTED and (name not in WITH_VALUES or shared.values is not None):
                    weighted = WEIGHTED[name](made[decisive], shared.asked(gain=False))
                    yield name, bandwidth, shared.trusted(weighted)
