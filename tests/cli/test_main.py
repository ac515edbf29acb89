from __future__ import annotations

import sys
from importlib.metadata import version

import pytest

from tests.cli.conftest import Command
from tests.cli.process import running
from wsframework.cli import main


def test_the_version_is_the_packages(command: Command) -> None:
    assert command("--version") == (0, f"wsframework {version('wsframework')}\n", "")


def test_help_lists_every_command_on_one_line_each(command: Command) -> None:
    code, out, _ = command("--help")
    assert code == 0
    listed = dict(line.split(maxsplit=1) for line in out.partition("Commands:\n")[2].splitlines() if line)
    assert listed["run"] == "Serve an App until a signal stops it."
    assert listed["routes"] == "List an App's routes and their handlers."
    assert set(listed) == {"run", "workers", "routes", "chat", "connect", "trace", "publish"}


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["run"], ["run", "a:b", "--port", "70000"], ["run", "--no"]]
)
def test_wrong_usage_is_exit_code_2_without_a_traceback(command: Command, arguments: list[str]) -> None:
    code, out, err = command(*arguments)
    assert (code, out) == (2, "")
    assert "Usage: wsframework" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("library", ["typer", "rich"])
def test_without_the_extra_one_line_says_how_to_install_it(
    library: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in list(sys.modules):
        if name.startswith(("wsframework.cli.", f"{library}.")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 2
    assert capsys.readouterr() == (
        "",
        "error: the command line needs typer and rich: pip install typer rich\n",
    )


def test_another_missing_module_is_a_bug_and_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "wsframework.cli.program")
    monkeypatch.setitem(sys.modules, "wsframework.cli.routes", None)
    with pytest.raises(ModuleNotFoundError):
        main(["--help"])


def test_the_package_runs_as_a_module() -> None:
    with running("-m", "wsframework", "--version") as program:
        assert program.wait() == 0
    assert program.lines == [f"wsframework {version('wsframework')}"]
