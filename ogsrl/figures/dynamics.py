"""The figures of stage dynamics: errors ahead beside peers, and calibration.

Called with dynamics.json; draws no row of a patient.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ogsrl.figures.style import (
    BLACK,
    BLUE,
    CLINICIAN,
    CLINICIAN_LIGHT,
    GREEN,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    drawn,
    side_by_side,
)

_PEERS = {
    "persistence": (CLINICIAN, "than the last value (persistence)"),
    "linear": (BLUE, "than a linear model rolled out alike"),
}
_COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION)


def dynamics_error(report: Mapping[str, Any]) -> Figure:
    """Per column and horizon: how much smaller the error is than a peer's."""
    if report.get("kind") == "counts":
        return _likelihood(report)
    columns = list(report["columns"].values())
    horizons = [str(k) for k in report["horizons"]]

    def draw(figure: Figure) -> None:
        place = np.arange(len(columns))
        all_axes = figure.subplots(1, max(len(horizons), 1), sharey=True, squeeze=False)[0]
        for axes, k in zip(all_axes, horizons, strict=False):
            for i, (peer, (colour, words)) in enumerate(_PEERS.items()):
                for y, column in enumerate(columns):
                    cell = column["ahead"][k]
                    if cell is None:
                        continue
                    gain = cell["gain"][peer]
                    axes.errorbar(
                        100 * gain["estimate"],
                        y + 0.15 * (2 * i - 1),
                        xerr=196 * gain["se"],
                        fmt="o",
                        mfc=colour if cell["signal"] else "white",
                        color=colour,
                        ms=4,
                        lw=1,
                        label=words if y == 0 else None,
                    )
            axes.axvline(0, color=BLACK, lw=0.8)
            axes.grid(axis="x")
            axes.set_title("next step" if k == "1" else f"{k} steps ahead")
            axes.set_xlabel("error smaller by [%]")
        if len(all_axes):
            all_axes[0].set_yticks(place, [column["label"] for column in columns])
            all_axes[0].set_ylim(len(columns) - 0.4, -0.6)
            handles, words = all_axes[0].get_legend_handles_labels()
            figure.legend(handles, words, loc="outside lower left", ncols=2, fontsize=9)
        figure.suptitle(
            "How much smaller the error of the dynamics is (hollow: no signal to predict)",
            x=0.01,
            ha="left",
            fontsize=11,
            fontweight="bold",
        )

    return drawn(2.2 + 2.5 * max(len(horizons), 1), 1.8 + 0.27 * max(len(columns), 3), draw)


def dynamics_calibration(report: Mapping[str, Any]) -> Figure:
    """Chances beside what came about, intervals beside their promise, disagreement and error."""
    if report.get("kind") == "counts":
        return _count_ends(report)

    def draw(figure: Figure) -> None:
        rows: Any = figure.subfigures(2, 1)
        death, leaving, unsafe = side_by_side(rows[0], 3)
        intervals, apart = side_by_side(rows[1], 2)
        known = {name: end for name, end in report["ends"].items() if end is not None}
        words = {"death": "death", "discharge": "discharge", "late_death": "death after leaving"}
        told = {name: {words[name]: end} for name, end in known.items()}
        _curves(death, told.get("death", {}))
        death.set_title("Death, per step")
        _curves(leaving, told.get("discharge", {}) | told.get("late_death", {}))
        leaving.set_title("Leaving, and death after it")
        _curves(unsafe, {entry["label"]: entry for entry in report["constraints"].values()})
        unsafe.set_title("Constraints on the next row")
        _intervals(intervals, report["columns"])
        _apart(apart, report)

    return drawn(12, 9, draw)


def _likelihood(report: Mapping[str, Any]) -> Figure:
    """Of a cohort of counts: how likely validation patients are, by how far counts are shrunk."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        cells = report["likelihood"]
        axes.plot(
            [cell["pseudo_count"] for cell in cells],
            [cell["log_likelihood"] for cell in cells],
            "o-",
            color=BLUE,
        )
        axes.axvline(report["pseudo_count"], color=BLACK, lw=0.8, ls=":")
        axes.set_xscale("log")
        axes.set_xlabel("pseudo-counts of the state's mean")
        axes.set_ylabel("log-likelihood of a step [nats]")
        axes.set_title("How far counts are shrunk")

    return drawn(6, 4, draw)


def _count_ends(report: Mapping[str, Any]) -> Figure:
    def draw(figure: Figure) -> None:
        for axes, (name, entry) in zip(
            side_by_side(figure, 2), report["ends"].items(), strict=False
        ):
            _curves(axes, {name: entry})
            axes.set_title(f"{name.capitalize()}, per step")

    return drawn(9, 4.2, draw)


def _curves(axes: Axes, entries: Mapping[str, Mapping[str, Any]]) -> None:
    top = 1e-3
    for colour, (name, entry) in zip(_COLOURS, entries.items(), strict=False):
        curve = entry["curve"]
        if not curve:
            continue
        predicted = np.array([100 * cell["predicted"] for cell in curve])
        observed = np.array([100 * cell["estimate"] for cell in curve])
        spread = np.array([196 * cell["se"] for cell in curve])
        slope = entry["slope"]
        told = f"{name}\nslope {slope['estimate']:.2f} ± {1.96 * slope['se']:.2f}"
        axes.errorbar(
            predicted, observed, yerr=spread, fmt="o-", ms=4, lw=1, color=colour, label=told
        )
        top = max(top, float(predicted.max()), float((observed + spread).max()))
    if top <= 1e-3:
        axes.axis("off")
        axes.text(0, 0.5, "None, or too few to show.", transform=axes.transAxes)
        return
    axes.plot([0, top], [0, top], color=BLACK, lw=0.8, ls=":")
    axes.set_ylim(0, 1.45 * top)
    axes.set_xlabel("predicted [%]")
    axes.set_ylabel("came about [%]")
    axes.legend(fontsize=9, loc="upper left")


def _intervals(axes: Axes, columns: Mapping[str, Any]) -> None:
    shown = [column for column in columns.values() if column["intervals"]["within"]]
    place = np.arange(len(shown))
    for colour, level in ((BLUE, "0.5"), (GREEN, "0.9")):
        cells = [column["intervals"]["within"][level] for column in shown]
        axes.errorbar(
            [100 * cell["estimate"] for cell in cells],
            place,
            xerr=[196 * cell["se"] for cell in cells],
            fmt="o",
            ms=4,
            lw=1,
            color=colour,
            label=f"{100 * float(level):.0f} % intervals",
        )
        axes.axvline(100 * float(level), color=colour, lw=0.8, ls=":")
    axes.set_yticks(place, [column["label"] for column in shown], fontsize=8)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlim(30, 100)
    axes.set_xlabel("charted values inside [%]")
    axes.set_title("Intervals of the next value")
    if shown:
        axes.legend(fontsize=9, loc="upper center")


def _apart(axes: Axes, report: Mapping[str, Any]) -> None:
    entries = {"logged doses, against the next value": report["disagreement"]}
    if report["other_doses"] is not None:
        entries["other doses, against the truth"] = report["other_doses"]["disagreement"]
    for colour, (name, entry) in zip((CLINICIAN, BLUE), entries.items(), strict=False):
        cells = entry["deciles"]
        if not cells:
            continue
        told = f"{name} ({entry['rank_correlation']:.2f})"
        axes.plot(
            [cell["disagreement"] for cell in cells],
            [cell["error"] for cell in cells],
            "o-",
            ms=4,
            lw=1,
            color=colour,
            label=told,
        )
    axes.set_ylim(bottom=0)
    axes.set_xlabel("disagreement of members [deviations of the noise]")
    axes.set_ylabel("error [deviations]")
    axes.set_title("Disagreement and error, by tenth (rank correlation)")
    axes.grid(color=CLINICIAN_LIGHT, lw=0.4)
    if axes.lines:
        axes.legend(fontsize=9, loc="best")


FIGURES: Mapping[str, Callable[[Mapping[str, Any]], Figure]] = {
    "dynamics_error": dynamics_error,
    "dynamics_calibration": dynamics_calibration,
}
