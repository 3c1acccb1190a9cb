"""Gates on the guardian and on how often the policy defers.

Registered in `ogsrl.audit.audit`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import NormalDist
from typing import NamedTuple

from ogsrl.audit.evidence import Evidence
from ogsrl.audit.gate import Found, Gate


def _false_alarms(evidence: Evidence) -> Found:
    report = evidence.guardian
    if report["status"] != "ready":
        return Found(
            f"the guardian is not ready ({report['status']}): it refuses everything; patients "
            f"needed: {report.get('needed')}"
        )
    alarms = report["false_alarm"]
    steps, alpha = alarms["steps"], alarms["alpha"]
    if steps is None or steps["estimate"] is None:
        return Found("too few validation patients to count false alarms")
    if alpha is None:
        share = f"{steps['estimate']:.1%} ({steps['lo']:.1%} to {steps['hi']:.1%})"
        return Found(f"it promises nothing; {share} of clinicians' steps are refused", idle=True)
    told = _promise(steps, alpha, report["calibration"])
    return Found(
        f"{steps['estimate']:.1%} of clinicians' steps are refused ({told.low:.1%} to "
        f"{told.high:.1%}, as other calibration patients would have it); promised: at most "
        f"{alpha:.0%}, {told.words}",
        compared=told.broken,
        estimate=steps["estimate"] - alpha,
        low=told.low - alpha,
        high=told.high - alpha,
    )


class _Promise(NamedTuple):
    """What may be said of a promise: its interval, how far it is surely broken, and in words."""

    low: float
    high: float
    broken: float
    words: str


def _promise(
    steps: Mapping[str, float], alpha: float, calibration: Mapping[str, float]
) -> _Promise:
    """Of what is refused on average over calibration patients, as it is promised.

    Who set the threshold varies as well as who is looked at: with a threshold that luck set low,
    more than alpha is refused, and no promise is broken. An interval about it says nothing.
    """
    usual = NormalDist().inv_cdf((1 + steps["level"]) / 2)
    luck = usual * calibration["spread"] / math.sqrt(calibration["patients"])
    share, least = steps["estimate"], calibration["share"] / 2
    below, above = share - steps["lo"], steps["hi"] - share
    low = max(share - math.hypot(below, luck), 0.0)
    high = min(share + math.hypot(above, luck), 1.0)
    missing = least - (share + math.hypot(above, luck / 2))  # of half a share, half the luck
    if low > alpha:
        words = "which is surely more"
    elif missing > 0:
        words = (
            f"and of those it was calibrated on it refuses {2 * least:.1%}: surely less than half "
            "of that here, so they were other patients and the region is wider than was asked for"
        )
    elif high <= alpha:
        words = "which is surely kept"
    elif high - low > alpha:
        words = "too few validation patients to tell whether it is kept"
    else:
        words = "not shown to be broken"
    return _Promise(low, high, max(low - alpha, missing), words)


def _rows(evidence: Evidence) -> Found:
    kind = evidence.guardian["kind"]
    member = evidence.guardian.get("members", {}).get(kind, {})
    files = [*evidence.with_rows]
    if member.get("holds_rows"):
        files.append(f"guardian ({kind})")
    told = "no file of the model holds values of its patients' rows"
    if files:
        told = f"{len(files)} hold rows of patients, or may: {', '.join(files)}"
    return Found(told, float(len(files)))


def _deferred(what: str) -> Gate:
    def measure(evidence: Evidence) -> Found:
        if not evidence.acts:
            return Found(f"{evidence.nobody}; all {what} are left to the clinicians")
        if not evidence.measured:
            return Found(evidence.few)
        told = evidence.under(f"selected.measures.deferred_{what}.")
        if told["estimate"] is None:
            return Found(f"too few patients to count {what}")
        return Found(
            f"{told['estimate']:.1%} of {what} ({told['lo']:.1%} to {told['hi']:.1%})",
            compared=told["hi"],
            estimate=told["estimate"],
            low=told["lo"],
            high=told["hi"],
        )

    return Gate(
        f"{what}_deferred",
        f"Few {what} are left to the clinicians" + (" in part" if what == "stays" else ""),
        "Whoever always defers does no harm and is of no use: its numbers are the clinicians' own.",
        "<=",
        measure,
        worst=1.0,
    )


GATES = (
    Gate(
        "false_alarms",
        "The guardian's promise is not seen broken",
        "A guardian that refuses what clinicians usually do is turned off, one that refuses far "
        "less than where it was calibrated is too wide; the promise is on the mean over patients "
        "like these and over calibration patients like those, and says nothing of what else it "
        "lets pass.",
        "<=",
        _false_alarms,
    ),
    Gate(
        "rows_in_model",
        "No patient is in the model",
        "A model is copied to where its patients never agreed to be.",
        "<=",
        _rows,
    ),
    _deferred("steps"),
    _deferred("stays"),
)
