from __future__ import annotations

import trio
import trio.testing

from tests.docs.conftest import Follow
from tests.docs.following import exercises
from wsframework.testing import request, serve

PAGE = "howto/threads.md"


@exercises(PAGE, "sensor.py")
async def test_a_sensors_thread_broadcasts_until_the_server_ends(follow: Follow) -> None:
    module = follow(PAGE).load("sensor.py")
    async with (
        trio.open_nursery() as nursery,
        serve(module.app) as server,
        server.connect("/temperature") as client,
    ):
        nursery.start_soon(trio.to_thread.run_sync, module.measure, server.server)
        assert await client.receive() == "21.5 °C"


@exercises(PAGE, "report.py")
async def test_plain_handlers_read_databases_and_bodies(follow: Follow) -> None:
    app = follow(PAGE).load("report.py").app
    assert (await request(app, "GET", "/people")).json() == ["Ada", "Grace"]
    assert (await request(app, "POST", "/notes", body=b"tea")).text == "noted: tea"
