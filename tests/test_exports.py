"""What the package promises by name: `__all__` is true, public names are explained, modules are tested."""

from __future__ import annotations

import ast
import importlib
import inspect
import itertools
import pkgutil
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import wsframework

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "wsframework").rglob("*.py"))

MODULES = [
    "wsframework",
    *(
        found.name
        for found in pkgutil.walk_packages(wsframework.__path__, "wsframework.")
        if found.name != "wsframework.__main__"
    ),
]


def modules_of(package: str) -> list[str]:
    """Return the modules of a package that have code of their own."""
    folder = ROOT / "wsframework" / package
    return [file.relative_to(ROOT).as_posix() for file in folder.glob("*.py") if file.name != "__init__.py"]


TESTED_BY = {
    "wsframework/chat/attendance.py": "tests/chat/test_presence.py",
    "wsframework/chat/messages.py": "tests/chat/test_history.py",
    "wsframework/chat/transcript.py": "tests/chat/test_journal.py",
    "wsframework/chat/redis/sharing.py": "tests/chat/redis/test_store.py",
    "wsframework/cli/chat_worker.py": "tests/cli/test_chat.py",
    "wsframework/__init__.py": "tests/test_exports.py",
    "wsframework/registering.py": "tests/test_app.py",
    "wsframework/__main__.py": "tests/cli/test_main.py",
    "wsframework/cli/__init__.py": "tests/cli/test_main.py",
    "wsframework/cli/program.py": "tests/cli/test_main.py",
    "wsframework/engines/redis/codec.py": "tests/engines/redis/test_link.py",
    "wsframework/engines/redis/login.py": "tests/engines/redis/test_link.py",
    "wsframework/engines/redis/carrier.py": "tests/engines/redis/test_faults.py",
    "wsframework/engines/redis/subscriptions.py": "tests/engines/redis/test_engine.py",
    "wsframework/mountable.py": "tests/mounting/test_mounts.py",
    "wsframework/mounting/leaving.py": "tests/mounting/test_http.py",
    "wsframework/streamed.py": "tests/mounting/test_http.py",
    "wsframework/statistics.py": "tests/test_connection.py",
    "wsframework/sessions/statistics.py": "tests/sessions/test_sessions.py",
    "wsframework/rooms/engine.py": "tests/testing/test_engines.py",
    "wsframework/rooms/policy.py": "tests/rooms/test_slow.py",
    "wsframework/rooms/seats.py": "tests/rooms/test_account.py",
    "wsframework/server/crowd.py": "tests/server/test_sharing.py",
    "wsframework/testing/asking.py": "tests/testing/test_serving.py",
    "wsframework/server/serving.py": "tests/server/test_native.py",
    "wsframework/server/streams.py": "tests/server/test_native.py",
    "wsframework/cli/keyboard.py": "tests/cli/test_connect.py",
    "wsframework/cli/screen.py": "tests/cli/test_connect.py",
    "wsframework/cli/options.py": "tests/cli/test_trace.py",
    "wsframework/cli/story.py": "tests/diagnostics/tracing/test_telling.py",
    # What the two commands do is tested as their users see it: one test file for many small modules.
    **dict.fromkeys(modules_of("diagnostics/connecting"), "tests/cli/test_connect.py"),
    **dict.fromkeys(modules_of("diagnostics/tracing"), "tests/diagnostics/tracing/test_tracer.py"),
    **dict.fromkeys(modules_of("diagnostics"), "tests/diagnostics/tracing/test_tracer.py"),
    "wsframework/diagnostics/close_codes.py": "tests/diagnostics/test_close_codes.py",
    "wsframework/diagnostics/kernel.py": "tests/diagnostics/test_kernel.py",
    "wsframework/diagnostics/problems.py": "tests/diagnostics/tracing/test_broken_servers.py",
    "wsframework/diagnostics/reaching.py": "tests/diagnostics/test_reaching.py",
    "wsframework/diagnostics/target.py": "tests/diagnostics/test_target.py",
    "wsframework/diagnostics/tracing/certificates.py": "tests/diagnostics/tracing/test_certificates.py",
    "wsframework/diagnostics/tracing/frames.py": "tests/diagnostics/tracing/test_frames.py",
    "wsframework/diagnostics/tracing/judging.py": "tests/diagnostics/tracing/test_broken_servers.py",
    "wsframework/diagnostics/tracing/telling.py": "tests/diagnostics/tracing/test_telling.py",
}
"""Sources whose tests are not in the file of the same name."""

SAYS_NOTHING_OF_CANCELLATION = {"Server.run", "Server.serve_stream"}
"""Async methods that hosts call, not users."""


def load(name: str) -> ModuleType:
    return importlib.import_module(name)


def tree(module: ModuleType) -> ast.Module:
    assert module.__file__ is not None
    return ast.parse(Path(module.__file__).read_text(encoding="utf-8"))


def only_holds_modules(name: str) -> bool:
    """Whether it is a package with nothing but a docstring of its own."""
    return hasattr(load(name), "__path__") and len(tree(load(name)).body) == 1


def explained_values(module: ModuleType) -> set[str]:
    """Return the constants and aliases of a module that have a docstring below them."""
    body = tree(module).body
    names: set[str] = set()
    for statement, below in itertools.pairwise(body):
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            if isinstance(statement, ast.Assign):
                names.update(ast.unparse(target) for target in statement.targets)
            elif isinstance(statement, ast.AnnAssign):
                names.add(ast.unparse(statement.target))
    return names


def defined(module: ModuleType) -> set[str]:
    """Return the names that a module's own statements define, imports left out."""
    names: set[str] = set()
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names


def test_all_modules_are_found() -> None:
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts) for path in SOURCES}
    names = {name.removesuffix(".__init__") for name in names} - {"wsframework.__main__"}
    assert names == set(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_all_is_true(name: str) -> None:
    module = load(name)
    if only_holds_modules(name):
        assert not hasattr(module, "__all__")
        return
    exported = module.__all__
    assert exported
    assert len(set(exported)) == len(exported)
    for public in exported:
        assert hasattr(module, public), public
        assert not public.startswith("_"), public


@pytest.mark.parametrize("name", MODULES)
def test_a_module_exports_its_own_names_or_those_its_siblings_export(name: str) -> None:
    module = load(name)
    if only_holds_modules(name) or name == "wsframework":
        return  # the public names come from everywhere
    package = name if hasattr(module, "__path__") else name.rpartition(".")[0]
    siblings = {
        alias.asname or alias.name
        for node in tree(module).body
        if isinstance(node, ast.ImportFrom) and package != "wsframework"
        if (node.module or "").startswith(package) and node.module != package
        for alias in node.names
        if alias.name in load(node.module or "").__all__
    }
    assert set(module.__all__) <= defined(module) | siblings


def test_a_star_import_gives_exactly_the_public_names() -> None:
    namespace: dict[str, Any] = {}
    exec("from wsframework import *", namespace)
    del namespace["__builtins__"]
    assert set(namespace) == set(wsframework.__all__)


def test_the_public_names_are_those_of_the_house() -> None:
    """Whoever takes one away breaks somebody's program: then it belongs under "breaking" in the changelog."""
    assert set(wsframework.__all__) >= {
        *("App", "Connection", "Request", "Response", "Headers", "Address", "Certificate"),
        "set_cookie_field",
        *("Limits", "Timeouts", "Keepalive", "Deflate", "DeflateParameters"),
        *("Close", "Reject", "Closed", "CloseFrame", "ConnectionClosed", "ConnectionStatistics"),
        *("SENT_CODES", "SentCode"),
        *("Server", "ServerStatistics", "Plugin", "JsonFormatter", "Observer", "ObservedFrame"),
        *("Room", "Rooms", "Member", "SlowPolicy", "RoomStatistics", "RoomUnavailable"),
        *("Engine", "LocalEngine", "Subscriber", "RoomMessage", "Replay", "Position", "History"),
        *("GapPolicy", "Stamp", "TooManyRooms"),
        *("Session", "Sessions", "SessionStore", "SessionClaim", "LocalSessionStore", "SessionStatistics"),
        *("Unavailable", "SessionUnavailable"),
        *("WSFrameworkError", "ConfigurationError", "RouteError", "ListenError", "PluginError"),
        *("ImportStringError", "HandshakeError"),
    }


def public_members(cls: type) -> dict[str, object]:
    return {
        name: member
        for name, member in vars(cls).items()
        if not name.startswith("_")
        and (inspect.isroutine(member) or isinstance(member, property | classmethod | staticmethod))
    }


@pytest.mark.parametrize("name", [name for name in MODULES if not only_holds_modules(name)])
def test_every_public_name_is_explained(name: str) -> None:
    module = load(name)
    assert inspect.getdoc(module)
    unexplained = []
    for public in module.__all__:
        value = getattr(module, public)
        if inspect.isclass(value) and value.__module__.startswith("wsframework"):
            if not value.__doc__ or value.__doc__.startswith(f"{value.__name__}("):
                unexplained.append(public)
            for member_name in public_members(value):
                if not inspect.getdoc(getattr(value, member_name)):
                    unexplained.append(f"{public}.{member_name}")
        elif inspect.isroutine(value):
            if not inspect.getdoc(value):
                unexplained.append(public)
        elif name.count(".") == 1 and public in defined(module) - explained_values(module):
            unexplained.append(public)
    assert unexplained == []


def public_coroutines() -> dict[str, str]:
    """Return the docstrings of the async functions and methods that users call."""
    found: dict[str, str] = {}
    for public in wsframework.__all__:
        value = getattr(wsframework, public)
        if inspect.isclass(value):
            for name, member in public_members(value).items():
                if inspect.iscoroutinefunction(member):
                    found[f"{public}.{name}"] = inspect.getdoc(member) or ""
    return found


def test_every_async_method_says_what_cancellation_leaves_behind() -> None:
    assert "Connection.send" in public_coroutines()
    silent = {
        name for name, text in public_coroutines().items() if not re.search(r"^Cancellation:", text, re.M)
    }
    assert silent - SAYS_NOTHING_OF_CANCELLATION == set()


# Every source file has its test file.


def has_code_of_its_own(source: Path) -> bool:
    """Whether it is more than a docstring and names passed on."""
    return any(
        not isinstance(node, ast.Import | ast.ImportFrom | ast.Assign | ast.Expr)
        for node in ast.parse(source.read_text(encoding="utf-8")).body
    )


def file_with_tests_of(name: str) -> str:
    if name in TESTED_BY:
        return TESTED_BY[name]
    *folders, file = name.split("/")[1:]
    return "/".join(["tests", *folders, f"test_{file}"])


def test_every_module_has_its_test_file() -> None:
    for source in filter(has_code_of_its_own, SOURCES):
        name = source.relative_to(ROOT).as_posix()
        tests = ROOT / file_with_tests_of(name)
        assert tests.exists(), f"{name} belongs to {tests.relative_to(ROOT)}"
        assert "def test_" in tests.read_text(encoding="utf-8"), tests


def test_exceptions_to_the_mapping_are_still_needed() -> None:
    assert all((ROOT / name).exists() for name in TESTED_BY)
