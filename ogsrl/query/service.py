"""A model over HTTP, as `mlflow models serve` takes rows and answers them; no error repeats a row.

Called by the command line. One process reads bodies and hands them to whichever of a few others is
free; those hold the model. It is plain ASGI.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import threading
import time
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
import torch
import uvicorn

from ogsrl.query.model import check_bundle
from ogsrl.query.served import Refused, Served

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
#: Status and body.
Answer = tuple[int, bytes]
#: Bytes of a body.
LARGEST = 64 * 2**20
#: Of a JSON body, exactly one, and nothing else but `params`.
FRAMES = ("dataframe_split", "dataframe_records")
READ = f"send JSON with one of {', '.join(FRAMES)}, as MLflow takes it"
ALIVE = ("/ping", "/health")
#: Seconds for all processes to load the model.
PATIENCE = 300.0
#: Of a process that answers: its model, and those beside it.
_model: Served
_others: Barrier


def serve(folder: Path, host: str, port: int, workers: int) -> None:
    """Serve the registered model in this folder by so many processes, until it is ended."""
    check_bundle(folder)
    uvicorn.run(Service(Workers(folder, workers)), host=host, port=port, log_level="warning")


class Answers(Protocol):
    """Whoever answers bodies."""

    async def begin(self) -> None:
        """Get ready."""

    async def end(self) -> None:
        """Let go of everything."""

    async def ask(self, body: bytes) -> Answer:
        """Answer one."""


@dataclass(frozen=True)
class Service:
    """The protocol around whoever answers.

    Attributes:
        workers: Whom a body is handed to.
    """

    workers: Answers

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """One request, or the server's begin and end."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            await _send(send, *await self._answer(scope, await _body(receive)))

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self.workers.begin()
        except Exception as error:  # the server would go on without a word
            told = f"the model was not loaded ({type(error).__name__})"
            await send({"type": "lifespan.startup.failed", "message": told})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.workers.end()
        await send({"type": "lifespan.shutdown.complete"})

    async def _answer(self, scope: Message, body: bytes | None) -> Answer:
        asked = (scope["method"], scope["path"])
        if asked[0] == "GET" and asked[1] in ALIVE:
            return 200, b"\n"
        if asked != ("POST", "/invocations"):
            return 404, _wrong(f"send rows by POST to /invocations; {READ}")
        if body is None:
            return 413, _wrong(f"the body is larger than {LARGEST} bytes")
        return await self.workers.ask(body)


class Workers:
    """Processes with one queue; if one is ended from outside, others take their place."""

    def __init__(self, folder: Path, count: int) -> None:
        """Of the model in this folder."""
        self._folder, self._count = folder, count
        self._pool: ProcessPoolExecutor | None = None

    def _new(self) -> ProcessPoolExecutor:
        context = get_context("spawn")
        told = (str(self._folder), os.getpid(), context.Barrier(self._count))
        return ProcessPoolExecutor(self._count, context, _begin_worker, told)

    async def begin(self) -> None:
        """Return once every process has loaded the model."""
        loop, self._pool = asyncio.get_running_loop(), self._new()
        ready = [loop.run_in_executor(self._pool, _wait_for_others) for _ in range(self._count)]
        await asyncio.gather(*ready)

    async def end(self) -> None:
        """End all processes."""
        pool, self._pool = self._pool, None
        if pool is not None:
            await asyncio.to_thread(pool.shutdown, cancel_futures=True)

    async def ask(self, body: bytes) -> Answer:
        """The answer of whoever is free first."""
        pool = self._pool
        if pool is None:
            return 503, _wrong("the server is being ended")
        try:
            return await asyncio.get_running_loop().run_in_executor(pool, _answered, body)
        except BrokenProcessPool:
            if pool is self._pool:
                self._pool = self._new()
            return 503, _wrong("a process of the server was ended from outside; ask again")


def answered(model: Served, body: bytes) -> Answer:
    """The answer to rows as they were sent."""
    try:
        rows, params = _read(body)
        return 200, _written(model.predict(rows, params))
    except Refused as error:
        return 400, _wrong(str(error))
    except Exception as error:  # whatever it says may hold a row
        told = f"a defect of the program ({type(error).__name__}); its message is withheld"
        return 500, _wrong(told)


def _begin_worker(folder: str, server: int, others: Barrier) -> None:
    """Load the model, and end when the server is gone."""
    global _model, _others
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server ends its processes
    torch.set_num_threads(1)  # processes side by side
    _model, _others = Served.load(Path(folder)), others
    gc.freeze()  # what is loaded stays: nobody need look through it for what may go

    def watch() -> None:
        while os.getppid() == server:
            time.sleep(0.5)
        os._exit(143)

    threading.Thread(target=watch, daemon=True).start()


def _wait_for_others() -> None:
    _others.wait(PATIENCE)


def _answered(body: bytes) -> Answer:
    return answered(_model, body)


async def _body(receive: Receive) -> bytes | None:
    """All of it; None if it is too large, once it has come to its end."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return b"".join(parts)
        size += len(message.get("body", b""))
        if size <= LARGEST:
            parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts) if size <= LARGEST else None


def _read(body: bytes) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Rows and parameters out of a body."""
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        raise Refused(f"the body is not JSON; {READ}") from None
    if not isinstance(told, dict):
        raise Refused(f"the body is no JSON object; {READ}")
    frames = [name for name in FRAMES if name in told]
    if len(frames) != 1 or not {*told} <= {*FRAMES, "params"}:
        raise Refused(f"the body names other things than rows; {READ}")
    params = told.get("params") or {}
    if not isinstance(params, dict) or {*params} - {"similar"}:
        raise Refused("params: an object that holds `similar`, or nothing")
    if not isinstance(params.get("similar", False), bool):
        raise Refused("params.similar: neither true nor false")
    rows = told[frames[0]]
    try:
        if frames[0] == "dataframe_split":
            return pd.DataFrame(rows["data"], columns=rows["columns"]), params
        if isinstance(rows, list) and all(isinstance(row, dict) for row in rows):
            return pd.DataFrame(rows), params
    except Exception:  # pandas has many, and they repeat what they could not take
        pass
    raise Refused(f"the rows cannot be read; {READ}")


def _written(answers: pd.DataFrame) -> bytes:
    """As MLflow answers: one object a row."""
    columns = [answers[name].tolist() for name in answers]
    rows = [dict(zip(answers.columns, row, strict=True)) for row in zip(*columns, strict=True)]
    return json.dumps({"predictions": rows}, allow_nan=False).encode()


def _wrong(message: str) -> bytes:
    return json.dumps({"error_code": "BAD_REQUEST", "message": message}).encode()


async def _send(send: Send, status: int, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
