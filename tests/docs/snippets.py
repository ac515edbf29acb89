"""Find what the README and the pages of `docs/` show: programs, commands, configurations, output."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from textwrap import dedent

import attrs

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

_FENCED = re.compile(
    r"^(?P<indent> *)(?P<fence>`{3,})(?P<language>\w+)(?P<options>[^\n`]*)\n"
    r"(?P<text>.*?)^(?P=indent)(?P=fence)$",
    re.MULTILINE | re.DOTALL,
)
_TITLE = re.compile(r'title="([^"]+)"')
_COMMENT = re.compile(r"# ([\w.]+\.(?:py|ini))\n")


@attrs.frozen
class Snippet:
    """One fenced block.

    Attributes:
        language: what stands behind the fence.
        name: the file that a reader would save it in: the block's title, or its first line where that is a
            comment with a file's name; else an empty string.
        text: what is between the fences.
    """

    language: str
    name: str
    text: str


def snippets(page: Path) -> list[Snippet]:
    """Return every fenced block of a page, in order."""
    return [_snippet(found) for found in _FENCED.finditer(page.read_text())]


def _snippet(found: re.Match[str]) -> Snippet:
    text = dedent(found["text"])
    named = _TITLE.search(found["options"]) or _COMMENT.match(text)
    return Snippet(found["language"], named[1] if named else "", text)


def files(page: Path) -> dict[str, str]:
    """Return the text of every file that a page shows, by its name."""
    return {snippet.name: snippet.text for snippet in snippets(page) if snippet.name}


def commands(page: Path) -> list[str]:
    """Return every line of a page's shell blocks."""
    return [
        line for snippet in snippets(page) if snippet.language == "sh" for line in snippet.text.splitlines()
    ]


def outputs(page: Path) -> list[str]:
    """Return every block that shows what a program prints, or draws something."""
    return [snippet.text for snippet in snippets(page) if snippet.language == "text"]


def pages() -> Sequence[Path]:
    """Return every page of the site."""
    return sorted(page for page in DOCS.rglob("*.md") if "hooks" not in page.parts)
