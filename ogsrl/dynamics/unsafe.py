"""The chance that the next charted row violates a constraint, over members and noise.

Called by the ensemble. It never asks whether a mean violates: a mean of 93 % can be unsafe often.
"""

from __future__ import annotations

from functools import lru_cache

import torch

from ogsrl.constraints import ConstraintRule, constraint_rules
from ogsrl.dynamics.chart import Scaling
from ogsrl.dynamics.fitted import Fitted, Heads
from ogsrl.dynamics.layout import Layout
from ogsrl.spec.grammar import Binary, Column, Compare, Node, Unary

#: Into how many pieces the range of a number is cut at a time.
PIECES = 64


def spread_normals(draws: int, correlation: torch.Tensor) -> torch.Tensor:
    """`draws` evenly spread normal scores a column, (draws, columns), correlated as asked.

    Each column holds the same stratified scores in another order (Iman and Conover, 1982), so one
    column's distribution is met as well as so many draws can.
    """
    columns = len(correlation)
    share = (torch.arange(draws, dtype=torch.float64) + 0.5) / draws
    scores = torch.special.ndtri(share).float()
    scores = scores / scores.square().mean().sqrt().clip(min=1e-6) if draws > 1 else scores
    order = torch.stack([_order(draws, column) for column in range(columns)], 1) if columns else ()
    if not len(order):
        return torch.zeros(draws, 0)
    mixed = scores[order] @ correlation.T
    ranks = mixed.argsort(dim=0, stable=True).argsort(dim=0, stable=True)
    spread: torch.Tensor = scores[ranks]
    return spread


def _order(draws: int, column: int) -> torch.Tensor:
    """Always the same order for a column, wherever tensors are made now."""
    return _order_on_processor(draws, column).to(torch.get_default_device())


@lru_cache(maxsize=4096)
def _order_on_processor(draws: int, column: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(column + 1)
    return torch.randperm(draws, generator=generator, device="cpu")


def chance_unsafe(
    layout: Layout,
    fitted: Fitted,
    heads: Heads,
    states: torch.Tensor,
    sums: dict[str, torch.Tensor],
    draws: int,
) -> dict[str, torch.Tensor]:
    """Per constraint, the chance for each row; a value that is not charted is the last known."""
    rules = constraint_rules(layout.history.preparation.cohort)
    return {
        name: _Drawn(layout, fitted, heads, states, sums, draws).chance(rule)
        for name, rule in rules.items()
    }


def _monotone(node: Node, name: str) -> bool:
    """Whether a rule is one comparison that holds the column once, and never as a divisor."""

    def count(part: Node) -> int:
        if isinstance(part, Column):
            return int(part.name == name)
        if isinstance(part, Unary):
            return count(part.operand)
        if isinstance(part, Binary | Compare):
            return count(part.left) + count(part.right)
        return 0

    def divides(part: Node) -> bool:
        if isinstance(part, Unary):
            return divides(part.operand)
        if not isinstance(part, Binary):
            return False
        below = part.operator == "/" and count(part.right) > 0
        return below or divides(part.left) or divides(part.right)

    ordered = isinstance(node, Compare) and node.operator in ("<", "<=", ">", ">=")
    if not ordered or not isinstance(node, Compare):
        return False
    return count(node) == 1 and not divides(node.left) and not divides(node.right)


class _Drawn:
    """Draws of the columns that a rule looks at, (members, draws, rows)."""

    def __init__(
        self,
        layout: Layout,
        fitted: Fitted,
        heads: Heads,
        states: torch.Tensor,
        sums: dict[str, torch.Tensor],
        draws: int,
    ) -> None:
        self.layout = layout
        self.fitted = fitted
        self.heads = heads
        self.states = states
        self.sums = sums
        self.draws = draws

    def chance(self, rule: ConstraintRule) -> torch.Tensor:
        """Mean over members and draws; unknown counts as safe, as it does in logged costs."""
        gaps = [name for name in rule.columns if name in self.layout.gaps]
        free = [name for name in rule.columns if self._is_free(name)]
        one = len(free) == 1 and free[0] in self.layout.numeric
        exact = free[0] if one and _monotone(rule.expression.root, free[0]) else None
        if exact and gaps in ([], [exact]):
            others = {name: self._next(name) for name in rule.columns if name != exact}
            charted = self._beyond(rule, exact, others)
            if not gaps:
                return charted.mean(0)
            gap = self.heads.gaps[..., self.layout.gaps.index(exact)]
            carried = self._violates(rule, {**others, exact: self._now(exact)})
            return ((1 - gap) * charted + gap * carried).mean(0)
        values = {name: self._next(name) for name in rule.columns}
        for name in gaps:
            column = self.layout.gaps.index(name)
            group = int(self.fitted.gap_group[column])
            share = (_order(self.draws, -2 - group) + 0.5) / self.draws
            missed = share[:, None] < self.heads.gaps[:, None, :, column]
            values[name] = torch.where(missed, self._now(name), values[name])
        return self._violates(rule, values).mean(0)

    def _is_free(self, name: str) -> bool:
        """Whether the next value is drawn."""
        numeric = self.layout.numeric
        moves = name in numeric and bool(self.fitted.moving[numeric.index(name)])
        return moves or name in self.heads.codes

    def _beyond(
        self, rule: ConstraintRule, name: str, values: dict[str, torch.Tensor]
    ) -> torch.Tensor:
        """The chance, (members, rows), of a rule that is monotone in one number: no draws.

        Between which two values as charted the rule turns is found by cutting the range into ever
        smaller pieces, row by row; the chance is the normal distribution's beyond the middle.
        """
        i, chart = self.layout.numeric.index(name), self.fitted.chart
        up, down = chart.up[i].double(), chart.down[i].double()
        others = {n: v[0, 0] for n, v in values.items()}

        def violates(place: torch.Tensor) -> torch.Tensor:
            value = (place * up / down).to(self.states.dtype)
            return rule.torch({**others, name: value}).nan_to_num(0.0).expand_as(place) > 0

        rows = len(self.states)
        first, last = torch.round(chart.low[i] * down / up), torch.round(chart.high[i] * down / up)
        low, high = first.expand(rows), last.expand(rows)
        width, pieces = int(last - first), torch.arange(PIECES + 1)[:, None]
        with torch.no_grad():
            at_low, at_high = violates(torch.stack([low, high]))
            while width > 1:
                places = low + ((high - low) * pieces / PIECES).floor()
                found = violates(places)
                before = ((found == at_low).sum(0) - 1).clip(max=PIECES - 1)[None]
                low, high = places.gather(0, before)[0], places.gather(0, before + 1)[0]
                width = -(-width // PIECES)
        column = Scaling([self.layout.history.preparation.states[name]])
        turn = ((low + 0.5) * up / down).to(self.states.dtype)
        turn = column.scaled(turn[:, None])[:, 0]
        below = torch.special.ndtr(
            (turn - self.heads.mean[..., i]) / self.heads.sd[..., i].clip(min=1e-9)
        )
        chance = torch.where(at_low, below, 1 - below)
        return torch.where(at_low == at_high, at_low.to(chance.dtype), chance)

    def _violates(self, rule: ConstraintRule, values: dict[str, torch.Tensor]) -> torch.Tensor:
        """Share of the draws, (members, rows)."""
        found = rule.torch(values).nan_to_num(0.0)
        if found.dim() < 3:
            found = found.expand(1, 1, len(self.states))
        return found.mean(1).expand(len(self.heads.ends), -1)

    def _now(self, name: str) -> torch.Tensor:
        column = self.layout.history.preparation.states[name]
        scaled = self.states[None, None, :, self.layout.current[name]]
        return Scaling([column]).clinical(scaled[..., None])[..., 0]

    def _next(self, name: str) -> torch.Tensor:
        layout, heads = self.layout, self.heads
        if name in layout.numeric:
            i = layout.numeric.index(name)
            if not self.fitted.moving[i]:
                return self._now(name)
            normals = spread_normals(self.draws, self.fitted.correlation)[:, i]
            scaled = heads.mean[:, None, :, i] + heads.sd[:, None, :, i] * normals[:, None]
            column = Scaling([layout.history.preparation.states[name]])
            return self.fitted.chart.one(i, column.clinical(scaled[..., None])[..., 0])
        if name in heads.codes:
            offset = list(heads.codes).index(name)
            share = (_order(self.draws, 10_000 + offset) + 0.5) / self.draws
            below = heads.codes[name].cumsum(-1)[:, None, :, :-1]
            return (below < share[:, None, None]).sum(-1).to(self.states.dtype)
        if name in self.sums:
            column = Scaling([layout.history.preparation.states[name]])
            return column.clinical(self.sums[name][None, None, :, None])[..., 0]
        return self._now(name)
