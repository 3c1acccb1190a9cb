"""The plane of doses: how often which doses go together, of clinicians and of a policy.

Called by the figures of prepare and of evaluate; cells of fewer than ten patients are not drawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from ogsrl.figures.style import CLINICIAN, FEW, POLICY, drawn, told, unit


def plane(planes: Mapping[str, Mapping[str, Any]]) -> Figure:
    """What clinicians gave beside what the policy recommends in the same steps.

    Args:
        planes: `clinicians` and `policy`; empty where it recommends nothing.
    """
    if not planes:
        return told("No policy recommends a dose: there is nothing to show.")
    titles = {"clinicians": "What clinicians gave", "policy": "What it recommends there"}
    largest = max((cell["steps"] for one in planes.values() for cell in one["cells"]), default=1)
    norm = LogNorm(3, max(largest, 30))

    def draw(figure: Figure) -> None:
        for axes, (who, one) in zip(
            figure.subplots(1, len(planes), sharex=True, sharey=True), planes.items(), strict=True
        ):
            ours = who == "policy"
            if one["x"]["dose"] == one["y"]["dose"]:
                dose_bars(axes, one, titles[who], POLICY if ours else CLINICIAN)
            else:
                dose_cells(axes, one, norm, titles[who], "Blues" if ours else "Greys")

    return drawn(6.2 * len(planes), 4.6, draw)


def dose_cells(
    axes: Axes, plane: Mapping[str, Any], norm: LogNorm, title: str, colours: str = "Greys"
) -> None:
    """Steps in each cell of the plane of two doses."""
    x, y = plane["x"], plane["y"]
    grid = np.full((_bins(y), _bins(x)), np.nan)
    for cell in plane["cells"]:
        grid[cell["y"], cell["x"]] = cell["steps"]
    shades = mpl.colormaps[colours].with_extremes(bad=FEW)
    mesh = axes.pcolormesh(
        _walls(x), _walls(y), _with_gap(grid, x, y), cmap=shades, norm=norm, rasterized=False
    )
    assert axes.figure is not None
    axes.figure.colorbar(mesh, ax=axes, label="steps", shrink=0.85)
    _dose_ticks(axes, x, "x")
    _dose_ticks(axes, y, "y")
    axes.set_title(title)
    hidden = plane["steps_suppressed"]
    axes.text(
        0.99,
        0.99,
        f"white: fewer than 10 patients ({hidden:,} steps)",
        transform=axes.transAxes,
        ha="right",
        va="top",
        fontsize=9,
        color="#555555",
    )


def dose_bars(
    axes: Axes,
    plane: Mapping[str, Any],
    title: str = "What clinicians gave",
    colour: str = CLINICIAN,
) -> None:
    """Steps in each bin of one dose."""
    x = plane["x"]
    walls = _walls(x)
    centers, widths = (walls[:-1] + walls[1:]) / 2, np.diff(walls)
    if x["zero_bin"]:
        centers, widths = np.delete(centers, 1), np.delete(widths, 1)
    steps = np.zeros(_bins(x))
    for cell in plane["cells"]:
        steps[cell["x"]] = cell["steps"]
    axes.bar(centers, steps, widths * 0.95, color=colour)
    _dose_ticks(axes, x, "x")
    axes.set_ylabel("steps")
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.set_title(title)


def _bins(axis: Mapping[str, Any]) -> int:
    return len(axis["edges"]) - 1 + int(axis["zero_bin"])


def _walls(axis: Mapping[str, Any]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Walls of the bins as drawn: `none` stands apart, half a bin to the left."""
    walls = np.arange(len(axis["edges"]), dtype=np.float64)
    return np.concatenate([[-1.9, -0.5], walls]) if axis["zero_bin"] else walls


def _with_gap(grid: Any, x: Mapping[str, Any], y: Mapping[str, Any]) -> Any:
    """An empty row or column between `none` and the doses given."""
    if x["zero_bin"]:
        grid = np.insert(grid, 1, np.nan, axis=1)
    return np.insert(grid, 1, np.nan, axis=0) if y["zero_bin"] else grid


def _dose_ticks(axes: Axes, axis: Mapping[str, Any], which: str) -> None:
    edges = np.asarray(axis["edges"])
    if axis["levels"]:
        places, words = list(np.arange(len(axis["levels"])) + 0.5), list(axis["levels"])
    else:
        values = _nice(edges)
        places, words = list(np.interp(values, edges, np.arange(len(edges)))), []
        words = [f"{value:g}" for value in values]
    if axis["zero_bin"]:
        keep = [i for i, place in enumerate(places) if place > 0.8]
        places = [-1.2, *(places[i] for i in keep)]
        words = ["none", *(words[i] for i in keep)]
    set_ticks = axes.set_xticks if which == "x" else axes.set_yticks
    set_ticks(places, words)
    set_label = axes.set_xlabel if which == "x" else axes.set_ylabel
    set_label(axis["label"] + unit(axis))


def _nice(edges: np.ndarray[Any, Any]) -> list[float]:
    """1, 2 and 5 times powers of ten and the last edge, not too near each other as drawn."""
    top, far = float(edges[-1]), len(edges) / 8
    powers = 10.0 ** np.arange(np.floor(np.log10(max(top, 1e-12))), -7, -1)
    kept = [top]
    for value in (first * power for power in powers for first in (5, 2, 1)):
        place, last = np.interp([value, kept[-1]], edges, np.arange(len(edges)))
        if edges[0] < value < top and last - place >= far and place >= far / 2:
            kept.append(float(value))
    return kept[::-1]
