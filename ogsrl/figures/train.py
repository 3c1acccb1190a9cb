"""Figures of training: what the model says of each seed's policy, and what limits cost it.

Called by the train stage with the log alone; nothing here is a result, since the model that
trained a policy flatters it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ogsrl.figures.style import (
    BLACK,
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    SKY,
    drawn,
    percent,
    side_by_side,
    told,
)

SEEDS = (BLUE, ORANGE, GREEN, PURPLE, SKY)
WIDTH, HEIGHT = 3.9, 3.3
#: Columns that are shown, with title and unit.
SHARES = (
    ("deaths", "Deaths", "share of stays, in the training model"),
    ("deferred", "Deferred", "share of steps in training"),
)
#: And below them, how training goes.
STATE = (
    ("disagreement", "Members' disagreement", "deviations of the noise"),
    ("scale", "Size of the critics", "mean |V| or |Q| of the reward"),
    ("dataset_distance", "To the nearest logged pair", "|| [beta s ; a] - [beta s' ; a'] ||"),
    ("own_row", "Pulled to its own row, were it allowed", "share of logged rows"),
)


def curves(log: pd.DataFrame) -> Figure:
    """Deaths, deferrals and costs beside their limits, as the training model has them."""
    names = _constraints(log)
    # without a model nobody dies in it, and not every loop looks for nearest pairs
    shown, below = ([entry for entry in group if entry[0] in log] for group in (SHARES, STATE))
    above = len(shown) + len(names)
    wide = max(above, len(below))

    def draw(figure: Figure) -> None:
        axes = figure.subplots(2 if below else 1, wide, squeeze=False)
        for axis, (column, title, unit) in zip(axes[0], shown, strict=False):
            _lines(axis, log, column, title, unit)
        for axis, name in zip(axes[0][len(shown) : above], names, strict=True):
            _lines(axis, log, f"cost_{name}", name.capitalize(), "cost a stay, death included")
            limit = float(log[f"limit_{name}"].iloc[0])
            axis.axhline(limit, color=BLACK, ls=":", lw=1, label="limit")
            axis.legend()
        for axis, (column, title, unit) in zip(axes[-1], below, strict=False):
            _lines(axis, log, column, title, unit)
        for empty in (*axes[0][above:], *(axes[-1][len(below) :] if below else ())):
            empty.axis("off")
        axes[0][0].legend()

    return drawn(WIDTH * wide, HEIGHT * (2 if below else 1), draw)


def multipliers(log: pd.DataFrame) -> Figure:
    """Multiplier of each constraint, and of refusals; how often each was positive."""
    names = [*_constraints(log), "refusal"]

    def draw(figure: Figure) -> None:
        for axis, name in zip(side_by_side(figure, len(names)), names, strict=True):
            _lines(axis, log, f"mu_{name}", name.capitalize(), "multiplier", f"active_{name}")
            axis.set_ylim(bottom=0)

    return drawn(WIDTH * len(names), HEIGHT, draw)


def nothing_logged(algorithm: str) -> Figure:
    """What stands where an algorithm takes no step in the model, or ended before its first."""
    return told(f"{algorithm}: no steps in the model were logged, nothing is shown.")


def _constraints(log: pd.DataFrame) -> list[str]:
    names = [str(name) for name in log.columns]
    return [name.removeprefix("cost_") for name in names if name.startswith("cost_")]


def _lines(
    axis: Axes, log: pd.DataFrame, column: str, title: str, unit: str, share: str | None = None
) -> None:
    """A line a seed; with a column of `share`, its last value is told beside the seed."""
    for i, (seed, rows) in enumerate(log.groupby("seed")):
        label = f"seed {seed:g}"
        if share is not None and share in rows:
            label += f", positive in {percent(float(rows[share].iloc[-1]))} of updates"
        axis.plot(rows["step"], rows[column], color=SEEDS[i % len(SEEDS)], lw=1.2, label=label)
    if share is not None:
        axis.legend()
    axis.set_xlabel("gradient steps")
    axis.set_ylabel(unit)
    axis.set_title(title)
    axis.grid(axis="y")


FIGURES: Mapping[str, Callable[[pd.DataFrame], Figure]] = {
    "train_curves": curves,
    "train_multipliers": multipliers,
}
