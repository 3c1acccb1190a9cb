"""What the cohorts of benchmarks.coverage come to: how often intervals held, and what was said.

Pure: parts and truths in, figures out. Intervals of shares are over cohorts, for what is said of
one cohort hangs together.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks._coverage_policies import BETTER, CLINICIANS, DEADLY
from ogsrl.evaluation.config import Inflation, kind
from ogsrl.evaluation.known import Known, Truths
from ogsrl.evaluation.panel import INFORMS
from ogsrl.evaluation.quantities import COST, VALUE

FQE, MORTALITY, PANEL = "fqe", "mortality", "panel"
#: Two-sided .95, one-sided .95, and the confounding that the width is asked of.
Z, ONE_SIDED, ASKED = 1.959964, 1.644854, 0.25
Part = Mapping[str, Any]


@dataclass(frozen=True)
class Said:
    """One interval of one cohort, and what is true.

    Attributes:
        cohort: Its number.
        policy: Of whom.
        quantity: What.
        estimator: By whom; panel too.
        gain: Whether of the difference from the clinicians.
        estimate: The number; None where it refuses.
        low: Of the interval.
        high: Of the interval.
        votes: Whether it counts; of the panel, whether anybody does.
        known: The truth.
    """

    cohort: int
    policy: str
    quantity: str
    estimator: str
    gain: bool
    estimate: float | None
    low: float
    high: float
    votes: bool
    known: Known

    @property
    def held(self) -> bool:
        """Whether the interval holds the truth."""
        return self.known.held(self.low, self.high)

    @property
    def width(self) -> float:
        """Of the interval, as far as anything is possible; costs, refusals, value lie within 1."""
        low = max(self.low, -1.0 if self.gain or self.quantity == VALUE else 0.0)
        return min(self.high, 1.0) - low

    @property
    def better(self) -> bool:
        """Whether less mortality than clinicians' is said."""
        return self.gain and self.votes and self.high < 0


def said(parts: Sequence[Part], truths: Truths, inflation: Inflation) -> list[Said]:
    """Every interval of every cohort, cold fits' made wider by so much, and the panel's."""
    return [one for k, part in enumerate(parts) for one in _of(k, part, truths, inflation)]


def _of(number: int, part: Part, truths: Truths, inflation: Inflation) -> Iterator[Said]:
    for which, known in (("own", truths.own), ("gain", truths.gains)):
        for policy, quantities in part.get(which, {}).items():
            for quantity, estimates in quantities.items():
                true = known.get(policy, {}).get(quantity)
                if true is None:
                    continue
                about = (number, policy, quantity)
                gain = which == "gain"
                wider = inflation.of(quantity, gain=gain)
                made = [
                    _one(about, name, gain, _inflated(name, one, wider), true)
                    for name, one in estimates.items()
                ]
                yield from made
                yield _panel(about, gain, made, true)


def _inflated(name: str, one: Part, inflation: float) -> Part:
    if name != FQE:
        return one
    estimate = one["estimate"]
    half = inflation * max(one["high"] - estimate, estimate - one["low"])  # a side may be cut
    return {**one, "low": estimate - half, "high": estimate + half}


def _one(about: tuple[int, str, str], name: str, gain: bool, one: Part, true: Known) -> Said:
    told = one["estimate"], one["low"], one["high"], one["votes"]
    return Said(*about, name, gain, *told, true)


def _panel(about: tuple[int, str, str], gain: bool, made: Sequence[Said], true: Known) -> Said:
    voters = [one for one in made if one.votes and one.estimator not in INFORMS]
    speaker = next((one.estimate for one in made if one.estimator == FQE), None)
    low = min((one.low for one in voters), default=-math.inf)
    high = max((one.high for one in voters), default=math.inf)
    return Said(*about, PANEL, gain, speaker, low, high, bool(voters), true)


def fitted_inflation(intervals: Sequence[Said], level: float = 0.95) -> dict[str, float]:
    """How many times wider cold fits' intervals must be, by what they are of: at least 1.

    By kind of quantity, of policies' own and of gains; beside it of each quantity alone.

    Args:
        intervals: Of cohorts of its own, not inflated.
        level: How often they should hold.
    """
    ratios: dict[str, list[float]] = {}
    for one in intervals:
        if one.estimator == FQE and _counts(one) and one.estimate is not None:
            half = max(one.high - one.estimate, 1e-12)
            apart = abs(one.estimate - one.known.truth) / half
            for name in {kind(one.quantity), one.quantity}:
                ratios.setdefault(name + "_gain" * one.gain, []).append(apart)
    return {name: max(float(np.quantile(each, level)), 1.0) for name, each in ratios.items()}


def fitted_misses(intervals: Sequence[Said], held: float = 0.9) -> dict[str, float]:
    """What cold fits of costs miss beyond what they say, as standard deviations, to .001.

    The least for which one-sided .95 upper bounds hold this often of every policy and constraint,
    its own costs and its gains apart: an average over policies would hide who is served worst.
    `lower` is of costs that are truly no higher than the clinicians' alone.

    Args:
        intervals: Of cohorts of their own, not inflated.
        held: How often.
    """
    cells: dict[tuple[str, str, bool], list[tuple[float, float]]] = {}
    lower = set()
    for one in intervals:
        if one.gain and one.known.truth <= 0:
            lower.add((one.policy, one.quantity))
        if _of_costs(one):
            cells.setdefault((one.policy, one.quantity, one.gain), []).append(_missed(one))

    def least(some: Sequence[Sequence[tuple[float, float]]]) -> float:
        def worst(miss: float) -> float:
            holds = [[above <= _upper(se, miss) for above, se in cell] for cell in some]
            return min((float(np.mean(cell)) for cell in holds), default=1.0)

        return next(k / 1000 for k in range(1000) if worst(k / 1000) >= held)

    of_lower = [cell for (*about, _), cell in cells.items() if tuple(about) in lower]
    return {"limits_miss": least([*cells.values()]), "limits_miss_lower": least(of_lower)}


def limit_figures(intervals: Sequence[Said], miss: float, miss_lower: float) -> dict[str, float]:
    """Of a limit that asks each policy's cost to be below the clinicians', judged in two steps.

    How often the upper bound of the difference holds, in all and of who is served worst, and of
    those alone that come to the second step; how often costs are said to be below that truly are
    not, and that are.

    Args:
        intervals: Not inflated.
        miss: `evaluate.limits_miss`.
        miss_lower: `evaluate.limits_miss_lower`.
    """
    held: dict[tuple[str, str], list[tuple[int, bool]]] = {}
    second: dict[tuple[str, str], list[tuple[int, bool]]] = {}
    said_of: dict[bool, list[tuple[int, bool]]] = {True: [], False: []}
    for one in intervals:
        if one.gain and _of_costs(one):
            above, se = _missed(one)
            lower = one.known.truth - above + _upper(se, miss) < 0
            upper = _upper(se, miss_lower if lower else miss)
            for cells in (held, second) if lower else (held,):
                cells.setdefault((one.policy, one.quantity), []).append(
                    (one.cohort, above <= upper)
                )
            said_of[one.known.truth < 0].append((one.cohort, lower))
    made: dict[str, float] = {}
    for name, cells in (("limits_held", held), ("limits_held_second", second)):
        made |= share(name, [one for cell in cells.values() for one in cell])
        each = [float(np.mean([met for _, met in cell])) for cell in cells.values()]
        made |= {f"{name}_worst": min(each)} if each else {}
    return made | share("limits_wrong", said_of[False]) | share("limits_shown", said_of[True])


def _of_costs(one: Said) -> bool:
    told = one.estimator == FQE and _counts(one) and one.estimate is not None
    return told and kind(one.quantity) == COST.removesuffix(":")


def _missed(one: Said) -> tuple[float, float]:
    """By how much the truth is above what is said, and what is said of the error."""
    estimate = one.estimate or 0.0
    return one.known.truth - estimate, (one.high - estimate) / Z


def _upper(se: float, miss: float) -> float:
    return ONE_SIDED * math.hypot(se, miss)


def figures(intervals: Sequence[Said]) -> dict[str, float]:
    """Of the panel over all but the deadly one; words; each estimator's own."""
    panel = [one for one in intervals if one.estimator == PANEL]
    some = [one for one in panel if _counts(one)]
    own = [one for one in some if not one.gain]
    mortality = [one for one in own if one.quantity == MORTALITY]
    made = share("coverage", [(one.cohort, one.held) for one in own])
    made |= share("coverage_gain", [(one.cohort, one.held) for one in some if one.gain])
    made |= share("coverage_mortality", [(one.cohort, one.held) for one in mortality])
    # who says nothing is never wrong: how often it speaks, and how often that held
    made["told"] = float(np.mean([one.votes for one in own]))
    made |= share("coverage_told", [(one.cohort, one.held) for one in own if one.votes])
    errors = [one.estimate - one.known.truth for one in mortality if one.estimate is not None]
    made["rmse_mortality"] = float(np.sqrt(np.mean(np.square(errors))))
    words = [one for one in some if one.gain and one.quantity == MORTALITY]
    wrong = [(one.cohort, one.better) for one in words if one.known.truth >= 0]
    made |= share("false_better", wrong) | {"false_better_pairs": float(len(wrong))}
    truly = [one for one in words if one.policy == BETTER]
    made |= share("power", [(one.cohort, one.better) for one in truly])
    made["width_gain_better"] = float(np.mean([one.high - one.low for one in truly]))
    return made | by_estimator(intervals)


def by_estimator(intervals: Sequence[Said], prefix: str = "") -> dict[str, float]:
    """Bias, RMSE, coverage, width and share of votes, by estimator.

    Of mortality by policy too; of its gains and of other quantities over all but the deadly one.
    """
    made: dict[str, float] = {}
    for name in dict.fromkeys(one.estimator for one in intervals):
        answers = [one for one in intervals if one.estimator == name and one.estimate is not None]
        for quantity in dict.fromkeys(one.quantity for one in answers):
            for gain in (False, True):
                what = "" if quantity == MORTALITY else "_" + quantity.replace(":", "_")
                what += "_gain" * gain
                each = [one for one in answers if (one.quantity, one.gain) == (quantity, gain)]
                if what:
                    made |= _quality([one for one in each if _counts(one)], prefix + name + what)
    some = [one for one in intervals if one.quantity == MORTALITY and not one.gain]
    for name in dict.fromkeys(one.estimator for one in some):
        mine = [one for one in some if one.estimator == name and one.estimate is not None]
        made |= _quality([one for one in mine if _counts(one)], f"{prefix}{name}")
        for policy in dict.fromkeys(one.policy for one in some):
            each = [one for one in mine if one.policy == policy]
            made |= _quality(each, f"{prefix}{name}_{policy}")
    return made


def _quality(each: Sequence[Said], key: str) -> dict[str, float]:
    if not each:
        return {}
    errors = np.array([(one.estimate or 0.0) - one.known.truth for one in each])
    return {
        f"bias_{key}": float(errors.mean()),
        f"rmse_{key}": float(np.sqrt(np.square(errors).mean())),
        f"coverage_{key}": float(np.mean([one.held for one in each])),
        f"width_{key}": float(np.mean([one.width for one in each])),
        f"votes_{key}": float(np.mean([one.votes for one in each])),
    }


def confounded_figures(parts: Sequence[tuple[float, int, Part]]) -> dict[str, float]:
    """Whether bounds at the known Gamma held, and how wide the first dose's are at .25.

    Args:
        parts: Confounding, number of the cohort, and what came of it: cohorts of one number have
            the same luck, whatever their confounding, and hang together.
    """
    held: dict[str, list[tuple[int, bool]]] = {"first": [], "whole": []}
    speaking, alone = [], []  # who says nothing holds anything, and so may what is not widened
    apart, widths, whole, told = 0.0, [], [], []
    for confounding, number, part in parts:
        for one in part["policies"].values():
            for what, each in held.items():
                bound, true = one[what], one[f"{what}_truth"]
                each.append((number, bound["low"] <= true <= bound["high"]))
                if bound["voters"]:
                    speaking.append(each[-1])
                    if confounding > 0:
                        alone.append((number, bound["alone"][0] <= true <= bound["alone"][1]))
                gaps = np.abs(np.subtract(bound["alone"], bound["panel"]))
                apart = max(apart, float(gaps.max()))
            told += [bool(one[what]["voters"]) for what in held]
            if confounding == ASKED:
                widths.append(one["first"]["high"] - one["first"]["low"])
                whole.append(one["whole"]["high"] - one["whole"]["low"])
    made = share("gamma_coverage", [*held["first"], *held["whole"]])
    for what, each in held.items():
        made |= share(f"gamma_coverage_{what}", each)
    made |= share("gamma_coverage_told", speaking)
    made |= share("gamma_coverage_not_widened", alone)
    made |= {"gamma_one_apart": apart, "gamma_told": float(np.mean(told))}
    if widths:
        made["gamma_width"] = float(np.mean(widths))
        made["gamma_width_whole"] = float(np.mean(whole))
    return made


def _counts(one: Said) -> bool:
    return one.policy != DEADLY and not (one.gain and one.policy == CLINICIANS)


def share(name: str, each: Sequence[tuple[int, bool]]) -> dict[str, float]:
    """A share with its interval over cohorts; where all agree, Wilson's of as many cohorts.

    Args:
        name: Of the figure.
        each: A cohort's number, and whether it was so.
    """
    if not each:
        return {}
    cohorts = sorted({cohort for cohort, _ in each})
    means = np.array([np.mean([met for c, met in each if c == cohort]) for cohort in cohorts])
    mean, n = float(np.mean([met for _, met in each])), len(cohorts)
    if n > 1 and means.std() > 0:
        half = Z * float(means.std(ddof=1)) / math.sqrt(n)
        low, high = mean - half, mean + half
    else:
        middle = (mean + Z**2 / (2 * n)) / (1 + Z**2 / n)
        half = Z * math.sqrt(mean * (1 - mean) / n + Z**2 / (4 * n**2)) / (1 + Z**2 / n)
        low, high = middle - half, middle + half
    return {name: mean, f"{name}_lo": max(low, 0.0), f"{name}_hi": min(high, 1.0)}
