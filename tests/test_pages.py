"""Pages in a real browser: from a registered version to its card and its verdict."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

from ogsrl.audit.audit import audit
from ogsrl.audit.config import AuditParams
from ogsrl.audit.filled import filled
from ogsrl.audit.rendered import html
from ogsrl.registry import Registry
from tests.audit.told import clean
from tests.browser import browser
from tests.test_registry import MARGIN, entry_of

pytestmark = pytest.mark.slow
PATIENCE = 60


@pytest.fixture(scope="module")
def pages(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """MLflow's own server over a registry with one version and its card."""
    root = tmp_path_factory.mktemp("pages")
    uri = f"sqlite:///{root / 'mlflow.db'}"
    evidence = clean()
    made = filled(evidence, audit(evidence, AuditParams()))
    page = root / "card.html"
    page.write_text(html(made, {}))
    entry = entry_of(models, root, more=[page])
    Registry.open(uri, root).register(entry, "ogsrl", MARGIN, None)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["-m", "mlflow", "ui", "--host", "127.0.0.1", "--port", str(port)]
    server = subprocess.Popen(
        [sys.executable, *words, "--workers", "1", "--backend-store-uri", uri],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        start_new_session=True,
    )
    address = f"http://127.0.0.1:{port}"

    def up() -> bool:
        with urllib.request.urlopen(address, timeout=5) as answer:
            return bool(answer.status == 200)

    try:
        patiently(up)
        yield address
    finally:
        os.killpg(server.pid, 15)
        server.wait(timeout=30)


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
        assert time.monotonic() < end, "the page did not come"
        time.sleep(0.3)


def link(page: Chrome, text: str) -> Any:
    return patiently(lambda: page.find_element(By.PARTIAL_LINK_TEXT, text))


def test_from_a_registered_version_to_its_card_and_its_verdict(pages: str) -> None:
    with browser() as page:
        page.get(f"{pages}/#/models/sepsis")
        patiently(lambda: "@ champion" in page.find_element(By.TAG_NAME, "body").text)
        link(page, "Version 1").click()
        patiently(lambda: "ogsrl.verdict" in page.find_element(By.TAG_NAME, "body").text)
        link(page, "sepsis ").click()  # its run
        patiently(lambda: "/runs/" in page.current_url)
        page.get(page.current_url.split("?")[0] + "/artifacts")
        for name in ("reports", "card.html"):
            patiently(
                lambda name=name: page.find_element(By.XPATH, f"//*[text()='{name}']")
            ).click()
        frame = patiently(lambda: page.find_element(By.TAG_NAME, "iframe"))
        page.switch_to.frame(frame)
        verdict = patiently(lambda: page.find_element(By.ID, "verdict-word"))
        assert verdict.text == "passed"
        assert "Enough patients" in page.find_element(By.ID, "gates").text


def test_a_card_runs_no_script_and_fits_a_screen(pages: str, tmp_path: Path) -> None:
    evidence = clean()
    file = tmp_path / "card.html"
    file.write_text(html(filled(evidence, audit(evidence, AuditParams())), {}))
    with browser(900, 1000) as page:
        page.get(file.as_uri())
        wide = page.execute_script("return document.documentElement.scrollWidth")  # type: ignore[no-untyped-call]
        assert wide <= 900
        asked = page.execute_script(  # type: ignore[no-untyped-call]
            "return performance.getEntriesByType('resource').length"
        )
        assert asked == 0
