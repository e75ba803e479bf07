"""A real Chromium without a window, and what a page did in it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

DESKTOP, TABLET, PHONE, PAPER = (1280, 900), (768, 1024), (390, 844), (688, 1000)
"""Pixels: width, height; of A4 what is within its margins."""

_ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


_DRAWN = """() => [...document.querySelectorAll('.chart')].filter(e => e.offsetParent).every(e => {
    const drawn = e.querySelector('.main-svg');
    return drawn && drawn.getBoundingClientRect().width <= e.clientWidth + 1;
})"""


@dataclass
class Opened:
    """A page that has drawn its charts.

    Attributes:
        page: playwright's.
        complaints: messages of the console, errors of the page, requests that failed.
        requests: addresses asked for, the page's own left out.
    """

    page: Any
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def drawn(self) -> None:
        """Wait until every chart that is not folded is drawn, as wide as its place."""
        self.page.wait_for_function(_DRAWN)
        self.page.evaluate("new Promise(then => requestAnimationFrame(() => setTimeout(then, 50)))")

    def resized(self, size: tuple[int, int]) -> None:
        """Make the window so (wide, high), and wait for its charts."""
        self.page.set_viewport_size({"width": size[0], "height": size[1]})
        self.drawn()


@contextmanager
def chromium() -> Iterator[Any]:
    """The system's browser; skips the test where there is none."""
    playwright = pytest.importorskip("playwright.sync_api")
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no chromium or google-chrome on this machine")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=list(_ARGUMENTS))
        yield browser
        browser.close()


@contextmanager
def opened(browser: Any, path: Path, size: tuple[int, int] = DESKTOP, scheme: str = "light") -> Iterator[Opened]:
    """A file in a new window of (width, height) pixels, when all its charts are drawn."""
    width, height = size
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
    page.set_default_timeout(120_000)  # a machine may be busy
    seen = Opened(page)
    page.on("console", lambda message: seen.complaints.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: seen.complaints.append(str(error)))
    page.on("requestfailed", lambda request: seen.complaints.append(f"failed: {request.url}"))
    page.on("request", lambda request: seen.requests.append(request.url))
    page.goto(path.as_uri())
    seen.drawn()
    seen.requests.remove(path.as_uri())
    yield seen
    page.close()
