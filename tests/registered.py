"""Entries to register: of the small model, with other cards or files, or changed unseen."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ogsrl.query.model import Model, write_bundle
from ogsrl.query.request import columns, example
from ogsrl.registry import Entry, Registry

MARGIN = -0.01


def entry_of(models: Path, root: Path, more: Sequence[Path] = ()) -> Entry:
    """A passed one of the small model, with a card of a test and these files."""
    cohort = Model.load(models).cohort
    bundle = root / "bundle" / "sepsis"
    made = write_bundle(models, bundle)
    card = root / "card.json"
    card.write_text(json.dumps({"first_page": "of a test"}))
    figures = root / "figures"
    figures.mkdir()
    (figures / "evaluate_doses.svg").write_text("<svg></svg>")
    return Entry(
        name="sepsis",
        identity=made,
        verdict="passed",
        gates={"better": "passed", "leakage": "passed"},
        summary="**passed**: of a test " * 1000,
        card_sha256="0" * 64,
        bundle=bundle,
        inputs=columns(cohort),
        example=example(cohort),
        requirements=["torch==2.13.0"],
        reports=[card, figures, *more],
        params={f"a.{i}": str(i) for i in range(230)},
        metrics={f"selected.cost:a.{i}": float(i) for i in range(230)},
        datasets={"train": "1" * 64, "test": "2" * 64},
        tags={"git.commit": "3" * 40},
    )


def carded(entry: Entry, identity: str, verdict: str = "passed", **more: Any) -> Entry:
    """The same model with another card."""
    return replace(entry, identity=identity, verdict=verdict, **more)


def another(entry: Entry, name: str, verdict: str = "passed") -> Entry:
    """Another model: one with a file more."""
    assert entry.bundle is not None
    root = entry.bundle.parents[1]
    shutil.copytree(entry.bundle, root / "changed" / name)
    (root / "changed" / name / "selected" / "note.json").write_text(json.dumps(name))
    bundle = root / "others" / name / "sepsis"
    made = write_bundle(root / "changed" / name, bundle)
    return replace(entry, identity=made, verdict=verdict, bundle=bundle)


def better(_folder: Path) -> tuple[float | None, str]:
    return 0.1, "better"


def worse(_folder: Path) -> tuple[float | None, str]:
    return -0.1, "worse"


def versions(registry: Registry) -> list[int]:
    found = registry.client.search_model_versions("name = 'sepsis'")
    return sorted(int(one.version) for one in found)


def tamper(folder: Path, *, manifest: bool) -> None:
    """Raise a limit of the cohort file; and hide it in the manifest."""
    file = folder / "selected" / "sepsis.yaml"
    file.write_text(file.read_text().replace("discount: 0.99", "discount: 0.98"))
    if manifest:
        beside = folder.parent / "rehashed"
        write_bundle(folder, beside)
        shutil.copy(beside / "manifest.json", folder / "manifest.json")
        shutil.rmtree(beside)
