"""Leakage of the outcome into the state: a column that knows who will die.

A single column, its missingness or all columns together at the first step must not tell the dead
from the living almost perfectly; nothing that a clinician charts does.
"""

from __future__ import annotations

import numpy as np

from ogsrl.preparation.leakage.findings import Finding, Floats, Kind, Sample, not_run, worst
from ogsrl.preparation.leakage.measures import auroc, residual

FIRST = 0.95
LAST = 0.995
MIN_DEATHS = 20


def outcome_checks(sample: Sample) -> list[Finding]:
    """All checks of this module, or each named as not run."""
    died = sample.died
    names: dict[str, Kind] = {
        "state_from_outcome": "construction",
        "outcome_from_all_columns": "reconstruction",
        "outcome_at_first_step": "timing",
        "outcome_from_missingness": "timing",
    }
    why = None
    if died is None:
        why = "the cohort has no outcome"
    elif min((died == 1).sum(), (died == 0).sum()) < MIN_DEATHS:
        why = f"fewer than {MIN_DEATHS} deaths or survivors among the sampled training patients"
    if died is None or why is not None:
        return [not_run(kind, check, str(why)) for check, kind in names.items()]
    return [
        _state_from_outcome(sample, died),
        _all_columns(sample, died),
        _first_step(sample, died),
        _missingness(sample, died),
    ]


def _state_from_outcome(sample: Sample, died: Floats) -> Finding:
    """A column made from the outcome tells the dead apart without error by the end."""
    scores: dict[tuple[str, ...], float] = {
        (name,): auroc(sample.at(sample.numpy(name), "last"), died) for name in sample.cohort.states
    }
    return worst(
        "construction",
        "state_from_outcome",
        scores,
        LAST,
        "tells on the last row who dies, without error: it was made from the outcome; take it out",
        "no column is made from the outcome",
    )


def _first_step(sample: Sample, died: Floats) -> Finding:
    scores: dict[tuple[str, ...], float] = {
        (name,): auroc(sample.at(sample.numpy(name), "first"), died)
        for name in sample.cohort.states
    }
    return worst(
        "timing",
        "outcome_at_first_step",
        scores,
        FIRST,
        "tells at the first step who will die, better than any chart can: it was known only later",
        "no column knows at the first step who will die",
    )


def _missingness(sample: Sample, died: Floats) -> Finding:
    scores: dict[tuple[str, ...], float] = {}
    for name in sample.cohort.states:
        gaps = np.isnan(sample.numpy(name)).astype(np.float64)
        if gaps.any():
            scores[(name,)] = auroc(sample.at(gaps, "first"), died)
    if not scores:
        return Finding("timing", "outcome_from_missingness", "clean", "nothing is missing")
    return worst(
        "timing",
        "outcome_from_missingness",
        scores,
        FIRST,
        "whether it is charted at the first step tells who will die: it was filled in afterwards",
        "what is charted at the first step does not tell who will die",
    )


def _all_columns(sample: Sample, died: Floats) -> Finding:
    """A linear score of the first row, fitted on half of the patients, ranked on the others."""
    rows = ~np.isnan(died)
    states = np.column_stack([sample.at(values, "first") for values in sample.filled.values()])
    held_out = sample.held_out[sample.stays.start]
    _, weights = residual(died[rows], states[rows], held_out[rows])
    scale = states[rows & ~held_out].std(axis=0)
    score = states @ (weights / np.where(scale > 0, scale, 1))
    area = auroc(score[rows & held_out], died[rows & held_out])
    strongest = tuple(list(sample.filled)[i] for i in np.argsort(-np.abs(weights))[:3])
    return worst(
        "reconstruction",
        "outcome_from_all_columns",
        {strongest: area},
        FIRST,
        "together tell at the first step who will die, better than any chart can",
        "columns of the first step together do not give the outcome away",
    )
