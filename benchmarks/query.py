"""How fast a policy answers: one stay in process, many rows at once, eight clients over HTTP.

Run as `python -m benchmarks.query`. The model has the default cohort's sizes (its state, region,
clinicians, predictions and cells); what its networks learned is of no matter here and was not
waited for. The server is `ogsrl serve` with two processes, over a registry of its own.
"""

from __future__ import annotations

import http.client
import json
import os
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import torch

from benchmarks._report import ROOT, arguments, report
from benchmarks._truth_cohorts import Place, make
from benchmarks.truth import FULL as TRUTH
from benchmarks.truth import QUICK as TRUTH_QUICK
from ogsrl.evaluation.config import FqeParams
from ogsrl.policies.actors import NetworkActor
from ogsrl.policies.deployed import Deployed
from ogsrl.policies.networks import Perceptrons, Shape
from ogsrl.policies.saved import save_policy
from ogsrl.query.answer import ask
from ogsrl.query.evidence import Evidence
from ogsrl.query.model import EVIDENCE, PREDICTIONS, Model, save_beside, write_bundle
from ogsrl.query.predictions import Predictions
from ogsrl.query.request import columns, example
from ogsrl.registry import Entry, Registry

SEED = 91_000
CLIENTS, WORKERS = 8, 2
PORT = 5_099
JSON = {"Content-Type": "application/json"}
URI = "models:/sepsis@champion"
#: Of the actor, as params.yaml has it by default.
HIDDEN = 256


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    changes: Mapping[str, str]
    options: Mapping[str, Any]
    steps: int
    stays: int
    rows: int
    repeats: int
    seconds: float


FULL = Size(TRUTH.changes, {"patients": 4_000}, 50, 200, 100_000, 7, 60.0)
QUICK = Size(TRUTH_QUICK.changes, {"patients": 400}, 5, 5, 500, 2, 2.0)


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """Run, print, and return the figures."""
    parser = arguments("query", __doc__, processes="not used: the server has two")
    options = parser.parse_args(argv)
    size = QUICK if options.quick else FULL
    place = make(options.work / "cohorts", size.options, SEED, size.changes)
    models = place.stage.model()
    _select(place, size)
    model, rows = Model.load(models), _rows(place)
    made = _in_process(model, rows, size)
    with _served(models, options.work):
        made |= _asked(PORT, rows, size)
    report("query", made, options.json)
    return made


def _select(place: Place, size: Size) -> None:
    """Somebody, with all that queries tell."""
    parts, generator = place.parts(), torch.Generator().manual_seed(SEED)
    history = place.history
    doses = len(history.preparation.doses)
    shape = Shape(1, len(history.names), HIDDEN, doses)
    actor = NetworkActor(Perceptrons.drawn(shape, generator), None)
    selected = place.stage.model("selected")
    save_policy(selected, actor, history, {"algorithm": "drawn", "seed": SEED, "step": "step_0"})
    save_beside(place.stage.cohort_file, history.preparation, selected)
    deployed = Deployed.of(actor, place.guardian, history)
    params = FqeParams(networks=1, start_steps=1, steps=size.steps)
    train, calibration = parts["train"], parts["calibration"]
    Predictions.fit(train, calibration, deployed, place.behaviour, params, generator).save(
        selected / PREDICTIONS
    )
    evidence = Evidence.fit(train, generator)
    if evidence is not None:
        evidence.save(selected / EVIDENCE)


def _rows(place: Place) -> pd.DataFrame:
    """Of patients, as they were charted."""
    return pd.read_parquet(place.stage.data("validated", "trajectories.parquet"))


def _in_process(model: Model, rows: pd.DataFrame, size: Size) -> dict[str, float]:
    """One stay at a time by one thread, and all at once by two."""
    threads = torch.get_num_threads()
    stays = [stay for _, stay in rows.groupby("stay_id", sort=False)][: size.stays]
    times = []
    torch.set_num_threads(1)
    for stay in stays:
        begun = time.perf_counter()
        ask(model, stay)
        times.append(time.perf_counter() - begun)
    torch.set_num_threads(2)
    again = -(-size.rows // len(rows))
    many = pd.concat(
        [rows.assign(stay_id=rows["stay_id"] + f"_{k}") for k in range(again)], ignore_index=True
    )
    speeds, process = [], psutil.Process()
    ask(model, many)
    before = process.memory_info().rss
    for _ in range(size.repeats):
        begun = time.perf_counter()
        ask(model, many)
        speeds.append(len(many) / (time.perf_counter() - begun))
    grown = process.memory_info().rss - before
    torch.set_num_threads(threads)
    return {
        "single_ms": 1000 * statistics.median(times),
        "rows_per_s": statistics.median(speeds),
        "bulk_rows": float(len(many)),
        "memory_growth_mb": grown / 2**20,
    }


@dataclass
class Client:
    """One of those who ask, again and again, over a connection that stays open."""

    port: int
    bodies: Sequence[bytes]
    until: float
    times: list[float] = field(default_factory=list)
    errors: int = 0

    def run(self) -> None:
        """Until the time is over."""
        number, connection = 0, http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        while time.monotonic() < self.until:
            body = self.bodies[number % len(self.bodies)]
            number += 1
            begun = time.perf_counter()
            try:
                connection.request("POST", "/invocations", body, JSON)
                answer = connection.getresponse()
                answer.read()
                self.errors += answer.status != 200
            except (http.client.HTTPException, OSError):
                self.errors += 1
                connection.close()  # the next request opens another
            self.times.append(time.perf_counter() - begun)
        connection.close()


def _asked(port: int, rows: pd.DataFrame, size: Size) -> dict[str, float]:
    """Eight clients, each asking about one stay after another, whole stays."""
    stays = [stay for _, stay in rows.groupby("stay_id", sort=False)][:100]
    bodies = [
        json.dumps({"dataframe_split": json.loads(stay.to_json(orient="split"))}).encode()
        for stay in stays
    ]
    Client(port, bodies, time.monotonic() + size.seconds / 10).run()  # warm
    until = time.monotonic() + size.seconds
    clients = [Client(port, bodies[k:] + bodies[:k], until) for k in range(CLIENTS)]
    threads = [threading.Thread(target=one.run) for one in clients]
    before = _memory()
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    times = np.concatenate([one.times for one in clients])
    return {
        "server_p50_ms": 1000 * float(np.quantile(times, 0.5)),
        "server_p99_ms": 1000 * float(np.quantile(times, 0.99)),
        "server_errors": float(sum(one.errors for one in clients)),
        "server_requests_per_s": len(times) / size.seconds,
        "server_memory_growth_mb": (_memory() - before) / 2**20,
    }


def _memory() -> float:
    """Of all that this process started."""
    return float(sum(one.memory_info().rss for one in psutil.Process().children(recursive=True)))


@contextmanager
def _served(models: Path, work: Path) -> Iterator[None]:
    """`ogsrl serve` over a registry with this model, until it is no longer asked."""
    uri = f"sqlite:///{(work / 'mlflow.db').absolute()}"
    bundle = work / "bundle" / "sepsis"
    identity = write_bundle(models, bundle)
    cohort = Model.load(models).cohort
    nothing: dict[str, Any] = {"gates": {}, "reports": (), "params": {}, "metrics": {}}
    entry = Entry(
        name="sepsis",
        identity=identity,
        verdict="passed",
        summary="a benchmark's",
        card_sha256="",
        bundle=bundle,
        inputs=columns(cohort),
        example=example(cohort),
        requirements=["torch==2.13.0"],
        datasets={},
        tags={},
        **nothing,
    )
    # the newest is asked, whatever was registered here before
    Registry.open(uri, work.absolute()).register(entry, "benchmark", -1.0, lambda _: (0.0, ""))
    words = ["serve", "--model", URI, "--port", str(PORT), "--workers", str(WORKERS)]
    home = Path(sys.executable).parent
    server = subprocess.Popen(
        [str(home / "ogsrl"), *words],
        cwd=ROOT,
        env={
            **os.environ,
            "MLFLOW_TRACKING_URI": uri,
            "OGSRL_HOME": str(work.absolute()),
            "PATH": f"{home}:{os.environ['PATH']}",
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    address = f"http://127.0.0.1:{PORT}"
    try:
        _wait(address)
        yield
    finally:
        server.terminate()
        server.wait(timeout=30)


def _wait(address: str) -> None:
    for _ in range(300):
        try:
            with urllib.request.urlopen(f"{address}/ping", timeout=5):
                return
        except OSError:
            time.sleep(0.3)
    raise SystemExit("the server did not start")


if __name__ == "__main__":
    main()
