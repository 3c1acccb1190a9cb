"""No patient's value or id leaves data/ on any path of the stages, the failing ones included."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from ogsrl.preparation import Preparation, PrepareParams, assign_parts
from ogsrl.spec import Cohort, load_cohort
from ogsrl.trajectories import starts
from tests.markers import Markers, numbers_near, plant, plant_extremes
from tests.servers import free_port, posted, serving
from tests.workspace import REPOSITORY, small_params

pytestmark = pytest.mark.slow

STAGES = ("source", "ingest", "validate", "prepare", "behaviour", "dynamics", "guardian")
#: What follows where everything before it succeeded; it takes as long as all of that.
AFTER = ("train", "select", "evaluate", "audit", "register")


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    return load_cohort(REPOSITORY / "data_contracts" / "sepsis.yaml")


@pytest.fixture(scope="module")
def clean() -> pd.DataFrame:
    from ogsrl.sources.simulator import simulate  # noqa: PLC0415 - one test module needs it

    return simulate(600, seed=11)


def workspace(root: Path, table: pd.DataFrame | bytes, name: str) -> None:
    text = yaml.safe_load((REPOSITORY / "data_contracts" / "sepsis.yaml").read_text())
    text["source"] = {"kind": "table", "path": f"private/{name}"}
    (root / "data_contracts").mkdir()
    (root / "data_contracts" / "sepsis.yaml").write_text(yaml.safe_dump(text, sort_keys=False))
    (root / "params.yaml").write_text(small_params(None))
    (root / "private").mkdir()
    if isinstance(table, bytes):
        (root / "private" / name).write_bytes(table)
    elif name.endswith(".csv"):
        table.to_csv(root / "private" / name, index=False)
    else:
        table.to_parquet(root / "private" / name)


def surroundings(root: Path) -> dict[str, str]:
    """With a registry of its own, whatever `./run` says."""
    own = {"OGSRL_HOME": str(root), "MLFLOW_TRACKING_URI": f"sqlite:///{root / 'mlflow.db'}"}
    return {**os.environ, **own, "PYTHONPATH": str(REPOSITORY)}


def run(root: Path, stages: tuple[str, ...] = STAGES) -> tuple[list[str], str]:
    """Stages that succeeded, until one fails; and everything that was printed."""
    done: list[str] = []
    said = ""
    for stage in stages:
        ended = subprocess.run(
            [sys.executable, "-m", "pipelines", stage, "--cohort", "sepsis"],
            cwd=root,
            env=surroundings(root),
            capture_output=True,
            text=True,
            check=False,
        )
        said += ended.stdout + ended.stderr
        if ended.returncode:
            break
        done.append(stage)
    return done, said


def command(root: Path, words: list[str]) -> str:
    """Everything that `ogsrl` prints of it."""
    ended = subprocess.run(
        [sys.executable, "-c", "from ogsrl.cli import main; main()", *words],
        cwd=root,
        env=surroundings(root),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout + ended.stderr


def leaks(root: Path, said: str, markers: Markers) -> list[str]:
    return markers.in_text(said) + markers.found_in(root)


@pytest.mark.parametrize(("breaking", "name"), [(True, "planted.parquet"), (False, "planted.csv")])
def test_whole_runs_show_nothing(
    cohort: Cohort, clean: pd.DataFrame, tmp_path: Path, breaking: bool, name: str
) -> None:
    planted, markers = plant(clean, cohort, breaking=breaking)
    workspace(tmp_path, planted, name)
    # of what keeps the contract, what follows is shown below, with somebody selected
    stages = (*STAGES, *AFTER) if breaking else STAGES
    done, said = run(tmp_path, stages)
    assert done == list(stages), said
    assert leaks(tmp_path, said, markers) == []
    folder = tmp_path / "data" / "sepsis" / "validated"
    aside = pd.read_parquet(folder / "quarantine.parquet")["stay_id"].str.contains("MARKstay")
    kept = pd.read_parquet(folder / "trajectories.parquet")["stay_id"].str.contains("MARKstay")
    assert aside.any() if breaking else kept.any()
    if "register" in done:
        assert (tmp_path / "mlflow.db").stat().st_size > 0


def lenient(root: Path) -> None:
    """Limits that a hardly trained policy keeps: somebody is selected."""
    file = root / "data_contracts" / "sepsis.yaml"
    text = yaml.safe_load(file.read_text())
    for constraint in text["constraints"].values():
        constraint["limit"] = {"relative": 9.0, "margin": 0.9}
    file.write_text(yaml.safe_dump(text, sort_keys=False))
    params = yaml.safe_load((root / "params.yaml").read_text())
    params["guardian"]["max_refusal"] = 1.0
    params["select"] |= {"no_worse": False, "agree": False}
    (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


def test_a_registered_model_and_its_server_show_nothing(
    cohort: Cohort, clean: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted, markers = plant(clean, cohort, breaking=False)
    workspace(tmp_path, planted, "planted.parquet")
    lenient(tmp_path)
    done, said = run(tmp_path, (*STAGES, *AFTER))
    assert done == [*STAGES, *AFTER], said
    receipt = json.loads((tmp_path / "reports" / "sepsis" / "registration.json").read_text())
    assert receipt["version"] == 1, said
    registered = {path.name for path in (tmp_path / "mlartifacts").rglob("*.safetensors")}
    assert "weights.safetensors" in registered
    assert leaks(tmp_path, said, markers) == []
    uri = "models:/sepsis/1"
    asked = ["query", "--model", uri, "--cohort", "private/planted.parquet", "--similar"]
    said = command(tmp_path, [*asked, "--out", "private/answers.csv"])
    answers = pd.read_csv(tmp_path / "private" / "answers.csv")
    assert answers["stay_id"].str.contains("MARKstay").any()
    assert not answers["rule"].eq("no_policy").any()
    told = answers.drop(columns=["stay_id", "step"]).to_csv(index=False)
    assert markers.in_text(said + told) == []
    assert leaks(tmp_path, said, markers) == []
    port = free_port()
    words = ["ogsrl", "serve", "--model", uri, "--port", str(port), "--workers", "1"]
    for name, value in surroundings(tmp_path).items():
        monkeypatch.setenv(name, value)
    with serving(words, port, log=tmp_path / "server.log") as address:
        mine = planted[planted["stay_id"].str.contains("MARKstay")].head(40)
        for body in _bad_bodies(mine):
            status, told = posted(address, body)
            assert status == 400
            assert markers.in_text(told) == []
        whole = {"dataframe_records": json.loads(mine.to_json(orient="records"))}
        body = json.dumps(whole | {"params": {"similar": True}}).encode()
        status, told = posted(address, body)
        assert status == 200, told
        for answer in json.loads(told)["predictions"]:
            assert answer.pop("stay_id") in set(mine["stay_id"])  # the asker's own word
            assert markers.in_text(json.dumps(answer)) == []
    assert leaks(tmp_path, said, markers) == []


def _bad_bodies(rows: pd.DataFrame) -> Iterator[bytes]:
    """Planted rows, each time with something that is refused."""
    spoilt = [
        rows.assign(map="MARKstay 81.93x"),
        rows.assign(temperature=rows["lactate"] + 5000),
        rows.drop(columns="map"),
        rows.iloc[1:],
        rows.assign(stay_id=None),
        pd.concat([rows, rows.iloc[:1]]),
    ]
    for frame in spoilt:
        table = frame.reset_index(drop=True)
        for orient in ("records", "split"):
            told = json.loads(table.to_json(orient=orient))
            yield json.dumps({f"dataframe_{orient}": told}).encode()
    yield rows.to_json(orient="records").encode()[:-5]
    yield rows.to_json(orient="records").encode()


@pytest.mark.parametrize("learner", ["neural", "boosted"])
def test_the_least_and_largest_values_of_one_patient_stay_in_the_data(
    cohort: Cohort, clean: pd.DataFrame, tmp_path: Path, learner: str
) -> None:
    clean = clean[~clean["stay_id"].isin(clean.loc[clean["end"] == "censored", "stay_id"])]
    stays = clean.groupby("patient_id")["step"].agg(["size", "max"])
    whole = stays.index[(stays["size"] == 18) & (stays["max"] == 17)].to_series()
    train = whole[assign_parts(whole, PrepareParams()) == "train"].tolist()
    planted, numbers = plant_extremes(clean, cohort, train)
    workspace(tmp_path, planted, "planted.parquet")
    text = (tmp_path / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(text.replace("kinds: [neural]", f"kinds: [{learner}]"))
    stages = (*STAGES, *AFTER) if learner == "neural" else STAGES
    done, said = run(tmp_path, stages)
    assert done == list(stages), said
    preparation = Preparation.load(tmp_path / "data" / "sepsis" / "prepared", cohort)
    scalings = {**preparation.states, **preparation.doses}
    written = [
        form
        for name, values in numbers.items()
        for value in values
        for form in (
            value,
            *([math.log(value)] if value > 0 else []),
            *scalings[name].forward(np.array([value])).tolist(),
        )
    ]
    assert numbers_near(tmp_path / "models", written, rounded=6e-6) == []
    charted = [value for values in numbers.values() for value in values]
    assert numbers_near(tmp_path / "reports", charted, rounded=1e-9) == []  # chances are many


def _spoil(column: str, words: str) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def spoil(frame: pd.DataFrame) -> pd.DataFrame:
        made = frame.astype(object).copy()
        made.loc[made.index[5:9], column] = words
        return made

    return spoil


def _leak(frame: pd.DataFrame) -> pd.DataFrame:
    """A column that gives the dose of its own row away."""
    return frame.assign(cvp=(frame["iv_fluid"] / 60).clip(upper=39))


def _all_break(frame: pd.DataFrame) -> pd.DataFrame:
    made = frame.copy()
    made.loc[starts(made["stay_id"]), "map"] += 5000.123
    return made


BAD: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], str]] = {
    "text in a number": (_spoil("map", "MARKvalue 81.93x"), "ingest"),
    "decimal comma": (_spoil("lactate", "81,9371"), "ingest"),
    "id twice": (_spoil("patient_id", "markpatientP1"), "ingest"),
    "no flag": (_spoil("died", "MARKvalue"), "ingest"),
    "no step": (_spoil("step", "MARKvalue"), "ingest"),
    "most stays broken": (_all_break, "validate"),
    "a leak": (_leak, "prepare"),
}


@pytest.mark.parametrize("kind", BAD)
def test_failing_runs_show_nothing(
    cohort: Cohort, clean: pd.DataFrame, tmp_path: Path, kind: str
) -> None:
    spoil, failing = BAD[kind]
    planted, markers = plant(clean, cohort, breaking=False)
    if kind == "id twice":
        planted.loc[planted.index[:5], "patient_id"] = "MARKpatientP1"
    workspace(tmp_path, spoil(planted), "planted.csv")
    done, said = run(tmp_path)
    assert done == list(STAGES[: STAGES.index(failing)]), said
    markers = Markers((*markers.texts, "MARKvalue", "81.93", "81,93", "5000.1"), markers.numbers)
    assert leaks(tmp_path, said, markers) == []
    assert not list((tmp_path / "data" / "sepsis" / "prepared").glob("*.parquet"))


def test_a_truncated_file_shows_nothing(
    cohort: Cohort, clean: pd.DataFrame, tmp_path: Path
) -> None:
    planted, markers = plant(clean, cohort, breaking=False)
    whole = planted.to_csv(index=False).encode()
    workspace(tmp_path, whole[: len(whole) // 2] + b'"MARKvalue', "planted.csv")
    done, said = run(tmp_path)
    assert "prepare" not in done, said
    assert leaks(tmp_path, said, Markers((*markers.texts, "MARKvalue"), markers.numbers)) == []
