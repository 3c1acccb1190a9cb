"""The register stage: the audited model is one version, and the better of two becomes champion."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ogsrl.errors import OgsrlError
from ogsrl.policies.actors import ConstantActor
from ogsrl.policies.saved import save_policy
from ogsrl.query.model import Model, save_beside
from ogsrl.registry import CHALLENGER, CHAMPION, Registry
from pipelines import ledger, register
from pipelines.stage import Stage, write_json
from tests.pipelines.test_train_stage import PARAMS, ordinal
from tests.policies.tables import table_frames

FQE = {
    "fits": 2, "networks": 1, "hidden": 24, "steps": 400, "start_steps": 100, "batch_size": 256,
    "learning_rate": 2e-3,
}  # fmt: skip
#: Scaled doses of (drug, fluid): the drug makes the ill well, and who stays ill dies.
TREATS, NEVER_TREATS = ConstantActor((1.0, -1.0)), ConstantActor((-1.0, -1.0))
PAGE = {
    "verdict": "passed", "headline": "of a test", "recommends": "-", "for_whom": "-",
    "how_sure": "-", "refuses": "-", "failed": [], "undecided": [], "not_asked": [],
    "looks_worse_for": ["Age: 80 and above"], "loosened": ["cloning: -1 instead of -0.01"],
}  # fmt: skip


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("OGSRL_HOME", raising=False)
    return audited(tmp_path)


def audited(root: Path, patients: int = 1_500) -> Stage:
    """All that it reads, but for who was selected."""
    made = ordinal(root, PARAMS | {"evaluate": {"fqe": FQE}}, {"absolute": 0.9}, patients)
    train = made.data("prepared", "train.parquet")
    shutil.copy(train, made.data("prepared", "test.parquet"))
    made.data("validated").mkdir()
    shutil.copy(train, made.data("validated", "trajectories.parquet"))
    for name in register.REPORTS:
        write_json(made.report(f"{name}.json"), {})
    write_json(made.report("selection.json"), {"chosen": {"name": "of a test"}})
    for name in ("card.html", "card.md"):
        made.report(name).write_text("of a test")
    made.report("figures").mkdir()
    return Stage("register", "table", made.root)


def registered(
    stage: Stage, actor: ConstantActor, step: str, patients: int = 1_500
) -> tuple[int, str | None]:
    """Version and alias of this policy, put forward at this step."""
    history = table_frames(patients)[0].history
    selected = stage.model("selected")
    shutil.rmtree(selected, ignore_errors=True)
    about = {"status": "selected", "algorithm": "constant", "seed": 0, "step": step}
    save_policy(selected, actor, history, about)
    save_beside(stage.cohort_file, history.preparation, selected)
    write_json(stage.report("card.json"), {"first_page": PAGE, "of": step})
    gates = [{"name": "better", "verdict": "passed", "measured": 0.1}]
    told = {"verdict": "passed", "gates": gates, "model_sha256": ledger.model_hash(stage)}
    write_json(stage.report("audit.json"), told)
    register.run(stage)
    told = json.loads(stage.report("registration.json").read_text())
    return told["version"], told["alias"]


def test_who_treats_replaces_who_never_does_and_not_the_other_way_round(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    assert registered(stage, NEVER_TREATS, "step_1") == (1, CHAMPION)
    registry = Registry.open(f"sqlite:///{stage.root / 'mlflow.db'}", stage.root)
    bundle = registry.folder("models:/table/1")
    loaded = Model.load(bundle)
    assert loaded.about["step"] == "step_1"
    told = registry.client.get_model_version("table", "1")
    assert "Looser than by default: cloning: -1 instead of -0.01" in told.description
    assert "Looks worse for: Age: 80 and above" in told.description
    assert told.tags["ogsrl.looser_than_default"] == "cloning: -1 instead of -0.01"
    weights = stage.model("selected", "weights.safetensors").read_bytes()
    assert (bundle / "selected" / "weights.safetensors").read_bytes() == weights
    assert registered(stage, TREATS, "step_2") == (2, CHAMPION)
    assert "advantage on the same test patients +" in capsys.readouterr().out
    assert registered(stage, NEVER_TREATS, "step_3") == (3, CHALLENGER)
    assert "advantage on the same test patients -" in capsys.readouterr().out
    assert registry.aliases("table").holder(CHAMPION) == 2


def test_what_was_not_audited_is_not_registered(stage: Stage) -> None:
    registered(stage, TREATS, "step_1")
    file = stage.model("selected", "table.yaml")
    file.write_text(file.read_text().replace("max_steps: 6", "max_steps: 7"))
    with pytest.raises(OgsrlError, match=r"models/table: files are not those that were audited"):
        register.run(stage)


def test_nothing_compares_with_a_champion_that_was_prepared_otherwise(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert registered(stage, NEVER_TREATS, "step_1") == (1, CHAMPION)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{stage.root / 'mlflow.db'}")
    monkeypatch.setenv("OGSRL_HOME", str(stage.root))
    other = stage.root / "other"
    other.mkdir()
    newer = audited(other, patients=1_000)
    assert registered(newer, TREATS, "step_2", patients=1_000) == (2, CHALLENGER)
    assert "it was prepared otherwise" in capsys.readouterr().out
    registry = Registry.open(f"sqlite:///{stage.root / 'mlflow.db'}", stage.root)
    assert registry.aliases("table").holder(CHAMPION) == 1
