"""The figure evaluate_doses: which doses each policy gives, beside what was given in those steps.

Called through `ogsrl.figures.evaluate`; draws shares of bins of at least ten patients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ogsrl.figures.style import CLINICIAN, CLINICIAN_LIGHT, POLICY, drawn, told, unit

#: Between `none` and the doses given, in bins.
GAP = 1.0


def doses(distributions: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """Shares of steps in bins of each dose, one row a policy.

    Args:
        distributions: By policy, of each dose `label, unit, zero_bin, edges, levels` and `bins`:
            of each bin `policy` and `clinicians`, with `estimate, lo, hi`, or None where hidden.
    """
    shown = {
        name: each
        for name, each in distributions.items()
        if any(_known(one, "policy") for one in each)
    }
    if not shown:
        return told("No policy recommends a dose: there is nothing to compare.")
    count = len(next(iter(shown.values())))

    def draw(figure: Figure) -> None:
        grid: Any = figure.subplots(len(shown), count, squeeze=False, sharex="col")
        for i, (name, each) in enumerate(shown.items()):
            for j, dose in enumerate(each):
                _dose(grid[i, j], dose)
                if i == len(shown) - 1:
                    _ticks(grid[i, j], dose)
            grid[i, 0].set_ylabel("steps [%]")
            grid[i, 0].set_title(name, fontsize=10)
        handles = [
            Patch(
                facecolor=CLINICIAN_LIGHT,
                edgecolor=CLINICIAN,
                label="clinicians, in the same steps",
            ),
            Patch(fill=False, edgecolor=POLICY, lw=1.4, label="policy, where it recommends a dose"),
        ]
        handles.append(Patch(fill=False, lw=0, label="no bar: fewer than 10 patients"))
        figure.legend(
            handles=handles, loc="outside lower left", ncols=3 if count > 1 else 1, fontsize=8
        )

    return drawn(1.0 + 4.6 * count, (1.1 if count > 1 else 1.5) + 1.75 * len(shown), draw)


def _known(dose: Mapping[str, Any], who: str) -> list[tuple[int, Mapping[str, Any]]]:
    """Places and shares of the bins that are told."""
    found = enumerate(one[who] for one in dose["bins"])
    return [(i, one) for i, one in found if one is not None and one["estimate"] is not None]


def _places(dose: Mapping[str, Any]) -> npt.NDArray[np.float64]:
    """Middles of the bins as drawn: `none` stands apart."""
    places = np.arange(len(dose["bins"]), dtype=np.float64)
    if dose["zero_bin"]:
        places[1:] += GAP
    return places


def _dose(axes: Axes, dose: Mapping[str, Any]) -> None:
    places = _places(dose)
    for i, one in _known(dose, "clinicians"):
        axes.bar(
            places[i],
            100 * one["estimate"],
            0.9,
            color=CLINICIAN_LIGHT,
            edgecolor=CLINICIAN,
            lw=0.6,
        )
        ends = [100 * one["lo"], 100 * one["hi"]]
        axes.plot([places[i] - 0.12] * 2, ends, color=CLINICIAN, lw=1)
    for i, one in _known(dose, "policy"):
        share, ends = 100 * one["estimate"], [100 * one["lo"], 100 * one["hi"]]
        axes.bar(places[i], share, 0.9, fill=False, edgecolor=POLICY, lw=1.4)
        axes.plot([places[i] + 0.12] * 2, ends, color=POLICY, lw=1.4)
    axes.set_xlim(places[0] - 0.8, places[-1] + 0.8)
    axes.set_ylim(bottom=0)
    axes.grid(axis="y")


def _ticks(axes: Axes, dose: Mapping[str, Any]) -> None:
    """Levels, or a few round doses; `none` apart."""
    places = _places(dose)
    if dose["levels"]:
        spots, words = list(places), list(dose["levels"])
    else:
        edges = np.asarray(dose["edges"], np.float64)
        first = places[-1] + 0.5 - (len(edges) - 1)  # where the first edge is drawn
        values = _round(edges)
        spots = [first + float(np.interp(v, edges, np.arange(len(edges)))) for v in values]
        words = [f"{value:g}" for value in values]
        if dose["zero_bin"]:
            spots, words = [places[0], *spots], ["none", *words]
    axes.set_xticks(spots, words, fontsize=8)
    axes.set_xlabel(dose["label"] + unit(dose))


def _round(edges: npt.NDArray[np.float64]) -> list[float]:
    """1, 2 and 5 times powers of ten and the last edge, a seventh of the axis apart or more.

    >>> _round(np.linspace(0, 45, 21) ** 2)
    [50.0, 200.0, 500.0, 1000.0, 2025.0]
    """
    top, most = float(edges[-1]), len(edges) - 1
    powers = 10.0 ** np.arange(np.floor(np.log10(max(top, 1e-12))), -7, -1)
    kept = [top]
    for value in (first * power for power in powers for first in (5, 2, 1)):
        place, last = np.interp([value, kept[-1]], edges, np.arange(most + 1))
        if edges[0] < value < top and last - place >= most / 7 and place >= most / 7:
            kept.append(float(value))
    return kept[::-1]
