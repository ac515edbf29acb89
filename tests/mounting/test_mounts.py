from __future__ import annotations

import pytest

from tests.asking import plain, upgrade
from tests.mounting.stage import Plain
from wsframework import App, ConfigurationError, RouteError
from wsframework.mounting import Mount, Mounts
from wsframework.session import CrashResponse
from wsframework.testing import request, serve


def test_the_longest_prefix_of_whole_segments_counts() -> None:
    mounts = Mounts()
    for path in "/", "/api", "/api/v2", "/a%20b":
        mounts.add(Mount(path, Plain()))

    def found(path: str) -> str:
        mount = mounts.find(path)
        return "" if mount is None else mount.path

    for path, place in [
        ("/", "/"),
        ("/ap", "/"),
        ("/api", "/api"),
        ("/api/", "/api"),
        ("/apis", "/"),
        ("/api/v2/x", "/api/v2"),
        ("/api%2Fv2", "/"),
        ("/a%20b/c", "/a%20b"),
        ("*", ""),
    ]:
        assert found(path) == place, path


@pytest.mark.parametrize("path", ["", "api", "/{name}", "/api//x", "/api?x", "//", None])
def test_a_path_that_is_no_prefix_is_refused(path: str) -> None:
    with pytest.raises(RouteError):
        App().mount(path, Plain())


def test_what_is_no_application_is_refused() -> None:
    app = App()
    with pytest.raises(RouteError, match=r"write Plain\(\)"):
        app.mount("/", Plain)  # type: ignore[arg-type]
    with pytest.raises(RouteError, match="no ASGI application"):
        app.mount("/", "module:app")  # type: ignore[arg-type]
    with pytest.raises(RouteError, match="body_bytes"):
        app.mount("/", Plain(), body_bytes=0)
    app.mount("/x/", Plain())
    with pytest.raises(RouteError, match="already"):
        app.mount("/x", Plain())
    assert app.mounts == ("/x",)


async def test_a_host_that_has_not_started_the_application_is_told_what_to_do() -> None:
    app = App()
    app.mount("/", Plain())
    for asked in plain("/"), upgrade("/"):
        answer = await app.decide(asked)
        assert isinstance(answer, CrashResponse)
        assert "async with app.running()" in str(answer.exception)


async def test_a_path_of_ours_is_ours_with_every_method() -> None:
    app = App()
    app.mount("/", Plain())

    @app.http("/ours")
    async def ours(request: object) -> str:
        return "ours"

    @app.websocket("/ws", subprotocols=["chat"])
    async def ws(ws: object) -> None:
        pass

    async with serve(app):
        assert (await request(app, "GET", "/ours")).text == "ours"
        assert (await request(app, "POST", "/ours")).status == 405
        assert (await request(app, "GET", "/ws")).text == "mounted"  # its other kind is not taken
        decision = await app.decide(upgrade("/ws"))
        assert getattr(decision, "status", None) == 400


def test_files_need_a_folder(tmp_path: object) -> None:
    with pytest.raises(ConfigurationError, match="does not exist"):
        App().files("/static", f"{tmp_path}/missing")
