"""The Markdown pages: their commands, code, links and headings."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
DOCS = ROOT / "docs"
TUTORIALS = sorted((DOCS / "tutorials").glob("*.md"))
PAGES = [README, *sorted(DOCS.rglob("*.md"))]

_FENCE = re.compile(r"^\s*```(\w*)\s*$")
_COMMENT = re.compile(r"^<!-- in tests: (.*) -->$")
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


class Command(NamedTuple):
    """A command of a page.

    Attributes:
        line: as it is run in tests.
        written: as it stands in the page.
        codes: exit codes that it may end with.
    """

    line: str
    written: str
    codes: tuple[int, ...]

    @property
    def words(self) -> list[str]:
        """The words of what is run."""
        return shlex.split(self.line)


def name_of(page: Path) -> str:
    """What a test calls a page."""
    return str(page.relative_to(ROOT))


def blocks(page: Path, language: str) -> Iterator[tuple[list[str], list[str]]]:
    """The fenced blocks of a language: what comments before each say to tests, and its lines."""
    said: list[str] = []
    inside: str | None = None
    lines: list[str] = []
    for line in page.read_text(encoding="utf-8").splitlines():
        fence = _FENCE.match(line)
        if fence and inside is None:
            inside, lines = fence[1], []
        elif fence:
            if inside == language:
                yield said, lines
            inside, said = None, []
        elif inside is not None:
            lines.append(line)
        elif comment := _COMMENT.match(line):
            said.append(comment[1])
        elif line.strip():
            said = []


def commands(page: Path) -> list[Command]:
    """What stands in the ``sh`` blocks of a page, one command after another.

    A comment before a block, ``<!-- in tests: A -> B -->``, has tests run it with B in the place of A, a shorter form
    of what takes minutes. ``<!-- in tests: exit code 0 or 3 -->`` is of an answer that may be no.
    """
    found = []
    for said, lines in blocks(page, "sh"):
        changes = [tuple(each.split(" -> ")) for each in said if " -> " in each]
        codes = (0, 3) if "exit code 0 or 3" in said else (0,)
        used = set()
        for line in "\n".join(lines).replace("\\\n", " ").splitlines():
            for written in re.split(r"\s+&&\s+", re.sub(r"\s+#\s.*$", "", line).strip()):
                ran = written
                for old, new in changes:
                    if old in ran:
                        ran = ran.replace(old, new)
                        used.add(old)
                if written:
                    found.append(Command(ran, written, codes))
        unused = [old for old, _ in changes if old not in used]
        assert not unused, f"{name_of(page)}: {unused} stands in no command of the block"
    return found


def links(page: Path) -> list[str]:
    """Where a page points to, outside of code."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return _LINK.findall(re.sub(r"`[^`\n]*`", "", text))


def anchors(page: Path) -> set[str]:
    """What a link may name in a page: its headings, as GitHub and MkDocs both spell them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", heading.lower()).strip()) for heading in headings}
