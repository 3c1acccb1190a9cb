"""Over real HTTP: the same answers whoever is asked, on loopback alone, and a server that lives."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import mlflow
import pandas as pd
import psutil
import pytest
from click.testing import CliRunner

from ogsrl.cli import main
from ogsrl.registry import Registry
from tests.registered import MARGIN, entry_of
from tests.servers import free_port, posted, serving

pytestmark = pytest.mark.slow
URI = "models:/sepsis@champion"
MARK = "MARKER7731"


@dataclass(frozen=True)
class Servers:
    """Both, over one registry."""

    ours: str
    mlflows: str
    root: Path


@pytest.fixture(scope="module")
def servers(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    root = tmp_path_factory.mktemp("http")
    uri = f"sqlite:///{root / 'mlflow.db'}"
    Registry.open(uri, root).register(entry_of(models, root), "ogsrl", MARGIN, None)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("MLFLOW_TRACKING_URI", uri)
        environment.setenv("OGSRL_HOME", str(root))
        one, other = free_port(), free_port()
        ours = ["ogsrl", "serve", "--model", URI, "--port", str(one), "--workers", "1"]
        theirs = ["mlflow", "models", "serve", "-m", URI, "--env-manager", "local"]
        with serving(ours, one) as first, serving([*theirs, "-p", str(other)], other) as second:
            yield Servers(first, second, root)


def test_pyfunc_both_servers_and_the_command_answer_alike(
    servers: Servers, rows: pd.DataFrame
) -> None:
    whole = rows[rows["stay_id"].isin(rows["stay_id"].unique()[:5])].reset_index(drop=True)
    body = json.dumps({"dataframe_split": json.loads(whole.to_json(orient="split"))}).encode()
    answers = {}
    for name, address in (("ours", servers.ours), ("theirs", servers.mlflows)):
        status, told = posted(address, body)
        assert status == 200, told
        answers[name] = pd.DataFrame(json.loads(told)["predictions"])
    answers["pyfunc"] = mlflow.pyfunc.load_model(URI).predict(whole)
    file, out = servers.root / "rows.parquet", servers.root / "answers.csv"
    whole.to_parquet(file)
    words = ["query", "--model", URI, "--cohort", str(file), "--out", str(out)]
    found = CliRunner().invoke(main, words)
    assert found.exit_code == 0, found.output
    answers["command"] = pd.read_csv(out)
    first = answers.pop("ours")
    for other in answers.values():
        assert list(other) == list(first)
        for name, column in first.items():
            both = [one.astype(object) for one in (column, other[name])]
            same = iter([one.where(one.notna(), None) for one in both])
            if name in ("stay_id", "verdict", "rule", "reason"):
                assert next(same).tolist() == next(same).tolist(), name
            else:
                mine, theirs = (pd.to_numeric(one).to_numpy(float) for one in both)
                assert mine == pytest.approx(theirs, nan_ok=True, rel=1e-6), name


def test_it_listens_on_loopback_alone(servers: Servers) -> None:
    ports = {int(address.rpartition(":")[2]) for address in (servers.ours, servers.mlflows)}
    listening = [
        one.laddr
        for one in psutil.net_connections(kind="tcp")
        if one.status == psutil.CONN_LISTEN and one.laddr.port in ports
    ]
    assert {one.port for one in listening} == ports
    assert {one.ip for one in listening} == {"127.0.0.1"}


def test_after_ten_megabytes_of_nonsense_it_still_answers(
    servers: Servers, rows: pd.DataFrame
) -> None:
    for body in (
        json.dumps({"dataframe_records": [{"stay_id": MARK * 1_000_000}]}).encode(),
        b"{" + MARK.encode() * 1_000_000,
        b"\x00" * 10_000_000,
    ):
        status, told = posted(servers.ours, body)
        assert status == 400
        assert MARK not in told
    one = rows[rows["stay_id"] == rows["stay_id"].iloc[0]]
    body = json.dumps({"dataframe_records": json.loads(one.to_json(orient="records"))}).encode()
    assert posted(servers.ours, body)[0] == 200


@pytest.mark.parametrize(
    "params", [{"similar": MARK}, {"similar": [1.5]}, {"other": MARK}, {}, MARK, [MARK], None]
)
def test_no_parameter_makes_a_server_repeat_a_row(
    servers: Servers, rows: pd.DataFrame, params: object
) -> None:
    one = rows[rows["stay_id"] == rows["stay_id"].iloc[0]].assign(stay_id=MARK)
    for frame, told in (
        ("dataframe_split", json.loads(one.to_json(orient="split"))),
        ("dataframe_records", json.loads(one.to_json(orient="records"))),
    ):
        body = json.dumps({frame: told, "params": params}).encode()
        for address in (servers.ours, servers.mlflows):
            status, text = posted(address, body)
            assert status in (200, 400)
            if status == 400:
                assert MARK not in text


@pytest.mark.parametrize("column", ["map", "stay_id", "step", "iv_fluid"])
@pytest.mark.parametrize("cell", [MARK, [MARK], {"a": MARK}, 1e300])
def test_no_cell_makes_a_server_repeat_a_row(
    servers: Servers, rows: pd.DataFrame, column: str, cell: object
) -> None:
    one = rows[rows["stay_id"] == rows["stay_id"].iloc[0]].assign(patient_id=MARK)
    records = json.loads(one.to_json(orient="records"))
    records[0][column] = cell
    body = json.dumps({"dataframe_records": records}).encode()
    for address in (servers.ours, servers.mlflows):
        status, text = posted(address, body)
        assert status == 400
        assert MARK not in text


def test_a_process_that_is_ended_is_replaced(servers: Servers, rows: pd.DataFrame) -> None:
    server = _server(int(servers.ours.rpartition(":")[2]))
    worker = max(server.children(recursive=True), key=lambda one: one.memory_info().rss)
    worker.kill()
    one = rows[rows["stay_id"] == rows["stay_id"].iloc[0]]
    body = json.dumps({"dataframe_records": json.loads(one.to_json(orient="records"))}).encode()
    status, told = posted(servers.ours, body)
    assert (status, "ask again" in told) == (503, True)
    assert posted(servers.ours, body)[0] == 200


def test_its_processes_end_with_it(models: Path, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    Registry.open(uri, tmp_path).register(entry_of(models, tmp_path), "ogsrl", MARGIN, None)
    port = free_port()
    words = ["ogsrl", "serve", "--model", URI, "--port", str(port), "--workers", "2"]
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("MLFLOW_TRACKING_URI", uri)
        environment.setenv("OGSRL_HOME", str(tmp_path))
        with serving(words, port):
            server = _server(port)
            started = server.children(recursive=True)
            assert len(started) >= 2
            server.kill()
            gone, alive = psutil.wait_procs(started, timeout=20)
    assert alive == []
    assert len(gone) == len(started)


def _server(port: int) -> psutil.Process:
    """The one process that listens there."""
    listening = psutil.net_connections(kind="tcp")
    (found,) = {
        one.pid
        for one in listening
        if one.status == psutil.CONN_LISTEN and one.laddr.port == port and one.pid
    }
    return psutil.Process(found)
