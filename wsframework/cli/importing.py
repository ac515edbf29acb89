"""Import the App that `module:app` names; every error becomes one line."""

from __future__ import annotations

import importlib
import importlib.util
import os
import site
import sys
import sysconfig
import traceback
from inspect import iscoroutinefunction, isfunction, isroutine
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Annotated

import typer

from wsframework.app import App
from wsframework.errors import ImportStringError

__all__ = ["Target", "load_app", "shorten"]

Target = Annotated[
    str,
    typer.Argument(metavar="MODULE:APP", help="Where the App is, such as chat:app.", show_default=False),
]
"""The first argument of commands for an App."""


def load_app(target: str) -> App:
    """Import the App that `module:app` names; the working directory is on the import path.

    Args:
        target: a module's dotted name, a colon, and the App's name in it (`chat:app`, `shop.web:site.app`).

    Raises:
        ImportStringError: the string is malformed, the module does not exist or fails, or the name is not an
            App. The message is one line, and names the line of the user's module that failed.
    """
    module_name, colon, attribute = target.partition(":")
    names = module_name.split(".")
    if module_name.endswith(".py") or "/" in module_name:
        module_name = ".".join(Path(module_name.removesuffix(".py")).parts)
        raise ImportStringError(
            f"{target!r} is the name of a file; write the module's: {module_name}:{attribute or 'app'}"
        )
    if not (colon and attribute and all(name.isidentifier() for name in [*names, *attribute.split(".")])):
        raise ImportStringError(f"{target!r} is not of the form module:app, such as 'chat:app'")
    module = _import(module_name)
    value: object = module
    for name in attribute.split("."):
        if not hasattr(value, name):
            raise ImportStringError(f"{target!r}: {_describe(module)} has no {attribute!r}{_hint(module)}")
        value = getattr(value, name)
    if isinstance(value, App):
        return value
    hint = _hint(module)
    if not hint and isfunction(value) and not iscoroutinefunction(value):
        hint = f"; if it returns one, write 'app = {attribute}()' in {_describe(module)} and name that"
    raise ImportStringError(f"{target!r} is {_kind(value)}, not an App{hint}")


def shorten(path: str) -> str:
    """Return a file's path relative to the working directory when it is below it."""
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except ValueError:
        return path


def _import(name: str) -> ModuleType:
    directory = os.getcwd()
    if directory not in sys.path:
        sys.path.insert(0, directory)
    # The module's file may be newer than the process.
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            raise ImportStringError(
                f"there is no module {error.name!r} in {directory} or among the installed packages"
            ) from error
        raise ImportStringError(_explain(error)) from error
    except SyntaxError as error:
        place = f"{shorten(error.filename or name)}:{error.lineno or 1}"
        raise ImportStringError(f"{place}: {type(error).__name__}: {error.msg}") from error
    except (Exception, SystemExit) as error:
        raise ImportStringError(_explain(error)) from error


def _explain(error: BaseException) -> str:
    """Describe in one line what a user's module raised, and where."""
    what = " ".join(traceback.format_exception_only(error)[-1].split())
    place = _place(error.__traceback__)
    return f"{place}: {what}" if place else what


def _place(trace: TracebackType | None) -> str:
    """Return `file:line` of the innermost frame in the user's code, or of the innermost of all."""
    frames = [
        (frame.f_code.co_filename, line)
        for frame, line in traceback.walk_tb(trace)
        if not frame.f_code.co_filename.startswith("<frozen ") and frame.f_code.co_filename != __file__
    ]
    foreign = tuple(_foreign_folders())
    own = [frame for frame in frames if not frame[0].startswith(foreign)]
    if not frames:
        return ""
    file, line = (own or frames)[-1]
    return f"{shorten(file)}:{line}"


def _foreign_folders() -> list[str]:
    """List the folders of code that is not the user's: Python, installed packages, wsframework."""
    paths = [
        *map(sysconfig.get_path, ("stdlib", "platstdlib", "purelib", "platlib")),
        *site.getsitepackages(),
    ]
    folders = [*paths, str(Path(__file__).parents[1]), os.path.dirname(os.__file__)]
    return [os.path.join(folder, "") for folder in folders if folder]


def _describe(module: ModuleType) -> str:
    file = getattr(module, "__file__", None)
    return shorten(file) if file else module.__name__


def _hint(module: ModuleType) -> str:
    """Return a hint that names the Apps of the module."""
    apps = [name for name, value in vars(module).items() if isinstance(value, App)]
    return f"; it has {', '.join(f'{module.__name__}:{name}' for name in apps)}" if apps else ""


def _kind(value: object) -> str:
    if value is App:
        return "the class App itself"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if isinstance(value, ModuleType):
        return "a module"
    if isroutine(value):
        return "an async function" if iscoroutinefunction(value) else "a function"
    return f"of type {type(value).__name__}"
