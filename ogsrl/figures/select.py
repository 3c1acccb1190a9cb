"""Figures of selection: every candidate in the second model, and the finalists' bounds.

Called by the select stage with selection.json; draws no patient.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ogsrl.figures.style import (
    BLACK,
    CLINICIAN,
    GREEN,
    ORANGE,
    POLICY,
    PURPLE,
    SKY,
    VERMILION,
    drawn,
    side_by_side,
    told,
)

COLOURS = (GREEN, ORANGE, PURPLE, SKY, VERMILION)
OURS = "ogsrl"
WIDTH, HEIGHT = 4.6, 3.6


def candidates(report: Mapping[str, Any]) -> Figure:
    """Every candidate in the second model: what decides, beside how often it defers."""
    decisive = _decisive(report)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        algorithms = list(dict.fromkeys(one["algorithm"] for one in report["candidates"]))
        others = [name for name in algorithms if name != OURS]
        for name in algorithms:
            colour = POLICY if name == OURS else COLOURS[others.index(name) % len(COLOURS)]
            mine = [one for one in report["candidates"] if one["algorithm"] == name]
            for fine, filled in ((True, colour), (False, "none")):
                shown = [one["screen"] for one in mine if one["screen"]["looks_feasible"] is fine]
                axes.errorbar(
                    [100 * one["steps_deferred"] for one in shown],
                    [one[decisive]["estimate"] for one in shown],
                    yerr=[1.96 * one[decisive]["less_clinicians_se"] for one in shown],
                    fmt="o",
                    color=colour,
                    mfc=filled,
                    lw=1,
                    label=name + ("" if fine else ", over a limit") if shown else None,
                )
        theirs = report["clinicians"][decisive]["estimate"]
        axes.axhline(theirs, color=CLINICIAN, lw=1.5, label="clinicians")
        axes.set_xlabel("steps deferred [%]")
        axes.set_ylabel(f"{decisive} in the second model")
        axes.set_title("Candidates (95 % of the difference from clinicians)")
        axes.grid(axis="y")
        axes.legend(fontsize=8)

    return drawn(6.4, 4.2, draw)


def finalists(report: Mapping[str, Any]) -> Figure:
    """Bounds of each finalist: what decides, and each limit."""
    decisive = _decisive(report)
    judged = [one for one in report["candidates"] if one["fqe"] is not None]
    names = [one["name"] + (" (chosen)" if one["chosen"] else "") for one in judged]
    limits = list(judged[0]["fqe"]["limits"])

    def draw(figure: Figure) -> None:
        first, *rest = side_by_side(figure, 2 + len(limits))
        _bounds(first, names, [one["fqe"]["primary"] for one in judged], None)
        theirs = judged[0]["fqe"]["clinicians"][decisive]
        first.axvline(theirs, color=CLINICIAN, lw=1.5)
        first.set_xlabel(f"{decisive}; grey: clinicians")
        for axes, limit in zip(rest, limits, strict=False):
            kept = [one["fqe"]["limits"][limit] for one in judged]
            _bounds(axes, [""] * len(names), kept, kept[0]["limit"])
            kind, name = limit.split(":")
            axes.set_xlabel(f"{name}: {'beyond what is allowed' if kind == 'relative' else 'cost'}")
        kept = [one["fqe"]["refusal"] for one in judged]
        _bounds(rest[-1], [""] * len(names), kept, kept[0]["limit"])
        rest[-1].set_xlabel("share of steps deferred")

    return drawn(WIDTH + 3.2 * (1 + len(limits)), 1.6 + 0.5 * len(names), draw)


def nobody_judged(status: str) -> Figure:
    """What stands where there was nobody to judge, or nothing to judge on."""
    return told(f"{status.replace('_', ' ').capitalize()}: no candidate was judged.")


def _bounds(
    axes: Axes, names: list[str], bounds: list[Mapping[str, Any]], limit: float | None
) -> None:
    for place, bound in enumerate(bounds):
        broken = limit is not None and bound["high"] > limit
        colour = VERMILION if broken else POLICY
        axes.plot([bound["low"], bound["high"]], [place, place], color=colour, lw=2)
        axes.plot([bound["estimate"]], [place], "o", color=colour)
    if limit is not None:
        axes.axvline(limit, color=BLACK, ls=":", lw=1)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(axis="x")


def _decisive(report: Mapping[str, Any]) -> str:
    return "mortality" if "mortality" in report["clinicians"] else "value"


FIGURES: Mapping[str, Callable[[Mapping[str, Any]], Figure]] = {
    "select_candidates": candidates,
    "select_finalists": finalists,
}
