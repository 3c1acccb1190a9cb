"""How one policy stands on test patients: against its limits, against cloning, in each subgroup.

Called by the stage evaluate, for whoever was selected; the audit reads it. All is from the cold
fits, paired by patient, and as wide as the panel's own intervals of fits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from ogsrl.evaluation.asking import CLINICIANS, Shared
from ogsrl.evaluation.bounds import Bound, Interval, Kept, holm, normal_interval
from ogsrl.evaluation.clustered import SHARE
from ogsrl.evaluation.clustered import interval as share_interval
from ogsrl.evaluation.evaluate import Evaluation
from ogsrl.evaluation.fqe import first_decisions
from ogsrl.evaluation.limits import limit_tests
from ogsrl.evaluation.quantities import VALUE, deaths, primary, tells_deaths
from ogsrl.evaluation.rollouts import by_patient
from ogsrl.preparation.coverage import cells
from ogsrl.preparation.groups import Grouping

#: Of the share of all who died: a subgroup with surely fewer is one whose deaths are not told.
TOLD = 0.25


@dataclass(frozen=True)
class Group:
    """Advantage over the clinicians in one subgroup, of the primary quantity: more is better.

    Attributes:
        grouping: E.g. age.
        label: Of the grouping.
        group: E.g. below 50.
        patients: In it; None, as all that follows, for few.
        effective: Effective sample of the policy's weights among them.
        bound: One-sided, each side at the level of the panel's interval.
        harmed: Whether the upper bound, Holm-adjusted over all subgroups, is below 0.
        untold: Whether surely fewer of them are known to have died than `TOLD` of the share of all:
            as where a site does not report deaths.
    """

    grouping: str
    label: str
    group: str
    patients: int | None
    effective: float | None
    bound: Bound | None
    harmed: Kept | None
    untold: bool | None


@dataclass(frozen=True)
class Standing:
    """Of one policy.

    Attributes:
        policy: Its name.
        limits: By limit: the upper bound of what must not exceed it, Holm-adjusted.
        lower: By limit: whether its cost is surely below the clinicians', so that less is missed.
        than: Advantage over each of these other policies, paired.
        groups: Its advantage in each subgroup.
    """

    policy: str
    limits: Mapping[str, Kept]
    lower: Mapping[str, bool]
    than: Mapping[str, Bound]
    groups: tuple[Group, ...]

    def plain(self) -> dict[str, Any]:
        """`<policy>.<what>.<which>.<field>`; what: limits, than, groups (numbered)."""
        told: dict[str, Any] = {}
        for name, kept in self.limits.items():
            told |= _prefixed(f"limits.{name}", _bound(kept.bound))
            told |= {f"limits.{name}.limit": kept.limit, f"limits.{name}.kept": kept.kept}
            told[f"limits.{name}.surely_lower"] = self.lower[name]
        for name, bound in self.than.items():
            told |= _prefixed(f"than.{name}", _bound(bound))
        for number, one in enumerate(self.groups):
            at = f"groups.{number}"
            told |= {f"{at}.grouping": one.grouping, f"{at}.label": one.label}
            told |= {f"{at}.group": one.group, f"{at}.patients": one.patients}
            told[f"{at}.effective"] = one.effective
            told |= _prefixed(at, _bound(one.bound))
            told[f"{at}.adjusted_hi"] = one.harmed and one.harmed.bound.high
            told[f"{at}.harmed"] = one.harmed and one.harmed.kept
            told[f"{at}.untold"] = one.untold
        return {f"{self.policy}.{name}": value for name, value in told.items()}


def standing(
    evaluation: Evaluation, policy: str, others: Sequence[str], groupings: Sequence[Grouping]
) -> Standing:
    """How a policy stands.

    Args:
        evaluation: With it.
        policy: Its name.
        others: Policies it is compared with, beside the clinicians.
        groupings: Of the rows of the test patients.
    """
    shared = evaluation.shared
    cohort = shared.grounds.test.history.preparation.cohort
    decisive, confidence = primary(cohort), shared.params.confidence
    sign = 1 if decisive == VALUE else -1
    fits = shared.fqe.first_values
    patients = shared.fqe.patients
    own, theirs = (
        {q: by_patient(value, patients) for q, value in fits[name].items()}
        for name in (policy, CLINICIANS)
    )
    plain, missed = partial(_plain, shared), shared.params.limits_miss
    less, tests = shared.params.limits_miss_lower, limit_tests(own, theirs, cohort)
    limits = holm(
        {
            name: (partial(test.bound, plain, missed, less), test.most)
            for name, test in tests.items()
        },
        confidence,
    )
    lower = {n: test.lower(plain, missed, limits[n].bound.level) for n, test in tests.items()}
    interval = _interval(shared, decisive)
    than = {other: advantage_over(shared, policy, other) for other in others}
    advantage = sign * (fits[policy][decisive] - fits[CLINICIANS][decisive])
    groups = _groups(shared, policy, advantage, groupings, interval)
    return Standing(policy, limits, lower, than, groups)


def advantage_over(shared: Shared, policy: str, other: str) -> Bound:
    """Of one policy over another on the same patients, of the primary quantity: more is better."""
    decisive = primary(shared.grounds.test.history.preparation.cohort)
    sign = 1 if decisive == VALUE else -1
    fits = shared.fqe.first_values
    apart = sign * (fits[policy][decisive] - fits[other][decisive])
    level = (1 + shared.params.confidence) / 2
    return _interval(shared, decisive)(by_patient(apart, shared.fqe.patients), level)


def _interval(shared: Shared, quantity: str) -> Interval:
    """Of differences of fits, as wide as they were found to have to be."""
    return _wider(shared, shared.params.inflation.of(quantity, gain=True))


def _wider(shared: Shared, times: float) -> Interval:
    """Of differences of fits, so many times wider."""
    return lambda values, level: _plain(shared, values, level).wider(times)


def _plain(shared: Shared, values: torch.Tensor, level: float) -> Bound:
    networks = shared.fqe.params.networks
    return normal_interval(values, level, resampled=True, networks=networks)


def _groups(
    shared: Shared,
    policy: str,
    advantage: torch.Tensor,
    groupings: Sequence[Grouping],
    interval: Interval,
) -> tuple[Group, ...]:
    """Every subgroup; those of few patients have a name alone."""
    first = first_decisions(shared.grounds.test)
    patients, level = shared.fqe.patients, shared.params.confidence
    found: dict[tuple[str, str], tuple[Grouping, torch.Tensor | None]] = {}
    for grouping in groupings:
        code = torch.from_numpy(grouping.code)[first]
        hidden = cells(
            code.numpy(), patients.numpy(), len(grouping.groups), total_known=True
        ).suppressed
        for number, group in enumerate(grouping.groups):
            here = code == number
            if bool(here.any()):
                shown = None if number in hidden else here
                found[grouping.name, group] = grouping, shown
    values = {
        key: by_patient(advantage[:, here], patients[here])
        for key, (_, here) in found.items()
        if here is not None
    }
    below = math.nextafter(0.0, -math.inf)  # one who does as clinicians do harms nobody
    harmed = holm({key: (partial(interval, one), below) for key, one in values.items()}, level)
    weights = _last_weights(shared, policy)
    made = []
    for key, (grouping, shown) in found.items():
        told = shown is not None
        made.append(
            Group(
                grouping=grouping.name,
                label=grouping.label,
                group=key[1],
                patients=values[key].shape[1] if told else None,
                effective=None if shown is None else _effective(weights[shown], patients[shown]),
                bound=interval(values[key], (1 + level) / 2) if told else None,
                harmed=harmed.get(key),
                untold=None if shown is None else _untold(shared, shown),
            )
        )
    return tuple(made)


def _untold(shared: Shared, here: torch.Tensor) -> bool | None:
    """Whether deaths seem not to be told of the stays here; None where deaths are not known."""
    stays = shared.grounds.test
    if not tells_deaths(stays.history.preparation.cohort):
        return None
    died = torch.zeros(int(stays.patient.max()) + 1, dtype=torch.float64)
    died[stays.patient[deaths(stays)]] = 1.0
    everybody = torch.unique(shared.fqe.patients)
    some = torch.unique(shared.fqe.patients[here])
    share, all_of_them = float(died[some].mean()), float(died[everybody].mean())
    error = (share * (1 - share) / len(some)) ** 0.5
    high = share_interval(share, error, len(some), shared.params.confidence, SHARE)[1]
    return bool(high < TOLD * all_of_them)


def _last_weights(shared: Shared, policy: str) -> torch.Tensor:
    """(stays with a decision,) the last weight of each under the policy; 0 of an unknown end."""
    decisive = primary(shared.grounds.test.history.preparation.cohort)
    record = shared.records(policy, shared.params.bandwidths[0])[decisive]
    layout, first = shared.layout, first_decisions(shared.grounds.test)
    begun = layout.row[layout.step == 0]
    of_record = torch.zeros(len(layout.patient), dtype=torch.int64)
    of_record[layout.stay[layout.step == 0]] = begun
    place = torch.from_numpy(np.searchsorted(first.numpy(), of_record.numpy()))
    weights = torch.zeros(len(first), dtype=torch.float64)
    weights[place] = record.weights[:, -1]
    return weights


def _effective(weights: torch.Tensor, patient: torch.Tensor) -> float:
    """(sum w)^2 / sum w^2 over patients."""
    number = torch.unique(patient, return_inverse=True)[1]
    each = torch.zeros(int(number.max()) + 1, dtype=torch.float64).index_add_(0, number, weights)
    total = float(each.sum())
    return total**2 / float(each.square().sum()) if total > 0 else 0.0


def _bound(bound: Bound | None) -> dict[str, float | None]:
    if bound is None:
        return dict.fromkeys(("estimate", "lo", "hi", "level"))
    fields = (bound.estimate, bound.low, bound.high, bound.level)
    return dict(zip(("estimate", "lo", "hi", "level"), fields, strict=True))


def _prefixed(prefix: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{prefix}.{name}": value for name, value in fields.items()}
