"""Gates on the guardian and on how often the policy defers.

Registered in `ogsrl.audit.audit`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import NormalDist

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
    least = report["calibration"]["share"] / 2
    low, high = _on_average(steps, report["calibration"])
    # the share that it is compared with is halved, and so is the luck in it
    most = _on_average(steps, report["calibration"], 0.5)[1]
    return Found(
        f"{steps['estimate']:.1%} of clinicians' steps are refused ({low:.1%} to {high:.1%}, as "
        "other calibration patients would have it); promised: at most "
        f"{alpha:.0%}, {_kept(low, high, alpha, least - most)}",
        compared=max(low - alpha, least - most),
        estimate=steps["estimate"] - alpha,
        low=low - alpha,
        high=high - alpha,
    )


def _on_average(
    steps: Mapping[str, float], calibration: Mapping[str, float], share: float = 1.0
) -> tuple[float, float]:
    """The interval of what is refused on average over calibration patients, as it is promised.

    Who set the threshold varies as well as who is looked at: with a threshold that luck set low,
    more than alpha is refused, and no promise is broken.
    """
    usual = NormalDist().inv_cdf((1 + steps["level"]) / 2)
    luck = share * usual * calibration["spread"] / math.sqrt(calibration["patients"])
    below, above = steps["estimate"] - steps["lo"], steps["hi"] - steps["estimate"]
    low, high = steps["estimate"] - math.hypot(below, luck), math.hypot(above, luck)
    return max(low, 0.0), min(steps["estimate"] + high, 1.0)


def _kept(low: float, high: float, alpha: float, short: float) -> str:
    """What may be said of the promise: an interval about it says nothing either way."""
    if low > alpha:
        return "which is surely more"
    if short > 0:
        return (
            "which is surely less than half of what it refuses of those it was calibrated on: they "
            "were other patients, and the region is wider than was asked for"
        )
    if high <= alpha:
        return "which is surely kept"
    if high - low > alpha:
        return "too few validation patients to tell whether it is kept"
    return "not shown to be broken"


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
            return Found(f"nobody was put forward: all {what} are left to the clinicians")
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
