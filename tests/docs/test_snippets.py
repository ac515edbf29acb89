"""Whatever a reader may copy from a page is run by a test; the tests are in this folder, a file a page."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import attrs
import pytest

import wsframework
import wsframework.asyncio
import wsframework.chat
import wsframework.engines.redis
import wsframework.testing
from docs.hooks.commands import COLUMNS
from tests.docs.following import EXERCISED
from tests.docs.snippets import DOCS, ROOT, commands, files, pages, snippets
from wsframework import Deflate, Keepalive, Limits, Timeouts

PAGES = {str(page.relative_to(DOCS)): page for page in pages()}

ELSEWHERE = {"testing.md": "tests/testing/test_docs.py"}
"""Pages whose snippets are run by a test of another folder, which reads the page itself."""

SHOWN = {"text", "http", "js", "toml"}
"""Languages of blocks that are output or drawings, or that their page's test reads by itself."""


@pytest.fixture(autouse=True, scope="module")
def _every_test_of_this_folder_is_known() -> None:
    for file in Path(__file__).parent.glob("test_*.py"):
        if file != Path(__file__):
            importlib.import_module(f"tests.docs.{file.stem}")


@pytest.mark.parametrize("name", [name for name in PAGES if name not in ELSEWHERE])
def test_every_program_and_command_of_a_page_is_run_by_a_test(name: str) -> None:
    wanted = {*files(PAGES[name]), *commands(PAGES[name])}
    assert {shown for page, shown in EXERCISED if page == name} == wanted
    for snippet in snippets(PAGES[name]):
        assert snippet.name or snippet.language in SHOWN | {"sh"}, snippet.text


@pytest.mark.parametrize(("name", "test"), ELSEWHERE.items())
def test_a_page_that_is_tested_elsewhere_is_read_there(name: str, test: str) -> None:
    assert name.rpartition("/")[2] in (ROOT / test).read_text()


@pytest.mark.parametrize("name", PAGES)
def test_every_block_says_what_language_it_is_in(name: str) -> None:
    # A fence without one would make the extraction see text as code and code as text.
    fences = re.findall(r"^ *`{3,}", PAGES[name].read_text(), re.MULTILINE)
    assert len(fences) == 2 * len(snippets(PAGES[name]))


@pytest.mark.parametrize("name", [name for name in PAGES if name not in ELSEWHERE])
def test_no_line_of_a_program_is_too_long_for_the_page(name: str) -> None:
    for file, text in files(PAGES[name]).items():
        if file.endswith(".py"):
            assert max(map(len, text.splitlines())) <= COLUMNS, file


@pytest.mark.parametrize("name", PAGES)
def test_every_setting_that_is_named_is_there(name: str) -> None:
    settings = {
        kind.__name__: {field.name for field in attrs.fields(kind)}
        for kind in (Limits, Timeouts, Keepalive, Deflate)
    }
    text = PAGES[name].read_text()
    for kind, field in re.findall(r"\b(Limits|Timeouts|Keepalive|Deflate)(?:\.|\()(\w+)", text):
        assert field in settings[kind], f"{kind}.{field}"


def test_the_pages_have_the_docstring_of_every_public_name() -> None:
    shown = {
        line.removeprefix("::: ")
        for page in PAGES.values()
        for line in page.read_text().splitlines()
        if line.startswith("::: ")
    }
    assert shown == {
        *(f"wsframework.{name}" for name in wsframework.__all__),
        *(f"wsframework.asyncio.{name}" for name in wsframework.asyncio.__all__),
        *(f"wsframework.chat.{name}" for name in wsframework.chat.__all__),
        *(f"wsframework.testing.{name}" for name in wsframework.testing.__all__),
        *(f"wsframework.engines.redis.{name}" for name in wsframework.engines.redis.__all__),
    }


def test_what_is_taken_for_run_is_still_on_a_page() -> None:
    for page, shown in EXERCISED:
        assert shown in {*files(PAGES[page]), *commands(PAGES[page])}, (page, shown)
