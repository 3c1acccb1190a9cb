"""A real headless Chromium for tests of pages: Debian's own, installed where apt is there."""

from __future__ import annotations

import os
import shutil
import subprocess
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

PROGRAMS = ("chromium", "chromedriver")
PACKAGES = ("chromium", "chromium-driver")


@contextmanager
def browser(width: int = 1400, height: int = 1100) -> Iterator[Chrome]:
    """Open one, and close it; a test that has none is skipped, loudly."""
    paths = _programs()
    options = ChromeOptions()
    options.binary_location = paths[0]
    for flag in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage"):
        options.add_argument(f"--{flag}")
    options.add_argument(f"--window-size={width},{height}")
    made = Chrome(options=options, service=Service(paths[1]))
    made.set_page_load_timeout(120)
    try:
        yield made
    finally:
        made.quit()


def _programs() -> list[str]:
    """Where they are, once they are installed."""
    if not all(map(shutil.which, PROGRAMS)) and shutil.which("apt-get") and os.geteuid() == 0:
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for words in (["update"], ["install", "-y", "--no-install-recommends", *PACKAGES]):
            subprocess.run(["apt-get", "-q", *words], check=False, capture_output=True, env=quiet)
    found = [shutil.which(name) for name in PROGRAMS]
    missing = [n for n, path in zip(PROGRAMS, found, strict=True) if path is None]
    if missing:
        told = f"NO BROWSER: {', '.join(missing)} is missing and apt cannot install it"
        warnings.warn(told, stacklevel=2)
        pytest.skip(told)
    return [path for path in found if path is not None]
