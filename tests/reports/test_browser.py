"""Pages in a real browser: no complaint, no network, every chart drawn, nothing cut off and no label on another, on a
desk, on a tablet, on a phone and on paper."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from reports.palette import DARK, LIGHT
from tests.reports.browser import DESKTOP, PAPER, PHONE, TABLET, Opened, chromium, opened
from tests.reports.pages import PAGES, write_pages

UNDRAWN = """() => {
    const marks = chart => [...chart.querySelectorAll('.trace path')];
    const undrawn = chart => !marks(chart).some(mark => mark.getBBox().width > 0);
    return [...document.querySelectorAll('.chart')].filter(undrawn).map(chart => chart.ariaLabel);
}"""
CUT = """() => {
    const cut = [...document.querySelectorAll('body *')].filter(
        e => !e.closest('.chart') && e.offsetParent && e.getBoundingClientRect().right > innerWidth + 1);
    const scrolls = [...document.querySelectorAll('.table')].filter(e => e.scrollWidth > e.clientWidth + 1);
    return [...cut, ...scrolls].map(e => e.outerHTML.slice(0, 200));
}"""
COLLISIONS = """() => {
    const found = [];
    for (const chart of document.querySelectorAll('.chart')) {
        const edge = chart.getBoundingClientRect(), name = (chart.ariaLabel || '').split('.')[0];
        const texts = [...chart.querySelectorAll('.main-svg text')].filter(e => e.textContent.trim());
        const boxes = texts.map(e => [e.textContent, e.getBoundingClientRect()]).filter(([, box]) => box.width > 0);
        for (const [at, [text, box]] of boxes.entries()) {
            const outside = Math.max(edge.left - box.left, box.right - edge.right, edge.top - box.top);
            if (outside > 2) found.push(`${name}: ${text} is cut off`);
            for (const [other, beside] of boxes.slice(at + 1)) {
                const wide = Math.min(box.right, beside.right) - Math.max(box.left, beside.left);
                const high = Math.min(box.bottom, beside.bottom) - Math.max(box.top, beside.top);
                if (wide > 1 && high > 3) found.push(`${name}: ${text} on ${other}`);
            }
        }
    }
    return found;
}"""
COLOURS = """() => [
    getComputedStyle(document.body).backgroundColor,
    getComputedStyle(document.querySelector('h1')).color,
    getComputedStyle(document.querySelector('.chart .ytick text')).fill,
]"""
ON_PAPER = "dispatchEvent(new Event('beforeprint'))"


@dataclass(frozen=True)
class Look:
    """A page in a window."""

    seen: Opened
    charts: int


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, int]]:
    return write_pages(tmp_path_factory.mktemp("pages"))


@pytest.fixture(scope="module", params=PAGES)
def look(request: pytest.FixtureRequest, browser: Any, written: dict[str, tuple[Path, int]]) -> Iterator[Look]:
    path, charts = written[request.param]
    with opened(browser, path, DESKTOP) as seen:
        yield Look(seen, charts)


def rgb(colour: str) -> str:
    return f"rgb({', '.join(str(int(colour[at : at + 2], 16)) for at in (1, 3, 5))})"


def test_everything_is_drawn_without_a_complaint_or_a_network(look: Look) -> None:
    page = look.seen.page
    assert page.locator(".chart").count() == look.charts
    page.evaluate("document.querySelectorAll('details').forEach(fold => fold.open = true)")
    look.seen.drawn()
    assert page.evaluate(UNDRAWN) == []
    assert (look.seen.complaints, look.seen.requests) == ([], [])


@pytest.mark.parametrize("size", [DESKTOP, TABLET, PHONE], ids=["desktop", "tablet", "phone"])
def test_nothing_is_cut_off_and_no_label_stands_on_another(look: Look, size: tuple[int, int]) -> None:
    look.seen.resized(size)
    page = look.seen.page
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    assert page.evaluate(CUT) == []
    assert page.evaluate(COLLISIONS) == []


def test_in_the_dark_and_on_paper(look: Look) -> None:
    page = look.seen.page
    look.seen.resized(PAPER)
    page.emulate_media(color_scheme="dark")
    assert page.evaluate(COLOURS) == [rgb(DARK["ground"]), rgb(DARK["ink"]), rgb(DARK["ink"])]
    page.emulate_media(color_scheme="dark", media="print")
    page.evaluate(ON_PAPER)
    look.seen.drawn()
    assert page.evaluate(COLOURS) == [rgb(LIGHT["ground"]), rgb(LIGHT["ink"]), rgb(LIGHT["ink"])]
    assert page.evaluate("document.documentElement.scrollWidth") <= PAPER[0]
    assert page.evaluate(CUT) == []
    assert page.evaluate(COLLISIONS) == []
    assert page.locator("details:not(.long):not([open])").count() == 0
    page.emulate_media(color_scheme="light", media="screen")


def test_a_page_is_printed_with_its_folds_open(browser: Any, written: dict[str, tuple[Path, int]]) -> None:
    with opened(browser, written["run"][0]) as seen:
        assert seen.page.locator("details:not(.long):not([open])").count() > 0
        assert seen.page.pdf(prefer_css_page_size=True).startswith(b"%PDF")
        assert seen.page.locator("details:not(.long):not([open])").count() == 0
        assert seen.page.evaluate(UNDRAWN) == []


def test_a_broken_page_would_be_noticed(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "broken.html"
    path.write_text(
        '<h1 style="width: 900px">x</h1><img src="nothing.png"><div class="chart"><svg class="main-svg">'
        '<text x="9" y="20">one</text><text x="12" y="22">two</text></svg></div><script>undefinedName()</script>'
    )
    with opened(browser, path, PHONE) as seen:
        assert any("undefinedName" in complaint for complaint in seen.complaints)
        assert [Path(address).name for address in seen.requests] == ["nothing.png"]
        assert seen.page.evaluate(CUT)
        assert seen.page.evaluate(COLLISIONS) == [": one on two"]
