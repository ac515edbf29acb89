from __future__ import annotations

import pytest
import trio

from tests.docs.conftest import Follow
from tests.docs.following import exercises
from tests.docs.snippets import DOCS, snippets
from wsframework import PluginError
from wsframework.testing import request, serve


@exercises("plugins.md", "uptime.py")
async def test_the_plugin_answers_over_http_and_a_websocket(
    follow: Follow, autojump_clock: trio.testing.MockClock
) -> None:
    module = follow("plugins.md").load("uptime.py")
    async with serve(module.app) as server, server.connect("/up/live") as client:
        assert [await client.receive() for _ in range(3)] == ["0", "1", "2"]
        assert (await server.request("GET", "/up")).json() == {"seconds": 2}
    with pytest.raises(PluginError, match="/up"):
        module.app.install(module.Uptime(path="/up"))


@exercises("plugins.md", "shop.py")
async def test_an_installed_plugin_is_found_by_its_name(follow: Follow) -> None:
    folder = follow("plugins.md")
    (entry_point,) = (s.text for s in snippets(DOCS / "plugins.md") if s.language == "toml")
    # What an installer writes for such a pyproject.toml.
    installed = folder.path / "uptime-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: uptime\nVersion: 1.0\n")
    head, line = entry_point.splitlines()
    assert head == '[project.entry-points."wsframework.plugins"]'
    (installed / "entry_points.txt").write_text(f"[wsframework.plugins]\n{line.replace(chr(34), '')}\n")
    module = folder.load("shop.py")
    assert (await request(module.app, "GET", "/up")).json() == {"seconds": 0}
    with pytest.raises(PluginError, match=r"installed are: .*uptime"):
        module.app.install("downtime")
