"""What a plugin is, and how one is found by name.

A plugin is any object with an `install(app)` method, which calls the App's own public methods: `websocket`,
`http`, `guard`, `lifespan`, `wrap`. There is no other power a plugin could have, and no order to learn.

An installed package offers one through an entry point of the group `wsframework.plugins`:

    [project.entry-points."wsframework.plugins"]
    chat = "wsframework.chat:Chat"
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import entry_points
from typing import Any, Protocol, runtime_checkable

from wsframework.errors import PluginError

__all__ = ["GROUP", "Plugin", "check_plugin", "find_plugin", "install_plugin"]

GROUP = "wsframework.plugins"
"""The entry point group that plugins are found in."""


@runtime_checkable
class Plugin(Protocol):
    """Anything that can install itself into an App."""

    def install(self, app: Any, /) -> None:
        """Register what the plugin brings: routes, guards, a lifespan, wrappers."""


def install_plugin(
    app: object, plugin: Plugin | str, options: dict[str, Any], installed: Iterable[Plugin]
) -> Plugin:
    """Install a plugin into an App, and return it.

    Args:
        app: the App.
        plugin: the plugin, or its name in the entry point group `wsframework.plugins`.
        options: keyword arguments for a plugin that is given by name.
        installed: the plugins that the App has.

    Raises:
        PluginError: it cannot be found or loaded, is not a plugin, is already installed, or its `install`
            failed.
    """
    if isinstance(plugin, str):
        instance = find_plugin(plugin, options)
    elif options:
        raise PluginError("options are for a plugin given by name; give them to the object itself")
    else:
        instance = check_plugin(plugin)
    if any(other is instance for other in installed):
        raise PluginError(f"plugin {plugin!r} is installed already")
    try:
        instance.install(app)
    except Exception as error:
        raise PluginError(f"plugin {plugin!r} could not be installed: {error}") from error
    return instance


def find_plugin(name: str, options: dict[str, Any]) -> Plugin:
    """Load a plugin from the installed entry points.

    Args:
        name: the entry point's name in the group `wsframework.plugins`.
        options: keyword arguments for the plugin's class or factory.

    Raises:
        PluginError: there is none of that name, or several, or it cannot be loaded or made.
    """
    found = {entry.value: entry for entry in entry_points(group=GROUP) if entry.name == name}
    if not found:
        known = sorted({entry.name for entry in entry_points(group=GROUP)})
        names = f"installed are: {', '.join(known)}" if known else "none is installed"
        raise PluginError(f"there is no plugin {name!r} in the entry point group {GROUP!r}; {names}")
    if len(found) > 1:
        raise PluginError(f"several packages offer a plugin {name!r}: {', '.join(sorted(found))}")
    (entry,) = found.values()
    try:
        target = entry.load()
        made = callable(target) and not _is_instance(target)
        plugin = target(**options) if made else target
    except Exception as error:
        raise PluginError(f"the plugin {name!r} ({entry.value}) cannot be loaded: {error}") from error
    if options and not made:
        raise PluginError(f"the plugin {name!r} ({entry.value}) takes no options: it is made already")
    return check_plugin(plugin, name)


def _is_instance(target: object) -> bool:
    return not isinstance(target, type) and isinstance(target, Plugin)


def check_plugin(plugin: object, name: str | None = None) -> Plugin:
    """Return `plugin` when it is one.

    Raises:
        PluginError: it has no `install` method.
    """
    if isinstance(plugin, type) or not isinstance(plugin, Plugin):
        label = name or repr(plugin)
        hint = f"; install an instance: {plugin.__name__}()" if isinstance(plugin, type) else ""
        raise PluginError(f"{label} is not a plugin: it needs a method install(app){hint}")
    return plugin
