"""The one visual language of every plot: clinicians grey, the policy blue, refusals hatched.

Called by the figure modules of every stage. A figure is the same bytes for the same numbers: no
clock, no global state, no window.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

#: Okabe and Ito: told apart by readers of all colour vision.
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
CLINICIAN = "#7F7F7F"
CLINICIAN_LIGHT = "#C8C8C8"
POLICY = BLUE
UNSAFE = VERMILION
TRUTH = BLACK
REFUSED: Mapping[str, Any] = {"facecolor": "white", "edgecolor": "#B0B0B0", "hatch": "////"}
FEW = "#FFFFFF"  # cells of fewer than ten patients are not drawn

STYLE: Any = {  # matplotlib's own type lists every name it knows
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "axes.axisbelow": True,
    "grid.color": "#E5E5E5",
    "legend.frameon": False,
    "hatch.linewidth": 0.6,
    "svg.hashsalt": "ogsrl",
    "svg.fonttype": "path",
}


def new_figure(width: float, height: float) -> Figure:
    """An empty figure in our style; size in inches."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_svg(figure: Figure, path: Path | TextIO) -> None:
    """Write a figure as SVG; the same figure gives the same bytes."""
    with mpl.rc_context(STYLE):
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": "ogsrl"})


def drawn(width: float, height: float, draw: Callable[[Figure], None]) -> Figure:
    """A figure of this size, drawn in our style without touching the global one."""
    figure = new_figure(width, height)
    with mpl.rc_context(STYLE):
        draw(figure)
        figure.draw_without_rendering()  # lay out once, so that saving twice gives the same bytes
        figure.set_layout_engine("none")
    return figure


def side_by_side(figure: Figure, count: int) -> list[Axes]:
    """So many axes side by side."""
    return list(figure.subplots(1, max(count, 1), squeeze=False)[0][:count])


def unit(dose: Mapping[str, Any]) -> str:
    """A dose's unit as it follows its name on an axis."""
    return "" if dose["unit"] == "1" else f" [{dose['unit']}]"


def percent(share: float | None) -> str:
    """A share as a reader says it."""
    return "unknown" if share is None else f"{100 * share:.0f} %"


def told(text: str) -> Figure:
    """A sentence where a figure would be."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.axis("off")
        axes.text(0, 0.5, text)

    return drawn(8, 1.2, draw)


def too_few(needed: int, whose: str = "training") -> Figure:
    """What stands where a figure would show fewer patients than it needs."""
    return told(f"Too few {whose} patients: at least {needed} are needed, nothing is shown.")
