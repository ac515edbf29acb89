"""Import the App that `module:app` names; every error becomes one line, and the user's frames below it."""

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
from typing import Annotated, TypeGuard

import typer

from wsframework.app import App
from wsframework.errors import ConfigurationError, ImportStringError
from wsframework.records import bounded_lines

__all__ = ["Target", "load_app", "own_traceback", "shorten", "split_target", "working_directory"]

_PACKAGE = str(Path(__file__).parents[1])

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
        ConfigurationError: the working directory has been deleted.
        ImportStringError: the string is malformed, the module does not exist or fails, or the name is not an
            App. The message is one line, and names the line of the user's module that failed; what it raised
            is the error's cause, unless it was we who refused what the module asked for.
    """
    module_name, attribute = split_target(target)
    module = _import(module_name)
    value: object = module
    for name in attribute.split("."):
        try:
            value = getattr(value, name)
        except AttributeError:
            raise ImportStringError(
                f"{target!r}: {_describe(module)} has no {attribute!r}{_hint(module)}"
            ) from None
        except Exception as error:  # a property, or `__getattr__` of a module
            raise ImportStringError(_explain(error)) from error
    if _is_app(value):
        return value
    hint = _hint(module)
    if not hint and isfunction(value) and not iscoroutinefunction(value):
        hint = f"; if it returns one, write 'app = {attribute}()' in {_describe(module)} and name that"
    raise ImportStringError(f"{target!r} is {_kind(value)}, not an App{hint}")


def split_target(target: str) -> tuple[str, str]:
    """Return the names of the module and of the App in it.

    Raises:
        ImportStringError: the string is malformed.
    """
    module, colon, attribute = target.partition(":")
    if module.endswith(".py") or "/" in module:
        raise ImportStringError(f"{target!r} is the name of a file; {_advice(module, attribute or 'app')}")
    names = [*module.split("."), *attribute.split(".")]
    if not (colon and attribute and all(name.isidentifier() for name in names)):
        raise ImportStringError(f"{target!r} is not of the form module:app, such as 'chat:app'")
    return module, attribute


def _advice(file: str, attribute: str) -> str:
    """Say how a file is named as a module, or what prevents that."""
    folder = here = Path(working_directory())
    path = Path(os.path.abspath(os.path.expanduser(file.removesuffix(".py"))))
    if not path.is_relative_to(folder):
        folder = path.parent
    parts = path.relative_to(folder).parts
    if parts[-1:] == ("__init__",) and len(parts) > 1:
        parts = parts[:-1]
    for part in parts:
        if not part.isidentifier():
            return f"rename it: {part!r} cannot be the name of a module"
    if not parts:
        return "write that of a module, such as chat:app"
    where = "" if folder == here else f"go to {folder}, and "
    return f"{where}write the module's: {'.'.join(parts)}:{attribute}"


def shorten(path: str) -> str:
    """Return a file's path relative to the working directory when it is below it."""
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except (ValueError, FileNotFoundError):
        return path


def working_directory() -> str:
    """Return the working directory.

    Raises:
        ConfigurationError: it has been deleted.
    """
    try:
        return os.getcwd()
    except FileNotFoundError:
        raise ConfigurationError(
            "the working directory has been deleted: start the program in the one that is there now"
        ) from None


def _import(name: str) -> ModuleType:
    directory = working_directory()
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
            ) from None
        raise ImportStringError(_explain(error)) from error
    except SyntaxError as error:
        place = f"{shorten(error.filename or name)}:{error.lineno or 1}"
        raise ImportStringError(f"{place}: {type(error).__name__}: {error.msg}") from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit too
        # What we say of a mistake is enough: where it was made, and what is wrong.
        raise ImportStringError(_explain(error)) from (None if _is_ours(error) else error)


def own_traceback(error: BaseException) -> str:
    """Return a traceback as Python prints it, with the user's frames only.

    An exception that has none of them keeps the frames of installed packages.
    """
    summary = traceback.TracebackException.from_exception(error)
    left: list[traceback.TracebackException | None] = [summary]
    foreign = tuple(_foreign_folders())
    while left:
        part = left.pop()
        if part is not None:
            own = [frame for frame in part.stack if not _is_foreign(frame.filename, foreign)]
            ours = (_PACKAGE, importlib.__file__, "<frozen ")
            rest = own or [frame for frame in part.stack if not frame.filename.startswith(ours)]
            part.stack = traceback.StackSummary.from_list(rest)
            left += [part.__cause__, part.__context__, *(part.exceptions or ())]
    return bounded_lines("".join(summary.format()).rstrip("\n"))


def _explain(error: BaseException) -> str:
    """Describe in one line what a user's module raised, and where."""
    text = str(error) if _is_ours(error) else traceback.format_exception_only(error)[-1]
    what = " ".join(text.split())
    place = _place(error.__traceback__)
    return f"{place}: {what}" if place else what


def _is_ours(error: BaseException) -> bool:
    """Whether it says what is wrong in the set-up: a mistake, or a package that is not installed."""
    if isinstance(error, ConfigurationError):
        return True
    *_, frame = ["", *(frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__))]
    return type(error) is ImportError and frame.startswith(os.path.join(_PACKAGE, ""))


def _place(trace: TracebackType | None) -> str:
    """Return `file:line` of the innermost frame in the user's code, or of the innermost of all."""
    frames = [
        (frame.f_code.co_filename, line)
        for frame, line in traceback.walk_tb(trace)
        if not frame.f_code.co_filename.startswith("<frozen ") and frame.f_code.co_filename != __file__
    ]
    foreign = tuple(_foreign_folders())
    own = [frame for frame in frames if not _is_foreign(frame[0], foreign)]
    if not frames:
        return ""
    file, line = (own or frames)[-1]
    return f"{shorten(file)}:{line}"


def _is_foreign(file: str, folders: tuple[str, ...]) -> bool:
    return file.startswith(("<frozen ", *folders))


def _foreign_folders() -> list[str]:
    """List the folders of code that is not the user's: Python, installed packages, wsframework."""
    paths = [
        *map(sysconfig.get_path, ("stdlib", "platstdlib", "purelib", "platlib")),
        *site.getsitepackages(),
    ]
    folders = [*paths, _PACKAGE, os.path.dirname(os.__file__)]
    return [os.path.join(folder, "") for folder in folders if folder]


def _describe(module: ModuleType) -> str:
    file = getattr(module, "__file__", None)
    return shorten(file) if file else module.__name__


def _hint(module: ModuleType) -> str:
    """Return a hint that names the Apps of the module."""
    apps = [name for name, value in vars(module).items() if _is_app(value)]
    return f"; it has {', '.join(f'{module.__name__}:{name}' for name in apps)}" if apps else ""


def _is_app(value: object) -> TypeGuard[App]:
    # `isinstance` would ask a proxy for its `__class__`, which may raise.
    return issubclass(type(value), App)


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
