"""Stage audit: does the policy put forward pass? -> reports/NAME/audit.json.

Reads what every stage reported, and which files the model is made of. It never says no: it records
what failed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ogsrl.audit.audit import audit
from ogsrl.audit.evidence import Evidence
from ogsrl.audit.rows import with_rows
from ogsrl.errors import OgsrlError
from pipelines import ledger
from pipelines.parts import load_frame
from pipelines.stage import Stage, write_json

#: What a registered model is made of.
MODEL = ("behaviour", "guardian", "selected")
#: What is read, beside a report an algorithm.
REPORTS = (
    "validation", "dataset", "behaviour", "dynamics", "guardian", "selection", "evaluation"
)  # fmt: skip


def run(stage: Stage) -> None:
    """Judge every gate."""
    found = audit(evidence(stage), stage.params.audit)
    write_json(stage.report("audit.json"), {"cohort": stage.cohort_name, **found.plain()})
    stage.say(f"{found.verdict}: {len(found.of('passed'))} of {len(found.gates)} gates passed")
    for one in found.gates:
        if one.verdict != "passed":
            stage.say(f"{one.gate.name}: {one.verdict}: {one.said}")


def evidence(stage: Stage) -> Evidence:
    """All reports of this cohort."""
    names = (
        "validation",
        "dataset",
        "behaviour",
        "dynamics",
        "guardian",
        "selection",
        "evaluation",
    )
    reports = {name: _read(stage.report(f"{name}.json")) for name in names}
    algorithms = stage.params.train.algorithms
    test_set = ledger.patients_hash(load_frame(stage, "test"))
    parts = reports["dataset"]["parts"].values()
    return Evidence(
        cohort=stage.cohort,
        **reports,
        train={name: _read(stage.report(f"train_{name}.json")) for name in algorithms},
        uses=sum(one.test_set == test_set for one in ledger.measured(stage)),
        with_rows=with_rows(
            {name: stage.model(name) for name in MODEL},
            {int(count) for part in parts for count in part.values()},
        ),
    )


def _read(file: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise OgsrlError(f"reports: {file.name} is not there; run its stage first") from None
    return found
