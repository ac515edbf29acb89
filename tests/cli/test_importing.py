from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Write
from wsframework import App, ImportStringError
from wsframework.cli.importing import load_app, own_traceback, shorten

APP = "from wsframework import App\napp = App()\n"


def message_for(target: str) -> str:
    with pytest.raises(ImportStringError) as caught:
        load_app(target)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_an_app_is_found_in_a_module_of_the_working_directory(write: Write) -> None:
    write("found_here.py", APP)
    assert load_app("found_here:app") is sys.modules["found_here"].app


def test_an_app_is_found_in_a_package_and_behind_attributes(write: Write) -> None:
    write("shop/__init__.py", "")
    write("shop/web.py", APP + "class Site:\n    app = app\nsite = Site()\n")
    assert isinstance(load_app("shop.web:site.app"), App)


def test_the_working_directory_goes_on_the_import_path_once(write: Write, tmp_path: Path) -> None:
    write("found_once.py", APP)
    load_app("found_once:app")
    load_app("found_once:app")
    assert sys.path.count(str(tmp_path)) == 1


@pytest.mark.parametrize("target", ["", ":", "chat", "chat:", ":app", "chat:app:more", "my chat:app"])
def test_a_string_of_another_form_gets_the_form(target: str) -> None:
    assert message_for(target) == f"{target!r} is not of the form module:app, such as 'chat:app'"


@pytest.mark.parametrize(
    ("target", "better"),
    [("chat.py:app", "chat:app"), ("web/chat.py", "web.chat:app"), ("web/chat:site", "web.chat:site")],
)
def test_a_files_name_gets_the_modules_name(target: str, better: str) -> None:
    assert message_for(target).endswith(f"write the module's: {better}")


def test_a_missing_module_is_named_with_where_it_was_looked_for(tmp_path: Path) -> None:
    text = message_for("no_such_module.web:app")
    assert text == (f"there is no module 'no_such_module' in {tmp_path} or among the installed packages")


def test_a_missing_submodule_is_named_in_full(write: Write) -> None:
    write("half/__init__.py", "")
    assert "there is no module 'half.web'" in message_for("half.web:app")


def test_a_module_in_a_module_that_is_no_package_is_missing(write: Write) -> None:
    write("flat.py", APP)
    assert "there is no module 'flat.web'" in message_for("flat.web:app")


def test_an_import_that_the_users_module_lacks_is_the_users_error(write: Write) -> None:
    write("needs_more.py", "import trio\nimport no_such_library\n")
    text = message_for("needs_more:app")
    assert text == "needs_more.py:2: ModuleNotFoundError: No module named 'no_such_library'"


def test_an_error_in_the_users_module_is_told_with_its_line(write: Write) -> None:
    write("crashes.py", "def limit():\n    return 1 / 0\n\nlimit()\n")
    assert message_for("crashes:app") == "crashes.py:2: ZeroDivisionError: division by zero"


def test_an_error_deep_in_a_library_points_at_the_users_line(write: Write) -> None:
    write("too_much.py", "import json\n\njson.loads('{')\n")
    assert message_for("too_much:app").startswith("too_much.py:3: json.decoder.JSONDecodeError: Expecting")


def test_a_wrong_route_points_at_the_users_line(write: Write) -> None:
    write("wrong_route.py", APP + "@app.websocket('/a/{b:nope}')\nasync def handler(ws): ...\n")
    text = message_for("wrong_route:app")
    assert text.startswith("wrong_route.py:3: path '/a/{b:nope}': unknown")


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("RedisEngine('http://localhost')", "'http': not the URL of a Redis server; write redis://"),
        ("RedisEngine(timeout=0)", "RedisEngine(timeout=0): it must be more than 0"),
    ],
)
def test_what_we_refuse_is_one_line_without_a_traceback(write: Write, code: str, why: str) -> None:
    write("refused.py", f"from wsframework.engines.redis import RedisEngine\n{code}\n")
    refuses("refused.py:2", why)


def test_a_missing_extra_is_one_line_without_a_traceback(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("wsframework.engines.redis")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "hiredis", None)
    write("refused.py", "from wsframework.engines.redis import RedisEngine\n")
    refuses("refused.py:1", "wsframework.engines.redis needs hiredis; install it with: pip install")


def refuses(place: str, why: str) -> None:
    with pytest.raises(ImportStringError) as caught:
        load_app("refused:app")
    assert str(caught.value).startswith(f"{place}: {why}")
    assert caught.value.__cause__ is None


def test_an_error_of_many_lines_becomes_one(write: Write) -> None:
    write("wordy.py", "raise ValueError('one\\n  two\\nthree')\n")
    assert message_for("wordy:app") == "wordy.py:1: ValueError: one two three"


def test_a_syntax_error_is_told_with_its_line(write: Write) -> None:
    write("unfinished.py", "from wsframework import App\n\napp = App(\n")
    assert message_for("unfinished:app") == "unfinished.py:3: SyntaxError: '(' was never closed"


def test_a_file_that_python_cannot_even_read_is_one_line(write: Write) -> None:
    write("zeros.py", "app = 1\0")
    assert "null bytes" in message_for("zeros:app")


def test_a_module_that_exits_is_told_with_its_line(write: Write) -> None:
    write("leaves.py", "import sys\nsys.exit('not today')\n")
    assert message_for("leaves:app") == "leaves.py:2: SystemExit: not today"


def test_a_keyboard_interrupt_goes_through(write: Write) -> None:
    write("interrupted.py", "raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        load_app("interrupted:app")


def test_a_missing_name_gets_the_apps_that_are_there(write: Write) -> None:
    write("other_name.py", APP + "application = app\n")
    assert message_for("other_name:nope") == (
        "'other_name:nope': other_name.py has no 'nope'; it has other_name:app, other_name:application"
    )


def test_a_missing_name_in_a_module_without_apps_has_no_hint(write: Write) -> None:
    write("bare.py", "")
    assert message_for("bare:app") == "'bare:app': bare.py has no 'app'"


def test_a_factory_gets_told_how_to_become_an_app(write: Write) -> None:
    write("factory.py", "def make_app(): ...\n")
    assert message_for("factory:make_app") == (
        "'factory:make_app' is a function, not an App; if it returns one, "
        "write 'app = make_app()' in factory.py and name that"
    )


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("App", "the class App itself"),
        ("dict", "the class dict"),
        ("'app'", "of type str"),
        ("len", "a function"),
        ("__import__('json')", "a module"),
        ("handler", "an async function"),
    ],
)
def test_what_is_no_app_is_named(write: Write, value: str, kind: str) -> None:
    write("no_app.py", f"from wsframework import App\nasync def handler(ws): ...\nthing = {value}\n")
    assert message_for("no_app:thing") == f"'no_app:thing' is {kind}, not an App"


def test_a_module_without_a_file_is_named_by_its_name() -> None:
    assert message_for("sys:app") == "'sys:app': sys has no 'app'"


def test_paths_below_the_working_directory_are_shortened(tmp_path: Path) -> None:
    assert shorten(str(tmp_path / "web" / "chat.py")) == str(Path("web/chat.py"))
    assert shorten("/elsewhere/chat.py") == "/elsewhere/chat.py"


def traceback_for(target: str) -> str:
    with pytest.raises(ImportStringError) as caught:
        load_app(target)
    assert caught.value.__cause__ is not None
    return own_traceback(caught.value.__cause__)


def test_a_traceback_has_the_users_frames_and_its_causes(write: Write) -> None:
    write(
        "wrapped.py",
        "import json\ntry:\n    json.loads('{')\nexcept ValueError as e:\n    raise KeyError(1) from e\n",
    )
    text = traceback_for("wrapped:app")
    assert text.count("  File ") == 2
    assert "line 3, in <module>" in text
    assert "The above exception was the direct cause" in text
    assert text.endswith("KeyError: 1")


def test_a_syntax_error_has_its_line_and_no_frames(write: Write, tmp_path: Path) -> None:
    write("halved.py", "def f(:\n")
    text = traceback_for("halved:app")
    assert text.count("  File ") == 1
    assert f'  File "{tmp_path}/halved.py", line 1\n    def f(:' in text


def test_a_circular_import_has_both_lines(write: Write, tmp_path: Path) -> None:
    write("circle.py", "from round import b\na = 1\n")
    write("round.py", "from circle import a\nb = 1\n")
    text = traceback_for("circle:app")
    assert text.count("  File ") == 2
    assert "circular import" in text


def test_a_group_keeps_the_frames_of_each(write: Write) -> None:
    write(
        "many.py",
        "import json\ntry:\n    json.loads('{')\nexcept ValueError as e:\n  raise ExceptionGroup('1', [e])\n",
    )
    text = traceback_for("many:app")
    assert "decoder.py" not in text
    assert text.count("line 3, in <module>") == 2  # the member's, and the context's


def test_a_traceback_has_no_control_characters(write: Write) -> None:
    write("loud.py", "raise ValueError('\\x1b[2J\\u202e')\n")
    assert r"ValueError: \x1b[2J\u202e" in traceback_for("loud:app")


def test_an_app_in_code_of_installed_packages_keeps_their_frames() -> None:
    error = None
    try:
        pytest.fail("here")
    except BaseException as failed:
        error = failed.with_traceback(failed.__traceback__.tb_next if failed.__traceback__ else None)
    assert error is not None
    assert "_pytest" in own_traceback(error)


@pytest.mark.parametrize("error", ["GeneratorExit", "__import__('asyncio').CancelledError", "BaseException"])
def test_any_exception_at_import_is_one_line(write: Write, error: str) -> None:
    write("leaving.py", f"raise {error}\n")
    assert message_for("leaving:app").startswith("leaving.py:1: ")


def test_an_attribute_that_raises_is_told_with_its_line(write: Write) -> None:
    write("lazy.py", "def __getattr__(name):\n    return {}[name]\n")
    assert message_for("lazy:app") == "lazy.py:2: KeyError: 'app'"


@pytest.mark.parametrize("decorator", ["websocket", "http"])
def test_a_decorator_without_its_path_says_so(write: Write, decorator: str) -> None:
    write("bare_decorator.py", APP + f"@app.{decorator}\nasync def talk(ws): ...\n")
    assert message_for("bare_decorator:app") == (
        f'bare_decorator.py:3: @app.{decorator} has no path: write @app.{decorator}("/path") above talk'
    )


@pytest.mark.parametrize(
    ("target", "advice"),
    [
        ("prog.py:app", "write the module's: prog:app"),
        ("./prog.py:site", "write the module's: prog:site"),
        ("{cwd}/shop/web.py", "write the module's: shop.web:app"),
        ("shop/__init__.py:app", "write the module's: shop:app"),
        ("/srv/chat/prog.py:app", "go to /srv/chat, and write the module's: prog:app"),
        ("../prog.py:app", "go to {parent}, and write the module's: prog:app"),
        ("a-b.py:app", "rename it: 'a-b' cannot be the name of a module"),
        ("/:app", "write that of a module, such as chat:app"),
    ],
)
def test_the_name_of_a_file_is_answered_with_the_name_of_its_module(
    target: str, advice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    message = message_for(target.format(cwd=tmp_path))
    assert message.partition("; ")[2] == advice.format(parent=tmp_path.parent)
