"""What keeps the source readable: its sizes, private names used in one module only, complete exports."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from tests.test_layers import SOURCES, ours, trees

MOST_LINES = 450
MOST_LINES_OF_A_BODY = 60

FOREIGN_PRIVATE_NAMES = {
    # Each has its reason there.
    "wsframework.hosts.trio_websocket.internals": {
        *("_connection", "_event", "_h11_connection", "_reader_running", "_send_channel", "_stream"),
        "_wsproto",
    },
    # Public in all but name: documented in `enum`, `sys` and `os`.
    "wsframework.closes": {"_value_"},
    "wsframework.server.blocking": {"_current_frames"},
    "wsframework.server.forks": {"_exit"},
    "wsframework.server.leaving": {"_current_frames", "_exit"},
    "wsframework.workers.worker": {"_exit"},
    # The types of zlib's objects have no other name; they stand in annotations.
    "wsframework.wire.compression": {"_Compress", "_Decompress"},
}
"""Private names of other libraries, by the module of ours that uses them."""


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def is_of_self(node: ast.Attribute) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")


def names_of_its_own(tree: ast.Module) -> set[str]:
    """Return every name that a module itself gives: to functions, classes, variables and attributes."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and is_of_self(node):
            names.add(node.attr)
    return names


def private_names_of_others(tree: ast.Module) -> Iterator[tuple[int, str]]:
    own = names_of_its_own(tree)
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Attribute) and is_private(node.attr)):
            continue
        # A class may use what its base class in another module keeps for derived classes.
        if node.attr not in own and not is_of_self(node):
            yield node.lineno, node.attr


@pytest.mark.parametrize("module", SOURCES)
def test_private_names_stay_in_their_module(module: str) -> None:
    allowed = FOREIGN_PRIVATE_NAMES.get(module, set())
    used = [
        f"line {line}: {name}"
        for line, name in private_names_of_others(trees()[module])
        if name not in allowed
    ]
    imported = [
        f"line {found.line}: {found.name} of {found.target}"
        for found in ours()
        if found.module == module
        and (is_private(found.name or "") or any(map(is_private, found.target.split("."))))
    ]
    assert used + imported == []


def test_the_private_names_of_other_libraries_are_still_used() -> None:
    used = {
        module: {name for _, name in private_names_of_others(trees()[module])}
        for module in FOREIGN_PRIVATE_NAMES
    }
    assert used == FOREIGN_PRIVATE_NAMES


def test_a_private_name_of_another_module_would_be_found() -> None:
    tree = ast.parse(
        "class A:\n    def f(self, other):\n        self._x = self._base\n        other._x = other._y\n"
    )
    assert list(private_names_of_others(tree)) == [(4, "_y")]


def exported(module: str) -> list[str]:
    for node in trees()[module].body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    return []


def test_what_other_modules_import_is_exported() -> None:
    missing = {
        f"{found.name} of {found.target}, for {found.module}"
        for found in ours()
        if found.name is not None
        and f"{found.target}.{found.name}" not in SOURCES
        and not found.target.endswith(f".{found.name}")
        and found.name not in exported(found.target)
    }
    assert missing == set()


def test_no_module_is_longer_than_a_reader_keeps_in_mind() -> None:
    lengths = {module: len(path.read_text(encoding="utf-8").splitlines()) for module, path in SOURCES.items()}
    longer = {module for module, lines in lengths.items() if lines > MOST_LINES}
    assert longer == set()


def test_no_body_is_longer_than_a_screen() -> None:
    """Lines of code count, without the docstring, comments and empty lines."""
    longer = set()
    for module, tree in trees().items():
        lines = SOURCES[module].read_text(encoding="utf-8").splitlines()
        for node in ast.walk(tree):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            code = lines[body[0].lineno - 1 : body[-1].end_lineno] if body else []
            count = sum(not re.match(r"\s*(#|$)", line) for line in code)
            if count > MOST_LINES_OF_A_BODY:
                longer.add(f"{module} {node.name}")
    assert longer == set()
