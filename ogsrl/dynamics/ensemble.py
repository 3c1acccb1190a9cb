"""The ensemble of what patients do next: one step for rollouts, predictions for people.

Called by policies, reports and query. It holds network weights and moments, no row of a patient,
and never fits anything.
"""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import torch

from ogsrl.constraints import constraint_rules
from ogsrl.dynamics.answers import Next, Prediction, of_codes, on_line
from ogsrl.dynamics.chart import Scaling, running_sums
from ogsrl.dynamics.config import DynamicsParams
from ogsrl.dynamics.fitted import Fitted, Heads
from ogsrl.dynamics.heads import ValueHeads, split_codes
from ogsrl.dynamics.layout import Layout
from ogsrl.dynamics.network import forward, take
from ogsrl.dynamics.outcomes import ENDS
from ogsrl.dynamics.saved import read, write
from ogsrl.dynamics.unsafe import chance_unsafe, spread_normals
from ogsrl.modeldir import rebuilding
from ogsrl.preparation.blocks import blocks, side_by_side
from ogsrl.preparation.history import History

FORM = "ensemble"
_CHUNK = 1024  # rows predicted at once


class Dynamics:
    r"""p(next row, end | history, dose), the mean of `members` networks.

    Numeric column c of member m, in scaled units x: x' ~ N(mu, sigma^2), with
    mu = x + A_m f + r_c m_c(f) and sigma = k_c r_c exp(l_c(f)), where f are the inputs, A_m a
    ridge regression, r_c the deviation that it leaves, m and l the network of ValueLoss and k_c a
    calibrated factor. Noises of columns are correlated. Then x' is charted: missing with chance
    p_gap (the last value is carried), else rounded and clipped as charts are. Ends and gaps:
    sigmoid(a + b logit_m(f)), a and b calibrated (EndLoss). A constraint's chance is that of the
    charted value violating it, over members and noise, on a line of its logit calibrated alike.

    It extrapolates: a dose that no training patient was given (one that was always the same, say)
    is answered like any other, with a plain number, and members need not disagree about it. It is
    the guardian that refuses such a dose (`never_seen`); ask it before believing an answer.
    """

    def __init__(self, layout: Layout, params: DynamicsParams, fitted: Fitted) -> None:
        """Use `ogsrl.dynamics.fitting.fit` or `load`."""
        self.layout = layout
        self.params = params
        self.fitted = fitted
        preparation = layout.history.preparation
        self._columns = list(preparation.states)
        self._numeric = [layout.current[name] for name in layout.numeric]
        self._gaps = torch.tensor([layout.current[n] for n in layout.gaps], dtype=torch.int64)
        self._indicators = [layout.indicator[n] - len(self._columns) for n in layout.gaps]
        rules = constraint_rules(preparation.cohort).values()
        self._asks_sums = any(not layout.cumulative.keys().isdisjoint(r.columns) for r in rules)
        self._scaling = Scaling([preparation.states[name] for name in layout.numeric])

    @property
    def members(self) -> int:
        """Number of members."""
        return len(self.fitted.slopes)

    @property
    def history(self) -> History:
        """The layout of the states it knows."""
        return self.layout.history

    def alone(self, member: int) -> Dynamics:
        """One member as an ensemble of its own."""
        f = self.fitted
        fitted = replace(
            f,
            values=take(f.values, [member]),
            ends=take(f.ends, [member]),
            slopes=f.slopes[[member]],
        )
        return Dynamics(self.layout, self.params, fitted)

    @torch.no_grad()
    def step(
        self,
        states: torch.Tensor,
        doses: torch.Tensor,
        generator: torch.Generator,
        member: torch.Tensor | None = None,
        *,
        ensemble: bool = True,
        draws: int = 32,
        noise: torch.Tensor | None = None,
    ) -> Next:
        """Draw the next row of every state under its dose.

        Args:
            states: Prepared states, a row each; without a step in them nobody reaches the horizon.
            doses: Scaled doses given in them.
            generator: Everything is drawn with it.
            member: Which member draws each row; none: any, drawn anew.
            ensemble: Whether all members are asked for chances, unsafe and disagreement; without,
                chances are the row's own member's and the other two None, at a fifth of the time.
            draws: Draws a member for the chance of being unsafe, where it has no closed form.
            noise: Standard normals of the numeric columns, (rows, numeric); none: drawn.
        """
        return self._step(states, doses, generator, member, ensemble, draws, noise)

    def step_with_gradient(
        self, states: torch.Tensor, doses: torch.Tensor, generator: torch.Generator
    ) -> Next:
        """`step`, whose means, chances and next states have a gradient in the doses.

        What a chart does to a number (rounding) passes the gradient on; what it cuts off does not.
        """
        return self._step(states, doses, generator, None, True, 8, None)

    def _step(
        self,
        states: torch.Tensor,
        doses: torch.Tensor,
        generator: torch.Generator,
        member: torch.Tensor | None,
        ensemble: bool,
        draws: int,
        noise: torch.Tensor | None,
    ) -> Next:
        self.layout.check(states, doses)
        n = len(states)
        if member is None:
            member = torch.randperm(n, generator=generator) % self.members
        inputs = self.layout.inputs(states, doses)
        everyone = self._heads(inputs, states) if ensemble else None
        heads = everyone.own(member) if everyone else self._heads_of(inputs, states, member)
        observed, expected, missing = self._draw(heads, states, doses, generator, noise)
        chances = torch.rand((n, 2), generator=generator)
        last = self._at_last_step(states)  # there all who live reach the horizon
        died = chances[:, 0] < heads.ends[0, :, 0]
        discharged = ~died & ~last & (chances[:, 1] < heads.ends[0, :, 1])
        ends = (everyone or heads).ends.mean(0)
        return Next(
            states=self.history.advance(states, doses, observed, missing),
            observed=observed,
            expected=expected,
            missing=missing,
            p_death=ends[:, 0],
            p_discharge=(1 - ends[:, 0]) * ends[:, 1] * ~last,
            p_late_death=ends[:, 2],
            died=died,
            discharged=discharged,
            horizon=~died & last,
            unsafe=self._unsafe(everyone, states, doses, draws) if everyone else None,
            disagreement=self._apart(everyone) if everyone else None,
        )

    @torch.no_grad()
    def predict(
        self, states: torch.Tensor, doses: torch.Tensor, *, level: float = 0.9, draws: int = 16
    ) -> Prediction:
        """What to expect, all members and their noise together.

        A dose never given in training is extrapolated to, without a word; the guardian refuses it.
        """
        self.layout.check(states, doses)
        pairs = zip(torch.split(states, _CHUNK), torch.split(doses, _CHUNK), strict=True)
        parts = [self._predict(s, d, level, draws) for s, d in pairs]
        if not parts:
            parts = [self._predict(states, doses, level, draws)]
        constraints = {n: torch.cat([p.unsafe[n] for p in parts]) for n in parts[0].unsafe}
        joined = {
            field.name: torch.cat([getattr(part, field.name) for part in parts])
            for field in fields(Prediction)
            if field.name not in ("names", "unsafe")
        }
        return Prediction(names=parts[0].names, unsafe=constraints, **joined)

    @torch.no_grad()
    def disagreement(self, states: torch.Tensor, doses: torch.Tensor) -> torch.Tensor:
        """How far members' means are apart: root mean square over numeric columns, in noise."""
        self.layout.check(states, doses)
        parts = [
            self._apart(self._heads(self.layout.inputs(s, d), s))
            for s, d in zip(torch.split(states, _CHUNK), torch.split(doses, _CHUNK), strict=True)
        ]
        return torch.cat(parts) if parts else torch.zeros(0)

    @torch.no_grad()
    def unsafe(
        self, states: torch.Tensor, doses: torch.Tensor, *, draws: int = 32
    ) -> dict[str, torch.Tensor]:
        """Per constraint, the chance that the next charted row violates it, if there is one."""
        self.layout.check(states, doses)
        parts = [
            self._chances(self._heads(self.layout.inputs(s, d), s), s, d, draws)
            for s, d in zip(torch.split(states, _CHUNK), torch.split(doses, _CHUNK), strict=True)
        ]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    @torch.no_grad()
    def heads(self, states: torch.Tensor, doses: torch.Tensor) -> Heads:
        """What every member says; for calibration and reports."""
        return self._heads(self.layout.inputs(states, doses), states)

    def _heads(self, inputs: torch.Tensor, states: torch.Tensor) -> Heads:
        """All members, a block of rows at a time: what is between two layers stays in the cache."""
        f = self.fitted

        def heads(block: tuple[torch.Tensor, ...]) -> Heads:
            some, rows = block
            shared = some.expand(self.members, -1, -1)
            values, ends = forward(f.values, shared), forward(f.ends, shared)
            return self._read(values, ends, shared, rows, f)

        return Heads.joined(side_by_side(heads, blocks(inputs, states, size=_CHUNK)))

    def _heads_of(self, inputs: torch.Tensor, states: torch.Tensor, member: torch.Tensor) -> Heads:
        """Each row under its own member, at the price of one."""
        count = torch.bincount(member, minlength=self.members)
        order = torch.argsort(member, stable=True)
        slot = torch.arange(len(member)) - (count.cumsum(0) - count)[member[order]]
        laid = inputs.new_zeros((self.members, int(count.max()), inputs.shape[1]))
        place = member[order], slot
        laid[place] = inputs[order]
        f = self.fitted
        back = torch.empty_like(order)
        back[order] = torch.arange(len(order))
        values, ends = forward(f.values, laid)[place][back], forward(f.ends, laid)[place][back]
        line = torch.baddbmm(f.slopes[:, -1:], laid, f.slopes[:, :-1])[place][back]
        return self._read(values[None], ends[None], None, states, f, line[None])

    def _read(
        self,
        values: torch.Tensor,
        ends: torch.Tensor,
        inputs: torch.Tensor | None,
        states: torch.Tensor,
        f: Fitted,
        line: torch.Tensor | None = None,
    ) -> Heads:
        heads = ValueHeads.of(self.layout, values)
        if line is None:
            assert inputs is not None
            line = torch.baddbmm(f.slopes[:, -1:], inputs, f.slopes[:, :-1])
        change = (line + f.left * heads.shift) * f.moving
        gaps = torch.sigmoid(heads.gaps * f.gap_calibration[:, 0] + f.gap_calibration[:, 1])
        logits = ends * f.end_calibration[:, 0] + f.end_calibration[:, 1]
        return Heads(
            mean=states[:, self._numeric] + change,
            sd=f.noise * f.left * torch.exp(heads.log_sd) * f.moving,
            codes=split_codes(self.layout, heads.codes),
            gaps=gaps,
            ends=torch.sigmoid(logits) * f.seen_ends,
        )

    def _charted(self, scaled: torch.Tensor) -> torch.Tensor:
        """Scaled numbers as a chart would show them, scaled again; what never moved stays."""
        values = scaled.detach()
        shown = self._scaling.scaled(self.fitted.chart.show(self._scaling.clinical(values)))
        if scaled.requires_grad:
            clinical, chart = self._scaling.clinical(values), self.fitted.chart
            within = (clinical >= chart.low) & (clinical <= chart.high)
            shown = torch.where(within, shown + (scaled - values), shown)
        return torch.where(self.fitted.moving > 0, shown, scaled)

    def _draw(
        self,
        heads: Heads,
        states: torch.Tensor,
        doses: torch.Tensor,
        generator: torch.Generator,
        noise: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        n, layout = len(states), self.layout
        if noise is None:
            noise = torch.randn((n, len(self._numeric)), generator=generator)
        drawn = heads.mean[0] + heads.sd[0] * (noise @ self.fitted.correlation.T)
        observed = states[:, : len(self._columns)].clone()
        observed[:, self._numeric] = self._charted(drawn)
        expected = observed.clone()
        expected[:, self._numeric] = heads.mean[0]
        for name, chances in heads.codes.items():
            threshold = torch.rand((n, 1), generator=generator)
            code = (chances[0].cumsum(-1)[:, :-1] < threshold).sum(-1).to(states.dtype)
            place = layout.current[name]
            binary = name in layout.binary
            observed[:, place] = 2 * code - 1 if binary else code
            mean = (chances[0] * torch.arange(chances.shape[-1])).sum(-1)
            expected[:, place] = 2 * mean - 1 if binary else mean
        for name, values in running_sums(self.layout, states, doses).items():
            observed[:, layout.current[name]] = values
            expected[:, layout.current[name]] = values
        groups = int(self.fitted.gap_group.max()) + 1 if len(layout.gaps) else 0
        shared = torch.rand((n, groups), generator=generator)
        missing = states.new_zeros((n, len(layout.indicator)))
        first = len(self._columns)
        for name, place in layout.indicator.items():  # a static that was not charted stays so
            if name in self.history.preparation.cohort.static:
                missing[:, place - first] = states[:, place]
        if groups:
            gap = shared[:, self.fitted.gap_group] < heads.gaps[0]
            missing[:, self._indicators] = gap.to(states.dtype)
            carried = torch.where(gap, states[:, self._gaps], observed[:, self._gaps])
            observed = observed.index_copy(1, self._gaps, carried)
        return observed, expected, missing

    def _at_last_step(self, states: torch.Tensor) -> torch.Tensor:
        place = self.layout.step_place
        if place is None:
            return torch.zeros(len(states), dtype=torch.bool)
        last = self.history.preparation.cohort.max_steps
        return (states[:, place] * last).round() >= last - 1

    def _apart(self, heads: Heads) -> torch.Tensor:
        moving = self.fitted.moving > 0
        if self.members == 1 or not bool(moving.any()):
            return torch.zeros(heads.mean.shape[1])
        apart = heads.mean[..., moving] / self.fitted.left[moving]
        result: torch.Tensor = (apart - apart.mean(0)).square().mean((0, 2)).sqrt()
        return result

    def _unsafe(
        self, heads: Heads, states: torch.Tensor, doses: torch.Tensor, draws: int
    ) -> torch.Tensor:
        chances = self._chances(heads, states, doses, draws)
        return (
            torch.stack(list(chances.values()), 1) if chances else states.new_zeros(len(states), 0)
        )

    def _chances(
        self, heads: Heads, states: torch.Tensor, doses: torch.Tensor, draws: int
    ) -> dict[str, torch.Tensor]:
        sums = running_sums(self.layout, states, doses) if self._asks_sums else {}
        chances = chance_unsafe(self.layout, self.fitted, heads, states, sums, draws)
        lines = zip(chances.items(), self.fitted.unsafe_calibration, strict=True)
        return {name: on_line(chance, line) for (name, chance), line in lines}

    def _predict(
        self, states: torch.Tensor, doses: torch.Tensor, level: float, draws: int
    ) -> Prediction:
        heads = self._heads(self.layout.inputs(states, doses), states)
        names = tuple(self.history.preparation.cohort.observations)
        sums = running_sums(self.layout, states, doses)
        normals = spread_normals(draws, self.fitted.correlation)
        # (members, draws, rows, columns); the same quantiles for every row
        scaled = heads.mean[:, None] + heads.sd[:, None] * normals[:, None]
        clinical = self.fitted.chart.show(self._scaling.clinical(scaled))
        deviation, mean = heads.deviation, heads.mean.mean(0)
        wide = torch.special.ndtri(torch.tensor(0.5 + level / 2))
        ends = [
            self.fitted.chart.show(self._scaling.clinical(mean + side * wide * deviation))
            for side in (-1, 1)
        ]
        found: dict[str, list[torch.Tensor]] = {}
        still = self.fitted.moving == 0
        now = self._scaling.clinical(states[:, self._numeric])
        for i, name in enumerate(self.layout.numeric):
            middle = now[:, i] if still[i] else clinical[..., i].mean((0, 1))
            sides = [now[:, i] if still[i] else end[:, i] for end in ends]
            found[name] = [middle, *sides, mean[:, i], deviation[:, i]]
        for name, chances in heads.codes.items():
            found[name] = of_codes(chances.mean(0), level, name in self.layout.binary)
        for name, total in sums.items():
            column = Scaling([self.history.preparation.states[name]])
            value = column.clinical(total[:, None])[:, 0]
            found[name] = [value, value, value, total, torch.zeros_like(total)]
        mid, low, high, scaled_mean, scaled_sd = (
            torch.stack([found[name][k] for name in names], dim=1) for k in range(5)
        )
        chance = heads.ends.mean(0)
        return Prediction(
            names=names,
            mean=mid,
            low=low,
            high=high,
            scaled_mean=scaled_mean,
            scaled_sd=scaled_sd,
            p_death=chance[:, 0],
            p_discharge=(1 - chance[:, 0]) * chance[:, 1] * ~self._at_last_step(states),
            p_late_death=chance[:, 2],
            unsafe=self._chances(heads, states, doses, draws),
            disagreement=self._apart(heads),
        )

    def save(self, directory: Path) -> None:
        """Write the model's directory."""
        config = {
            "params": self.params.model_dump(),
            "ends": [n for n, seen in zip(ENDS, self.fitted.seen_ends, strict=True) if seen],
        }
        write(directory, FORM, self.history, config, self.fitted.arrays())

    @classmethod
    def load(cls, directory: Path, history: History) -> Dynamics:
        """Read it back, for states of the same layout."""
        config, arrays = read(directory, FORM, history)
        with rebuilding(directory):
            params = DynamicsParams(**config["params"])
            return cls(Layout(history), params, Fitted.of(arrays))
