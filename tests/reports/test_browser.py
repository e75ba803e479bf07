"""Pages in a real browser: no complaint, no network, every chart drawn, on a desk, on a phone and on paper."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from reports.comparison import Comparison
from reports.page import plots_of, write_page
from reports.palette import DARK, LIGHT
from reports.plan import write_plan
from reports.plan.page import sections
from tests.reports import plans
from tests.reports.browser import DESKTOP, PHONE, chromium, opened

UNDRAWN = """() => {
    const marks = chart => [...chart.querySelectorAll('.trace path, .heatmaplayer image')];
    const undrawn = chart => !marks(chart).some(mark => mark.getBBox().width > 0);
    return [...document.querySelectorAll('.chart')].filter(undrawn).map(chart => chart.id);
}"""
WIDER = """() => [...document.querySelectorAll('body *')]
    .filter(e => !e.closest('.table, pre, .chart') && e.getBoundingClientRect().right > innerWidth + 1)
    .map(e => e.outerHTML.slice(0, 80))"""
COLOURS = """() => [
    getComputedStyle(document.body).backgroundColor,
    getComputedStyle(document.querySelector('h1')).color,
    getComputedStyle(document.querySelector('.chart .xtick text')).fill,
]"""


@dataclass(frozen=True)
class Written:
    """A page and how many charts it should have."""

    path: Path
    charts: int


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.fixture(params=["plan", "comparison"])
def written(request, make_run, loading_run, tmp_path) -> Written:
    if request.param == "plan":
        path = write_plan(plans.plan(), tmp_path)[0]
        return Written(path, sum(section.drawn for section in sections(plans.plan())))
    path = tmp_path / "report.html"
    comparison = Comparison.of([make_run("one"), make_run("two", scheduler="lookahead"), loading_run])
    write_page(comparison, path)
    return Written(path, len(plots_of(comparison)))


def rgb(colour: str) -> str:
    return f"rgb({', '.join(str(int(colour[at : at + 2], 16)) for at in (1, 3, 5))})"


def test_on_a_desk(browser, written):
    with opened(browser, written.path, DESKTOP) as seen:
        page = seen.page
        assert page.locator(".chart").count() == written.charts
        assert page.evaluate(UNDRAWN) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= DESKTOP[0]
        assert page.evaluate(COLOURS) == [rgb(LIGHT["ground"]), rgb(LIGHT["ink"]), rgb(LIGHT["ink"])]
        page.emulate_media(color_scheme="dark")
        assert page.evaluate(COLOURS) == [rgb(DARK["ground"]), rgb(DARK["ink"]), rgb(DARK["ink"])]
        page.emulate_media(media="print")
        assert page.evaluate(COLOURS) == [rgb(LIGHT["ground"]), rgb(LIGHT["ink"]), rgb(LIGHT["ink"])]
        assert page.pdf(prefer_css_page_size=True).startswith(b"%PDF")
        assert page.locator("details:not(.long):not([open])").count() == 0
        assert (seen.complaints, seen.requests) == ([], [])


def test_on_a_phone(browser, written):
    with opened(browser, written.path, PHONE) as seen:
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= PHONE[0]
        assert seen.page.evaluate(WIDER) == []
        assert seen.page.evaluate(UNDRAWN) == []
        assert (seen.complaints, seen.requests) == ([], [])


def test_a_broken_page_would_be_noticed(browser, tmp_path):
    path = tmp_path / "broken.html"
    path.write_text('<h1 style="width: 900px">x</h1><img src="nothing.png"><script>undefinedName()</script>')
    with opened(browser, path, PHONE) as seen:
        assert any("undefinedName" in complaint for complaint in seen.complaints)
        assert [Path(address).name for address in seen.requests] == ["nothing.png"]
        assert seen.page.evaluate(WIDER)
