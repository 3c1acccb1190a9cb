"""Screenshots in a real headless Chromium: `./run python -m tests.pictures`.

Needs a finished `make repro` (of simulated patients: no real patient is ever pictured here).
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

from tests.browser import browser
from tests.servers import free_port, patiently, serving

PICTURES = Path(__file__).resolve().parents[1] / "docs" / "pictures"
COHORT = "sepsis"
URI = f"models:/{COHORT}@champion"


def main() -> None:
    """The card, the registry's pages, and the page of one stay."""
    home = Path(os.environ.get("OGSRL_HOME", ".")).absolute()
    tracking = os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{home / 'mlflow.db'}")
    port = free_port()
    words = ["mlflow", "ui", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    server = serving([*words, "--backend-store-uri", tracking], port, "/")
    with server as address, browser(1400, 1000) as page:
        page.get(f"{address}/#/models/{COHORT}")
        _wait(page, "@ champion")
        _take(page, "registry")
        page.get(f"{address}/#/models/{COHORT}/versions/1")
        _wait(page, "ogsrl.verdict")
        _take(page, "version")
    with browser(1000, 1400) as page:
        page.get((home / "reports" / COHORT / "card.html").as_uri())
        _take(page, "card")
        page.get(_stay_page(home).as_uri())
        _take(page, "stay")


def _stay_page(home: Path) -> Path:
    """Of the stay with the most steps, and of those the first."""
    file = home / "data" / COHORT / "validated" / "trajectories.parquet"
    length = pd.read_parquet(file, columns=["stay_id"])["stay_id"].value_counts()
    stay = min(length.index[length == length.max()])
    program = Path(sys.executable).parent / "ogsrl"
    words = ["query", "--model", URI, "--cohort", str(file), "--stay", stay, "--similar"]
    told = subprocess.run([program, *words], cwd=home, capture_output=True, text=True, check=True)
    return home / told.stdout.rpartition("page: ")[2].strip()


def _wait(page: Chrome, text: str) -> None:
    patiently(lambda: text in page.find_element(By.TAG_NAME, "body").text)


def _take(page: Chrome, name: str) -> None:
    patiently(lambda: page.execute_script("return document.readyState") == "complete")  # type: ignore[no-untyped-call]
    page.save_screenshot(str(PICTURES / f"{name}.png"))
    print(f"{name}.png", flush=True)


if __name__ == "__main__":
    main()
