"""The figures of stage behaviour: reliability by dose band, and E_b[pi/b] by step.

Called with behaviour.json; draws no row of a patient.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ogsrl.figures.style import (
    BLACK,
    BLUE,
    CLINICIAN,
    GREEN,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    drawn,
    side_by_side,
    unit,
)

COLOURS = (CLINICIAN, SKY, BLUE, GREEN, ORANGE, VERMILION, PURPLE)
MARKS = ("o", "s", "^", "D", "v", "P", "X")
NAMES = {
    "supported marginal": "marginal clinician, kept to support",
    "tempered": "tempered clinicians",
    "half": "refitted on half the patients",
}


def behaviour_reliability(report: Mapping[str, Any]) -> Figure:
    """How often clinicians gave a dose of a band, where the model said they would."""
    doses = list(report["reliability"].items())

    def draw(figure: Figure) -> None:
        for axes, (name, bands) in zip(side_by_side(figure, len(doses)), doses, strict=True):
            axes.plot([0, 1], [0, 1], color=BLACK, lw=1)
            for i, band in enumerate(bands):
                if band["bins"]:
                    _curve(axes, band, COLOURS[i % len(COLOURS)], MARKS[i % len(MARKS)])
            axes.set_xlim(-0.02, 1.02)
            axes.set_ylim(-0.02, 1.02)
            axes.set_xlabel("predicted probability")
            axes.set_ylabel("share of decisions")
            axes.grid()
            told = report["doses"][name]
            axes.set_title(told["label"] + unit(told))
            if any(band["bins"] for band in bands):
                axes.legend(title="band (error)", loc="upper left", fontsize=8, title_fontsize=8)

    return drawn(5.4 * max(len(doses), 1), 5.0, draw)


def _curve(axes: Axes, band: Mapping[str, Any], colour: str, mark: str) -> None:
    x = [point["predicted"] for point in band["bins"]]
    y = np.array([point["estimate"] for point in band["bins"]])
    off = [
        [point["estimate"] - point["lo"] for point in band["bins"]],
        [point["hi"] - point["estimate"] for point in band["bins"]],
    ]
    label = f"{band['band']} ({band['error']:.3f})"
    axes.errorbar(
        x, y, off, color=colour, marker=mark, ms=4, lw=1.2, elinewidth=1, capsize=2, label=label
    )


def behaviour_ratio(report: Mapping[str, Any]) -> Figure:
    """Mean importance weight of policies that are not b; where b is right it is 1."""
    ratio = report["ratio"]
    policies = list(ratio["policies"].items())

    def draw(figure: Figure) -> None:
        halves: Any = figure.subplots(2, 1, sharex=True, height_ratios=[2.2, 1])
        top, bottom = halves
        top.axhspan(*ratio["within"], color="#EFEFEF", lw=0)
        top.axhline(1, color=BLACK, lw=1)
        shown = [1.0]
        for i, (name, steps) in enumerate(policies):
            known = [step for step in steps if step["estimate"] is not None]
            enough = [step["effective"] >= ratio["effective_needed"] for step in known]
            colour, off = (ORANGE, BLUE, GREEN)[i % 3], 0.12 * (i - (len(policies) - 1) / 2)
            x = np.array([step["step"] for step in known]) + off
            y = np.array([step["estimate"] for step in known])
            half = np.array([step["hi"] - step["estimate"] for step in known])
            shown += [*y]
            top.errorbar(x, y, half, fmt="none", ecolor=colour, elinewidth=1, capsize=2, zorder=2)
            faces = [colour if ok else "white" for ok in enough]
            top.scatter(
                x, y, 26, facecolors=faces, edgecolors=colour, zorder=3, marker=MARKS[i % 7]
            )
            label = NAMES.get(name, name)
            effective = [step["effective"] for step in known]
            bottom.plot(x, effective, color=colour, marker=MARKS[i % 7], ms=4, label=label)
        top.set_ylim(min(0.8, *shown) - 0.03, min(max(1.2, *shown) + 0.03, 3))
        top.set_ylabel("mean of pi / b")
        top.set_title("Mean importance weight by step (1: b is right)")
        bottom.axhline(ratio["effective_needed"], color=BLACK, lw=0.8, ls="--")
        bottom.set_yscale("log")
        bottom.xaxis.set_major_locator(MaxNLocator(integer=True))
        bottom.set_ylabel("effective sample")
        bottom.set_xlabel("step (open marks: effective sample below the dashed line)")
        if policies:
            bottom.legend(fontsize=8, ncols=3, loc="lower left", bbox_to_anchor=(0, 1.0))

    return drawn(8.5, 5.6, draw)


FIGURES: Mapping[str, Callable[[Mapping[str, Any]], Figure]] = {
    "behaviour_reliability": behaviour_reliability,
    "behaviour_ratio": behaviour_ratio,
}
