"""The evaluate stage: who is measured, in which form it is told, and who is remembered."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

from ogsrl.errors import OgsrlError
from ogsrl.evaluation.asking import CLINICIANS, Grounds, Shared
from ogsrl.evaluation.config import LEAST_PATIENTS
from ogsrl.evaluation.confounding import gamma_key
from ogsrl.evaluation.report import COLUMNS
from ogsrl.policies.deployed import Deployed
from pipelines import evaluate, ledger, select, train
from pipelines.models import load_behaviour
from pipelines.parts import load_parts
from pipelines.stage import Stage
from tests.pipelines.test_train_stage import PARAMS, ordinal

FQE = {
    "fits": 2, "networks": 1, "hidden": 24, "steps": 400, "start_steps": 100, "batch_size": 256,
    "learning_rate": 2e-3,
}  # fmt: skip
EVALUATED = FQE | {"fits": 6}
FITS = {"fqe": FQE, "predictions": FQE}
QUANTITIES = ["mortality", "cost:ill", "refusal", "value"]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """Two algorithms, two seeds, limits that are easily met; then evaluated."""
    params = PARAMS | {
        "guardian": {"kind": "counts", "min_stays": 40, "max_refusal": 0.9},
        "train": PARAMS["train"] | {"algorithms": ["bc", "ogsrl"], "seeds": [0, 3]},
        "select": {"screen_stays": 300, "no_worse": False, "agree": False} | FITS,
        "evaluate": {"fqe": EVALUATED, "values": FQE | {"fits": 1}, "robust": FQE, "bootstrap": 200}
        | {"folds": 2},
    }
    made = ordinal(tmp_path_factory.mktemp("measured"), params, {"absolute": 0.9})
    prepared = pd.read_parquet(made.data("prepared", "train.parquet"))
    prepared.to_parquet(made.data("prepared", "test.parquet"))
    train.run(made)
    select.run(Stage("select", "table", made.root))
    stage = Stage("evaluate", "table", made.root)
    evaluate.run(stage)
    return stage


def test_the_table_has_its_fixed_columns_and_a_row_of_each(measured: Stage) -> None:
    rows = pd.read_parquet(measured.report("evaluation.parquet"))
    assert list(rows.columns) == list(COLUMNS)
    assert not rows.duplicated(["policy", "quantity", "estimator"]).any()
    assert rows.policy.unique()[:2].tolist() == ["clinicians", "selected"]
    assert set(rows[rows.policy == "selected"].quantity) == set(QUANTITIES)
    assert "refusal" not in set(rows[rows.policy == "clinicians"].quantity)
    assert set(measured.params.evaluate.estimators) | {"panel"} == set(rows.estimator)
    assert ((rows.lo <= rows.hi) & (rows.level == 0.95)).all()
    assert rows.truth.isna().all()  # nobody knows it of a table
    assert rows.diagnosis.str.len().min() > 5


def test_what_clinicians_come_to_is_what_was_seen(measured: Stage) -> None:
    rows = pd.read_parquet(measured.report("evaluation.parquet"))
    told = json.loads(measured.report("evaluation.json").read_text(encoding="utf-8"))
    mine = rows[(rows.policy == "clinicians") & (rows.quantity == "mortality")]
    seen = mine.set_index("estimator").loc[["pdis", "wis", "cwpdis"], "estimate"]
    assert seen.tolist() == pytest.approx([told["clinicians.mortality.logged"]] * 3)


def test_the_report_is_flat_and_says_a_word_of_each_gain(measured: Stage) -> None:
    told = json.loads(measured.report("evaluation.json").read_text(encoding="utf-8"))
    assert told["status"] == "evaluated"
    assert not any(isinstance(value, dict | list) for value in told.values())
    assert told["selected.mortality.gain.word"] in ("better", "worse", "cannot tell")
    assert told["selected.mortality.gain.smallest_effect"] > 0
    assert told["agreement.selected"] is None or 0 <= told["agreement.selected"] <= 1
    rows = pd.read_parquet(measured.report("evaluation.parquet"))
    panel = rows[(rows.policy == "selected") & (rows.estimator == "panel")].set_index("quantity")
    for quantity in QUANTITIES:
        for field, column in (("estimate", "estimate"), ("lo", "lo"), ("hi", "hi")):
            assert told[f"selected.{quantity}.{field}"] == panel.loc[quantity, column]


def test_a_confounder_of_no_strength_changes_nothing_and_a_stronger_one_never_less(
    measured: Stage,
) -> None:
    told = json.loads(measured.report("evaluation.json").read_text(encoding="utf-8"))
    for field in ("lo", "hi", "gain.lo", "gain.hi"):
        alone = told[f"selected.mortality.{field}"]
        assert told[f"selected.sensitivity.whole_stay.gamma_1.{field}"] == alone
    for what in ("whole_stay", "first_dose"):
        widths = [
            told[f"selected.sensitivity.{what}.{gamma_key(gamma)}.gain.hi"]
            - told[f"selected.sensitivity.{what}.{gamma_key(gamma)}.gain.lo"]
            for gamma in (1, *measured.params.evaluate.gammas)
        ]
        assert widths == sorted(widths)
        assert widths[-1] > widths[0]


def test_every_figure_is_drawn_and_single_patients_stay_private(measured: Stage) -> None:
    for name in evaluate.FIGURES:
        assert measured.report("figures", f"{name}.svg").stat().st_size > 1000
    differ = pd.read_parquet(measured.private("evaluate_differing.parquet"))
    assert differ.stay_id.nunique() <= 20
    ids = set(pd.read_parquet(measured.data("prepared", "test.parquet")).stay_id)
    told = measured.report("evaluation.json").read_text(encoding="utf-8")
    assert not any(f'"{one}"' in told for one in ids)


def test_the_ledger_remembers_each_policy_once(
    measured: Stage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = ledger.measured(measured)
    rows = pd.read_parquet(measured.report("evaluation.parquet"))
    assert len({one.policy for one in before}) == len(before)
    assert 1 <= len(before) <= rows.policy.nunique() - 1  # two names may be one policy
    root = tmp_path / "again"
    shutil.copytree(measured.root, root)
    stage = Stage("evaluate", "table", root)
    evaluate.run(stage)
    assert ledger.measured(stage) == before
    assert "0 of them new" in capsys.readouterr().out
    one = stage.report("evaluation.parquet").read_bytes()
    assert one == measured.report("evaluation.parquet").read_bytes()  # same inputs, same bytes
    (root / "ledger" / "table.jsonl").write_text("no entry\n")
    with pytest.raises(OgsrlError, match="restore the file from git"):
        ledger.measured(stage)


def test_another_test_set_is_another_entry(measured: Stage, tmp_path: Path) -> None:
    one = ledger.measured(measured)[0]
    stage = Stage("evaluate", "table", tmp_path)
    assert ledger.add(stage, [one, one]) == 1
    other = ledger.Entry("another", one.policy, one.algorithm, one.seed, one.checkpoint)
    assert ledger.add(stage, [one, other]) == 1
    assert ledger.measured(stage) == (one, other)


def test_too_few_test_patients_are_said_and_fail_nothing(
    measured: Stage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "few"
    shutil.copytree(measured.root, root, ignore=shutil.ignore_patterns("reports", "ledger"))
    shutil.copytree(measured.report(), root / "reports" / "table")
    stage = Stage("evaluate", "table", root)
    test = pd.read_parquet(stage.data("prepared", "test.parquet"))
    some = test.patient_id.unique()[: LEAST_PATIENTS - 1]
    test[test.patient_id.isin(some)].to_parquet(stage.data("prepared", "test.parquet"))
    evaluate.run(stage)
    told = json.loads(stage.report("evaluation.json").read_text(encoding="utf-8"))
    assert told == {
        "status": "too_few_patients",
        "needed": LEAST_PATIENTS,
        "needed_of": "patients with a decision and a known end",
    }
    rows = pd.read_parquet(stage.report("evaluation.parquet"))
    assert rows.empty
    assert list(rows.columns) == list(COLUMNS)
    assert "too few patients" in capsys.readouterr().out
    assert not ledger.measured(stage)


def test_nobody_selected_is_measured_as_somebody_who_defers(
    measured: Stage, tmp_path: Path
) -> None:
    root = tmp_path / "nobody"
    shutil.copytree(measured.root, root)
    stage = Stage("select", "table", root)
    params = yaml.safe_load((root / "params.yaml").read_text())
    params["guardian"]["max_refusal"] = 1e-6
    params["select"]["agree"] = True
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    file = root / "data_contracts" / "table.yaml"
    cohort = yaml.safe_load(file.read_text())
    cohort["constraints"]["ill"]["limit"] = {"absolute": 0.001}
    file.write_text(yaml.safe_dump(cohort))
    select.run(stage)
    evaluate.run(Stage("evaluate", "table", root))
    told = json.loads(stage.report("evaluation.json").read_text(encoding="utf-8"))
    assert told["selected.mortality.gain.word"] == "cannot tell"
    assert told["selected.measures.concordance.estimate"] is None
    assert told["selected.measures.deferred_steps.estimate"] == 1


def test_what_fits_of_costs_miss_is_in_the_bounds_that_limits_are_judged_by(
    measured: Stage, tmp_path: Path
) -> None:
    root = tmp_path / "missed"
    shutil.copytree(measured.root, root)
    params = yaml.safe_load((root / "params.yaml").read_text())
    told = {}
    for missed in (0.0, 0.5):
        params["evaluate"] = {**params.get("evaluate", {}), "limits_miss": missed}
        (root / "params.yaml").write_text(yaml.safe_dump(params))
        stage = Stage("evaluate", "table", root)
        evaluate.run(stage)
        found = json.loads(stage.report("evaluation.json").read_text(encoding="utf-8"))
        limits = {key: value for key, value in found.items() if ".limits." in key}
        told_of = "evaluate.limits_miss: 0 instead of 0.014" in found.values()
        assert told_of == (missed == 0), "who claims to be surer than by default is told"
        told[missed] = {key.rpartition(".")[2]: value for key, value in limits.items()}
    sure, unsure = told[0.0], told[0.5]
    assert unsure["estimate"] == sure["estimate"]
    assert sure["hi"] - sure["estimate"] < 0.3
    assert unsure["hi"] - unsure["estimate"] > 1.64 * 0.5
    assert (sure["kept"], unsure["kept"]) == (True, False)


def test_fits_that_misstate_the_clinicians_do_not_vote_however_well_they_agree(
    measured: Stage,
) -> None:
    test = load_parts(measured, "test")["test"]
    history, generator = test.history, torch.Generator().manual_seed(0)
    grounds = Grounds(test, load_behaviour(measured, history))
    nobody = {CLINICIANS: Deployed.of(None, None, history)}
    params = measured.params.evaluate
    shared = Shared.of(nobody, grounds, params, generator, lambda _more: None)
    assert shared.fitted(CLINICIANS, "mortality", gain=False).votes
    low = {
        name: {q: 0.0 * value + 0.1 for q, value in each.items()}
        for name, each in shared.fqe.first_values.items()
    }
    wrong = replace(shared, fqe=replace(shared.fqe, first_values=low))
    said = wrong.fitted(CLINICIANS, "mortality", gain=False)
    assert not said.votes
    assert "differ by 0 " in said.diagnosis
    assert "of the clinicians they say 0.100" in said.diagnosis


def test_who_acts_must_be_who_selection_names(measured: Stage, tmp_path: Path) -> None:
    root = tmp_path / "another"
    shutil.copytree(measured.root, root)
    stage = Stage("evaluate", "table", root)
    told = json.loads(stage.report("selection.json").read_text(encoding="utf-8"))
    assert told["chosen"] is not None
    stage.report("selection.json").write_text(json.dumps(told | {"chosen": None}))
    with pytest.raises(OgsrlError, match=r"not who selection\.json names"):
        evaluate.run(stage)


def test_every_clone_that_was_a_finalist_has_a_name_of_its_own(
    measured: Stage, tmp_path: Path
) -> None:
    root = tmp_path / "clones"
    shutil.copytree(measured.root, root)
    stage = Stage("evaluate", "table", root)
    told = json.loads(stage.report("selection.json").read_text(encoding="utf-8"))
    ours = next(one for one in told["candidates"] if one["algorithm"] == "ogsrl")
    for one in told["candidates"]:
        one["chosen"] = one is ours
        one["finalist"] = one["algorithm"] == "bc" or one is ours
    told["chosen"] = {key: ours[key] for key in ("name", "algorithm", "seed", "checkpoint")}
    stage.report("selection.json").write_text(json.dumps(told), encoding="utf-8")
    place = stage.model("policies", "ogsrl", f"seed_{ours['seed']}", ours["checkpoint"])
    shutil.rmtree(stage.model("selected"))
    shutil.copytree(place, stage.model("selected"))
    evaluate.run(stage)
    rows = pd.read_parquet(stage.report("evaluation.parquet"))
    names = rows.policy.unique().tolist()
    assert {"clinicians", "selected", "cloning"} < set(names)
    clones = rows[rows.algorithm == "bc"].drop_duplicates("policy")
    assert len(clones) == sum(one["algorithm"] == "bc" for one in told["candidates"])
    assert rows.checkpoint.dropna().str.startswith("step_").all()
    # the same weights are the same policy, put forward or not
    assert ledger.policy_hash(place) == ledger.policy_hash(stage.model("selected"))
    file = stage.model("selected") / "config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    config["config"]["about"]["step"] = "another name"
    file.write_text(json.dumps(config), encoding="utf-8")
    assert ledger.policy_hash(place) == ledger.policy_hash(stage.model("selected"))
    config["config"]["states"] = ["other"]
    file.write_text(json.dumps(config), encoding="utf-8")
    assert ledger.policy_hash(place) != ledger.policy_hash(stage.model("selected"))


def test_a_test_set_is_who_is_in_it() -> None:
    stays = pd.DataFrame(
        {"patient_id": ["a", "a", "b"], "stay_id": ["x", "x", "y"], "step": [0, 1, 0]}
    ).assign(end=[None, "death", "discharge"])
    told = ledger.patients_hash(stays)
    assert told == ledger.patients_hash(stays.iloc[[2, 0, 1]].assign(map=7.0)), "order, columns"
    assert told != ledger.patients_hash(stays.iloc[:2])
    other = stays.assign(end=[None, "discharge", "discharge"])
    assert told != ledger.patients_hash(other), "numbered alike, and others"
