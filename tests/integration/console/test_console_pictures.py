"""The pictures of the docs, taken of a real console in a real browser; ``nox -s pictures`` writes them."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from browsers import browser, shown
from console_stage import stage
from eventperf.cli.console import server
from faults import wait_until

pytest.importorskip("selenium")
from selenium.webdriver.common.by import By

pytestmark = pytest.mark.long

PICTURES = {
    "overview": "",
    "queues": "queues",
    "jobs": "queues/jobs?in=default&state=failed",
    "cache": "cache",
    "database": "database",
    "scaling": "scaling",
}


def test_every_page_of_a_busy_hour_has_its_picture(tmp_path: Path) -> None:
    folder = Path(os.environ.get("EVENTPERF_PICTURES") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    served = server(stage(tmp_path).wsgi(), "127.0.0.1", 0)
    threading.Thread(target=served.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{served.server_port}/"
    driver = browser(tmp_path / "profile")
    try:
        driver.get(url + "database")
        driver.find_element(By.XPATH, "//button[text()='Search for indexes']").click()
        wait_until(lambda: "Last search" in shown(driver), 60, what="the advice")
        for name, path in PICTURES.items():
            driver.set_window_size(1200, 500)
            driver.get(url + path)
            height = driver.execute_script("return document.documentElement.scrollHeight")
            driver.set_window_size(1200, min(max(height + 160, 500), 2_300))
            assert driver.find_element(By.TAG_NAME, "h1").text
            assert driver.find_elements(By.CSS_SELECTOR, "tbody tr, dl.cards dd"), (
                f"{name} has nothing to show"
            )
            assert driver.save_screenshot(str(folder / f"console-{name}.png"))
    finally:
        driver.quit()
        served.shutdown()
        served.server_close()
