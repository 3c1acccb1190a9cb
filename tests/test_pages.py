"""Pages in a real browser: from a registered version to its card and its verdict."""

from __future__ import annotations

from collections.abc import Iterator
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
from tests.registered import MARGIN, entry_of
from tests.servers import free_port, patiently, serving

pytestmark = pytest.mark.slow


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
    port = free_port()
    words = ["mlflow", "ui", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    with serving([*words, "--backend-store-uri", uri], port, "/") as address:
        yield address


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
