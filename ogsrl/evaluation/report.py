"""What `evaluation.parquet` and `evaluation.json` hold: each estimate, truth beside it, the words.

Called by the stage evaluate and by `ogsrl evaluate`. Means, intervals and counts alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from ogsrl.evaluation.asking import CLINICIANS, FITTED, ROLLOUTS
from ogsrl.evaluation.evaluate import Answers, Evaluation, Subject
from ogsrl.evaluation.known import Known, Truths
from ogsrl.evaluation.panel import Panel
from ogsrl.evaluation.quantities import VALUE, primary
from ogsrl.preparation.coverage import MIN_PATIENTS

PANEL = "panel"
#: Columns of evaluation.parquet, in order, with their types.
COLUMNS: Mapping[str, str] = {
    "policy": "str",
    "algorithm": "str",
    "seed": "Int64",
    "checkpoint": "str",
    "quantity": "str",
    "estimator": "str",
    "estimate": "float64",
    "lo": "float64",
    "hi": "float64",
    "level": "float64",
    "ess": "float64",
    "max_weight": "float64",
    "patients": "Int64",
    "steps": "Int64",
    "truth": "float64",
    "truth_se": "float64",
    "covered": "boolean",
    "diagnosis": "str",
}


def table(evaluation: Evaluation, truths: Truths) -> pd.DataFrame:
    """One row a policy, quantity and estimator; the panel is the last of each."""
    rows = []
    for subject in evaluation.subjects:
        for quantity, answers in evaluation.own[subject.name].items():
            known = truths.own.get(subject.name, {}).get(quantity)
            about = {**_who(subject), "quantity": quantity}
            rows += [{**about, **row, **_truth(row, known)} for row in rows_of(answers)]
    return _typed(rows)


def empty_table() -> pd.DataFrame:
    """The same where nothing could be measured."""
    return _typed([])


def frontier(evaluation: Evaluation) -> pd.DataFrame:
    """One row a policy, estimator and bandwidth: what a wider kernel gains and costs."""
    decisive = primary(evaluation.shared.grounds.test.history.preparation.cohort)
    rows = [
        {
            "policy": one.policy,
            "quantity": decisive,
            "estimator": one.estimator,
            "bandwidth": one.bandwidth,
            "estimate": one.estimate.estimate,
            "lo": one.estimate.low,
            "hi": one.estimate.high,
            "ess": one.estimate.ess,
            "votes": one.estimate.votes,
        }
        for one in evaluation.frontier
    ]
    names = ("policy", "quantity", "estimator", "bandwidth", "estimate", "lo", "hi", "ess", "votes")
    return pd.DataFrame(rows, columns=list(names))


def flat(evaluation: Evaluation, truths: Truths) -> dict[str, Any]:
    """`<policy>.<quantity>.<field>` and `agreement.<policy>`: what the panel says."""
    told: dict[str, Any] = {}
    cohort = evaluation.shared.grounds.test.history.preparation.cohort
    decisive = primary(cohort)
    for subject in evaluation.subjects:
        name = subject.name
        for quantity, answers in evaluation.own[name].items():
            known = truths.own.get(name, {}).get(quantity)
            told |= _prefixed(f"{name}.{quantity}", _panel(answers.panel, known))
        for quantity, answers in evaluation.gains.get(name, {}).items():
            known = truths.gains.get(name, {}).get(quantity)
            said = _panel(answers.panel, known)
            more_is_better = quantity == VALUE
            said["word"] = answers.panel.word(1 if more_is_better else -1)
            said["smallest_effect"] = answers.panel.smallest_effect
            told |= _prefixed(f"{name}.{quantity}.gain", said)
    for quantity, mean in evaluation.logged.items():
        told[f"{CLINICIANS}.{quantity}.logged"] = mean
    for subject in evaluation.subjects:
        told[f"agreement.{subject.name}"] = agreement(evaluation.own[subject.name][decisive])
    return told


def sentences(evaluation: Evaluation) -> Iterator[str]:
    """What the panel says of each policy, for whoever watches."""
    decisive = primary(evaluation.shared.grounds.test.history.preparation.cohort)
    sign = 1 if decisive == VALUE else -1
    for name, gains in evaluation.gains.items():
        own, gain = evaluation.own[name][decisive].panel, gains[decisive].panel
        known = "not known" if own.estimate is None else f"{own.estimate:.4f}"
        yield (
            f"{name}: {decisive} {known} [{own.low:.4f}, {own.high:.4f}], than clinicians: "
            f"{gain.word(sign)} ({gain.diagnosis})"
        )


def agreement(answers: Answers) -> float | None:
    """Of all who vote beside the fits: the share whose interval holds what the fits say.

    None where nobody does: who says nothing agrees with nobody.
    """
    said = answers.panel.estimate
    others = [answers.estimates[name] for name in answers.panel.voters if name != FITTED]
    if said is None or not others:
        return None
    return sum(one.low <= said <= one.high for one in others) / len(others)


def _typed(rows: list[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(dict(COLUMNS))


def _who(subject: Subject) -> dict[str, Any]:
    return {
        "policy": subject.name,
        "algorithm": subject.algorithm,
        "seed": subject.seed,
        "checkpoint": subject.checkpoint,
    }


def rows_of(answers: Answers) -> Iterator[dict[str, Any]]:
    """One row an estimator, then the panel's."""
    largest = max(answers.estimates.values(), key=lambda one: one.patients)
    for name, one in answers.estimates.items():
        lost = largest.patients - one.patients
        few_left_out = name != ROLLOUTS and one.steps < largest.steps and lost < MIN_PATIENTS
        yield {
            "estimator": name,
            "estimate": one.estimate,
            "lo": one.low,
            "hi": one.high,
            "level": one.level,
            "ess": one.ess,
            "max_weight": one.max_weight,
            # else how many were lost from sight could be had by subtraction
            "patients": None if few_left_out else one.patients,
            "steps": None if few_left_out else one.steps,
            "diagnosis": ("votes: " if one.votes else "no vote: ") + one.diagnosis,
            "said": one.estimate is not None,
        }
    said = answers.panel
    yield {
        "estimator": PANEL,
        "estimate": said.estimate,
        "lo": said.low,
        "hi": said.high,
        "level": said.level,
        "ess": None,
        "max_weight": None,
        "patients": largest.patients,
        "steps": largest.steps,
        "diagnosis": said.diagnosis,
        "said": bool(said.voters),
    }


def _truth(row: Mapping[str, Any], known: Known | None) -> dict[str, Any]:
    if known is None:
        return {"truth": None, "truth_se": None, "covered": None}
    held = known.held(row["lo"], row["hi"])  # who says nothing is not right, and not wrong
    told = held if row["said"] else None
    return {"truth": known.truth, "truth_se": known.se, "covered": told}


def _panel(said: Panel, known: Known | None) -> dict[str, Any]:
    told: dict[str, Any] = {
        "estimate": said.estimate,
        "lo": said.low,
        "hi": said.high,
        "level": said.level,
        "voters": len(said.voters),
    }
    if known is not None:
        told |= {
            "truth": known.truth,
            "truth_se": known.se,
            "error": None if said.estimate is None else said.estimate - known.truth,
            "covered": known.held(said.low, said.high) if said.voters else None,
        }
    return told


def _prefixed(prefix: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{prefix}.{name}": value for name, value in fields.items()}
