"""Refuse a site that loads anything from elsewhere: it must work from a disk without a network."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_LOADS = [
    # A link to another site is followed by a person; these are followed by the browser itself.
    re.compile(
        r"<(?:script|img|iframe|source|video|audio)\b[^>]*?\bsrc\s*=\s*[\"']?((?:https?:)?//[^\"'\s>]+)"
    ),
    re.compile(r"<link\b(?![^>]*\brel=[\"']?canonical)[^>]*?\bhref\s*=\s*[\"']?((?:https?:)?//[^\"'\s>]+)"),
    re.compile(r"url\(\s*[\"']?((?:https?:)?//[^\"')\s]+)"),
    re.compile(r"@import\s+[\"']((?:https?:)?//[^\"']+)"),
]


def foreign_loads(site: Path) -> Iterator[tuple[Path, str]]:
    """Yield each file of a built site that loads something from elsewhere, and what."""
    for file in sorted(site.rglob("*")):
        if file.suffix in (".html", ".css"):
            text = file.read_text(encoding="utf-8")
            for pattern in _LOADS:
                for address in pattern.findall(text):
                    yield file.relative_to(site), address


def on_post_build(config: Any, **_: object) -> None:
    """Check the built site (a hook of MkDocs)."""
    found = [f"{file} loads {address}" for file, address in foreign_loads(Path(config.site_dir))]
    if found:
        from mkdocs.exceptions import PluginError

        raise PluginError("the site must load nothing from elsewhere:\n" + "\n".join(found))
