"""What the tests of the page share: a real server process, and Debian's chromium driven by selenium."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nunbit.encode import Encoder
from nunbit.index import Index

CHROMIUM, DRIVER = "/usr/bin/chromium", "/usr/bin/chromedriver"
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--proxy-server=direct://",
    "--lang=en-US",
)
WAIT = 15.0  # seconds, for a busy machine; nothing sleeps that long

SKIMAGE = ("astronaut.png", "brick.png", "camera.png", "chelsea.png", "coffee.png", "coins.png", "grass.png")
SKIMAGE += ("horse.png", "hubble_deep_field.jpg", "moon.png", "motorcycle_left.png", "page.png", "retina.jpg")
SKIMAGE += ("rocket.jpg", "text.png")
CAPTIONED = 30
COUNT = "return wall.list.total"
SENT = "return sent.filter((one) => one.url === '/v1/search').at(-1).body.query"

# What the page sends, and answers made up in place of the server's.
SPY = """
window.sent = [];
window.fakes = [];  // [pattern of the path, (url, options) => Response | Promise]
const real = window.fetch.bind(window);
window.fetch = async (url, options = {}) => {
  const body = typeof options.body === 'string' ? JSON.parse(options.body) : null;
  window.sent.push({ method: options.method ?? 'GET', url, body });
  const fake = window.fakes.find(([pattern]) => pattern.test(url));
  return fake ? fake[1](url, options, () => real(url, options)) : real(url, options);
};
window.answer = (status, body, headers = {}) =>
  new Response(JSON.stringify(body), { status, headers: { 'content-type': 'application/json', ...headers } });
window.failed = (status, headers) =>
  window.answer(status, { error: { message: 'made up', code: 'made_up' } }, { 'x-request-id': 'r-17', ...headers });
"""


def skip_without_browser() -> None:
    """Skip where there is no browser, saying what is missing."""
    missing = [program for program in (CHROMIUM, DRIVER) if not os.access(program, os.X_OK)]
    if missing:
        pytest.skip(
            f"{', '.join(missing)} not found: apt-get install chromium chromium-driver", allow_module_level=True
        )
    pytest.importorskip("selenium", reason="selenium is not installed: it is in the dev extra")


def axe_script() -> str:
    """The newest axe that is installed."""
    for package in ("axe_playwright_python", "axe_core_python"):
        spec = importlib.util.find_spec(package)
        if spec and spec.origin:
            return (Path(spec.origin).parent / "axe.min.js").read_text(encoding="utf-8")
    pytest.skip("no axe: pip install axe-playwright-python")


def make_photos(folder: Path, photos: Path) -> None:
    """Photographs of scikit-image, two of them side by side as both.png, and a few of the shared ones if present."""
    for name in SKIMAGE:
        shutil.copy(photos / name, folder)
    pair = [Image.open(photos / name).convert("RGB").resize((400, 400)) for name in ("coffee.png", "rocket.jpg")]
    Image.fromarray(np.concatenate([np.asarray(one) for one in pair], axis=1)).save(folder / "both.png")
    captioned = Path(__file__).resolve().parents[2] / "shared" / "data" / "coco" / "images"
    for path in sorted(captioned.glob("*.jpg"))[:CAPTIONED]:
        shutil.copy(path, folder)


@contextmanager
def served_page(folder: Path, photos: Path, encoder: Encoder) -> Iterator[Page]:
    """A page in a browser, its server, its index ``photos.nunbit`` and the ``album`` that is its root.

    Args:
        folder: Empty; holds all of these.
        photos: Where scikit-image's photographs are.
        encoder: Fills the index.
    """
    skip_without_browser()
    album = folder / "album"
    album.mkdir()
    make_photos(album, photos)
    with Index.open(folder / "photos.nunbit", encoder) as index:
        index.add([album])
    with running_server(folder / "photos.nunbit", "--root", str(album)) as address:
        page = Page(address, folder / "profile")
        try:
            yield page
        finally:
            page.close()


def start_over(page: Page) -> None:
    """Load the page afresh, in English, light, wide, with the fakes of `SPY`."""
    page.size(1280, 800)
    page.theme("light")
    page.offline(False)
    page.open(before=SPY)
    page.wait(lambda: page.js("return document.querySelectorAll('.tile img.ready').length > 8"))
    page.problems()


@contextmanager
def running_server(index: Path, *options: str) -> Iterator[str]:
    """Serve an index in a process of its own; gives its address."""
    command = [sys.executable, "-c", "from nunbit.cli import main; main()", "serve", "--in", str(index), "--port", "0"]
    process = subprocess.Popen([*command, *options], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    lines: list[str] = []
    address = ""
    for line in process.stderr:
        lines.append(line)
        if match := re.search(r"http://\S+?(?=/?$)", line.strip()):
            address = match[0]
            break
    assert address, "".join(lines)
    reader = threading.Thread(target=lambda: lines.extend(process.stderr or ()), daemon=True)
    reader.start()  # a full pipe would stop the server
    try:
        yield address
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        finally:
            process.kill()
            reader.join(timeout=5)
            process.stderr.close()


class Page:
    """The page in a browser.

    Args:
        address: Of the server.
        profile: Fresh folder of the browser.
    """

    def __init__(self, address: str, profile: Path) -> None:
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service

        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.address = address
        self.driver = webdriver.Chrome(options=options, service=Service(DRIVER))
        self.driver.set_script_timeout(WAIT)
        self._scripts: list[str] = []

    def close(self) -> None:
        with suppress(Exception):
            self.driver.quit()

    def open(self, hash_: str = "", *, language: str = "en", before: str = "", **preferences: Any) -> None:
        """Load the page afresh.

        Args:
            hash_: Of the address.
            language: Of the page.
            before: JavaScript that runs before the page's own.
            preferences: Kept in the browser, beside the language.
        """
        self.problems()
        for script in self._scripts:
            self.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", {"identifier": script})
        kept = json.dumps(json.dumps({"language": language, **preferences}))
        self._scripts = [
            self._before(f"if (!sessionStorage.kept) localStorage.setItem('nunbit', {kept}), sessionStorage.kept = 1")
        ]
        self._scripts.append(self._before(before))
        self.driver.get(f"{self.address}/page/favicon.svg")
        self.driver.execute_script("sessionStorage.clear(); localStorage.clear()")
        self.driver.get(f"{self.address}/{hash_}")
        self.wait(
            lambda: self.js("return document.readyState === 'complete' && session.scope !== null || $('sign-in').open")
        )

    def _before(self, source: str) -> str:
        answer = self.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": source})
        return str(answer["identifier"])

    def js(self, script: str, *values: Any) -> Any:
        return self.driver.execute_script(script, *values)

    def wait(self, condition: Callable[[], Any], seconds: float = WAIT) -> Any:
        """Wait until something is true, and return it."""
        end = time.monotonic() + seconds
        while True:
            try:
                found = condition()
            except Exception as error:
                found = None
                if time.monotonic() > end:
                    raise AssertionError(f"still failing after {seconds:g} s") from error
            if found:
                return found
            assert time.monotonic() < end, f"not true after {seconds:g} s; the page says: {self.text('body')[:600]}"
            time.sleep(0.03)

    def find(self, selector: str) -> Any:
        """The first element that is there."""
        return self.driver.find_element("css selector", selector)

    def all(self, selector: str) -> list[Any]:
        return list(self.driver.find_elements("css selector", selector))

    def click(self, selector: str) -> None:
        self.wait(lambda: self.find(selector).is_displayed())
        self.find(selector).click()

    def text(self, selector: str) -> str:
        return str(self.js("return document.querySelector(arguments[0])?.innerText ?? ''", selector))

    def keys(self, *keys: str) -> None:
        """Type, wherever the focus is."""
        from selenium.webdriver import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def type(self, selector: str, text: str) -> None:
        self.find(selector).send_keys(text)

    def focused(self) -> str:
        """What the focus is on: its id, or its label, or its text."""
        script = "const e = document.activeElement; return e.id || e.getAttribute('aria-label') || e.textContent.trim()"
        return str(self.js(script))

    def size(self, width: int, height: int) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def theme(self, name: str) -> None:
        features = [{"name": "prefers-color-scheme", "value": name}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def offline(self, off: bool) -> None:
        conditions = {"offline": off, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
        self.driver.execute_cdp_cmd("Network.enable", {})
        self.driver.execute_cdp_cmd("Network.emulateNetworkConditions", conditions)

    def problems(self) -> list[str]:
        """Errors and warnings of the console since the last call."""
        log = self.driver.get_log("browser")
        return [entry["message"] for entry in log if entry["level"] in ("SEVERE", "WARNING")]

    def axe(self, script: str, rules: Sequence[str] = ()) -> list[str]:
        """Violations that axe finds: by all of its rules, or by some."""
        if not self.js("return Boolean(window.axe)"):
            self.js(script)
        options = {"resultTypes": ["violations"], **({"runOnly": list(rules)} if rules else {})}
        found = self.driver.execute_async_script(
            "const done = arguments[1]; axe.run(document, arguments[0]).then((r) => done(r.violations.map((v) => "
            "`${v.id}: ${v.nodes.map((n) => `${n.target} ${n.failureSummary}`).join('; ').slice(0, 500)}`)), "
            "(e) => done([String(e)]))",
            options,
        )
        return list(found)

    def search(self, text: str) -> None:
        """Type words and wait for what was found."""
        self.type("#search-input", text + "\n")
        self.wait(lambda: self.js("return wall.list.get(0)?.similarity !== undefined"))

    def found(self) -> list[str]:
        """Names of the first three pictures on the wall."""
        return list(self.js("return [0, 1, 2].map((place) => wall.list.get(place)?.name)"))

    def open_picture(self, name: str) -> None:
        """Open the panel and wait until all of it is there."""
        self.js("panel.open([...wall.list.items.values()].find((item) => item.name === arguments[0]))", name)
        ready = "return document.querySelector('.panel .frame img.ready') && $('panel-neighbors')?.textContent"
        self.wait(lambda: self.js(ready))

    def ask_server(self, path: str, method: str = "GET") -> Any:
        """Ask the server past the page."""
        request = urllib.request.Request(self.address + path, method=method)
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.load(answer)

    def shot(self, path: Path) -> None:
        self.driver.save_screenshot(str(path))
