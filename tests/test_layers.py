"""The import order is the architecture: one table of layers, and nothing may import upward."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

ROOT = Path(__file__).parent.parent
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")

LAYERS: tuple[tuple[str, ...], ...] = (
    # From the bottom up. A package stands for all its modules; names in one line do not see each other.
    ("tokens",),
    ("closes", "cookies", "certificates", "headers", "parameters"),
    ("errors", "config", "records", "crashes", "matching"),
    ("request",),
    ("authority", "calling", "streamed"),
    ("wire", "routing", "origins", "forwarded", "proxy_protocol", "plugins", "timers", "tasks", "threads"),
    ("transport", "parking", "pings", "memberships", "statistics"),
    ("backlog",),
    ("endpoint",),
    ("connection",),
    ("observer",),
    ("session", "rooms", "access_log", "options"),
    ("sessions", "mounting"),
    ("server", "deciding", "engines"),
    ("hosts", "mountable"),
    ("registering",),
    ("app",),
    ("wsframework",),  # the public names: wsframework/__init__.py
    ("asyncio", "chat", "testing", "diagnostics", "workers"),
    ("cli",),
    ("__main__",),
)

PURE = (
    "tokens",
    "closes",
    "cookies",
    "headers",
    "parameters",
    "errors",
    "config",
    "request",
    "matching",
    "calling",
    "routing",
    "authority",
    "origins",
    "forwarded",
    "proxy_protocol",
    "wire",
)
"""Values in, values out: no tasks, no sockets, no clock, no logging, no randomness."""

EFFECTS = {"trio", "asyncio", "threading", "socket", "ssl", "select", "os", "time", "datetime", "logging"}
EFFECTS |= {"random", "secrets"}

ALLOWED_EFFECTS = {
    # It reads WSFRAMEWORK_PURE, once, at import.
    ("wsframework.wire.implementations", "os"),
    # Times as values: when a cookie expires. They do not read the clock.
    ("wsframework.cookies", "datetime"),
    ("wsframework.request", "datetime"),
}

INSIDE_FUNCTIONS = {
    # The extra `cli` may not be installed, and then the command says so in one line.
    ("wsframework.cli", "wsframework.cli.importing"),
    ("wsframework.cli", "wsframework.cli.output"),
    ("wsframework.cli", "wsframework.cli.program"),
    # The extra `dev` may not be installed.
    ("wsframework.cli.run", "wsframework.cli.reloading"),
    # A server of one process does without them.
    ("wsframework.cli.chat", "wsframework.cli.supervising"),
    ("wsframework.cli.chat", "wsframework.cli.worker"),
    ("wsframework.cli.run", "wsframework.cli.supervising"),
    ("wsframework.cli.run", "wsframework.cli.worker"),
    # The extra `redis` may not be installed.
    ("wsframework.cli.publish", "wsframework.engines.redis"),
    ("wsframework.chat.plugin", "wsframework.chat.redis"),
    ("wsframework.cli.chat", "wsframework.engines.redis"),
    # The extra `http` may not be installed.
    ("wsframework.mountable", "wsframework.mounting.starlette"),
    # There is no such module on Windows.
    ("wsframework.chat.database", "fcntl"),
    ("wsframework.cli.keyboard", "termios"),
}
"""Imports (from, of) that may stand inside a function, and why."""

IMPORTS_BY_NAME = {"wsframework.cli.importing"}
"""Modules that import what a user names: `module:app`."""


@attrs.frozen
class Import:
    module: str
    target: str
    name: str | None
    line: int
    inside_function: bool


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_name(path): path for path in sorted((ROOT / "wsframework").rglob("*.py"))}


# Not while tests are collected, which each of the processes that run them does.
@functools.cache
def trees() -> dict[str, ast.Module]:
    return {module: ast.parse(path.read_text(encoding="utf-8")) for module, path in SOURCES.items()}


def unit(module: str) -> str:
    """Return the name that stands for a module in the table: its package, or itself."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else module


def imports_of(module: str) -> Iterator[Import]:
    package = module if SOURCES[module].name == "__init__.py" else module.rpartition(".")[0]

    def visit(node: ast.AST, inside: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(module, alias.name, None, node.lineno, inside)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            for alias in node.names:
                submodule = f"{base}.{alias.name}"
                found = submodule if submodule in SOURCES else base
                yield Import(module, found, alias.name, node.lineno, inside)
        inside = inside or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, inside)

    return visit(trees()[module], False)


@functools.cache
def imports() -> list[Import]:
    return [found for module in SOURCES for found in imports_of(module)]


@functools.cache
def ours() -> list[Import]:
    return [found for found in imports() if found.target.split(".")[0] == "wsframework"]


LEVEL = {name: level for level, layer in enumerate(LAYERS) for name in layer}


def test_every_module_has_its_place_in_the_table_and_nothing_else_has() -> None:
    names = [name for layer in LAYERS for name in layer]
    assert sorted(names) == sorted({unit(module) for module in SOURCES})


def test_imports_lead_to_modules_that_exist() -> None:
    assert {found.target for found in ours()} <= set(SOURCES)
    assert len(ours()) > len(SOURCES)  # the reader of imports finds them


def test_nothing_imports_upward_or_sideways() -> None:
    wrong = [
        f"{found.module}:{found.line} imports {found.target}"
        for found in ours()
        if unit(found.module) != unit(found.target) and LEVEL[unit(found.module)] <= LEVEL[unit(found.target)]
    ]
    assert wrong == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph: dict[str, set[str]] = {module: set() for module in SOURCES}
    for found in ours():
        if not found.inside_function:
            graph[found.module].add(found.target)
    done: set[str] = set()

    def walk(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module not in done:
            for target in sorted(graph[module]):
                walk(target, (*path, module))
            done.add(module)

    for module in graph:
        walk(module, ())


def test_there_is_no_back_door_for_the_type_checker() -> None:
    names = {
        module
        for module, tree in trees().items()
        for node in ast.walk(tree)
        if (isinstance(node, ast.Name) and node.id == "TYPE_CHECKING")
        or (isinstance(node, ast.Attribute) and node.attr == "TYPE_CHECKING")
        or (isinstance(node, ast.alias) and node.name == "TYPE_CHECKING")
    }
    assert names == set()


def test_imports_stand_at_the_top_of_the_module() -> None:
    inside = {(found.module, found.target) for found in imports() if found.inside_function}
    assert inside - INSIDE_FUNCTIONS == set()


def test_modules_are_not_imported_by_name() -> None:
    names = {
        module
        for module, tree in trees().items()
        for node in ast.walk(tree)
        if (isinstance(node, ast.Name) and node.id in ("import_module", "__import__"))
        or (isinstance(node, ast.Attribute) and node.attr in ("import_module", "modules"))
        or (isinstance(node, ast.FunctionDef) and node.name == "__getattr__" and node in tree.body)
    }
    assert names - IMPORTS_BY_NAME == set()


@pytest.mark.parametrize("name", PURE)
def test_pure_modules_know_no_tasks_sockets_clocks_logs_or_randomness(name: str) -> None:
    effects = [
        f"{found.module}:{found.line} imports {found.target}"
        for found in imports()
        if unit(found.module) == name
        and found.target.split(".")[0] in EFFECTS
        and (found.module, found.target) not in ALLOWED_EFFECTS
    ]
    assert effects == []
    assert any(unit(module) == name for module in SOURCES)


def test_a_connection_does_not_log() -> None:
    targets = {found.target for found in imports() if unit(found.module) in ("connection", "rooms")}
    assert not targets & {"logging", "wsframework.records"}


def test_chat_uses_public_names_only() -> None:
    public = {
        package: next(
            ast.literal_eval(node.value)
            for node in trees()[package].body
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
        )
        for package in ("wsframework", "wsframework.engines.redis")
    }
    private = [
        f"{found.module}:{found.line} imports {found.name} of {found.target}"
        for found in ours()
        if unit(found.module) == "chat"
        and unit(found.target) != "chat"
        and found.name not in public.get(found.target, ())
    ]
    assert private == []


def test_tracing_and_connecting_do_not_import_each_other() -> None:
    parts = ("wsframework.diagnostics.tracing", "wsframework.diagnostics.connecting")
    found_in = {part: [found for found in ours() if found.module.startswith(part)] for part in parts}
    tracing, connecting = parts
    crossing = [found for found in found_in[tracing] if found.target.startswith(connecting)]
    crossing += [found for found in found_in[connecting] if found.target.startswith(tracing)]
    upward = [
        found
        for found in ours()
        if unit(found.module) == "diagnostics"
        and not found.module.startswith(parts)
        and found.target.startswith(parts)
    ]
    assert crossing + upward == []
    assert all(found_in.values())


def test_only_the_command_line_needs_the_extra_cli() -> None:
    users = {unit(found.module) for found in imports() if found.target.split(".")[0] in ("typer", "rich")}
    assert users == {"cli"}


# CONTRIBUTING.md


def test_the_table_of_layers_in_contributing_is_the_one_that_is_tested() -> None:
    table = CONTRIBUTING.split("## The layers")[1].split("\n## ")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    written = [tuple(name.rstrip("/") for name in re.findall(r"`([^`]+)`", row)) for row in rows]
    # `wsframework` itself and `python -m wsframework` have no row: they hold no code of their own.
    assert written == [layer for layer in LAYERS if layer not in (("wsframework",), ("__main__",))]


def test_the_examples_of_where_to_add_something_name_files_that_exist() -> None:
    section = CONTRIBUTING.split("## Where do I add")[1].split("\n## ")[0]
    headings = re.findall(r"^\*\*(.+?)\*\*", section, re.M)
    assert headings == ["A log field.", "A rule for close codes.", "An engine.", "A command."]
    files = re.findall(r"`([\w./-]+\.(?:py|md))`", section.replace("cli/NAME.py", "cli/run.py"))
    assert len(files) >= 3 * len(headings)
    assert [file for file in files if not (ROOT / file).exists()] == []
