"""No link of a page leads nowhere, and the site builds of the pages without a warning."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, ROOT, anchors, links, name_of
from tools.picture import LOADS, PICTURE, SCHEDULERS, attainments


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_of_a_page_lead_somewhere(page: Path) -> None:
    for link in links(page):
        if link.startswith(("https://", "mailto:")):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.is_file(), link
        assert target.is_relative_to(ROOT)
        assert not anchor or anchor in anchors(target), link


def test_the_site_builds_without_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("material")
    config = pytest.importorskip("mkdocs.config")
    from mkdocs.commands.build import build

    with caplog.at_level(logging.WARNING):
        build(config.load_config(str(ROOT / "mkdocs.yml"), site_dir=str(tmp_path / "site"), strict=True))
    assert [record.message for record in caplog.records if record.name.startswith("mkdocs")] == []
    page = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert "fonts.googleapis" not in page
    assert not re.search(r"<(?:script|link)[^>]+(?:src|href)=\"https?://", page)


def test_the_picture_shows_what_a_simulation_gives() -> None:
    _, shares = attainments(LOADS[-1:], ("lookahead", "fcfs"))
    said = re.search(r"<title>.*?: (.*)</title>", PICTURE.read_text(encoding="utf-8"))
    assert said is not None
    shown = dict(re.findall(r"([\w-]+) (\d+) %", said[1]))
    assert list(shown) == list(SCHEDULERS)
    for name, values in shares.items():
        assert float(shown[name]) == pytest.approx(100 * values[0], abs=3), "draw it anew: python -m tools.picture"
