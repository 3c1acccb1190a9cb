"""Stage audit: does who was put forward pass? -> reports/NAME/audit.json, card.{json,md,html}.

Reads what every stage reported, and which files the model is made of. It never says no: it records
what failed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from ogsrl.audit.audit import audit
from ogsrl.audit.evidence import Evidence
from ogsrl.audit.filled import filled
from ogsrl.audit.rendered import PICTURES, html, markdown
from ogsrl.audit.rows import with_rows
from ogsrl.errors import OgsrlError
from ogsrl.figures.audit import FIGURES
from ogsrl.figures.style import save_svg
from ogsrl.preparation import PARTS
from pipelines import ledger
from pipelines.parts import load_frame
from pipelines.stage import Stage, write_json, write_text

#: What is read, beside a report an algorithm.
REPORTS = (
    "validation", "dataset", "behaviour", "dynamics", "guardian", "selection", "evaluation"
)  # fmt: skip


def run(stage: Stage) -> None:
    """Judge every gate."""
    known = evidence(stage)
    found = audit(known, stage.params.audit)
    card = filled(known, found)
    said = found.plain()
    for name, told in (("audit_gates", said), ("audit_subgroups", known.groups())):
        save_svg(FIGURES[name](told), stage.report("figures", f"{name}.svg"))
    pictures = {
        name: stage.report("figures", f"{name}.svg").read_text(encoding="utf-8")
        for name in PICTURES
        if stage.report("figures", f"{name}.svg").exists()
    }
    of = {"cohort": stage.cohort_name, "model_sha256": ledger.model_hash(stage)}
    write_json(stage.report("audit.json"), {**of, **said})
    write_json(stage.report("card.json"), card.model_dump(mode="json"))
    write_text(stage.report("card.md"), markdown(card))
    write_text(stage.report("card.html"), html(card, pictures))
    stage.say(f"{found.verdict}: {found.counted}")
    for one in found.gates:
        if one.verdict in ("failed", "undecided"):
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
    parts = {part: load_frame(stage, part) for part in PARTS}
    test_set = ledger.patients_hash(parts["test"])
    rows = pd.read_parquet(stage.report("evaluation.parquet"))
    rows = rows.astype(object).where(rows.notna(), None)
    return Evidence(
        cohort=stage.cohort,
        ingest=_read(stage.report("cohort.json")),
        validation=reports["validation"],
        dataset=reports["dataset"],
        behaviour=reports["behaviour"],
        dynamics=reports["dynamics"],
        guardian=reports["guardian"],
        selection=reports["selection"],
        evaluation=reports["evaluation"],
        estimates=[dict(zip(rows.columns, row, strict=True)) for row in rows.to_numpy()],
        coverage=_coverage(stage),
        train={name: _read(stage.report(f"train_{name}.json")) for name in algorithms},
        uses=sum(one.test_set == test_set for one in ledger.measured(stage)),
        with_rows=with_rows(
            {name: stage.model(name) for name in ledger.MODEL},
            list(parts.values()),
        ),
    )


def _coverage(stage: Stage) -> dict[str, float]:
    """How often intervals held on simulated cohorts; empty where such fits were not measured."""
    file = stage.root / "benchmarks" / "results" / "coverage.json"
    found: dict[str, float] = _read(file)["figures"] if file.exists() else {}
    same = found.items() >= stage.params.evaluate.of_fits.items()
    return found if same else {}


def _read(file: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise OgsrlError(f"reports: {file.name} is not there; run its stage first") from None
    return found
