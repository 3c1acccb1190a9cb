"""One stay as the policy saw it: what was charted, what was given, what it would have ordered.

Called by the command line for private/ alone: it shows a single patient.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ogsrl.figures.style import BLACK, CLINICIAN, POLICY, REFUSED, drawn

#: Columns of small plots side by side.
ACROSS = 3


def stay_course(
    hours: Sequence[float],
    doses: Mapping[str, Mapping[str, Any]],
    charted: Mapping[str, Mapping[str, Any]],
    refused: Sequence[bool],
) -> Figure:
    """Doses on top, given beside recommended; below them what the guardian looks at.

    Args:
        hours: Of each step, from the first.
        doses: By name: `label`, `given`, `recommended` (NaN where nothing is).
        charted: By name: `label`, `values` (NaN where not charted).
        refused: Steps in which it deferred.
    """
    rows = -(-len(charted) // ACROSS)
    shading = np.asarray(refused, bool)
    width = hours[1] - hours[0] if len(hours) > 1 else 1.0

    def draw(figure: Figure) -> None:
        heights = (2.2 * len(doses), 1.5 * max(rows, 1))
        top, below = figure.subfigures(2, 1, height_ratios=heights, squeeze=False)[:, 0]
        axes = top.subplots(len(doses), 1, sharex=True, squeeze=False)[:, 0]
        for ax, dose in zip(axes, doses.values(), strict=True):
            _hatched(ax, hours, shading, width)
            ax.step(hours, dose["given"], where="mid", color=CLINICIAN, label="given", linewidth=2)
            ax.plot(
                hours, dose["recommended"], "o", color=POLICY, label="recommended", markersize=6
            )
            ax.set_title(dose["label"])
            ax.margins(y=0.08)
            ax.grid(axis="y")
        handles, words = axes[0].get_legend_handles_labels()
        if shading.any():
            handles.append(axes[0].axvspan(hours[0], hours[0], **REFUSED))
            words.append("it deferred")
        axes[0].legend(handles, words, ncols=3, loc="upper left", bbox_to_anchor=(0.5, 1.3))
        axes[-1].set_xlabel("hours")
        grid = below.subplots(max(rows, 1), ACROSS, sharex=True, squeeze=False).flat
        for ax, one in zip(grid, charted.values(), strict=False):
            _hatched(ax, hours, shading, width)
            ax.plot(hours, one["values"], ".-", color=BLACK, linewidth=1)
            ax.set_title(one["label"], fontsize=9, fontweight="normal")
        for ax in list(grid)[len(charted) :]:
            ax.set_axis_off()

    return drawn(9, 2.2 * len(doses) + 1.5 * max(rows, 1), draw)


def _hatched(ax: Axes, hours: Sequence[float], refused: Any, width: float) -> None:
    for hour in np.asarray(hours)[refused]:
        ax.axvspan(hour - width / 2, hour + width / 2, **REFUSED)
