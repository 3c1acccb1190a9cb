"""The figures of stage evaluate: panel, truth, frontier, plane, doses, calibration.

Called with the rows of evaluation.parquet and with shares of bins; draws no patient. Policies keep
their colour in all of them: clinicians grey, the first other one blue, so put the selected first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogFormatter, MaxNLocator

from ogsrl.figures.evaluate_doses import doses
from ogsrl.figures.planes import plane
from ogsrl.figures.style import (
    BLACK,
    CLINICIAN,
    GREEN,
    ORANGE,
    POLICY,
    PURPLE,
    SKY,
    TRUTH,
    UNSAFE,
    drawn,
    side_by_side,
    told,
)

#: Of policies other than the first; then again from the start.
COLOURS = (POLICY, ORANGE, GREEN, PURPLE, SKY)
CLINICIANS, PANEL = "clinicians", "panel"
NOTHING = "No policy was measured."
#: How an estimator that may not vote says so in its diagnosis, and a panel without any voter.
NO_VOTE, NOBODY = "no vote", "nobody"


def panel(frame: pd.DataFrame) -> Figure:
    """What may be said of every quantity of every policy, and what each estimator said.

    Args:
        frame: Rows of evaluation.parquet.
    """
    if frame.empty:
        return told(NOTHING)
    quantities, policies = _names(frame, "quantity"), _names(frame, "policy")
    estimators = [name for name in _names(frame, "estimator") if name != PANEL]
    colours, block = policy_colours(policies), len(estimators) + 3.0
    places = {
        (policy, name): i * block + j
        for i, policy in enumerate(policies)
        for j, name in enumerate((PANEL, *estimators))
    }

    def draw(figure: Figure) -> None:
        every = side_by_side(figure, len(quantities))
        for axes, quantity in zip(every, quantities, strict=True):
            mine = frame[frame["quantity"] == quantity]
            ends = _limits(mine)
            for row in mine.to_dict("records"):
                colour = colours[str(row["policy"])]
                _line(axes, row, places[str(row["policy"]), str(row["estimator"])], colour, ends)
            axes.set_xlim(*ends)
            axes.set_ylim(len(policies) * block - 2.2, -1.9)
            axes.set_title(quantity_words(quantity), fontsize=10)
            axes.grid(axis="x")
            axes.tick_params(axis="y", length=0)
            axes.set_yticks([])
            _few_ticks(axes)
        every[0].set_yticks(list(places.values()), [name for _, name in places], fontsize=7)
        for policy in policies:
            spot = (0.02, places[policy, PANEL] - 0.75)
            every[0].annotate(
                policy, spot, xycoords=("axes fraction", "data"), fontsize=9, weight="bold",
                color=colours[policy], annotation_clip=False,
            )  # fmt: skip
        columns = 4 if len(quantities) > 1 else 2
        figure.legend(
            handles=_panel_legend(frame), loc="outside lower left", ncols=columns, fontsize=8
        )

    height = 1.2 + 0.155 * block * len(policies)
    return drawn(2.2 + 2.35 * max(len(quantities), 1), height, draw)


def _line(
    axes: Axes, row: Mapping[Any, Any], y: float, colour: str, ends: tuple[float, float]
) -> None:
    """An interval and its estimate; an end outside the axes is an arrow."""
    whole, open_ = row["estimator"] == PANEL, not _votes(row)
    low, high = max(row["lo"], ends[0]), min(row["hi"], ends[1])
    style: dict[str, Any] = {"color": colour, "lw": 3 if whole else 1, "ls": ":" if open_ else "-"}
    axes.plot([low, high], [y, y], solid_capstyle="butt", alpha=1 if whole else 0.75, **style)
    for end, outside, mark in (
        (ends[0], row["lo"] < ends[0], "<"),
        (ends[1], row["hi"] > ends[1], ">"),
    ):
        if outside:
            axes.plot(end, y, mark, color=colour, ms=5 if whole else 3, clip_on=False)
    if np.isfinite(row["estimate"]) and ends[0] <= row["estimate"] <= ends[1]:
        face = "white" if open_ else colour
        axes.plot(row["estimate"], y, "o", color=colour, mfc=face, ms=6 if whole else 3)
    if whole and np.isfinite(row["truth"]):
        axes.plot(row["truth"], y, "D", color=TRUTH, ms=4, mfc="none", mew=1.3, zorder=4)


def _panel_legend(frame: pd.DataFrame) -> list[Line2D]:
    handles = [
        Line2D([], [], color=POLICY, lw=3, marker="o", ms=6, label="panel"),
        Line2D([], [], color=POLICY, lw=1, marker="o", ms=3, label="an estimator that votes"),
        Line2D(
            [], [], color=POLICY, lw=1, ls=":", marker="o", mfc="white", ms=3,
            label="may not vote",
        ),
    ]  # fmt: skip
    if frame["truth"].notna().any():
        mark: dict[str, Any] = {"marker": "D", "mfc": "none", "ls": "", "ms": 4}
        handles.append(Line2D([], [], color=TRUTH, label="truth", **mark))
    return handles


def truth(frame: pd.DataFrame) -> Figure:
    """Estimates against the truth, where the cohort knows it.

    Args:
        frame: Rows of evaluation.parquet.
    """
    known = frame[frame["truth"].notna() & frame["estimate"].notna()]
    if known.empty:
        return told("The truth is not known in this cohort: patients are treated once.")
    quantities = _names(known, "quantity")
    estimators = [name for name in _names(known, "estimator") if name != PANEL]

    def draw(figure: Figure) -> None:
        every = side_by_side(figure, len(quantities))
        for axes, quantity in zip(every, quantities, strict=True):
            _against_truth(axes, known[known["quantity"] == quantity])
            axes.set_title(quantity_words(quantity), fontsize=10)
        every[0].set_ylabel("estimate (95 % intervals)" if _is_95(known) else "estimate")
        marks = [
            ("panel", POLICY, "o", 5, POLICY),
            ("panel, nobody may vote", POLICY, "o", 5, "white"),
            ("panel, interval misses the truth", UNSAFE, "o", 5, UNSAFE),
        ]
        if estimators:
            marks.append(("each estimator", CLINICIAN, "o", 3, "white"))
        handles = [
            Line2D([], [], color=c, marker=m, ms=s, mfc=f, label=n) for n, c, m, s, f in marks
        ]
        figure.legend(handles=handles, loc="outside lower left", ncols=2, fontsize=8)

    return drawn(0.8 + 2.8 * max(len(quantities), 2), 4.0, draw)


def _against_truth(axes: Axes, frame: pd.DataFrame) -> None:
    """The panel's estimates with intervals, others' beside them on either side."""
    whole = frame[frame["estimator"] == PANEL]
    ends = _limits(frame)
    axes.plot(ends, ends, color=BLACK, lw=1)
    others = [name for name in _names(frame, "estimator") if name != PANEL]
    apart = 0.06 * (ends[1] - ends[0]) / max(len(others), 1)
    for k, name in enumerate(others):
        mine = frame[frame["estimator"] == name]
        x = mine["truth"] + apart * (k - (len(others) - 1) / 2)
        _bars(axes, x, mine, color=CLINICIAN, lw=0.6, ms=2.5, mfc="white", alpha=0.5)
    votes = np.array([_votes(row) for row in whole.to_dict("records")], bool)
    held = whole["covered"].fillna(True).to_numpy(bool)
    for chosen, colour, more in (
        (~votes, POLICY, {"lw": 0.8, "mfc": "white"}),
        (votes & held, POLICY, {"lw": 2}),
        (votes & ~held, UNSAFE, {"lw": 2}),
    ):
        mine = whole[chosen]
        _bars(axes, mine["truth"], mine, color=colour, ms=5, zorder=4, **more)
        error = 1.96 * mine["truth_se"].fillna(0.0)
        axes.errorbar(mine["truth"], mine["estimate"], xerr=error, fmt="none", ecolor=colour, lw=1)
    axes.set_xlim(*ends)
    axes.set_ylim(*ends)
    axes.set_aspect("equal")
    axes.set_xlabel("truth")
    axes.grid()
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(4))


def frontier(frame: pd.DataFrame) -> Figure:
    """What a wider kernel gains in effective sample, and costs: one panel an estimator.

    Args:
        frame: Columns `policy, quantity, estimator, bandwidth, estimate, lo, hi, ess, votes`.
    """
    shown = frame[frame["estimate"].notna() & (frame["ess"].astype(float) > 0)]
    if shown.empty:
        return told("No weighted estimator answered: there is no frontier.")
    quantities, estimators = _names(shown, "quantity"), _names(shown, "estimator")
    colours = policy_colours(_names(shown, "policy"))
    widths = sorted(shown["bandwidth"].unique())

    def draw(figure: Figure) -> None:
        grid: Any = figure.subplots(
            len(quantities), len(estimators), sharex=True, sharey="row", squeeze=False
        )
        for i, quantity in enumerate(quantities):
            for j, name in enumerate(estimators):
                chosen = (shown["quantity"] == quantity) & (shown["estimator"] == name)
                _frontier(grid[i, j], shown[chosen], colours, widths)
                grid[i, j].set_title(name if not i else "", fontsize=10)
            grid[i, 0].set_ylabel(quantity_words(quantity))
            grid[i, 0].set_ylim(*_seen(shown[shown["quantity"] == quantity]))
        for axes in grid[-1]:
            axes.set_xlabel("effective sample [patients]")
        handles = [
            Line2D([], [], color=colour, marker="o", ms=4, label=name)
            for name, colour in colours.items()
        ]
        handles += [
            Line2D([], [], color=BLACK, ls="", marker="o", ms=_size(w, widths), label=f"h = {w:g}")
            for w in widths
        ]
        hollow: dict[str, Any] = {"marker": "o", "ms": 4, "mfc": "white", "ls": ""}
        handles.append(Line2D([], [], color=BLACK, label="may not vote", **hollow))
        columns = max(2, round(1.3 * len(estimators)))
        figure.legend(handles=handles, loc="outside lower left", ncols=columns, fontsize=8)

    rows = -(-(len(colours) + len(widths) + 1) // max(2, round(1.3 * len(estimators))))
    size = 1.2 + 2.5 * max(len(estimators), 2), 0.6 + 2.5 * len(quantities) + 0.2 * rows
    return drawn(*size, draw)


def _frontier(
    axes: Axes, frame: pd.DataFrame, colours: Mapping[str, str], widths: Sequence[float]
) -> None:
    for policy, colour in colours.items():
        mine = frame[frame["policy"] == policy].sort_values("bandwidth")
        axes.plot(mine["ess"], mine["estimate"], color=colour, lw=0.8, alpha=0.6)
        for row in mine.to_dict("records"):
            axes.plot([row["ess"]] * 2, [row["lo"], row["hi"]], color=colour, lw=1)
            face = colour if row["votes"] else "white"
            size = _size(row["bandwidth"], widths)
            axes.plot(row["ess"], row["estimate"], "o", color=colour, mfc=face, ms=size)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(LogFormatter())
    axes.xaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1, 0.4)))
    axes.grid()


def calibration(report: Mapping[str, Any]) -> Figure:
    """Predicted values of the clinicians at first decisions, against what was observed.

    Args:
        report: `quantity`, `bins` with `predicted, estimate, lo, hi, patients`, and `offset` and
            `slope` with `estimate, lo, hi`.
    """
    bins = [one for one in report["bins"] if one["estimate"] is not None]
    if not bins:
        return told("Too few test patients with a known end: calibration is not shown.")
    x, y, low, high = (
        np.array([one[name] for one in bins]) for name in ("predicted", "estimate", "lo", "hi")
    )

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        ends = _padded(min(x.min(), low.min()), max(x.max(), high.max()))
        axes.plot(ends, ends, color=BLACK, lw=1)
        off = [y - low, high - y]
        axes.errorbar(x, y, off, color=CLINICIAN, marker="o", ms=5, lw=0, elinewidth=1.6, capsize=2)
        axes.set_xlim(*ends)
        axes.set_ylim(*ends)
        axes.set_aspect("equal")
        axes.grid()
        words = quantity_words(report["quantity"])
        axes.set_xlabel(f"{words} predicted of the clinicians")
        axes.set_ylabel("observed (95 % interval over patients)")
        axes.set_title("Value against outcome, by tenth")
        lines = [
            f"{name}: {said['estimate']:.3f} ({said['lo']:.3f} to {said['hi']:.3f})"
            for name, said in (("observed less predicted", report["offset"]),
                               ("slope", report["slope"]))
            if said["estimate"] is not None
        ]  # fmt: skip
        axes.text(0.03, 0.97, "\n".join(lines), transform=axes.transAxes, va="top", fontsize=8)

    return drawn(5.2, 5.0, draw)


def policy_colours(policies: Sequence[str]) -> dict[str, str]:
    """Clinicians grey, the first other policy blue.

    >>> policy_colours(["clinicians", "selected"]) == {"clinicians": CLINICIAN, "selected": POLICY}
    True
    """
    others = [name for name in policies if name != CLINICIANS]
    return {
        name: CLINICIAN if name == CLINICIANS else COLOURS[others.index(name) % len(COLOURS)]
        for name in policies
    }


def quantity_words(quantity: str) -> str:
    """As a reader says it.

    >>> quantity_words("cost:hypoxia"), quantity_words("mortality")
    ('cost: hypoxia', 'mortality')
    """
    return quantity.replace(":", ": ")


def _names(frame: pd.DataFrame, column: str) -> list[str]:
    return [str(name) for name in frame[column].unique()]


def _votes(row: Mapping[Any, Any]) -> bool:
    return not str(row["diagnosis"]).startswith((NO_VOTE, NOBODY))


def _limits(frame: pd.DataFrame) -> tuple[float, float]:
    """What an axis shows: all that may be said, all truths; of others what is within reach."""
    whole = frame[frame["estimator"] == PANEL]
    said = whole[[_votes(row) for row in whole.to_dict("records")]]
    kept = said if len(said) else whole
    shown = pd.concat([kept["lo"], kept["hi"], whole["estimate"], frame["truth"]]).dropna()
    if shown.empty:
        shown = pd.concat([frame["lo"], frame["hi"]]).dropna()
    return _padded(float(shown.min()), float(shown.max()))


def _seen(frame: pd.DataFrame) -> tuple[float, float]:
    """Estimates, and so much of intervals as leaves them apart."""
    low, high = frame["estimate"].min(), frame["estimate"].max()
    reach = max(float((frame["hi"] - frame["lo"]).median()), float(high - low), 1e-6)
    return (
        max(float(frame["lo"].min()), float(low) - reach) - 0.03 * reach,
        min(float(frame["hi"].max()), float(high) + reach) + 0.03 * reach,
    )


def _padded(low: float, high: float) -> tuple[float, float]:
    pad = 0.07 * (high - low) or 0.05 * max(abs(high), 0.1)
    return low - pad, high + pad


def _few_ticks(axes: Axes) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(3))
    axes.tick_params(axis="x", labelsize=8)


def _bars(axes: Axes, x: pd.Series, frame: pd.DataFrame, **style: Any) -> None:
    middle = frame["estimate"]
    off = np.stack([(middle - frame["lo"]).clip(lower=0), (frame["hi"] - middle).clip(lower=0)])
    if len(frame):
        axes.errorbar(x, middle, yerr=off, fmt="o", **style)


def _is_95(frame: pd.DataFrame) -> bool:
    levels: npt.NDArray[np.float64] = frame["level"].to_numpy(np.float64)
    return bool(np.allclose(levels, 0.95))


def _size(width: float, widths: Sequence[float]) -> float:
    """Of a marker: the wider the kernel, the larger."""
    return 3.0 + 3.0 * list(widths).index(width) / max(len(widths) - 1, 1)


FIGURES: Mapping[str, Callable[[Any], Figure]] = {
    "evaluate_panel": panel,
    "evaluate_frontier": frontier,
    "evaluate_plane": plane,
    "evaluate_doses": doses,
    "evaluate_calibration": calibration,
    "evaluate_truth": truth,
}
