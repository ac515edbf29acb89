from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint
from typing import Any

import pytest

from wsframework import plugins
from wsframework.errors import PluginError
from wsframework.plugins import GROUP, Plugin, check_plugin, find_plugin


class Greeter:
    def __init__(self, greeting: str = "hello") -> None:
        self.greeting = greeting

    def install(self, app: Any, /) -> None:
        app.append(self.greeting)


class Silent:
    """No plugin."""


READY = Greeter("ready")


def make_greeter(greeting: str = "made") -> Greeter:
    return Greeter(greeting)


def fail() -> None:
    raise LookupError("the database is down")


class CallableGreeter(Greeter):
    """An instance that could be taken for a factory."""

    def __call__(self) -> None:
        raise AssertionError("it is a plugin already")


CALLABLE = CallableGreeter("callable")


class FakeEntryPoints:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._entries: list[EntryPoint] = []
        monkeypatch.setattr(plugins, "entry_points", self._find)

    def _find(self, *, group: str) -> list[EntryPoint]:
        assert group == GROUP == "wsframework.plugins"
        return self._entries

    def __call__(self, name: str, target: str) -> None:
        self._entries.append(EntryPoint(name, target, GROUP))


@pytest.fixture
def offer(monkeypatch: pytest.MonkeyPatch) -> FakeEntryPoints:
    return FakeEntryPoints(monkeypatch)


def test_whatever_has_install_is_a_plugin() -> None:
    assert isinstance(READY, Plugin)
    assert not isinstance(Silent(), Plugin)
    assert check_plugin(READY) is READY


@pytest.mark.parametrize(
    ("thing", "message"),
    [
        (7, "7 is not a plugin: it needs a method install\\(app\\)$"),
        (Greeter, "<class '.*Greeter'> is not a plugin: .*; install an instance: Greeter\\(\\)"),
        (Silent, "install an instance: Silent\\(\\)"),
    ],
)
def test_what_is_no_plugin_is_refused_with_what_to_do(thing: object, message: str) -> None:
    with pytest.raises(PluginError, match=message):
        check_plugin(thing)


@pytest.mark.parametrize(
    ("target", "options", "greeting"),
    [
        ("Greeter", {}, "hello"),
        ("Greeter", {"greeting": "hi"}, "hi"),
        ("make_greeter", {"greeting": "hi"}, "hi"),
        ("READY", {}, "ready"),
        ("CALLABLE", {}, "callable"),
    ],
)
def test_an_installed_plugin_is_found_by_name_and_made_with_its_options(
    offer: FakeEntryPoints, target: str, options: dict[str, Any], greeting: str
) -> None:
    offer("other", f"{__name__}:missing")
    offer("greeter", f"{__name__}:{target}")
    app: list[str] = []
    find_plugin("greeter", options).install(app)
    assert app == [greeting]


def test_the_same_entry_point_listed_twice_is_one(offer: FakeEntryPoints) -> None:
    # A package on sys.path twice (installed and in place) lists its metadata twice.
    offer("greeter", f"{__name__}:Greeter")
    offer("greeter", f"{__name__}:Greeter")
    assert isinstance(find_plugin("greeter", {}), Greeter)


def test_an_unknown_name_says_which_are_installed(offer: FakeEntryPoints) -> None:
    with pytest.raises(PluginError, match=r"no plugin 'chat' in .*'wsframework\.plugins'; none is installed"):
        find_plugin("chat", {})
    offer("zebra", f"{__name__}:Greeter")
    offer("greeter", f"{__name__}:Greeter")
    with pytest.raises(PluginError, match=r"installed are: greeter, zebra$"):
        find_plugin("chat", {})


def test_a_name_that_two_packages_offer_is_refused(offer: FakeEntryPoints) -> None:
    offer("greeter", f"{__name__}:Greeter")
    offer("greeter", f"{__name__}:READY")
    with pytest.raises(PluginError, match=r"several packages offer a plugin 'greeter': .*:Greeter, .*:READY"):
        find_plugin("greeter", {})


@pytest.mark.parametrize(
    ("target", "options", "cause"),
    [
        ("no_such_module_anywhere:x", {}, ModuleNotFoundError),
        (f"{__name__}:missing", {}, AttributeError),
        (f"{__name__}:fail", {}, LookupError),
        (f"{__name__}:Greeter", {"colour": "red"}, TypeError),
    ],
)
def test_a_plugin_that_cannot_be_loaded_says_why(
    offer: FakeEntryPoints, target: str, options: dict[str, Any], cause: type[Exception]
) -> None:
    offer("broken", target)
    with pytest.raises(PluginError, match=r"the plugin 'broken' \(.*\) cannot be loaded: ") as caught:
        find_plugin("broken", options)
    assert isinstance(caught.value.__cause__, cause)
    assert str(caught.value.__cause__) in str(caught.value)


@pytest.mark.parametrize("target", ["Silent", "fake"])
def test_an_entry_point_that_leads_to_no_plugin_is_refused_by_name(
    offer: FakeEntryPoints, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    maker: Callable[[], object] = object
    monkeypatch.setitem(globals(), "fake", maker)
    offer("strange", f"{__name__}:{target}")
    with pytest.raises(PluginError, match=r"^strange is not a plugin: it needs a method install"):
        find_plugin("strange", {})


def test_options_for_a_finished_plugin_are_refused(offer: FakeEntryPoints) -> None:
    offer("ready", f"{__name__}:READY")
    with pytest.raises(PluginError, match="takes no options"):
        find_plugin("ready", {"greeting": "hi"})
