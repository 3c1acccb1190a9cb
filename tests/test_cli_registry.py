"""Commands on registered models: compare, rollback and promote, and nothing changed is asked."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner, Result

from ogsrl.audit.audit import audit
from ogsrl.audit.config import AuditParams
from ogsrl.audit.filled import filled
from ogsrl.cli import main
from ogsrl.registry import CHAMPION, Entry, Registry
from tests.audit.told import changed
from tests.registered import MARGIN, another, better, carded, entry_of, tamper


@pytest.fixture(scope="module")
def two(models: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Entry]:
    """Version 1, and 2, the champion, whose card says that more steps are deferred."""
    root = tmp_path_factory.mktemp("two")
    registry = Registry.open(f"sqlite:///{root / 'mlflow.db'}", root)
    first = entry_of(models, root)
    second = another(first, "second")
    for number, entry in enumerate((first, second), 1):
        evidence = changed(**{"selected.measures.deferred_steps.estimate": 0.01 * number})
        card = json.loads(filled(evidence, audit(evidence, AuditParams())).model_dump_json())
        registry.register(with_card(entry, root / str(number), card), "ogsrl", MARGIN, better)
    return root, second


def with_card(entry: Entry, place: Path, card: dict[str, Any]) -> Entry:
    place.mkdir()
    (place / "card.json").write_text(json.dumps(card))
    return replace(entry, reports=[place / "card.json"])


@pytest.fixture
def home(two: tuple[Path, Entry], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """A database of its own over the same artifacts."""
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    shutil.copy(two[0] / "mlflow.db", tmp_path / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("OGSRL_HOME", str(tmp_path))
    return Registry.open(uri, tmp_path)


def run(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.mark.usefixtures("home")
def test_two_cards_are_told_side_by_side(tmp_path: Path) -> None:
    page = tmp_path / "compare.html"
    found = run("compare", "sepsis", 1, 2, "--out", page)
    assert found.exit_code == 0, found.output
    lines = found.output.splitlines()
    (line,) = [one for one in lines if "guardian: steps deferred:" in one]
    assert line.startswith("* guardian: steps deferred: 0.010")
    left, right = line.split(" | ")
    assert "0.010" in left
    assert "0.020" in right
    assert "  verdict: passed | passed" in lines
    assert "0.020" in page.read_text()
    told = json.loads(run("compare", "sepsis", 2, 1, "--json").output)
    known = {one["what"]: one["left"] for one in told}
    assert "Pressure below 55 mmHg" in known["treatment: hazards"]
    assert known["treatment: doses: vasopressor: max change"] == "0.5"
    assert known["for whom"].startswith("Simulated adults")
    assert known["gate Few steps are left to the clinicians, limit"] == "at most 0.1"
    assert not any("None" in one["left"] for one in told)
    (other,) = [one for one in told if one["what"] == "guardian: steps deferred"]
    assert other["left"] in right
    assert other["right"] in left


def test_a_card_of_another_release_is_named_and_its_remedy(
    home: Registry, two: tuple[Path, Entry], tmp_path: Path
) -> None:
    card = {**home.card("sepsis", 2), "of_another_release": "MARKER7731"}
    later = carded(with_card(two[1], tmp_path / "later", card), "later")
    home.register(later, "ogsrl", MARGIN, better)
    found = run("compare", "sepsis", 1, 2)
    assert found.exit_code == 2
    assert "the card of version 2 is of another release" in found.output
    assert "register again" in found.output
    assert "MARKER7731" not in found.output


def test_a_champion_is_rolled_back_and_promoted_by_command(home: Registry) -> None:
    aliases = home.aliases("sepsis")
    assert aliases.holder(CHAMPION) == 2
    found = run("rollback", "sepsis")
    assert (found.exit_code, found.output) == (
        0, "sepsis: champion is version 1 again, no longer 2\n"
    )  # fmt: skip
    assert aliases.holder(CHAMPION) == 1
    found = run("rollback", "sepsis")
    assert (found.exit_code, found.output) == (
        2, "sepsis: no champion came before version 1\n"
    )  # fmt: skip
    assert run("promote", "sepsis", 2).exit_code == 2
    assert run("promote", "sepsis", 2, "--reason", "").exit_code == 2
    assert aliases.holder(CHAMPION) == 1
    found = run("promote", "sepsis", 2, "--reason", "the data changed")
    assert (found.exit_code, found.output) == (0, "sepsis: champion is version 2\n")
    assert aliases.holder(CHAMPION) == 2


@pytest.mark.parametrize("manifest", [False, True])
def test_a_changed_model_is_neither_asked_nor_measured(
    models: Path, rows: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    manifest: bool,
) -> None:  # fmt: skip
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("OGSRL_HOME", str(tmp_path))
    registry = Registry.open(uri, tmp_path)
    registry.register(entry_of(models, tmp_path), "ogsrl", MARGIN, None)
    rows.to_parquet(tmp_path / "rows.parquet")
    words = ("--model", "models:/sepsis@champion", "--cohort", tmp_path / "rows.parquet")
    assert run("query", *words).exit_code == 0
    tamper(registry.folder("models:/sepsis/1"), manifest=manifest)
    for command in ("query", "evaluate"):
        found = run(command, *words)
        assert found.exit_code == 2, found.output
        assert "somebody changed the model" in found.output
    found = run("serve", "--model", "models:/sepsis@champion")
    assert "somebody changed the model" in found.output
