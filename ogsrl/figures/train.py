"""Figures of training: what the model says of each seed's policy, and what limits cost it.

Called by the train stage with the log alone; nothing here is a result, since the model that
trained a policy flatters it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ogsrl.figures.style import BLACK, BLUE, GREEN, ORANGE, PURPLE, SKY, drawn, side_by_side, told

SEEDS = (BLUE, ORANGE, GREEN, PURPLE, SKY)
WIDTH, HEIGHT = 3.9, 3.3
#: Columns that are shown, with title and unit.
SHARES = (
    ("deaths", "Deaths", "share of stays, in the training model"),
    ("deferred", "Deferred", "share of steps in training"),
)


def curves(log: pd.DataFrame) -> Figure:
    """Deaths, deferrals and costs beside their limits, as the training model has them."""
    names = _constraints(log)
    shown = [entry for entry in SHARES if entry[0] in log]  # without a model nobody dies in it

    def draw(figure: Figure) -> None:
        axes = side_by_side(figure, len(shown) + len(names))
        for axis, (column, title, unit) in zip(axes, shown, strict=False):
            _lines(axis, log, column, title, unit)
        for axis, name in zip(axes[len(shown) :], names, strict=True):
            _lines(axis, log, f"cost_{name}", name.capitalize(), "cost a stay, death included")
            limit = float(log[f"limit_{name}"].iloc[0])
            axis.axhline(limit, color=BLACK, ls=":", lw=1, label="limit")
            axis.legend()
        axes[0].legend()

    return drawn(WIDTH * (len(shown) + len(names)), HEIGHT, draw)


def multipliers(log: pd.DataFrame) -> Figure:
    """Multiplier of each constraint, and of refusals."""
    names = [*_constraints(log), "refusal"]

    def draw(figure: Figure) -> None:
        for axis, name in zip(side_by_side(figure, len(names)), names, strict=True):
            _lines(axis, log, f"mu_{name}", name.capitalize(), "multiplier")
            axis.set_ylim(bottom=0)

    return drawn(WIDTH * len(names), HEIGHT, draw)


def nothing_logged(algorithm: str) -> Figure:
    """What stands where an algorithm takes no step in the model, or ended before its first."""
    return told(f"{algorithm}: no steps in the model were logged, nothing is shown.")


def _constraints(log: pd.DataFrame) -> list[str]:
    names = [str(name) for name in log.columns]
    return [name.removeprefix("cost_") for name in names if name.startswith("cost_")]


def _lines(axis: Axes, log: pd.DataFrame, column: str, title: str, unit: str) -> None:
    for i, (seed, rows) in enumerate(log.groupby("seed")):
        color = SEEDS[i % len(SEEDS)]
        axis.plot(rows["step"], rows[column], color=color, lw=1.2, label=f"seed {seed:g}")
    axis.set_xlabel("gradient steps")
    axis.set_ylabel(unit)
    axis.set_title(title)
    axis.grid(axis="y")


FIGURES: Mapping[str, Callable[[pd.DataFrame], Figure]] = {
    "train_curves": curves,
    "train_multipliers": multipliers,
}
