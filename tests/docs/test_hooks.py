"""What runs while the site is built: commands whose output is on a page, and the check for foreign loads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from docs.hooks import commands as hook
from docs.hooks.offline import foreign_loads
from tests.docs.snippets import DOCS, pages
from wsframework.cli.program import COMMANDS


@pytest.fixture
def stage() -> Iterator[hook.Stage]:
    stage = hook.Stage()
    yield stage
    stage.stop()


FILLED_IN: dict[Path, str] = {}


def filled_in(page: Path, stage: hook.Stage) -> str:
    """Return a page of the site; its commands are run once."""
    if page not in FILLED_IN:
        FILLED_IN[page] = stage.fill_in(page.read_text())
    return FILLED_IN[page]


@pytest.mark.slow
@pytest.mark.parametrize(
    "page",
    [page for page in pages() if any(hook.directives(page.read_text()))],
    ids=lambda page: str(page.relative_to(DOCS)),
)
def test_the_commands_of_every_page_do_what_it_says(page: Path, stage: hook.Stage) -> None:
    text = filled_in(page, stage)
    assert not list(hook.directives(text))
    for kind, command in hook.directives(page.read_text()):
        assert kind != "run" or "{" in command or f"$ {command}\n" in text


def test_a_command_becomes_itself_and_its_output(stage: hook.Stage) -> None:
    text = stage.fill_in("before\n\n<!-- run: python -c 'print(6 * 7)' -->\n\nafter\n")
    assert text == "before\n\n```text\n$ python -c 'print(6 * 7)'\n42\n```\n\nafter\n"


def test_output_with_fences_in_it_stays_one_block(stage: hook.Stage) -> None:
    text = stage.fill_in("<!-- run: python -c 'print(chr(96) * 3)' -->")
    assert text.startswith("````text\n")
    assert text.endswith("\n````")


def test_long_lines_go_on_below_where_they_began(stage: hook.Stage) -> None:
    program = """print(chr(32) * 20 + 40 * 'word ')"""
    lines = stage.fill_in(f'<!-- run: python -c "{program}" -->').splitlines()[2:-1]
    assert len(lines) == 3
    assert all(line.startswith(" " * 20 + "word") and len(line) <= hook.COLUMNS for line in lines)


def test_a_file_is_shown_as_it_is_and_as_far_to_the_right_as_its_line(stage: hook.Stage) -> None:
    text = stage.fill_in("??? example\n\n    <!-- file: examples/echo.py -->\n")
    assert dedent(text.partition("\n\n")[2]) == (
        f'```python title="examples/echo.py"\n{(hook.ROOT / "examples/echo.py").read_text()}```\n'
    )
    assert "\n    async for message in ws" not in text


def test_defaults_become_a_table(stage: hook.Stage) -> None:
    table = stage.fill_in("<!-- defaults: Limits -->")
    assert "| `head_bytes` | `16,384` |" in table
    assert "| `message_fragments` | `None` |" in table
    assert "| `client_no_context_takeover` | `False` |" in stage.fill_in("<!-- defaults: Deflate -->")


def test_the_reference_has_a_section_for_every_command(stage: hook.Stage) -> None:
    text = filled_in(DOCS / "reference" / "cli.md", stage)
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        f"## wsframework {command.__name__}" for command in COMMANDS
    ]
    assert "--log-format" in text


def test_a_command_with_another_exit_code_fails_the_build(stage: hook.Stage) -> None:
    with pytest.raises(hook.BuildFailed, match="ended with 3, not 0:\noh no"):
        stage.fill_in("<!-- run: python -c 'import sys; print(\"oh no\"); sys.exit(3)' -->")
    assert "oh no" in stage.fill_in("<!-- run 3: python -c 'import sys; print(\"oh no\"); sys.exit(3)' -->")
    with pytest.raises(hook.BuildFailed, match="ended with 0, not 3"):
        stage.fill_in("<!-- run 3: python -c '' -->")


def test_a_command_that_does_not_end_fails_the_build(
    stage: hook.Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hook, "COMMAND_SECONDS", 0.2)
    with pytest.raises(hook.BuildFailed, match=r"does not end within 0\.2 s"):
        stage.fill_in("<!-- run: python -c 'import time; time.sleep(20)' -->")


def test_programs_and_servers_that_are_none_fail_the_build(stage: hook.Stage) -> None:
    with pytest.raises(hook.BuildFailed, match="not 'rm'"):
        stage.fill_in("<!-- run: rm -rf / -->")
    with pytest.raises(hook.BuildFailed, match="no example server 'tea'"):
        stage.fill_in("<!-- run: python {tea} -->")


def test_a_server_that_does_not_start_fails_the_build(
    stage: hook.Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(hook.SERVERS, "tea", "examples.tea:app")
    with pytest.raises(hook.BuildFailed, match=r"examples\.tea"):
        stage.server("tea")


def test_a_page_shows_what_the_server_logged_about_its_command(stage: hook.Stage, tmp_path: Path) -> None:
    ask = tmp_path / "ask.py"
    ask.write_text(
        "import http.client, sys\n"
        "connection = http.client.HTTPConnection(sys.argv[1].partition('//')[2])\n"
        "connection.request('GET', '/nothing')\n"
        "print(connection.getresponse().status)\n"
    )
    command = f"python {ask} {{chat}}"
    text = stage.fill_in(f"<!-- run: {command} -->\n<!-- log: chat -->")
    assert "\n404\n" in text
    assert "http.answered" in text
    assert "server.listening" not in text


def test_what_a_site_loads_from_elsewhere_is_found(tmp_path: Path) -> None:
    (tmp_path / "fine.html").write_text(
        '<a href="https://example.com">a link</a><script src="assets/a.js"></script>'
        '<link rel="canonical" href="https://example.com/fine.html">'
        '<link rel="stylesheet" href="assets/a.css"><img src="data:image/png;base64,AA">'
    )
    assert list(foreign_loads(tmp_path)) == []
    for number, text in enumerate(
        [
            '<script async src="https://cdn.example/a.js">',
            "<script src=//cdn.example/a.js>",
            '<link rel="stylesheet" href="https://cdn.example/a.css">',
            "<style>@import 'https://cdn.example/a.css'</style>",
            "<style>body { background: url(https://cdn.example/a.png) }</style>",
        ]
    ):
        page = tmp_path / f"{number}.html"
        page.write_text(text)
        ((file, address),) = foreign_loads(tmp_path)
        assert file.name == page.name
        assert address.startswith(("https://cdn.example/a.", "//cdn.example/a."))
        page.unlink()
