"""Around a server of a model: what cannot be read is refused here, and no error repeats a row.

Called by the registry, which serves with it. It is plain ASGI and knows no server; it looks at
bodies before the server does, and at errors before the client does.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

from ogsrl.query.served import Refused

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]
#: Bytes of a body.
LARGEST = 64 * 2**20
#: Of a JSON body, exactly one, and nothing else but `params`.
FRAMES = ("dataframe_split", "dataframe_records")
READ = f"send JSON with one of {', '.join(FRAMES)}, as MLflow takes it"
_MARK = f"{Refused.__module__}.{Refused.__qualname__}: "


@dataclass(frozen=True)
class Guarded:
    """A server that answers as the one inside, but for its errors."""

    inside: App

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.inside(scope, receive, send)
            return
        body = await _body(receive)
        wrong = None
        if scope["path"] == "/invocations":
            wrong = f"the body is larger than {LARGEST} bytes" if body is None else _unread(body)
        if wrong is not None:
            await _answer(send, 413 if body is None else 400, wrong)
            return
        begun: list[Message] = []
        parts: list[bytes] = []

        async def once() -> Message:
            return {"type": "http.request", "body": body or b"", "more_body": False}

        async def held(message: Message) -> None:
            if message["type"] == "http.response.start":
                begun.append(message)
            else:
                parts.append(message.get("body", b""))

        try:
            await self.inside(scope, once, held)
        except Exception:
            await _answer(send, 500, "a defect of the program; its message is withheld")
            return
        status = int(begun[0]["status"])
        if status >= 400:
            await _answer(send, status, _said(b"".join(parts), status))
            return
        await send(begun[0])
        await send({"type": "http.response.body", "body": b"".join(parts)})


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


def _unread(body: bytes) -> str | None:
    """Why a body is no frame."""
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        return f"the body is not JSON; {READ}"
    if not isinstance(told, dict):
        return f"the body is no JSON object; {READ}"
    frames = [name for name in FRAMES if name in told]
    if len(frames) != 1 or not {*told} <= {*FRAMES, "params"}:
        return f"the body names other things than rows; {READ}"
    if not isinstance(told.get("params") or {}, dict):
        return "params: no JSON object"
    if {*(told.get("params") or {})} - {"similar"}:
        return "params: only `similar` is known"
    return None


def _said(body: bytes, status: int) -> str:
    """Our own words out of an error, or none of anybody's."""
    try:
        trace = str(json.loads(body).get("stack_trace", ""))
    except (ValueError, AttributeError):
        trace = ""
    if _MARK in trace:
        return trace.rpartition(_MARK)[2].strip()
    return f"the rows cannot be read; {READ}" if status < 500 else "a defect of the program"


async def _answer(send: Send, status: int, message: str) -> None:
    body = json.dumps({"error_code": "BAD_REQUEST", "message": message}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
