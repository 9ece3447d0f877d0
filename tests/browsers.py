"""A real browser for the tests; without one they are skipped, or fail where one is required."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest


def binary(*names: str) -> str:
    for name in names:
        if found := shutil.which(name):
            return found
    text = f"no {names[0]}: apt-get install chromium chromium-driver"
    if os.environ.get("EVENTPERF_REQUIRE_BROWSER"):
        pytest.fail(text)
    pytest.skip(text)


def shown(driver: Any) -> str:
    """Return the text of the page, read at once: another may take its place meanwhile."""
    return str(driver.execute_script("return document.body ? document.body.textContent : ''"))


def browser(profile: Path, **preferences: Any) -> Any:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = binary("chromium", "chromium-browser", "google-chrome")
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--force-prefers-reduced-motion",
    ):
        options.add_argument(argument)
    options.add_argument(f"--user-data-dir={profile}")
    options.add_experimental_option("prefs", preferences)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(binary("chromedriver", "chromium.chromedriver"))
    driver = webdriver.Chrome(options=options, service=service)
    driver.set_page_load_timeout(60)
    driver.set_window_size(1200, 900)
    return driver
