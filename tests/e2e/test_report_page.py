"""The HTML report in a real browser: it draws, says what the JSON says, obeys nobody's names, and asks for nothing.

Drives Chromium through chromedriver (Debian: chromium, chromium-driver) over the W3C WebDriver protocol.
"""

from __future__ import annotations

import csv
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar

import pytest

HOSTILE = (
    "</script><script>document.title='owned'</script>"
    "<img src='http://127.0.0.1:1/x' onerror=\"document.title='owned'\">"
    "\x1b]0;owned\x07\u202eevil"
)
DAYS = 45
HEADER = (
    "BilledCost",
    "EffectiveCost",
    "ListCost",
    "ContractedCost",
    "BillingCurrency",
    "ChargePeriodStart",
    "ChargePeriodEnd",
    "ServiceName",
    "SubAccountId",
    "SubAccountName",
    "ResourceId",
    "ChargeCategory",
)
SERVICES = ("Virtual machines", "Object storage", HOSTILE)

pytestmark = pytest.mark.skipif(
    shutil.which("chromedriver") is None or shutil.which("chromium") is None,
    reason="needs chromium and chromedriver (Debian packages chromium and chromium-driver)",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One analysis: its page and its JSON."""

    page: Path
    document: dict[str, Any]


class Browser:
    """A headless Chromium behind chromedriver; only the few commands that these tests need."""

    def __init__(self, port: int, profile: Path) -> None:
        self._base = f"http://127.0.0.1:{port}"
        arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--window-size=1240,1400",
            f"--user-data-dir={profile}",
        ]
        logs = {"performance": "ALL", "browser": "ALL"}
        options = {"goog:chromeOptions": {"args": arguments}, "goog:loggingPrefs": logs}
        session = self._post("/session", {"capabilities": {"alwaysMatch": options}})
        self._session = f"/session/{session['sessionId']}"

    def open(self, page: Path) -> None:
        """Load a file, and wait until its script has run."""
        self._post(f"{self._session}/url", {"url": page.as_uri()})
        self.wait("return document.documentElement.dataset.ready === 'true'")

    def run(self, script: str, *args: Any) -> Any:
        """What a script returns in the page."""
        return self._post(f"{self._session}/execute/sync", {"script": script, "args": list(args)})

    def wait(self, script: str, timeout_s: float = 20.0) -> None:
        """Wait until a script returns true."""
        deadline = time.monotonic() + timeout_s
        while not self.run(script):
            assert time.monotonic() < deadline, f"not true within {timeout_s} s: {script}"
            time.sleep(0.02)

    def log(self, kind: str) -> list[dict[str, Any]]:
        """What the browser logged since the last look."""
        return self._post(f"{self._session}/se/log", {"type": kind})

    def send(self, command: str, **params: Any) -> Any:
        """A command of the DevTools protocol."""
        return self._post(f"{self._session}/goog/cdp/execute", {"cmd": command, "params": params})

    def close(self) -> None:
        """End the browser."""
        request = urllib.request.Request(self._base + self._session, method="DELETE")
        urllib.request.urlopen(request, timeout=30).close()

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self._base + path, json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]


def _write_bill(path: Path) -> None:
    """A FOCUS bill of three services over 45 days; one is dear on one day, one has a name that means harm."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        out = csv.writer(stream)
        names = [
            "BilledCost",
            "EffectiveCost",
            "ListCost",
            "ContractedCost",
            "BillingCurrency",
            "ChargePeriodStart",
            "ChargePeriodEnd",
        ]
        out.writerow([*names, "ServiceName", "SubAccountId", "SubAccountName", "ResourceId", "ChargeCategory"])
        for day in range(DAYS):
            date = f"2024-{9 + day // 30:02d}-{1 + day % 30:02d}"
            for at, service in enumerate(SERVICES):
                cost = Decimal(200 - 60 * at) * (4 if (at, day) == (0, 40) else 1) + Decimal(day * 7 % 5) / 3
                text = str(round(cost, 10))
                row = [text, text, text, text, "USD", f"{date}T00:00:00Z", f"{date}T23:00:00Z", service]
                out.writerow([*row, f"account-{at % 2}", HOSTILE if at else "Team", f"i-{at}", "Usage"])


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """A hostile bill, analysed by the real command with plugins behind their walls."""
    folder = tmp_path_factory.mktemp("page")
    bill, page = folder / "bill.csv", folder / "report.html"
    _write_bill(bill)
    command = [sys.executable, "-m", "cardcage.cli", "finops", "analyze", str(bill), "--json", "--html", str(page)]
    done = subprocess.run(
        [*command, "--budget", "harm=100 USD"], capture_output=True, text=True, timeout=110, cwd=folder, check=False
    )
    assert done.returncode == 0, done.stderr
    return Report(page=page, document=json.loads(done.stdout))


@pytest.fixture(scope="module")
def driver_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A running chromedriver."""
    log = tmp_path_factory.mktemp("driver") / "log"
    process = subprocess.Popen(["chromedriver", "--port=0"], stdout=subprocess.PIPE, stderr=log.open("w"), text=True)
    assert process.stdout is not None
    try:
        port = 0
        for line in process.stdout:
            if "started successfully on port" in line:
                port = int(line.rstrip(".\n").rsplit(" ", 1)[1])
                break
        assert port, log.read_text()
        yield port
    finally:
        process.kill()
        process.wait(30)


@pytest.fixture
def browser(driver_port: int, tmp_path: Path) -> Iterator[Browser]:
    """A fresh browser."""
    browser = Browser(driver_port, tmp_path / "profile")
    yield browser
    browser.close()


_PAINTED = """
const canvas = document.querySelector(arguments[0] + " canvas");
const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
const colours = new Set();
let painted = 0;
for (let at = 0; at < data.length; at += 4)
  if (data[at + 3] > 0) { painted += 1; colours.add(data[at] + "," + data[at + 1] + "," + data[at + 2]); }
return {painted: painted, colours: colours.size, width: canvas.width, height: canvas.height};
"""


def test_the_charts_are_drawn(browser: Browser, report: Report) -> None:
    browser.open(report.page)
    for chart, least in (("#daily-chart", 20_000), ("#anomaly-chart", 5_000)):
        found = browser.run(_PAINTED, chart)
        assert found["painted"] > least, (chart, found)
        assert found["colours"] > 3
    daily = browser.run("return {...document.getElementById('daily-chart').dataset}")
    assert (daily["series"], daily["group"]) == ("3", "service")
    assert int(daily["marks"]) >= 1


def test_choosing_another_split_and_another_shape_draws_again(browser: Browser, report: Report) -> None:
    browser.open(report.page)
    before = browser.run(_PAINTED, "#daily-chart")
    browser.run("document.querySelector('[data-group=account]').click()")
    browser.run("document.querySelector('[data-shape=lines]').click()")
    browser.wait("return document.getElementById('daily-chart').dataset.group === 'account'")
    assert browser.run("return document.querySelectorAll('#daily-keys button').length") == 2
    assert browser.run(_PAINTED, "#daily-chart") != before
    browser.run("document.querySelector('#daily-keys button').click()")
    browser.wait("return document.getElementById('daily-chart').dataset.series === '1'")


def test_pointing_at_a_day_shows_its_parts(browser: Browser, report: Report) -> None:
    browser.open(report.page)
    place = browser.run(
        "const box = document.querySelector('#daily-chart .u-over'); box.scrollIntoView({block: 'center'});"
        "const at = box.getBoundingClientRect(); return [at.left + at.width / 2, at.top + at.height / 2]"
    )
    browser.send("Input.dispatchMouseEvent", type="mouseMoved", x=place[0], y=place[1])
    browser.wait("return !document.querySelector('#daily-chart .tip').hidden")
    text = browser.run("return document.querySelector('#daily-chart .tip').textContent")
    assert "Virtual machines" in text
    assert "total" in text


def test_the_totals_in_the_page_are_those_of_the_json_to_the_last_digit(browser: Browser, report: Report) -> None:
    browser.open(report.page)
    for name in ("billed", "effective", "list"):
        shown = browser.run("return document.querySelector(arguments[0] + ' data').value", f"#tile-{name}")
        assert shown == report.document["totals"][name]
    rows = browser.run(
        "return [...document.querySelectorAll('#days-table tbody tr')]"
        ".map(row => [row.cells[0].textContent, row.querySelector('data').value])"
    )
    assert rows == [[one["key"], one["effective"]] for one in report.document["by"]["day"]]
    services = browser.run(
        "return [...document.querySelectorAll('#services-table tbody tr')].map(row => row.querySelector('data').value)"
    )
    assert services == [one["effective"] for one in report.document["by"]["service"]]
    taken = browser.run("return document.getElementById('rows-taken').textContent")
    assert taken == str(report.document["rows"]["taken"])


def test_names_that_mean_harm_are_only_text(browser: Browser, report: Report) -> None:
    browser.open(report.page)
    assert "owned" not in browser.run("return document.title").replace("bill.csv", "")
    assert browser.run("return document.querySelectorAll('img').length") == 0
    assert browser.run("return document.scripts.length") == 3
    names = browser.run("return [...document.querySelectorAll('#services-table td.key')].map(cell => cell.textContent)")
    assert any("</script><script>" in name and "\\x1b]0;owned\\x07\\u202e" in name for name in names)
    assert browser.run("return document.documentElement.dataset.violations") == "0"


class _Tempting(http.server.BaseHTTPRequestHandler):
    """A server on loopback that a page might be led to; remembers who came."""

    seen: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        """Answer, and remember."""
        self.seen.append(self.path)
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Nothing on stderr."""


def test_the_page_asks_the_network_for_nothing_and_its_policy_stops_even_its_own_script(
    browser: Browser, report: Report
) -> None:
    browser.open(report.page)
    asked = [
        event["params"]["request"]["url"]
        for entry in browser.log("performance")
        if (event := json.loads(entry["message"])["message"])["method"] == "Network.requestWillBeSent"
    ]
    own = ("chrome:", "data:", "about:")  # the browser's own pages
    assert [url for url in asked if not url.startswith(own)] == [report.page.as_uri()]
    server = http.server.HTTPServer(("127.0.0.1", 0), _Tempting)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        address = f"http://127.0.0.1:{server.server_address[1]}/leak"
        browser.run(
            "const image = new Image(); image.src = arguments[0]; fetch(arguments[0]).catch(() => {});"
            "const script = document.createElement('script'); script.src = arguments[0]; document.body.append(script)",
            address,
        )
        browser.wait("return Number(document.documentElement.dataset.violations) >= 3")
    finally:
        server.shutdown()
        server.server_close()
    assert _Tempting.seen == []


def test_tables_sort_and_filter(browser: Browser, report: Report) -> None:
    browser.open(report.page)
    if not report.document["recommendations"]:
        assert browser.run("return document.getElementById('recommendations-table')") is None
        return
    browser.run("document.querySelector('#recommendations-table th button').click()")
    assert browser.run("return document.querySelector('#recommendations-table th').ariaSort") == "ascending"


def test_the_page_draws_in_dark_mode_and_on_paper(browser: Browser, report: Report) -> None:
    browser.open(report.page)
    light = browser.run("return getComputedStyle(document.body).backgroundColor")
    browser.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    browser.wait("return Number(document.getElementById('daily-chart').dataset.draws) >= 2")
    assert browser.run("return getComputedStyle(document.body).backgroundColor") != light
    assert browser.run(_PAINTED, "#daily-chart")["painted"] > 20_000
    browser.send("Emulation.setEmulatedMedia", media="print", features=[])
    assert browser.run("return getComputedStyle(document.querySelector('nav.toc')).display") == "none"


def test_every_chart_and_control_has_a_name(browser: Browser, report: Report) -> None:
    browser.open(report.page)
    nameless = browser.run(
        "return [...document.querySelectorAll('[role=img], button, input, section')].filter(node =>"
        " !(node.getAttribute('aria-label') || node.getAttribute('aria-labelledby') || node.textContent.trim() ||"
        " (node.id && document.querySelector(`label[for=${node.id}]`)))).map(node => node.outerHTML.slice(0, 80))"
    )
    assert nameless == []
    assert os.path.getsize(report.page) < 2_000_000
