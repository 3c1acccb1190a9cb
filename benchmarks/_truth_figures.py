"""The figures of the benchmark of truth, from what was measured: pure functions, no simulation.

Called by benchmarks.truth. They decide what counts as closing the gap, so tests hold them to
answers that must not count: a policy that always defers, and the clinicians' own doses.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy.stats import t as students_t

#: A multiplier counts as active where it was positive in at least this share of updates.
ACTIVE = 0.05
LEVEL = 0.95


@dataclass(frozen=True)
class SeedResult:
    """One seed of an algorithm, as it acts, in truth.

    Attributes:
        mortality: Of the checkpoint that selection chose.
        within_limits: Whether every true cost and the refusals are within their limits.
        selected: Whether selection found it feasible; else it is the least bad of the seed.
        steps_deferred: Share of the steps lived that were deferred.
        multipliers: Share of updates in which each multiplier was positive.
    """

    mortality: float
    within_limits: bool
    selected: bool
    steps_deferred: float
    multipliers: Mapping[str, float]


@dataclass(frozen=True)
class HarderResult:
    """What one harder cohort ended with; a cohort without a policy selected has None's.

    Attributes:
        gain: The clinicians' mortality less the policy's, on the same patients.
        gain_se: Its standard error.
        broken: True limits that the policy exceeds.
    """

    gain: float | None
    gain_se: float | None
    broken: tuple[str, ...] = ()

    @property
    def selected(self) -> bool:
        """Whether a policy was selected at all."""
        return self.gain is not None


def gap(mortality: float, reference: float, oracle: float) -> float:
    """Share of what could be gained over the reference that a policy does gain.

    >>> round(gap(0.16, reference=0.2, oracle=0.15), 6)
    0.8
    """
    if oracle >= reference:
        raise ValueError("the oracle is no better than the reference; there is no gap to close")
    return (reference - mortality) / (reference - oracle)


def lower_bound(values: Sequence[float], level: float = LEVEL) -> float:
    """One-sided t bound of the mean from below; minus infinity of a single value.

    >>> round(lower_bound([0.7, 0.8, 0.9, 0.8, 0.8]), 3)
    0.733
    """
    if len(values) < 2:
        return -math.inf
    error = statistics.stdev(values) / math.sqrt(len(values))
    return statistics.mean(values) - float(students_t.ppf(level, len(values) - 1)) * error


def gain_in_se(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """How many standard errors of the mean difference, paired by seed, `ours` lies below `theirs`.

    >>> round(gain_in_se([0.15, 0.16, 0.15], [0.19, 0.19, 0.18]), 2)
    10.0
    """
    differences = [b - a for a, b in zip(ours, theirs, strict=True)]
    if len(differences) < 2:
        return math.nan
    error = statistics.stdev(differences) / math.sqrt(len(differences))
    mean = statistics.mean(differences)
    if error > 0:
        return mean / error
    return 0.0 if mean == 0 else math.copysign(math.inf, mean)


def default_figures(
    ours: Sequence[SeedResult], cloning: Sequence[SeedResult], reference: float, oracle: float
) -> dict[str, float]:
    """What the seeds say together; seeds of both algorithms are paired in order.

    Args:
        ours: The guarded policy, a seed each.
        cloning: Behaviour cloning, the same seeds.
        reference: M_ref, the better of clinicians and clinicians without variation.
        oracle: M_oracle.
    """
    gaps = [gap(one.mortality, reference, oracle) for one in ours]
    shares = [share for one in ours for share in one.multipliers.values()]
    return {
        "gap_closed": statistics.mean(gaps),
        "gap_closed_lo": lower_bound(gaps),
        "gap_closed_worst": min(gaps),
        "seeds": len(ours),
        "seeds_feasible": sum(one.within_limits and one.selected for one in ours),
        "seeds_selected": sum(one.selected for one in ours),
        # nothing told of a multiplier is no evidence that it was ever active
        "multipliers_active": sum(s >= ACTIVE for s in shares) / len(shares) if shares else 0.0,
        "multipliers_least": min(shares, default=0.0),
        "steps_deferred": max(one.steps_deferred for one in ours),
        "gain_over_bc": statistics.mean(b.mortality for b in cloning)
        - statistics.mean(a.mortality for a in ours),
        "gain_over_bc_in_se": gain_in_se(
            [one.mortality for one in ours], [one.mortality for one in cloning]
        ),
    }


def harder_figures(found: Mapping[str, HarderResult]) -> dict[str, float]:
    """What must not happen on harder cohorts, and that honesty is not silence.

    A cohort without a policy is treated by its clinicians: its margin is 0.
    """
    margins = {
        name: 0.0 if one.gain is None else one.gain + 2 * (one.gain_se or 0.0)
        for name, one in found.items()
    }
    return {
        "harder_worst_margin": min(margins.values()),
        "harder_breaches": sum(len(one.broken) for one in found.values() if one.selected),
        "harder_selected": sum(one.selected for one in found.values()),
        **{f"harder_margin_{name}": value for name, value in margins.items()},
        **{f"harder_selected_{name}": float(one.selected) for name, one in found.items()},
    }
