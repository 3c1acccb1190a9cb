"""Leakage of the row's own dose into its state: by construction, by reconstruction, by timing.

Doses persist, so a column that holds the *previous* dose looks like the dose. Every check therefore
looks at rows where the dose changed, or at what is explained beyond the doses before.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from ogsrl.preparation.leakage.findings import Finding, Floats, Sample, not_run, worst
from ogsrl.preparation.leakage.measures import MIN_ROWS, explained_by_bins, gain

SAME = 0.95
TOTAL = 0.5
LINEAR = 0.9
ALONE = 0.6
LATE = 0.1
LATE_WARNING = 0.03
LATE_ROWS = 1000
PERSISTENT = 0.9


def state_from_dose(sample: Sample) -> Finding:
    """Is a state column a function of the same row's dose?"""
    scores: dict[tuple[str, ...], float] = {}
    for dose in sample.cohort.actions:
        rows = sample.changed(dose)
        for name in sample.cohort.states:
            values = sample.numpy(name)[rows]
            scores[name, dose] = explained_by_bins(values, sample.numpy(dose)[rows])
    return worst(
        "construction",
        "state_from_dose",
        scores,
        SAME,
        "is a function of the dose of its own row; take it out or let ingest shift it "
        "(known_before_dose: false)",
        "no column is a function of the dose of its own row",
    )


def dose_from_state(sample: Sample) -> Finding:
    """Is the dose a function of one state column of the same row?"""
    scores: dict[tuple[str, ...], float] = {}
    for dose in sample.cohort.actions:
        rows = sample.changed(dose)
        for name in sample.cohort.states:
            values = sample.numpy(name)[rows]
            scores[name, dose] = explained_by_bins(sample.numpy(dose)[rows], values)
    return worst(
        "reconstruction",
        "dose_from_column",
        scores,
        SAME,
        "gives away the dose of its own row; take it out or let ingest shift it "
        "(known_before_dose: false)",
        "no single column gives the dose of its own row away",
    )


def running_totals(sample: Sample) -> Finding:
    """Does a column grow by the row's own dose, as a running total that includes it would?"""
    scores: dict[tuple[str, ...], float] = {}
    for dose, action in sample.cohort.actions.items():
        given = sample.numpy(dose)
        rows = sample.changed(dose) & (given != 0)
        near = 1e-6 * (action.range[1] - action.range[0])
        for name in sample.cohort.observations:
            grown = sample.numpy(name) - sample.stays.previous(sample.numpy(name))
            known = rows & ~np.isnan(grown)
            if known.sum() >= MIN_ROWS:
                scores[name, dose] = float((np.abs(grown - given)[known] <= near).mean())
    return worst(
        "reconstruction",
        "running_total",
        scores,
        TOTAL,
        "grows by the dose of its own row: the total must stop before the row; let ingest shift "
        "it (known_before_dose: false)",
        "no column grows by the dose of its own row",
    )


def dose_from_all(sample: Sample) -> Finding:
    """Can the dose be rebuilt linearly from all states of this row and the row before?"""
    states = sample.filled
    before = {name: sample.stays.previous(values) for name, values in states.items()}
    scores: dict[tuple[str, ...], float] = {}
    for dose in sample.cohort.actions:
        rows = sample.later
        names = [*states, *states]
        more = np.column_stack([*states.values(), *before.values()])[rows]
        share, weights = gain(
            sample.numpy(dose)[rows],
            sample.previous_doses(dose)[rows],
            more,
            sample.held_out[rows],
        )
        strongest = dict.fromkeys(names[i] for i in np.argsort(-np.abs(weights))[:3])
        scores[(*strongest, dose)] = share
    return worst(
        "reconstruction",
        "dose_from_all_columns",
        scores,
        LINEAR,
        "together rebuild the dose of their own row, beyond the doses before; one of them "
        "includes it",
        "columns of a row and the row before do not rebuild its dose",
    )


def lead(sample: Sample) -> Finding:
    """Does one column follow the dose of its own row more closely than care could explain?"""
    scores: dict[tuple[str, ...], float] = {}
    rows = sample.later
    for dose in sample.cohort.actions:
        target, base = sample.numpy(dose)[rows], sample.previous_doses(dose)[rows]
        for name, values in sample.filled.items():
            more = _curved(values, sample.stays.previous(values))[rows]
            scores[name, dose] = gain(target, base, more, sample.held_out[rows])[0]
    return worst(
        "timing",
        "lead_of_the_dose",
        scores,
        ALONE,
        "follows the dose of its own row beyond the doses before: charted after the dose? "
        "(known_before_dose: false)",
        "no column follows the dose of its own row closer than care explains",
    )


def answered_late(sample: Sample) -> Finding:
    """Do doses answer a column's value of the row before rather than the row's own?

    Clinicians answer what they see. If, beyond the doses before, x[t-1] explains dose[t] better
    given x[t] than x[t] does given x[t-1], then x stands a row too early: what the table shows at
    t was known only after the dose, as with results timed when drawn.
    """
    scores: dict[tuple[str, ...], float] = {}
    rows = sample.later & (sample.stays.step >= 2)
    held_out = sample.held_out[rows]
    if min(held_out.sum(), (~held_out).sum()) < LATE_ROWS:
        why = f"fewer than {2 * LATE_ROWS} steps: chance alone could look like this"
        return not_run("timing", "dose_answers_the_past", why)
    for dose in sample.cohort.actions:
        target, base = sample.numpy(dose)[rows], sample.previous_doses(dose)[rows]
        for name in sample.cohort.observations:
            if name not in sample.filled:
                continue
            values = sample.filled[name]
            now = _squared(values)[rows]
            before = _squared(np.nan_to_num(sample.stays.previous(values), nan=0.0))[rows]
            late = gain(target, np.column_stack([base, now]), before, held_out)[0]
            early = gain(target, np.column_stack([base, before]), now, held_out)[0]
            scores[name, dose] = late - max(early, 0.0)  # a poor fit is no evidence
    return worst(
        "timing",
        "dose_answers_the_past",
        scores,
        LATE,
        "doses answer its value of the row before rather than this one: it was known only after "
        "the dose (results timed when drawn?); shift it (known_before_dose: false)",
        "doses answer what the row shows",
        warning=LATE_WARNING,
    )


def availability(sample: Sample, shifted: Collection[str] | None) -> Finding:
    """Was every column that is charted during the bin of the dose shifted by ingest?"""
    late = [n for n, c in sample.cohort.observations.items() if not c.known_before_dose]
    if not late:
        return Finding(
            "timing", "availability", "clean", "every column is declared known before the dose"
        )
    if shifted is None:
        return not_run(
            "timing", "availability", "the source's provenance does not say what it shifted"
        )
    left = tuple(name for name in late if name not in shifted)
    if left:
        message = "charted in the bin of the dose and not shifted by ingest; run ingest again"
        return Finding("timing", "availability", "leak", message, float(len(left)), 0.0, left)
    return Finding(
        "timing",
        "availability",
        "clean",
        "every column charted in the bin of the dose was shifted",
        0.0,
        0.0,
        tuple(late),
    )


def persistence(sample: Sample) -> list[Finding]:
    """How much of each dose the dose before explains: what imitating must beat to mean anything."""
    findings = []
    for dose, action in sample.cohort.actions.items():
        given, before = sample.numpy(dose), sample.previous_doses(dose)[:, 0]
        rows = sample.later
        if rows.sum() < MIN_ROWS:
            findings.append(not_run("persistence", dose, "too few steps"))
            continue
        near = action.increment or 1e-6 * (action.range[1] - action.range[0])
        same = float((np.abs(given - before)[rows] < near * 0.999).mean())
        explained = _explained(given[rows], before[rows])
        high = max(same, explained) >= PERSISTENT
        findings.append(
            Finding(
                "persistence",
                "dose_before",
                "warning" if high else "clean",
                f"the dose before explains {explained:.2f} of the variance and {same:.2f} of the "
                "steps repeat it; a policy that repeats the last dose is the baseline to beat, "
                "and an accuracy of imitation says little",
                explained,
                PERSISTENT,
                (dose,),
            )
        )
    return findings


def _explained(given: Floats, before: Floats) -> float:
    if np.ptp(given) == 0 or np.ptp(before) == 0:
        return 1.0
    return float(np.corrcoef(given, before)[0, 1] ** 2)


def _squared(values: Floats) -> Floats:
    scaled = (values - values.mean()) / (values.std() or 1.0)
    return np.column_stack([scaled, scaled**2])


def _curved(values: Floats, before: Floats) -> Floats:
    """A value, its square and the value before, so that a bent relation is seen too."""
    return np.column_stack([_squared(values), np.nan_to_num(before, nan=values.mean())])
