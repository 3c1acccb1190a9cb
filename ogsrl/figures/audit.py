"""The figures of stage audit: every gate beside its limit, every subgroup beside the clinicians.

Called with what audit.json says and with what evaluation.json says of subgroups.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ogsrl.figures.style import (
    BLACK,
    CLINICIAN,
    GREEN,
    ORANGE,
    POLICY,
    REFUSED,
    UNSAFE,
    drawn,
    told,
)

#: Of verdicts.
COLOURS = {"passed": GREEN, "undecided": ORANGE, "failed": UNSAFE, "not asked": CLINICIAN}


def gates(audit: Mapping[str, Any]) -> Figure:
    """What was measured at each gate, on a scale of its own, and where it would fail.

    Args:
        audit: As audit.json says.
    """
    every = list(audit["gates"])

    def draw(figure: Figure) -> None:
        rows = figure.subplots(len(every), 1, squeeze=False)[:, 0]
        for axes, gate in zip(rows, every, strict=True):
            _gate(axes, gate)
        rows[0].set_title("Each gate on a scale of its own: hatched is where it fails")

    return drawn(9, 0.52 * len(every) + 0.4, draw)


def _gate(axes: Axes, gate: Mapping[str, Any]) -> None:
    colour, limit, measured = COLOURS[gate["verdict"]], gate["limit"], gate["measured"]
    known = [x for x in (gate["lo"], gate["hi"], gate["estimate"], measured) if x is not None]
    low, high = min([*known, limit]), max([*known, limit])
    room = 0.25 * (high - low) or 0.25 * abs(limit) or 1.0
    ends = (low - room, high + room)
    wrong = (limit, ends[1]) if gate["relation"] == "<=" else (ends[0], limit)
    axes.axvspan(*wrong, **REFUSED, lw=0)
    axes.axvline(limit, color=BLACK, lw=1, ls="--")
    if gate["lo"] is not None and gate["hi"] is not None:
        axes.plot([gate["lo"], gate["hi"]], [0, 0], color=colour, lw=2, solid_capstyle="butt")
    if gate["estimate"] is not None:
        axes.plot(gate["estimate"], 0, "o", color=colour, ms=5)
    if measured is not None:
        axes.plot(measured, 0, "|", color=colour, ms=13, mew=2.5)
    axes.set_xlim(*ends)
    axes.set_ylim(-1, 1)
    axes.set_xticks([limit], [f"{limit:g}"], fontsize=7)
    axes.set_yticks([0], [gate["title"]], fontsize=8)
    axes.tick_params(length=0, pad=2)
    axes.spines["left"].set_visible(False)
    number = "not known" if measured is None else f"{measured:.3g}"
    axes.annotate(
        f"{gate['verdict']}: {number}", (1.01, 0.5), xycoords="axes fraction",
        va="center", fontsize=8, color=colour, annotation_clip=False,
    )  # fmt: skip


def subgroups(groups: Sequence[Mapping[str, Any]]) -> Figure:
    """The advantage over the clinicians in each subgroup, and who is surely worse off.

    Args:
        groups: `label, group, patients, estimate, lo, hi, adjusted_hi` of each; None of few.
    """
    if not groups:
        return told("No subgroup was measured.")

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.axvline(0, color=CLINICIAN, lw=1.2)
        for place, one in enumerate(groups):
            if one["estimate"] is None:
                axes.text(0, place, " fewer than ten patients", va="center", fontsize=8)
                continue
            worse = one["adjusted_hi"] is not None and one["adjusted_hi"] < 0
            colour = UNSAFE if worse else POLICY
            axes.plot([one["lo"], one["hi"]], [place, place], color=colour, lw=2)
            axes.plot(one["estimate"], place, "o", color=colour, ms=5)
            if one["adjusted_hi"] is not None:
                axes.plot(one["adjusted_hi"], place, "|", color=BLACK, ms=10)
        many = ("" if one["patients"] is None else f", {one['patients']:,}" for one in groups)
        names = [f"{g['label']}: {g['group']}{n}" for g, n in zip(groups, many, strict=True)]
        axes.set_yticks(range(len(groups)), names, fontsize=8)
        axes.set_ylim(len(groups) - 0.4, -0.6)
        axes.grid(axis="x")
        axes.set_xlabel("advantage over the clinicians (right is better; |: upper bound by Holm)")
        axes.set_title("Subgroups, and how many patients are in each")

    return drawn(8, 0.32 * len(groups) + 1.2, draw)


FIGURES: Mapping[str, Callable[[Any], Figure]] = {
    "audit_gates": gates,
    "audit_subgroups": subgroups,
}
