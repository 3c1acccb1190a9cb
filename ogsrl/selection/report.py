"""What `selection.json` holds: candidates, finalists, the verdict and its reasons.

Called by the stage select. Means, bounds and counts alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch

from ogsrl.evaluation.bounds import Kept
from ogsrl.evaluation.rollouts import Expected
from ogsrl.selection.choose import Candidate, Selection, Verdict
from ogsrl.selection.config import SelectParams
from ogsrl.selection.judge import Judged


def describe(selection: Selection, params: SelectParams) -> dict[str, Any]:
    """A selection as plain JSON."""
    fqe = selection.fqe
    return {
        "status": selection.status,
        "params": params.model_dump(mode="json"),
        "patients": {
            "screened": len(selection.clinicians.steps),
            "validation": len(torch.unique(fqe.patients)),
        },
        "chosen": None if selection.chosen is None else _who(selection.chosen),
        "least": _who(selection.least),
        "cloning_compared": any(
            one.candidate.algorithm == params.cloning for one in selection.verdicts
        ),
        "clinicians": _screened(selection.clinicians, selection.clinicians),
        "candidates": [_verdict(one, selection.clinicians) for one in selection.verdicts],
    }


def too_few_report(needed: int, params: SelectParams) -> dict[str, Any]:
    """What is written where there are too few validation patients to select on."""
    return {
        "status": "too_few_patients",
        "needed": needed,
        "params": params.model_dump(mode="json"),
        "chosen": None,
        "candidates": [],
    }


def nothing_to_select_report(training: Mapping[str, str], params: SelectParams) -> dict[str, Any]:
    """What is written where training saved no policy: its own status where all have the same.

    Args:
        training: How it ended, by algorithm.
        params: Of selection.
    """
    ends = set(training.values())
    return {
        "status": ends.pop() if len(ends) == 1 else "nothing_was_trained",
        "training": dict(training),
        "params": params.model_dump(mode="json"),
        "chosen": None,
        "candidates": [],
    }


def _who(one: Candidate) -> dict[str, Any]:
    return {
        "name": one.name,
        "algorithm": one.algorithm,
        "seed": one.seed,
        "checkpoint": one.checkpoint,
    }


def _verdict(one: Verdict, clinicians: Expected) -> dict[str, Any]:
    return {
        **_who(one.candidate),
        "chosen": one.chosen,
        "finalist": one.judged is not None,
        "reason": one.reason,
        "screen": {"looks_feasible": one.looks_feasible, **_screened(one.screened, clinicians)},
        "pessimistic": None if one.pessimistic is None else _screened(one.pessimistic, clinicians),
        "fqe": None if one.judged is None else _judged(one.judged),
    }


def _screened(one: Expected, clinicians: Expected) -> dict[str, Any]:
    quantities = {
        name: {
            "estimate": one.mean(name),
            "se": one.se(name),
            "less_clinicians": one.mean(name) - clinicians.mean(name),
            "less_clinicians_se": one.se(name, clinicians.each[name]),
        }
        for name in one.each
    }
    return {
        **quantities,
        "steps_deferred": one.steps_deferred,
        "stays_deferred": float(one.ever_deferred.mean()),
    }


def _judged(one: Judged) -> dict[str, Any]:
    return {
        "feasible": one.feasible,
        "primary": asdict(one.primary),
        "gain": asdict(one.gain),
        "costs": {name: asdict(bound) for name, bound in one.costs.items()},
        "clinicians": dict(one.clinicians),
        "limits": {name: _kept(kept) for name, kept in one.limits.items()},
        "refusal": _kept(one.refusal),
    }


def _kept(one: Kept) -> dict[str, Any]:
    return {**asdict(one.bound), "limit": one.limit, "kept": one.kept}
