"""Behind a server: no error repeats a row, whatever is sent, and answers pass unchanged."""

from __future__ import annotations

import asyncio
import json
from collections.abc import MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ogsrl.policies.deployed import Deployed
from ogsrl.query.answer import ask
from ogsrl.query.model import Model, write_bundle
from ogsrl.query.request import columns
from ogsrl.query.served import Served
from ogsrl.query.service import Service, answered

MARK = "MARKER7731"
MARKED = 61.7731


@dataclass(frozen=True)
class Here:
    """Answers without a process of its own."""

    model: Served

    async def begin(self) -> None:
        """Nothing."""

    async def end(self) -> None:
        """Nothing."""

    async def ask(self, body: bytes) -> tuple[int, bytes]:
        """At once."""
        return answered(self.model, body)


@pytest.fixture(scope="module")
def app(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Service:
    """Of the small model, as it is registered, in this process."""
    folder = tmp_path_factory.mktemp("served")
    write_bundle(models, folder)
    return Service(Here(Served.load(folder)))


def sent(
    app: Service, body: bytes, path: str = "/invocations", method: str = "POST"
) -> tuple[int, str]:
    """One request, in the server's own protocol."""
    answers: list[MutableMapping[str, Any]] = []
    halves = [body[: len(body) // 2], body[len(body) // 2 :]]

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": halves.pop(0), "more_body": bool(halves)}

    async def send(message: MutableMapping[str, Any]) -> None:
        answers.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": path,
    }
    asyncio.run(app(scope, receive, send))
    told = b"".join(one.get("body", b"") for one in answers[1:])
    return int(answers[0]["status"]), told.decode()


def records(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """As JSON sends them."""
    found: list[dict[str, Any]] = json.loads(rows.to_json(orient="records"))
    return found


def test_answers_pass_as_they_are(app: Service, model: Model, rows: pd.DataFrame) -> None:
    few = rows.head(30)
    whole = few[few["stay_id"] != few["stay_id"].iloc[-1]]
    status, told = sent(app, json.dumps({"dataframe_records": records(whole)}).encode())
    assert status == 200
    found = pd.DataFrame(json.loads(told)["predictions"]).astype(object)
    mine = ask(model, whole)
    for name, column in mine.items():
        if name in ("stay_id", "verdict", "rule", "reason"):
            same = found[name].where(found[name].notna(), None)
            assert same.tolist() == column.tolist()
        else:
            numbers = (one.astype(float).to_numpy() for one in (found[name], column))
            assert next(numbers) == pytest.approx(next(numbers), nan_ok=True)
    similar = {"dataframe_records": records(whole), "params": {"similar": True}}
    status, told = sent(app, json.dumps(similar).encode())
    assert status == 200
    assert "similar_mean_iv_fluid" in json.loads(told)["predictions"][0]


BODIES: dict[str, Any] = {
    "not JSON": b'{"dataframe_records": [{"stay_id": "MARKER7731", "map": 61.7731}',
    "bytes": b"\xff\xfeMARKER7731",
    "nothing": b"",
    "text": b'"MARKER7731"',
    "a list": b'["MARKER7731"]',
    "deep": b"[" * 100_000,
    "other names": {"rows": [{"stay_id": MARK}]},
    "inputs": {"inputs": {"stay_id": [MARK], "map": [MARKED]}},
    "instances": {"instances": [MARK]},
    "both": {"dataframe_records": [], "dataframe_split": {}},
    "records of text": {"dataframe_records": MARK},
    "a ragged split": {"dataframe_split": {"columns": ["stay_id"], "data": [[MARK, MARKED]]}},
    "a split of text": {"dataframe_split": MARK},
    "unknown parameters": {"dataframe_records": [], "params": {MARK: 1}},
    "parameters of text": {"dataframe_records": [], "params": MARK},
    "no rows": {"dataframe_records": []},
    "another unit": {"dataframe_records": [{"stay_id": MARK, "step": 0, "map": 7731.25}]},
    "ten million letters": {"dataframe_records": [{"stay_id": MARK * 1_000_000, "step": 0}]},
    "a huge number": {"dataframe_records": [{"stay_id": MARK, "step": 10**400}]},
}


@pytest.mark.parametrize("what", BODIES)
def test_no_error_repeats_what_was_sent(app: Service, what: str) -> None:
    body = BODIES[what]
    status, told = sent(app, body if isinstance(body, bytes) else json.dumps(body).encode())
    assert status == 400
    assert set(json.loads(told)) == {"error_code", "message"}
    assert MARK not in told
    assert "7731" not in told
    assert len(told) < 1500


def test_it_lives_and_knows_one_path(app: Service) -> None:
    assert sent(app, b"", "/ping", "GET") == (200, "\n")
    for path, method in (("/invocations", "GET"), ("/MARKER7731", "POST"), ("/ping", "POST")):
        status, told = sent(app, b"MARKER7731", path, method)
        assert status == 404
        assert MARK not in told


def test_what_is_too_large_is_refused(app: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ogsrl.query.service.LARGEST", 1000)
    status, told = sent(app, b'{"dataframe_records": "' + MARK.encode() * 1000 + b'"}')
    assert status == 413
    assert MARK not in told


def test_its_own_reason_reaches_the_client(app: Service, rows: pd.DataFrame) -> None:
    bad = records(rows.head(1).assign(temperature=98.6))
    status, told = sent(app, json.dumps({"dataframe_records": bad}).encode())
    assert status == 400
    assert "temperature: 1 values outside 30 to 43; send it in C" in json.loads(told)["message"]


def test_a_defect_shows_no_row(
    app: Service, rows: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_args: object) -> None:
        raise RuntimeError(MARK)

    monkeypatch.setattr(Deployed, "decide", broken)
    status, told = sent(app, json.dumps({"dataframe_records": records(rows.head(1))}).encode())
    assert status >= 400
    assert MARK not in told
    assert "RuntimeError" in told


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.just(MARK) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@st.composite
def requests(draw: st.DrawFn, known: list[str]) -> bytes:
    """Bodies that are nearly right: real columns with anything in them, or anything at all."""
    kind = draw(st.sampled_from(["rows", "rows", "rows", "split", "anything", "bytes"]))
    if kind == "bytes":
        return draw(st.binary(max_size=200)) + MARK.encode()
    if kind == "anything":
        return json.dumps(draw(JSON)).encode()
    numbers = st.floats(allow_nan=True) | st.integers(-10, 300) | st.integers() | JSON
    names = draw(st.lists(st.sampled_from(known), unique=True, min_size=1))
    count = draw(st.integers(1, 3))
    rows = [{name: draw(numbers) for name in names} | {"stay_id": MARK} for _ in range(count)]
    usual = draw(st.booleans())
    for step, row in enumerate(rows if usual else []):
        row["step"] = step
    if kind == "rows":
        return json.dumps({"dataframe_records": rows}).encode()
    data = [list(row.values()) for row in rows]
    return json.dumps({"dataframe_split": {"columns": names, "data": data}}).encode()


def bad_requests(app: Service, model: Model, usual: pd.DataFrame, examples: int) -> None:
    """None crashes it or is echoed; a dose that is answered is inside bounds and region."""
    known = columns(model.cohort)
    actions = model.cohort.actions

    @settings(
        max_examples=examples,
        deadline=10_000,
        suppress_health_check=list(HealthCheck),
        database=None,
        derandomize=True,
    )
    @given(body=requests(known), changed=st.sampled_from(known), value=st.floats() | JSON)
    def one(body: bytes, changed: str, value: Any) -> None:
        row = records(usual.head(1))[0] | {changed: value}
        for each in (body, json.dumps({"dataframe_records": [row]}).encode()):
            status, told = sent(app, each)
            assert status in (200, 400)
            if status == 400:
                assert MARK not in told
                continue
            for answer in json.loads(told)["predictions"]:
                for name, action in actions.items():
                    dose = answer[f"dose_{name}"]
                    assert (dose is None) == (answer["verdict"] == "defer")
                    assert dose is None or action.range[0] <= dose <= action.range[1]
                if answer["verdict"] == "recommend":
                    assert answer["score"] <= answer["score_threshold"]

    one()


def test_bad_requests(app: Service, model: Model, rows: pd.DataFrame) -> None:
    bad_requests(app, model, rows, 100)


@pytest.mark.slow
def test_many_bad_requests(app: Service, model: Model, rows: pd.DataFrame) -> None:
    bad_requests(app, model, rows, 1000)
