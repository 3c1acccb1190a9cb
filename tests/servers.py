"""Real servers on free ports of this machine, started and ended by tests and benchmarks."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

PATIENCE = 90


def free_port() -> int:
    """One that nobody listens on now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def serving(
    words: Sequence[str], port: int, ready: str = "/ping", log: Path | None = None
) -> Iterator[str]:
    """A program of this environment that serves on this port; its address, once it answers.

    Args:
        words: Of the command.
        port: Where it listens.
        ready: A page that it answers once it is ready.
        log: Where all that it prints goes; None: nowhere.
    """
    home = Path(sys.executable).parent
    with (log or Path(os.devnull)).open("ab") as printed:
        server = _started([str(home / words[0]), *words[1:]], home, printed)
    address = f"http://127.0.0.1:{port}"

    def up() -> bool:
        assert server.poll() is None, "the server ended"
        with urllib.request.urlopen(address + ready, timeout=5) as answer:
            return bool(answer.status == 200)

    try:
        patiently(up)
        yield address
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)


def _started(words: list[str], home: Path, printed: IO[bytes]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        words,
        stdout=printed,
        stderr=subprocess.STDOUT,
        env={**os.environ, "PATH": f"{home}:{os.environ['PATH']}"},
        start_new_session=True,
    )


def posted(address: str, body: bytes) -> tuple[int, str]:
    """Status and text of an answer."""
    asked = urllib.request.Request(
        f"{address}/invocations", data=body, headers={"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(asked, timeout=PATIENCE) as answer:
            return int(answer.status), answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def patiently(look: Callable[[], Any]) -> Any:
    """What is found, as soon as it is there."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            found = look()
            if found:
                return found
        except Exception:
            if time.monotonic() > end:
                raise
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.3)
