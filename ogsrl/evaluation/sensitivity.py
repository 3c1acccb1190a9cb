r"""How far a confounder that nobody recorded could move what a panel says of a policy.

The marginal sensitivity model: u, unrecorded, changes how clinicians dose by at most Gamma,

    m = b(a|s) / b(a|s,u) in [1/Gamma, Gamma],   E[m | s,a] = 1,   E[Y(a) | s] = E[m Y | s,a].

Called by evaluation. Here: one decision, the Gamma at which a word is no longer said, and the
Gamma that dropping recorded columns would have been; `robust` does every step. What a confounder
could do is added to the panel's interval; it is not estimated from data, and has no error of its
own here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import torch

from ogsrl.errors import EstimateError
from ogsrl.evaluation.panel import Panel, Word
from ogsrl.preparation.history import History
from ogsrl.preparation.tensors import StayTensors

#: Tipping Gammas are told to this, up to this.
STEP, MOST = 0.01, 10.0
#: Of max(ratio, 1 / ratio) over decisions: the largest has no bound.
STRENGTH = 0.95
#: Test decisions asked, redraws of a column in each, columns told.
DECISIONS, DRAWS, STRONGEST = 2_000, 32, 5
#: A state column with at most so many values in training keeps to them when it is redrawn.
FEW_VALUES = 12


class Density(Protocol):
    """The clinicians' policy as it is needed here: how likely doses are."""

    def log_prob(self, states: torch.Tensor, doses: torch.Tensor) -> torch.Tensor:
        """(rows,) log b(a|s)."""
        ...


@dataclass(frozen=True)
class Widening:
    """What a confounder could take from a value, and add to it; neither is negative."""

    down: float
    up: float


def widened(panel: Panel, by: Widening, low: float, high: float) -> Panel:
    """The panel with [low - down, high + up] as its interval, cut to what is possible.

    >>> told = Panel(-0.03, -0.05, -0.01, 0.95, ("fqe",), "")
    >>> made = widened(told, Widening(0.02, 0.04), -1, 1)
    >>> round(made.low, 2), round(made.high, 2), made.word(-1)
    (-0.07, 0.03, 'cannot tell')
    >>> widened(told, Widening(0, 0), -1, 1) == told
    True
    """
    least = max(panel.low - by.down, min(low, panel.low))
    most = min(panel.high + by.up, max(high, panel.high))
    return replace(panel, low=least, high=most)


@dataclass(frozen=True)
class FirstDose:
    r"""One decision: only the first dose of a stay is confounded.

    Either the policy gives it and clinicians, with their u, the rest: then values are those of b.
    Or the policy goes on, and u matters to the first dose alone: then they are its own. With q the
    mean outcome after that dose as logged, in shares of its range,

        q+ = min(Gamma q, 1 - (1 - q) / Gamma),   q- = max(q / Gamma, 1 - Gamma (1 - q)),

    sharp for an outcome that is 0 or 1, valid for one between, since that one spreads less about
    its mean. Both curves bend in one place, q = 1 / (1 + Gamma) and Gamma / (1 + Gamma): noise in q
    narrows the bounds only around there (Jensen), so q is the mean of all fits. What is left of the
    noise counts: a fit that is off by .05 either way costs at most .05 x (Gamma - 1 / Gamma) / 2.

    Attributes:
        shares: (patients,) q.
        acts: (patients,) whether the policy doses; where it defers, nothing is widened.
        span: High - low of the quantity.
    """

    shares: torch.Tensor
    acts: torch.Tensor
    span: float

    @classmethod
    def of(cls, values: torch.Tensor, deferred: torch.Tensor, low: float, high: float) -> FirstDose:
        """From fitted values.

        Args:
            values: (fits x networks, stays) Q(s0, x), x what the policy executes there. The
                mean over x where it draws: what is added bends downwards, so that is the most.
            deferred: (stays,) or (draws, stays); widened wherever any draw acts.
            low: The least that the quantity can be.
            high: The most.
        """
        if not values.numel() or values.shape[-1] != deferred.shape[-1]:
            raise EstimateError(
                f"sensitivity: values of {tuple(values.shape)}, deferrals of "
                f"{tuple(deferred.shape)}; give both for the same first decisions"
            )
        span = max(high - low, 1e-6)
        shares = ((values.double().mean(0) - low) / span).clip(0, 1)
        return cls(shares, ~deferred.view(-1, len(shares)).all(0), span)

    def widening(self, gamma: float) -> Widening:
        """At this Gamma: the means of q - q- and of q+ - q.

        >>> q, never = torch.tensor([[0.2, 0.2]]), torch.tensor([False, True])
        >>> made = FirstDose.of(q, never, 0, 1).widening(1.5)
        >>> round(made.down, 4), round(made.up, 4)
        (0.0333, 0.05)
        """
        check_gamma(gamma)
        q = self.shares
        up = torch.minimum(gamma * q, 1 - (1 - q) / gamma) - q
        down = q - torch.maximum(q / gamma, 1 - gamma * (1 - q))
        parts = [(self.span * (x * self.acts).mean()).clip(min=0).item() for x in (down, up)]
        return Widening(*parts) if gamma > 1 else Widening(0.0, 0.0)


@dataclass(frozen=True)
class Tipping:
    """Until when a word may be said.

    Attributes:
        word: What the panel says of the difference from the clinicians.
        withstood: The largest Gamma, to the hundredth, at which it still says it; None where it
            says nothing.
        gamma: The least Gamma at which it says it no longer; None where it says nothing, or where
            it still does at the largest Gamma asked.
        asked: That Gamma.
    """

    word: Word
    withstood: float | None
    gamma: float | None
    asked: float


def tipping(
    widening: Callable[[float], Widening], gain: Panel, sign: int, most: float = MOST
) -> Tipping:
    """When `better` or `worse` is no longer said, to the next hundredth, by bisection.

    What clinicians come to was seen, u and all: a difference from them is widened as the policy's
    own value is.

    Args:
        widening: What each Gamma could do; it must not shrink as Gamma grows.
        gain: The panel of the policy less the clinicians.
        sign: 1 where more is better, -1 where less is.
        most: The largest Gamma asked.
    """
    word = gain.word(sign)

    def said(gamma: float) -> bool:
        by = widening(gamma)
        return replace(gain, low=gain.low - by.down, high=gain.high + by.up).word(sign) == word

    if word == "cannot tell":
        return Tipping(word, None, None, most)
    if said(most):
        return Tipping(word, most, None, most)
    low, high = 0, round((most - 1) / STEP)  # said at the first, not at the second
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if said(1 + STEP * middle) else (low, middle)
    withstood, lost = (round(1 + STEP * steps, 6) for steps in (low, high))
    return Tipping(word, withstood, lost, most)


@dataclass(frozen=True)
class Dropped:
    """A recorded column, and how strong a confounder it would be if nobody had recorded it.

    Attributes:
        column: Its name.
        gamma: The .95 quantile over decisions of max(ratio, 1 / ratio).
        median: The same, the middle one.
    """

    column: str
    gamma: float
    median: float


@dataclass(frozen=True)
class Recorded:
    """The strongest recorded columns.

    Attributes:
        columns: Strongest first.
        decisions: Test decisions that were asked and that b can say something of.
        reason: Why there are none; None where there are.
    """

    columns: tuple[Dropped, ...]
    decisions: int
    reason: str | None


@torch.no_grad()
def recorded(
    behaviour: Density,
    train: StayTensors,
    test: StayTensors,
    generator: torch.Generator,
    *,
    decisions: int = DECISIONS,
    draws: int = DRAWS,
    strongest: int = STRONGEST,
) -> Recorded:
    r"""The Gamma of dropping each recorded column, with all that states hold of its past.

        ratio = b(a|s) / b(a|s'),   b(a|s') = mean over draws of b(a | s', x),   x ~ p(x | s'),

    s' the other columns. p is a linear regression on them, with the residuals of another training
    decision: those of all x together, so that what belongs together stays so. x is kept within what
    training patients showed.

    Args:
        behaviour: b, of what was logged.
        train: Fits the regressions.
        test: Whose logged doses are asked.
        generator: Draws.
        decisions: At most so many of theirs.
        draws: Of x in each.
        strongest: Columns told.
    """
    groups = _groups(train.history)
    if len(groups) < 2:
        return Recorded((), 0, "one recorded column: without it nothing of the patient is known")
    made = test.transitions()
    chosen = torch.randperm(len(made.states), generator=generator)[:decisions]
    states, doses = made.states[chosen], made.doses[chosen]
    log_b = behaviour.log_prob(states, doses).double()
    known = torch.isfinite(log_b)
    if not bool(known.any()):
        return Recorded((), 0, "b gives no test decision any chance")
    states, doses, log_b = states[known], doses[known], log_b[known]
    seen = _Seen.of(train.transitions().states)
    found = []
    for name, places in groups.items():
        redraw = _Redraw.of(seen, places)
        without = torch.full((draws, len(states)), -torch.inf, dtype=torch.float64)
        for one in without:
            one.copy_(behaviour.log_prob(redraw(states, generator), doses))
        apart = (log_b - (without.logsumexp(0) - torch.tensor(float(draws)).log())).abs().exp()
        gamma, median = apart.quantile(STRENGTH).item(), apart.quantile(0.5).item()
        found.append(Dropped(name, gamma, median))
    found.sort(key=lambda one: (-one.gamma, one.column))
    return Recorded(tuple(found[:strongest]), len(states), None)


@dataclass(frozen=True)
class _Seen:
    """States with a column of ones, and their products, which every regression has parts of."""

    x: torch.Tensor
    gram: torch.Tensor

    @classmethod
    def of(cls, states: torch.Tensor) -> _Seen:
        x = _with_one(states)
        return cls(x, x.T @ x)


@dataclass(frozen=True)
class _Redraw:
    """Columns of states, drawn again given the others."""

    places: list[int]
    slope: torch.Tensor  # 0 of the columns themselves
    residuals: torch.Tensor
    low: torch.Tensor
    high: torch.Tensor
    values: Mapping[int, torch.Tensor]  # of columns with few

    @classmethod
    def of(cls, seen: _Seen, places: list[int]) -> _Redraw:
        x, y = seen.x, seen.x[:, places]
        others = [i for i in range(x.shape[1]) if i not in places]
        penalty = 1e-6 * len(x) * torch.eye(len(others), dtype=x.dtype)
        slope = torch.zeros(x.shape[1], len(places), dtype=x.dtype)
        slope[others] = torch.linalg.solve(
            seen.gram[others][:, others] + penalty, seen.gram[others][:, places]
        )
        each = [torch.unique(column) for column in y.T]
        few = {j: values for j, values in enumerate(each) if len(values) <= FEW_VALUES}
        return cls(places, slope, y - x @ slope, y.amin(0), y.amax(0), few)

    def __call__(self, states: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        donors = torch.randint(len(self.residuals), (len(states),), generator=generator)
        drawn = _with_one(states) @ self.slope + self.residuals[donors]
        drawn = drawn.clip(self.low, self.high)
        for j, values in self.values.items():
            drawn[:, j] = values[(drawn[:, j, None] - values).abs().argmin(1)]
        made = states.clone()
        made[:, self.places] = drawn.to(states.dtype)
        return made


def check_gamma(gamma: float) -> None:
    """Refuse a Gamma that bounds nothing."""
    if not 1 <= gamma < torch.inf:
        raise EstimateError(f"gamma: {gamma} found; it is a number from 1, where nothing is hidden")


def _groups(history: History) -> dict[str, list[int]]:
    """Where states hold each recorded column, now and before; what was given is not one."""
    groups: dict[str, list[int]] = {name: [] for name in history.preparation.states}
    for place, column in enumerate(history.columns):
        if column.role not in ("step", "dose_lag", "known"):
            groups[column.of].append(place)
    return groups


def _with_one(states: torch.Tensor) -> torch.Tensor:
    return torch.cat([states.double(), torch.ones(len(states), 1, dtype=torch.float64)], 1)
