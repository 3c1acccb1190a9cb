"""The figures of stage prepare: attrition, doses, persistence, missing values, returns.

Called with dataset.json; draws no row of a patient.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from ogsrl.figures.planes import dose_bars, dose_cells
from ogsrl.figures.style import (
    BLACK,
    CLINICIAN,
    CLINICIAN_LIGHT,
    FEW,
    GREEN,
    ORANGE,
    PURPLE,
    SKY,
    UNSAFE,
    drawn,
    percent,
    side_by_side,
    unit,
)


def dataset_attrition(dataset: Mapping[str, Any]) -> Figure:
    """Who is left after each step, and who went into which part."""
    lines = [(line["step"], line["patients"], line["stays"]) for line in dataset["attrition"]]
    parts = [(part, n["patients"], n["stays"]) for part, n in dataset["parts"].items()]
    names = [*(name for name, *_ in lines), *(f"part: {name}" for name, *_ in parts)]
    patients = [count for _, count, _ in (*lines, *parts)]
    stays = [count for *_, count in (*lines, *parts)]
    colours = [CLINICIAN] * len(lines) + [GREEN if n == "train" else SKY for n, *_ in parts]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        place = np.arange(len(names))
        axes.barh(place, patients, color=colours, height=0.7)
        largest = max([1, *patients])
        for y, (people, count) in enumerate(zip(patients, stays, strict=True)):
            text = f"{people:,} patients, {count:,} stays"
            axes.text(people + 0.01 * largest, y, text, va="center", fontsize=9)
        axes.set_yticks(place, names)
        axes.invert_yaxis()
        axes.set_xlim(0, 1.35 * largest)
        axes.set_xlabel("patients")
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.set_title(f"Who is in cohort {dataset['cohort']}")

    return drawn(8, 1.2 + 0.38 * len(names), draw)


def dataset_dose_plane(dataset: Mapping[str, Any]) -> Figure:
    """Where in the plane of doses clinicians acted; white: fewer than ten patients."""
    planes = dataset["dose_planes"][:3]
    largest = max((cell["steps"] for plane in planes for cell in plane["cells"]), default=1)
    norm = LogNorm(3, max(largest, 30))  # ten steps are seen as clearly not white

    def draw(figure: Figure) -> None:
        for axes, plane in zip(side_by_side(figure, len(planes)), planes, strict=True):
            if plane["x"]["dose"] == plane["y"]["dose"]:
                dose_bars(axes, plane)
            else:
                dose_cells(axes, plane, norm, "What clinicians gave")

    return drawn(6.4 * len(planes), 5.2, draw)


def dataset_persistence(dataset: Mapping[str, Any]) -> Figure:
    """What dose follows what dose; the diagonal is what repeating the last dose would get right."""
    doses = list(dataset["persistence"].values())

    def draw(figure: Figure) -> None:
        for axes, dose in zip(side_by_side(figure, len(doses)), doses, strict=True):
            shares = np.array(
                [[np.nan if v is None else v for v in row] for row in dose["next_given_previous"]]
            )
            colours = mpl.colormaps["Greys"].with_extremes(bad=FEW)
            axes.imshow(shares, cmap=colours, vmin=0, vmax=1, aspect="auto")
            for (row, column), share in np.ndenumerate(shares):
                text = "<10 pat." if np.isnan(share) else f"{100 * share:.0f} %"
                colour = "white" if share > 0.55 else "black"
                axes.text(column, row, text, ha="center", va="center", color=colour)
            bands = dose["bands"]
            axes.set_xticks(range(len(bands)), bands, rotation=20, ha="right")
            axes.set_yticks(range(len(bands)), bands)
            axes.set_xlabel("this step" + unit(dose))
            axes.set_ylabel("step before" + unit(dose))
            explained = dose["explained_by_previous"]
            same = dose["same_share"]
            told = [f"same dose again: {percent(same)} of steps"]
            if explained is not None:
                told.append(f"R² of the dose before: {explained:.2f}")
            axes.set_title(f"{dose['label']}\n" + "\n".join(told), fontsize=10)

    return drawn(5.2 * len(doses), 4.6, draw)


def dataset_missingness(dataset: Mapping[str, Any]) -> Figure:
    """How often each column is charted, how old the last value is, what constraints rest on."""
    columns = sorted(dataset["missingness"].values(), key=lambda column: column["share"])
    constraints = list(dataset["constraints"].values())

    def draw(figure: Figure) -> None:
        heights = [max(len(columns), 4), max(2 * len(constraints), 3)]
        halves: Any = figure.subfigures(2, 1, height_ratios=heights)
        top, bottom = halves
        share, age = top.subplots(1, 2, sharey=True)
        place = np.arange(len(columns))
        share.barh(place, [100 * c["share"] for c in columns], color=CLINICIAN, height=0.7)
        share.set_yticks(place, [c["label"] for c in columns])
        share.set_ylim(-0.6, len(columns) - 0.4)
        share.set_xlim(0, 100)
        share.set_xlabel("rows without a value [%]")
        share.set_title("Missing")
        share.grid(axis="x")
        for y, column in zip(place, columns, strict=True):
            since = column["hours_since_charted"]
            if since["50"] is not None:
                age.plot([since["25"], since["90"]], [y, y], color=CLINICIAN_LIGHT, lw=4)
                age.plot(since["50"], y, "o", color=CLINICIAN, ms=5)
        age.set_xlim(left=-0.5)
        age.set_xlabel("hours since charted (median; 25 to 90 %)")
        age.set_title("Age of the value in use")
        age.tick_params(axis="y", length=0)
        age.grid(axis="x")
        _constraint_sources(bottom.subplots(), constraints)

    return drawn(9.5, 2.6 + 0.26 * len(columns) + 0.5 * max(len(constraints), 1), draw)


def _constraint_sources(axes: Axes, constraints: Sequence[Mapping[str, Any]]) -> None:
    kinds = {"measured": CLINICIAN, "carried": ORANGE, "unknown": PURPLE}
    place = np.arange(len(constraints))
    left = np.zeros(len(constraints))
    for kind, colour in kinds.items():
        share = np.array([100 * (c["next_rows"][kind]["share"] or 0) for c in constraints])
        axes.barh(place, share, left=left, color=colour, height=0.6, label=kind)
        left += share
    axes.set_yticks(place, [constraint["label"] for constraint in constraints])
    axes.set_xlim(0, 100)
    axes.set_xlabel("steps [%]")
    axes.set_title("What constraints were judged on")
    if constraints:
        axes.legend(ncols=3, loc="lower right", bbox_to_anchor=(1, 1))
    else:
        _say_none(axes)


def dataset_returns(dataset: Mapping[str, Any]) -> Figure:
    """How stays ended in reward, and how much of them was unsafe."""
    returns, constraints = dataset["returns"], list(dataset["constraints"].values())

    def draw(figure: Figure) -> None:
        left, right = figure.subplots(1, 2, width_ratios=[1.15, 1])
        edges = np.asarray(returns["edges"])
        left.bar(
            edges[:-1],
            returns["stays"],
            np.diff(edges) * 0.96,
            align="edge",
            color=CLINICIAN,
            label="stays",
        )
        mean = returns["mean"]
        left.axvspan(mean["lo"], mean["hi"], color=BLACK, alpha=0.25, lw=0)
        text = f"mean {mean['estimate']:.3f}\n({mean['lo']:.3f} to {mean['hi']:.3f})"
        left.axvline(mean["estimate"], color=BLACK, lw=1.2)
        left.set_ylim(0, 1.18 * max([1, *returns["stays"]]))
        low_half = mean["estimate"] < (edges[0] + edges[-1]) / 2
        left.annotate(
            text,
            (mean["estimate"], 1),
            xycoords=("data", "axes fraction"),
            xytext=(6 if low_half else -6, -4),
            textcoords="offset points",
            ha="left" if low_half else "right",
            va="top",
            fontsize=9,
        )
        left.set_xlabel("return of a stay, undiscounted [reward]")
        left.set_ylabel("stays")
        left.yaxis.set_major_formatter("{x:,.0f}")
        quality = returns["trajectory_quality"]
        known = "" if quality is None else f" (trajectory quality {quality:.2f})"
        left.set_title(f"Returns{known}")
        _constraint_shares(right, constraints)

    return drawn(10.5, 4.2, draw)


def _constraint_shares(axes: Axes, constraints: Sequence[Mapping[str, Any]]) -> None:
    place = np.arange(len(constraints))
    before = np.array([100 * c["before_death"]["estimate"] for c in constraints])
    death = np.array([100 * c["death"]["estimate"] for c in constraints])
    axes.bar(place, before, 0.55, color=CLINICIAN, label="unsafe steps")
    axes.bar(place, death, 0.55, bottom=before, color=UNSAFE, label="steps lost by death")
    for x, constraint in zip(place, constraints, strict=True):
        share = constraint["share"]
        bars = [
            [100 * (share["estimate"] - share["lo"])],
            [100 * (share["hi"] - share["estimate"])],
        ]
        axes.errorbar([x], [100 * share["estimate"]], yerr=bars, color=BLACK, capsize=4, lw=1.2)
    labels = [textwrap.fill(constraint["label"], 22) for constraint in constraints]
    axes.set_xticks(place, labels, fontsize=9)
    axes.set_xlim(-0.6, max(len(constraints), 1) - 0.4)
    top = max([1.0, *(100 * c["share"]["hi"] for c in constraints)])
    axes.set_ylim(0, 1.3 * top)
    axes.set_ylabel("cost of a stay [% of its steps]")
    axes.set_title("Constraints as logged")
    if constraints:
        axes.legend(loc="upper left", ncols=2, fontsize=9)
    else:
        _say_none(axes)


def _say_none(axes: Axes) -> None:
    axes.set_axis_off()
    axes.text(0, 0.5, "The cohort has no constraints.", transform=axes.transAxes)


FIGURES: Mapping[str, Callable[[Mapping[str, Any]], Figure]] = {
    "dataset_attrition": dataset_attrition,
    "dataset_dose_plane": dataset_dose_plane,
    "dataset_persistence": dataset_persistence,
    "dataset_missingness": dataset_missingness,
    "dataset_returns": dataset_returns,
}
