"""The figures of stage guardian: false alarms, power, and the region on the plane of doses.

Called with guardian.json; draws no row of a patient. Of a guardian that refuses everything nothing
is drawn but why.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from ogsrl.figures.style import (
    BLACK,
    CLINICIAN,
    GREEN,
    ORANGE,
    POLICY,
    PURPLE,
    REFUSED,
    UNSAFE,
    drawn,
    side_by_side,
    too_few,
    unit,
)

#: The guardian that acts is blue as the policy is; its peers are not.
PEERS = (ORANGE, GREEN, PURPLE)
MARKERS = ("o", "s", "^", "D")


def guardian_false_alarm(report: Mapping[str, Any]) -> Figure:
    """How often clinicians' own doses are refused, by group, against the promise, if any."""
    alarm = report["false_alarm"]
    lines: list[tuple[str, Mapping[str, Any] | None, bool]] = [
        ("All steps", alarm["steps"], False),
        ("Stays with a refusal", alarm["stays"], False),
    ]
    for group in alarm["groups"].values():
        lines.append((group["label"], None, True))
        lines += [(entry["group"], entry["share"], False) for entry in group["shares"]]
    largest = max([0.02, *(found["hi"] for _, found, _ in lines if found is not None)])

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        place = range(len(lines))
        for y, (_, found, header) in enumerate(lines):
            if found is not None:
                _interval(axes, y, found, CLINICIAN)
            elif not header:
                axes.text(0, y, " fewer than 10 patients", va="center", fontsize=9, color="#555555")
        if alarm["alpha"] is not None:
            _promise(axes, alarm["alpha"])
        axes.set_yticks(place, [name for name, _, _ in lines])
        for label, (_, _, header) in zip(axes.get_yticklabels(), lines, strict=True):
            if header:
                label.set_fontweight("bold")
        axes.set_ylim(len(lines) - 0.4, -0.6)
        axes.set_xlim(0, 105 * largest)
        axes.set_xlabel("refused of what clinicians did [%] (95 % interval over patients)")
        promised = "" if alarm["alpha"] is not None else "measured; nothing is promised"
        axes.set_title(f"False alarms on validation patients\n{promised}")
        axes.grid(axis="x")
        axes.tick_params(axis="y", length=0)

    return drawn(8, 1.6 + 0.24 * len(lines), draw)


def _promise(axes: Axes, alpha: float) -> None:
    axes.axvline(100 * alpha, color=BLACK, lw=1.2, ls="--")
    axes.annotate(
        f"promised: {100 * alpha:g} %",
        (100 * alpha, 1),
        xycoords=("data", "axes fraction"),
        xytext=(4, 4),
        textcoords="offset points",
        fontsize=9,
    )


def _interval(axes: Axes, y: float, found: Mapping[str, Any], colour: str, mark: str = "o") -> None:
    axes.plot([100 * found["lo"], 100 * found["hi"]], [y, y], color=colour, lw=2)
    axes.plot(100 * found["estimate"], y, mark, color=colour, ms=5)


def guardian_power(report: Mapping[str, Any]) -> Figure:
    """What share of each departure is refused, by every member; and by how rare the patient is."""
    power = report["power"]
    members = list(power["real_cases"]["refused"])
    rare = power["by_rarity"]

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, 2, width_ratios=[1.5, 1]) if rare else [figure.subplots()]
        _departures(panels[0], power, members, report["alpha"])
        if rare:
            _by_rarity(panels[1], rare, power["departures"])

    return drawn(12 if rare else 8, 1.8 + 0.42 * (len(power["departures"]) + 1), draw)


def _departures(
    axes: Axes, power: Mapping[str, Any], members: Sequence[str], alpha: float | None
) -> None:
    rows = [("Clinicians' own doses", power["real_cases"]["refused"], "")]
    rows += [
        (entry["label"], entry["power"], entry["missing"] or entry["status"])
        for entry in power["departures"].values()
    ]
    colours = [POLICY, *PEERS]
    for y, (_, found, why) in enumerate(rows):
        for i, member in enumerate(members):
            if found.get(member) is not None:
                spot = y + 0.16 * (i - (len(members) - 1) / 2)
                _interval(axes, spot, found[member], colours[i], MARKERS[i])
        if not any(found.get(member) is not None for member in members):
            text = " not evaluable: " + why if why not in ("too few patients",) else f" {why}"
            axes.text(0, y, text, va="center", fontsize=8, color="#555555")
    for i, member in enumerate(members):
        axes.plot([], [], MARKERS[i], color=colours[i], label=member)
    if alpha is not None:
        axes.axvline(100 * alpha, color=BLACK, lw=1, ls="--")
    axes.set_yticks(range(len(rows)), [textwrap.fill(name, 28) for name, _, _ in rows], fontsize=9)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(-1, 101)
    dashed = "" if alpha is None else "; dashed: promised false alarms"
    axes.set_xlabel(f"refused [%]{dashed}")
    axes.set_title("Power" if alpha is None else "Power at the calibrated threshold")
    axes.grid(axis="x")
    axes.tick_params(axis="y", length=0)
    axes.legend(loc="lower center", ncols=4, fontsize=9, bbox_to_anchor=(0.4, 1.06))


def _by_rarity(
    axes: Axes, deciles: Sequence[Mapping[str, Any]], departures: Mapping[str, Any]
) -> None:
    names = list(deciles[0]["departures"])
    colours = [POLICY, ORANGE, GREEN, PURPLE, UNSAFE]
    for k, name in enumerate(names):
        shares = [decile["departures"][name]["by_dose"] for decile in deciles]
        known = [
            (d["decile"], 100 * s["estimate"]) for d, s in zip(deciles, shares, strict=True) if s
        ]
        if known:
            x, y = zip(*known, strict=True)
            label = departures[name]["label"]
            axes.plot(x, y, marker=MARKERS[k % 4], ms=4, color=colours[k % 5], label=label)
    axes.set_xticks([1, 5, 10], ["commonest\ntenth", "5", "rarest\ntenth"])
    axes.set_xlim(0.6, 10.4)
    axes.set_ylim(-2, 102)
    axes.set_ylabel("refused for the dose [%]")
    axes.set_title("Power on doses by how rare the patient is")
    axes.grid(axis="y")
    if axes.lines:
        axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=1)


def guardian_region(report: Mapping[str, Any]) -> Figure:
    """Which doses are supported for typical patients; refused is hatched."""
    found = report["region"]
    if found is None:
        return _no_region()
    axes_of, patients = found["axes"], found["patients"]

    def draw(figure: Figure) -> None:
        for axes, patient in zip(side_by_side(figure, len(patients)), patients, strict=True):
            inside = np.array(patient["supported"], bool)
            if inside.ndim == 1:
                inside = inside[:, None]
            _plane(axes, inside, axes_of)
            share = 100 * patient["share_supported"]
            axes.set_title(f"{patient['name'].capitalize()}\n{share:.0f} % of doses supported")
        handles = [
            Patch(facecolor=POLICY, alpha=0.35, label="supported"),
            Patch(**REFUSED, label="refused"),
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=2)

    return drawn(4.2 * len(patients), 4.6, draw)


def _plane(axes: Axes, inside: np.ndarray[Any, Any], axes_of: Sequence[Mapping[str, Any]]) -> None:
    """Cells of equal width on the learner's scale, white hatched where refused."""
    x, y = _walls(axes_of[0]["scaled"]), np.array([0.0, 1.0])
    if len(axes_of) > 1:
        y = _walls(axes_of[1]["scaled"])
    axes.set_facecolor("white")
    axes.add_patch(_rectangle(x[0], y[0], x[-1] - x[0], y[-1] - y[0], REFUSED))
    blue = {"facecolor": "#A6C8E4", "edgecolor": "#A6C8E4", "linewidth": 0.3}
    for i, j in np.argwhere(inside):
        axes.add_patch(_rectangle(x[i], y[j], x[i + 1] - x[i], y[j + 1] - y[j], blue))
    axes.set_xlim(x[0], x[-1])
    axes.set_ylim(y[0], y[-1])
    _ticks(axes, axes_of[0], "x")
    if len(axes_of) > 1:
        _ticks(axes, axes_of[1], "y")
    else:
        axes.set_yticks([])


def _rectangle(x: float, y: float, width: float, height: float, look: Mapping[str, Any]) -> Patch:
    return Rectangle((x, y), width, height, **look)


def _walls(scaled: Sequence[float]) -> np.ndarray[Any, np.dtype[np.float64]]:
    values = np.asarray(scaled, np.float64)
    if len(values) == 1:
        return np.array([values[0] - 0.5, values[0] + 0.5])
    middle = (values[1:] + values[:-1]) / 2
    return np.concatenate([[2 * values[0] - middle[0]], middle, [2 * values[-1] - middle[-1]]])


def _ticks(axes: Axes, axis: Mapping[str, Any], which: str) -> None:
    count = len(axis["values"])
    chosen = range(count) if axis["levels"] else np.unique(np.linspace(0, count - 1, 5).round())
    places = [axis["scaled"][int(i)] for i in chosen]
    words = (
        list(axis["levels"][:count])
        if axis["levels"]
        else [f"{float(f'{value:.3g}'):g}" for value in (axis["values"][int(i)] for i in chosen)]
    )
    (axes.set_xticks if which == "x" else axes.set_yticks)(places, words)
    label = axis["label"] + unit(axis)
    (axes.set_xlabel if which == "x" else axes.set_ylabel)(label)


def _no_region() -> Figure:
    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.axis("off")
        axes.text(0, 0.5, "No column says how sick a patient is: no typical patient is drawn.")

    return drawn(8, 1.2, draw)


def refuses_everything(report: Mapping[str, Any]) -> Figure:
    """Why there is nothing to draw."""
    if report["needed"] is not None:
        return too_few(report["needed"], report["needed_of"])

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.axis("off")
        axes.text(
            0,
            0.5,
            "Everything is refused: no threshold refuses as little of clinicians' own doses as was "
            "promised.",
        )

    return drawn(8, 1.2, draw)


FIGURES: Mapping[str, Callable[[Mapping[str, Any]], Figure]] = {
    "guardian_false_alarm": guardian_false_alarm,
    "guardian_power": guardian_power,
    "guardian_region": guardian_region,
}
