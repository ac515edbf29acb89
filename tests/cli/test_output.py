from __future__ import annotations

import io
import sys

import pytest

from wsframework.cli.output import fail


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def colourful(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("NO_COLOR", "FORCE_COLOR", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)


def test_a_failure_is_one_plain_line_when_piped(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        fail("it does\n  not [bold]work[/bold] :boom: " + "x" * 300)
    assert ended.value.code == 2
    assert capsys.readouterr() == ("", "error: it does not [bold]work[/bold] :boom: " + "x" * 300 + "\n")


@pytest.mark.usefixtures("colourful")
def test_a_failure_has_colour_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with pytest.raises(SystemExit):
        fail("no")
    assert terminal.getvalue() == "\x1b[1;31merror: \x1b[0mno\n"


@pytest.mark.usefixtures("colourful")
def test_no_color_is_heeded_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(sys, "stderr", terminal)
    with pytest.raises(SystemExit):
        fail("no")
    assert "31m" not in terminal.getvalue()
