"""`app.files`: the files of a folder, and nothing outside of it."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from trio_websocket import ConnectionRejected

from tests.mounting.stage import connected, new_app
from tests.server.plain import Contexts, get
from wsframework import App, ConfigurationError
from wsframework.testing import connect, request, serve

SECRET = b"the secret"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with files, beside files that are not for everybody."""
    folder = tmp_path / "public"
    (folder / "sub").mkdir(parents=True)
    (folder / "page.html").write_text("<p>page")
    (folder / "sub" / "index.html").write_text("<p>index")
    (folder / "large.bin").write_bytes(bytes(range(256)) * 4096)
    (folder / "link").symlink_to(tmp_path / "secret")
    (tmp_path / "secret").write_bytes(SECRET)
    (tmp_path / "public-too").mkdir()
    (tmp_path / "public-too" / "secret").write_bytes(SECRET)
    return folder


def app_with(folder: Path, **options: bool) -> App:
    app = new_app()
    app.files("/static", folder, **options)
    return app


async def test_files_have_types_ranges_and_validators(folder: Path) -> None:
    app = app_with(folder)
    async with serve(app):
        page = await request(app, "GET", "/static/page.html")
        assert (page.status, page.text) == (200, "<p>page")
        assert page.headers["content-type"].startswith("text/html")
        assert page.headers["x-content-type-options"] == "nosniff"
        again = await request(app, "GET", "/static/page.html", {"If-None-Match": page.headers["etag"]})
        assert (again.status, again.body) == (304, b"")
        part = await request(app, "GET", "/static/large.bin", {"Range": "bytes=256-259"})
        assert (part.status, part.body) == (206, b"\0\1\2\3")
        head = await request(app, "HEAD", "/static/large.bin")
        assert (head.status, head.headers["content-length"], head.body) == (200, "1048576", b"")
        assert (await request(app, "POST", "/static/page.html")).status == 405
        assert (await request(app, "GET", "/static/sub/")).status == 404
        assert (await request(app, "GET", "/ours")).text == "ours"


async def test_there_is_no_websocket_among_files(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ConnectionRejected) as caught:
        async with connect(app_with(folder), "/static/page.html"):
            pass
    assert caught.value.status_code == 403
    assert "crashed" not in caplog.text


async def test_html_has_index_pages(folder: Path) -> None:
    app = app_with(folder, html=True)
    assert (await request(app, "GET", "/static/sub/")).text == "<p>index"


async def test_a_large_file_comes_whole_over_each_transport(
    kind: str, contexts: Contexts, folder: Path
) -> None:
    async with connected(app_with(folder), kind, contexts) as client:
        await client.send(get("/static/large.bin") + get("/ours"))
        assert await client.answer() == (200, bytes(range(256)) * 4096)
        assert await client.answer() == (200, b"ours")


SPELLINGS = [
    "/static/../secret",
    "/static/%2e%2e/secret",
    "/static/%2E%2E/secret",
    "/static/.%2e/secret",
    "/static/..%2fsecret",
    "/static/..%2Fsecret",
    "/static/%2e%2e%2fsecret",
    "/static/%252e%252e%252fsecret",
    "/static/..%5csecret",
    "/static/..\\secret",
    "/static/....//secret",
    "/static/..;/secret",
    "/static/sub/../../secret",
    "/static/sub/..%2f..%2fsecret",
    "/static//../secret",
    "/static/./../secret",
    "/static/%00../secret",
    "/static/../secret%00.html",
    "/static/page.html%00",
    "/static/..%c0%afsecret",
    "/static/%c0%ae%c0%ae/secret",
    "/static/..%u2215secret",
    "/static/../public-too/secret",
    "/static/..%2Fpublic-too%2Fsecret",
    "/static-too/secret",
    "/static%2f..%2f..%2fsecret",
    "/static/link",
    "/static/~/secret",
    "/static/{absolute}",
    "/static/{encoded}",
    "http://localhost/static/../secret",
    "/static/" + "../" * 40 + "etc/passwd",
    "/static/" + "%2e%2e%2f" * 40 + "etc/passwd",
    "/static/" + "a" * 5000,
]


@pytest.mark.parametrize("kind", ["hub"])
async def test_no_spelling_of_a_path_leads_outside(
    kind: str, contexts: Contexts, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    absolute = str(folder.parent / "secret")
    async with connected(app_with(folder), kind, contexts) as client:
        for spelling in SPELLINGS:
            path = spelling.replace("{absolute}", absolute).replace("{encoded}", absolute.replace("/", "%2F"))
            await client.send(get(path))
            status, content = await client.answer()
            assert status in (400, 404), (path, status)
            assert SECRET not in content
            assert b"root:" not in content
    assert not [found for found in caplog.records if found.levelname == "ERROR"]


def test_without_the_extra_one_line_says_what_to_install(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wsframework.mounting.starlette", None)
    what = re.escape("app.files needs Starlette: pip install 'wsframework[http]'")
    with pytest.raises(ConfigurationError, match=f"^{what}$"):
        App().files("/static", folder)
