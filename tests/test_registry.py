"""The registry on a real MLflow database: one version a model, aliases earned, nothing half."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import mlflow
import pandas as pd
import pytest

from ogsrl.errors import ModelError, OgsrlError
from ogsrl.query.answer import ask
from ogsrl.query.model import Model
from ogsrl.registry import CHALLENGER, CHAMPION, Entry, Registry
from tests.registered import MARGIN, another, better, carded, tamper, versions, worse


def test_what_is_registered_is_whole_and_says_the_verdict(registry: Registry, entry: Entry) -> None:
    placed = registry.register(entry, "ogsrl", MARGIN, None)
    assert (placed.version, placed.alias, placed.new) == (1, CHAMPION, True)
    client = registry.client
    run = client.get_run(placed.run)
    assert len(run.data.params) == 230
    assert run.data.metrics["selected.cost:a.229"] == 229
    assert {one.dataset.name for one in run.inputs.dataset_inputs} == {"train", "test"}
    assert run.data.tags["ogsrl.gate.leakage"] == "passed"
    version = client.get_model_version("sepsis", "1")
    assert version.tags["ogsrl.verdict"] == "passed"
    assert version.tags["ogsrl.card_sha256"] == "0" * 64
    assert len(version.description) < 5000
    assert version.description.startswith("**passed**")
    assert registry.card("sepsis", 1) == {"first_page": "of a test"}
    assert registry.figure("sepsis", 1, "evaluate_doses.svg") == "<svg></svg>"
    assert registry.figure("sepsis", 1, "none.svg") == ""


def test_registering_twice_is_one_version(registry: Registry, entry: Entry) -> None:
    first = registry.register(entry, "ogsrl", MARGIN, None)
    again = registry.register(entry, "ogsrl", MARGIN, None)
    assert again == replace(first, new=False)
    assert len(registry.client.search_model_versions("name = 'sepsis'")) == 1
    experiment = registry.client.get_experiment_by_name("ogsrl")
    assert len(registry.client.search_runs([experiment.experiment_id])) == 1


@pytest.mark.parametrize(
    "where", ["log_batch", "log_inputs", "log_artifact", "create_model_version", "set_terminated",
              "set_model_version_tag", "set_registered_model_alias", "set_registered_model_tag"]
)  # fmt: skip
def test_what_was_interrupted_is_finished_by_registering_again(
    registry: Registry, entry: Entry, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def ended(*_args: object, **_more: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(type(registry.client), where, ended)
        with pytest.raises(KeyboardInterrupt):
            registry.register(entry, "ogsrl", MARGIN, None)
    mlflow.end_run()
    placed = registry.register(entry, "ogsrl", MARGIN, None)
    assert (placed.version, placed.alias) == (1, CHAMPION)
    assert registry.aliases("sepsis").champions() == [1]
    assert len(registry.client.search_model_versions("name = 'sepsis'")) == 1
    experiment = registry.client.get_experiment_by_name("ogsrl")
    assert len(registry.client.search_runs([experiment.experiment_id])) == 1
    assert Model.load(registry.folder("models:/sepsis@champion"))


def test_aliases_are_earned(registry: Registry, entry: Entry) -> None:
    def register(identity: str, verdict: str = "passed", least: float | None = None) -> str | None:
        asked: list[Path] = []

        def compare(folder: Path) -> tuple[float | None, str]:
            asked.append(folder)
            return least, f"at least {least}"

        placed = registry.register(another(entry, identity, verdict), "ogsrl", MARGIN, compare)
        assert bool(asked) == (verdict == "passed" and identity != "b" and placed.version != 1)
        return placed.alias

    assert register("a", "failed") is None
    assert register("b") == CHAMPION  # nobody was
    assert register("c", "undecided") == CHALLENGER
    assert register("d", least=-0.02) == CHALLENGER
    assert registry.aliases("sepsis").holder(CHAMPION) == 2
    assert register("e", least=None) == CHALLENGER  # it cannot be compared
    assert register("f", least=-0.005) == CHAMPION
    assert registry.aliases("sepsis").holder(CHAMPION) == 6
    assert registry.aliases("sepsis").holder(CHALLENGER) == 5
    assert registry.aliases("sepsis").champions() == [2, 6]


def test_nobody_selected_makes_a_run_and_no_version(registry: Registry, entry: Entry) -> None:
    placed = registry.register(replace(entry, bundle=None), "ogsrl", MARGIN, None)
    assert (placed.version, placed.alias) == (None, None)
    assert registry.client.get_run(placed.run).data.tags["ogsrl.verdict"] == "passed"
    with pytest.raises(OgsrlError, match="nothing of this name is registered"):
        registry.aliases("sepsis").champions()


def test_a_new_card_of_a_model_is_told_by_its_one_version(
    registry: Registry, entry: Entry, tmp_path: Path
) -> None:
    first = registry.register(entry, "ogsrl", MARGIN, None)
    card = tmp_path / "later" / "card.json"
    card.parent.mkdir()
    card.write_text(json.dumps({"first_page": "of later"}))
    more = {"gates": {"better": "passed"}, "summary": "later", "reports": [card]}
    later = carded(entry, "later", card_sha256="1" * 64, **more)
    second = registry.register(later, "ogsrl", MARGIN, worse)
    assert (second.version, second.alias, second.said) == (1, CHAMPION, first.said)
    assert second.run != first.run
    assert versions(registry) == [1]
    found = registry.client.get_model_version("sepsis", "1")
    assert (found.description, found.tags["ogsrl.card_sha256"]) == ("later", "1" * 64)
    assert "ogsrl.gate.leakage" not in found.tags, "a gate that the new card has not"
    assert registry.card("sepsis", 1) == {"first_page": "of later"}
    assert registry.aliases("sepsis").champions() == [1]


def test_a_champion_whose_newest_audit_did_not_pass_is_none(
    registry: Registry, entry: Entry
) -> None:
    registry.register(entry, "ogsrl", MARGIN, None)
    unsure = registry.register(carded(entry, "unsure", "undecided"), "ogsrl", MARGIN, None)
    assert (unsure.version, unsure.alias) == (1, CHALLENGER)
    assert registry.aliases("sepsis").holder(CHAMPION) is None
    assert registry.register(carded(entry, "bad", "failed"), "ogsrl", MARGIN, None).alias is None
    assert registry.aliases("sepsis").holder(CHALLENGER) is None
    assert versions(registry) == [1]


def test_the_same_answers_from_pyfunc(
    registry: Registry, entry: Entry, model: Model, rows: pd.DataFrame
) -> None:
    registry.register(entry, "ogsrl", MARGIN, None)
    loaded = mlflow.pyfunc.load_model("models:/sepsis@champion")
    pd.testing.assert_frame_equal(loaded.predict(rows), ask(model, rows))
    with pytest.raises(ValueError, match="map: the column is missing"):
        loaded.predict(rows.drop(columns="map"))


def test_a_registered_model_holds_no_code_and_loads_without_pickle(
    registry: Registry, entry: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    registry.register(entry, "ogsrl", MARGIN, None)
    folder = registry.folder("models:/sepsis@champion")
    mlflow.pyfunc.load_model("models:/sepsis/1")
    kinds = {path.suffix for path in folder.rglob("*") if path.is_file()}
    assert kinds == {".json", ".yaml", ".safetensors"}
    assert not list(folder.parents[1].rglob("*.py"))


def test_a_tampered_file_is_refused_at_load(registry: Registry, entry: Entry) -> None:
    registry.register(entry, "ogsrl", MARGIN, None)
    file = registry.folder("models:/sepsis@champion") / "selected" / "transforms.json"
    file.write_text(file.read_text().replace('"center": ', '"center":  '))
    with pytest.raises(ModelError, match=r"selected/transforms.json: not what manifest.json says"):
        mlflow.pyfunc.load_model("models:/sepsis@champion")


@pytest.mark.parametrize(
    ("manifest", "told"),
    [(False, r"selected/sepsis.yaml: not what manifest.json says"),
     (True, r"manifest.json is not what was registered")],
)  # fmt: skip
def test_a_tampered_model_is_refused_wherever_it_is_asked_for(
    registry: Registry, entry: Entry, manifest: bool, told: str
) -> None:
    registry.register(entry, "ogsrl", MARGIN, None)
    tamper(registry.folder("models:/sepsis/1"), manifest=manifest)
    for which in ("@champion", "/1"):
        with pytest.raises(ModelError, match=told):
            registry.folder(f"models:/sepsis{which}")
    with pytest.raises(ModelError, match=told):
        registry.register(another(entry, "b"), "ogsrl", MARGIN, better)
    # registered again it is there again, beside the one that was changed
    placed = registry.register(entry, "ogsrl", MARGIN, worse)
    assert (placed.version, placed.alias) == (3, CHAMPION)
    assert Model.load(registry.folder("models:/sepsis@champion"))
    assert registry.register(entry, "ogsrl", MARGIN, worse) == replace(placed, new=False)


def test_a_version_from_before_manifests_were_noted_is_still_loaded(
    registry: Registry, entry: Entry
) -> None:
    registry.register(entry, "ogsrl", MARGIN, None)
    registry.client.delete_model_version_tag("sepsis", "1", "ogsrl.manifest_sha256")
    assert Model.load(registry.folder("models:/sepsis@champion"))


def test_wrong_addresses_are_told(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(OgsrlError, match=r"no such model; e.g. models:/sepsis@champion"):
        registry.folder("models:/none@champion")
    with pytest.raises(OgsrlError, match="is no URI"):
        Registry.open(str(tmp_path / "mlflow.db"), tmp_path)


def test_two_processes_may_open_a_new_database(tmp_path: Path) -> None:
    import subprocess  # noqa: PLC0415 - here alone
    import sys  # noqa: PLC0415

    code = (
        "import sys; from pathlib import Path; from ogsrl.registry import Registry;"
        "Registry.open(f'sqlite:///{sys.argv[1]}/mlflow.db', Path(sys.argv[1]))"
    )
    each = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], env=dict(os.environ))
        for _ in range(2)
    ]
    assert [one.wait() for one in each] == [0, 0]
    shutil.rmtree(tmp_path / "mlartifacts", ignore_errors=True)
