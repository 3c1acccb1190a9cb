"""A model on patients that it never saw: as good as at home on its own kind, and told where not."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from click.testing import CliRunner

from ogsrl.cli import main
from ogsrl.evaluation import external
from ogsrl.evaluation.config import EvaluateParams
from ogsrl.evaluation.report import COLUMNS
from ogsrl.query.elsewhere import evaluate_elsewhere
from ogsrl.query.model import Model
from ogsrl.registry import Registry
from ogsrl.sources.simulator import simulate
from ogsrl.spec import load_cohort
from tests.query.small import SMALL, small_model
from tests.registered import MARGIN, entry_of
from tests.workspace import REPOSITORY

CONTRACT = REPOSITORY / "data_contracts" / "sepsis.yaml"


QUICK = EvaluateParams(fqe=SMALL, robust=SMALL.model_copy(update={"fits": 1}), truth_patients=500)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of few patients, and two other hospitals: one alike, one of older patients."""
    root, cohort = tmp_path_factory.mktemp("elsewhere"), load_cohort(CONTRACT)
    table = simulate(600, 1)[list(cohort.table_columns)]
    own = root / "sepsis.yaml"
    overrides = {"evaluate": QUICK.model_dump(mode="json", exclude_unset=True)}
    at_home = CONTRACT.read_text().replace("kind: simulator", "kind: table\n  path: home.parquet")
    at_home = re.sub(r"  options: {patients: .*\n", "", at_home)
    own.write_text(at_home + yaml.safe_dump({"overrides": overrides}))
    small_model(root / "models" / "sepsis", table, own, whole=False)
    other = simulate(60, 2)[list(cohort.table_columns)]
    other.to_parquet(root / "alike.parquet")
    table.to_parquet(root / "home.parquet")
    other.assign(age=(other.age + 20).clip(upper=110)).to_csv(root / "older.csv", index=False)
    female = other.assign(female=1, lactate=other.lactate.where(other.step % 4 == 0))
    female.to_parquet(root / "female.parquet")
    other.assign(lactate=-5.0 - other.step % 3).to_parquet(root / "broken.parquet")
    other.drop(columns="lactate").to_parquet(root / "short.parquet")
    other[other.stay_id.isin(other.stay_id.unique()[:5])].to_parquet(root / "few.parquet")
    text = CONTRACT.read_text().replace("name: sepsis", "name: theirs")
    text = text.replace("options: {patients: 20000,", "options: {patients: 60,")
    (root / "theirs.yaml").write_text(text)
    (root / "home.yaml").write_text(at_home.replace("name: sepsis", "name: home"))
    changed = text.replace("spo2 < 92", "spo2 < 90").replace("name: theirs", "name: changed")
    (root / "changed.yaml").write_text(changed)
    return root


def asked(place: Path, cohort: str, *more: str) -> tuple[int, str]:
    words = [
        "evaluate",
        "--model",
        str(place / "models" / "sepsis"),
        "--cohort",
        str(place / cohort),
        *more,
    ]
    found = CliRunner().invoke(main, words)
    return found.exit_code, found.output


@pytest.fixture(scope="module")
def told(place: Path) -> dict[str, dict[str, float]]:
    found = {}
    for name in ("alike.parquet", "older.csv", "female.parquet"):
        found[name] = evaluate_elsewhere(place / "models" / "sepsis", place / name, 0, QUICK).told
    status, said = asked(place, "alike.parquet", "--out", str(place / "alike"))
    assert status == 0, said
    written = json.loads((place / "alike" / "evaluation.json").read_text())
    assert written.keys() == found["alike.parquet"].keys()
    return found | {"alike.parquet": written}


def test_patients_alike_have_not_drifted_and_older_ones_have(
    told: dict[str, dict[str, float]],
) -> None:
    assert abs(told["alike.parquet"]["drift.mean.age"]) < 0.5
    assert told["older.csv"]["drift.mean.age"] > 1
    alike, older, _ = (one["drift.refused.estimate"] for one in told.values())
    assert older > alike
    assert told["alike.parquet"]["drift.refused.promised"] == 0.05


def test_codes_and_gaps_drift_too_and_chance_does_not(told: dict[str, dict[str, float]]) -> None:
    alike, female = told["alike.parquet"], told["female.parquet"]
    assert female["drift.moved.female"] > 0.3
    assert female["drift.gaps.lactate"] > 0.2
    assert female["drift.columns"] >= alike["drift.columns"] + 2
    moved = [value for name, value in alike.items() if name.startswith("drift.moved.")]
    assert moved
    assert max(moved) < 0.1
    gaps = [x for name, x in alike.items() if name.startswith("drift.gaps.") and x is not None]
    assert max(map(abs, gaps)) < 0.1


def test_many_codes_have_not_drifted_where_they_are_drawn_alike() -> None:
    g = np.random.default_rng(3)
    there = g.dirichlet(np.ones(700))
    cell, half = g.choice(700, 5_000, p=there), np.arange(5_000) % 2 == 0
    plain = np.abs(np.bincount(cell, minlength=700) / 5_000 - there).sum() / 2
    assert plain > 0.1, "chance alone would be called drift"
    assert external._moved(cell, half, there) < 0.03
    other = np.where(g.random(5_000) < 0.3, 0, cell)
    assert 0.2 < external._moved(other, half, there) < 0.3, "a cautious figure: chance is taken off"


def test_the_form_is_that_of_the_stage(place: Path, told: dict[str, dict[str, float]]) -> None:
    rows = pd.read_parquet(place / "alike" / "evaluation.parquet")
    assert list(rows.columns) == list(COLUMNS)
    assert set(rows.policy) == {"clinicians", "selected"}
    assert not {"dr", "wdr", "magic", "rollouts"} & set(rows.estimator)  # nobody to fit them on
    gain = {k: told["alike.parquet"][f"selected.mortality.gain.{k}"] for k in ("lo", "hi", "word")}
    surely = {(True, False): "better", (False, True): "worse"}
    assert gain["word"] == surely.get((gain["hi"] < 0, gain["lo"] > 0), "cannot tell")


def test_a_registered_model_is_measured_by_its_name(
    place: Path,
    told: dict[str, dict[str, float]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.setenv("OGSRL_HOME", str(tmp_path))
    registry = Registry.open(f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path)
    registry.register(entry_of(place / "models" / "sepsis", tmp_path), "ogsrl", MARGIN, None)
    words = ["evaluate", "--model", "models:/sepsis@champion", "--cohort"]
    found = CliRunner().invoke(main, [*words, str(place / "alike.parquet"), "--json"])
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout) == told["alike.parquet"]
    tag = found.stderr.split()[-4]
    version = registry.client.get_model_version("sepsis", "1")
    assert "patients; " in version.tags[tag]
    again = registry.note_external("models:/sepsis/1", told["alike.parquet"], "once more")
    assert again == f"{tag} of version 1", "the same answer is the same tag"


def test_a_model_read_back_is_whole(place: Path) -> None:
    model = Model.load(place / "models" / "sepsis")
    assert model.cohort == load_cohort(place / "sepsis.yaml")
    assert model.about["algorithm"] == "constant"
    (place / "broken").mkdir()
    status, said = asked(place / "broken", "../alike.parquet")
    assert status == 2
    assert "no model here" in said


@pytest.mark.parametrize(
    ("cohort", "words"),
    [
        ("short.parquet", "lactate"),
        ("few.parquet", "fewer than 20 patients"),
        ("nowhere.parquet", "no such file"),
        ("changed.yaml", "constraints differ"),
        ("broken.parquet", "stays break the contract (plausible_range:lactate); mend them"),
        ("home.yaml", "the model's own patients are there"),
        ("home.parquet", "the model's own patients are there"),
    ],
)
def test_a_wrong_cohort_is_told_by_name(place: Path, cohort: str, words: str) -> None:
    status, said = asked(place, cohort)
    assert status == 2, said
    assert words in said


def test_a_cohort_file_may_have_a_source_of_its_own_and_its_truth_is_told(place: Path) -> None:
    found = evaluate_elsewhere(place / "models" / "sepsis", place / "theirs.yaml", 0, QUICK)
    assert found.told["external.stays"] >= 60
    assert 0.1 < found.told["clinicians.mortality.truth"] < 0.3
    mine = {k: found.told[f"selected.mortality.{k}"] for k in ("lo", "hi", "truth", "covered")}
    assert mine["covered"] == (mine["lo"] <= mine["truth"] <= mine["hi"])
    assert found.rows.truth.notna().any()


def test_weights_of_other_clinicians_have_no_vote_and_fits_are_off_by_what_they_miss(
    place: Path,
) -> None:
    found = evaluate_elsewhere(place / "models" / "sepsis", place / "alike.parquet", 0, QUICK)
    weighted = found.rows[~found.rows.estimator.isin(["fqe", "panel"])]
    assert len(weighted)
    assert weighted.diagnosis.str.contains("clinicians of another place").all()
    missed = found.told["clinicians.mortality.estimate"] - found.told["clinicians.mortality.logged"]
    row = found.rows[(found.rows.estimator == "fqe") & (found.rows.policy == "clinicians")].iloc[0]
    assert row.hi - row.lo > 2 * abs(missed) > 0
