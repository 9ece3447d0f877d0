"""The console in a real browser: every page, what it keeps up to date, and what it is without JavaScript."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from browsers import browser, shown
from eventperf.cache import CacheManager
from eventperf.cli.console import server
from eventperf.contrib.console import Console
from eventperf.dbopt import DatabaseOptimizer, QueryRecorder
from eventperf.queues import JobNotFound, JobSpec, JobState, QueueManager
from eventperf.scaling import AutoScaler, CallableMetrics, SimulatedTarget, TargetTracking
from eventperf.testing.queues import Station
from faults import wait_until

selenium = pytest.importorskip("selenium")
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.select import Select  # noqa: E402

PAGES = ("", "queues", "cache", "database", "scaling")
HOSTILE = "<img src=x onerror=\"document.title='broken in'\">"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    driver = browser(tmp_path_factory.mktemp("profile"))
    yield driver
    driver.quit()


class Site:
    """A console over one manager of each kind, served on this machine."""

    def __init__(
        self,
        queues: QueueManager | None = None,
        cache: CacheManager | None = None,
        engine: Any = None,
        rows: int = 40_000,
    ) -> None:
        from sqlalchemy import create_engine, text
        from sqlalchemy.pool import StaticPool

        self.queues = queues or QueueManager("memory://")
        self.parent, self.child = self.queues.chain([JobSpec(type=HOSTILE[:40], tags=[HOSTILE[:40]])] * 2)
        (lease,) = (station := Station(self.queues, HOSTILE[:40])).take()
        assert station.end(lease, "dead", error=HOSTILE)  # dead ones are kept, however long the tests take
        self.deep = ("queues/jobs", f"queues/job?id={self.child.id}", "queues/workers")
        self.cache = cache or CacheManager()
        self.cache.set("greeting", HOSTILE)
        if engine is None:
            one = {"check_same_thread": False}
            engine = create_engine("sqlite://", poolclass=StaticPool, connect_args=one)
        with engine.begin() as db:
            db.execute(text("CREATE TABLE visits (id INTEGER PRIMARY KEY, page INT, at INT)"))
            made = [{"p": n % 2_000, "a": n} for n in range(rows)]  # 40,000: an index gains more than noise
            db.execute(text("INSERT INTO visits (id, page, at) VALUES (:a, :p, :a)"), made)
        recorder = QueryRecorder(engine)
        with engine.connect() as db:
            for n in range(20):
                db.execute(text("SELECT at FROM visits WHERE page = :p ORDER BY at"), {"p": n}).all()
        metrics = CallableMetrics(rps=lambda: 300.0)
        target = SimulatedTarget(replicas=2)
        self.scaler = AutoScaler(target, metrics, TargetTracking(rps=50), max_replicas=10)
        self.scaler.tick()
        console = Console(
            queues=self.queues, cache=self.cache, scaler={HOSTILE: self.scaler}, title="Box office",
            optimizer=DatabaseOptimizer(engine, source=recorder), may=lambda *asked: True,
        )  # fmt: skip
        self.server = server(console.wsgi(), "127.0.0.1", 0)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/"


@pytest.fixture
def site() -> Iterator[Site]:
    found = Site()
    yield found
    found.server.shutdown()
    found.server.server_close()


def complaints(driver: Any) -> list[str]:
    return [e["message"] for e in driver.get_log("browser") if "favicon" not in e["message"]]


def cells(driver: Any, row: str) -> list[str]:
    """Return the texts of a row, read at once: the page may replace it meanwhile."""
    script = """return [...document.querySelectorAll("tbody tr")]
        .map(line => [...line.children].map(cell => cell.textContent))
        .find(texts => texts[0] === arguments[0]) || []"""
    found: list[str] = driver.execute_script(script, row)
    return found


def test_every_page_loads_without_a_complaint_and_runs_nothing_of_what_users_typed(
    chromium: Any, site: Site
) -> None:
    complaints(chromium)
    for page in (*PAGES, *site.deep, f"cache?in={site.cache.namespace}&key=greeting"):
        chromium.get(site.url + page)
        assert "Box office" in chromium.title
        assert "broken in" not in chromium.title
        assert chromium.find_element(By.TAG_NAME, "h1").text
    assert complaints(chromium) == []


def test_every_page_passes_the_automated_check_of_accessibility(chromium: Any, site: Site) -> None:
    axe = Path(pytest.importorskip("axe_core_python").__file__).parent / "axe.min.js"
    rules = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}
    for scheme in ("light", "dark"):
        feature = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", feature)
        for page in (*PAGES, *site.deep):
            chromium.get(site.url + page)
            chromium.execute_script(axe.read_text("utf-8"))
            found = chromium.execute_async_script(
                "const done = arguments[1]; axe.run(document, arguments[0]).then(done, done)", rules
            )
            told = [(v["id"], [n["html"][:120] for n in v["nodes"]]) for v in found["violations"]]
            assert told == [], f"{page or 'overview'} in {scheme}"
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_an_open_page_keeps_itself_up_to_date(chromium: Any, site: Site) -> None:
    chromium.get(site.url + "queues")
    assert cells(chromium, "normal")[2] == "0"
    for _ in range(3):
        site.queues.enqueue("anything", queue="normal")
    wait_until(lambda: cells(chromium, "normal")[2] == "3", 30, what="the page to show three jobs")


def test_what_a_person_is_typing_is_not_replaced(chromium: Any, site: Site) -> None:
    chromium.get(site.url + "cache")
    field = chromium.find_element(By.NAME, "key")
    field.send_keys("gree")
    chromium.execute_async_script("setTimeout(arguments[0], 6500)")
    field.send_keys("ting")
    assert field.get_attribute("value") == "greeting"


def test_buttons_do_what_they_say_and_back_goes_back(chromium: Any, site: Site) -> None:
    chromium.get(site.url)
    chromium.find_element(By.LINK_TEXT, "Queues").click()
    row = next(r for r in chromium.find_elements(By.CSS_SELECTOR, "tbody tr") if r.text.startswith("low"))
    row.find_element(By.TAG_NAME, "button").click()
    wait_until(lambda: any(s.paused for s in site.queues.status() if s.name == "low"), 10, what="a pause")
    wait_until(lambda: "Paused; running jobs go on." in shown(chromium), 10, what="the note")
    chromium.back()
    chromium.back()
    assert chromium.find_element(By.TAG_NAME, "h1").text == "Overview"


def press(driver: Any, text: str) -> None:
    """Go by the Tab key to the link or button of this text, and press Enter."""
    for _ in range(80):
        ActionChains(driver).send_keys(Keys.TAB).perform()
        if driver.execute_script("return document.activeElement.textContent") == text:
            ActionChains(driver).send_keys(Keys.ENTER).perform()
            return
    raise AssertionError(f"the keyboard does not come to {text!r}")


def delete_by_keyboard(driver: Any, site: Site) -> None:
    """Follow a job to the one before it and delete that, without a mouse."""
    driver.get(f"{site.url}queues/job?id={site.child.id}")
    press(driver, site.parent.id)
    wait_until(lambda: f"Job {site.parent.id}" in shown(driver), 30, what="its parent")
    assert site.child.id in shown(driver)
    press(driver, "Delete")
    wait_until(lambda: "for good?" in shown(driver), 30, what="the question")
    press(driver, "Delete them")
    wait_until(lambda: "1 jobs were deleted" in shown(driver), 30, what="the end")
    with pytest.raises(JobNotFound):
        site.parent.info()
    assert site.child.info().state is JobState.CANCELLED, "it waited for a dead one"


def test_what_the_keyboard_has_come_to_is_not_replaced(chromium: Any, site: Site) -> None:
    chromium.get(site.url + "queues")
    for _ in range(80):
        ActionChains(chromium).send_keys(Keys.TAB).perform()
        if chromium.execute_script("return document.activeElement.textContent") == "Find jobs":
            break
    site.queues.enqueue("anything", queue="low")
    chromium.execute_async_script("setTimeout(arguments[0], 6500)")
    assert chromium.execute_script("return document.activeElement.textContent") == "Find jobs"
    chromium.execute_script("document.activeElement.blur()")
    wait_until(lambda: cells(chromium, "low")[2] == "1", 30, what="the page to show a job")


def test_a_job_is_followed_and_deleted_by_keyboard_alone(chromium: Any, site: Site) -> None:
    complaints(chromium)
    delete_by_keyboard(chromium, site)
    assert complaints(chromium) == []


@pytest.mark.integration
def test_every_page_over_redis_and_postgresql(chromium: Any, redis_url: str, postgres_url: str) -> None:
    from sqlalchemy import create_engine

    space, engine = f"console-{uuid4().hex[:8]}", create_engine(postgres_url)
    with (
        QueueManager(redis_url, namespace=space) as queues,
        CacheManager(redis_url, namespace=space) as cache,
    ):
        site = Site(queues, cache, engine, rows=2_000)
        try:
            complaints(chromium)
            for page in (*PAGES, *site.deep, f"cache?in={space}&key=greeting"):
                chromium.get(site.url + page)
                assert "cannot be read" not in shown(chromium), page
                assert "broken in" not in chromium.title
            chromium.get(site.url + "queues")
            queues.enqueue("anything", queue="low")
            wait_until(lambda: cells(chromium, "low")[2] == "1", 30, what="the page to show a job")
            delete_by_keyboard(chromium, site)
            assert complaints(chromium) == []
        finally:
            site.server.shutdown()
            site.server.server_close()
            engine.dispose()


def test_two_tabs_act_without_getting_in_each_other_s_way(chromium: Any, site: Site) -> None:
    chromium.get(site.url + "scaling")
    first = chromium.current_window_handle
    chromium.switch_to.new_window("tab")
    chromium.get(site.url + "cache")
    Select(chromium.find_element(By.NAME, "by")).select_by_value("key")
    chromium.find_element(By.NAME, "what").send_keys("greeting")
    chromium.find_element(By.XPATH, "//button[text()='Invalidate']").click()
    wait_until(lambda: site.cache.get("greeting") is None, 10, what="an invalidation")
    chromium.close()
    chromium.switch_to.window(first)
    chromium.find_element(By.XPATH, "//button[text()='Freeze']").click()
    wait_until(lambda: site.scaler.frozen, 10, what="a freeze")


def test_a_search_runs_in_the_background_and_its_advice_is_shown(chromium: Any, site: Site) -> None:
    chromium.get(site.url + "database")
    chromium.find_element(By.XPATH, "//button[text()='Search for indexes']").click()
    wait_until(lambda: "visits (page, at)" in shown(chromium), 60, what="the advice")


def test_a_telephone_needs_no_scrolling_to_the_side(chromium: Any, site: Site) -> None:
    chromium.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": 375, "height": 700, "deviceScaleFactor": 1, "mobile": True},
    )
    try:
        for page in (*PAGES, *site.deep):
            chromium.get(site.url + page)
            wide = chromium.execute_script("return document.documentElement.scrollWidth")
            assert wide <= 375, page
            tall = chromium.execute_script("""return Math.max(0, ...[...document.querySelectorAll("tbody tr")]
                .map(row => row.getBoundingClientRect().height))""")
            assert tall < 350, f"{page}: a row takes half of the screen"
    finally:
        chromium.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_everything_can_be_read_and_done_without_javascript(site: Site, tmp_path: Path) -> None:
    driver = browser(tmp_path, **{"profile.managed_default_content_settings.javascript": 2})
    try:
        for page in (*site.deep, *PAGES):
            driver.get(site.url + page)
            assert driver.find_element(By.TAG_NAME, "h1").text
        assert "UTC" in driver.find_element(By.TAG_NAME, "time").text
        driver.find_element(By.XPATH, "//button[text()='Freeze']").click()
        wait_until(lambda: site.scaler.frozen, 10, what="a freeze")
        delete_by_keyboard(driver, site)
    finally:
        driver.quit()
