"""Checks for the five published kinds of leakage, on training patients alone.

Called by the stage prepare, which stops on a leak. Each check is run, or named as not run with
the reason. What no table can show is named too: silence would read as clean.
"""

from __future__ import annotations

from collections.abc import Collection

from ogsrl.preparation.leakage import doses, outcomes, overlap
from ogsrl.preparation.leakage.findings import KINDS, Finding, Sample, not_run, raise_on_leak
from ogsrl.preparation.leakage.overlap import Parts
from ogsrl.preparation.rows import TrainingRows

__all__ = ["KINDS", "Finding", "Parts", "check_leakage", "raise_on_leak"]


def check_leakage(
    rows: TrainingRows, shifted: Collection[str] | None, parts: Parts | None = None
) -> list[Finding]:
    """Run every check, in the order of KINDS.

    Args:
        rows: The training rows.
        shifted: Columns that ingest shifted a step, from the source's provenance.
        parts: Who went into which part; None before parts were made.
    """
    sample = Sample.of(rows)
    found = [
        doses.state_from_dose(sample),
        doses.dose_from_state(sample),
        doses.running_totals(sample),
        doses.dose_from_all(sample),
        *outcomes.outcome_checks(sample),
        *(parts or Parts(rows.cohort)).findings(),
        overlap.bins(sample),
        overlap.ahead(sample),
        overlap.filled_before(sample),
        doses.availability(sample, shifted),
        doses.lead(sample),
        doses.answered_late(sample),
        not_run(
            "timing",
            "laboratory_times",
            "whether results are timed when drawn or when available cannot be seen in a table; "
            "the source's documentation must say",
        ),
        *doses.persistence(sample),
    ]
    return sorted(found, key=lambda finding: KINDS.index(finding.kind))
