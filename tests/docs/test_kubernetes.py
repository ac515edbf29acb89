"""docs/howto/kubernetes.md: the numbers, and the command of the container."""

from __future__ import annotations

import re
import socket
from pathlib import Path

from tests.cli.process import running
from tests.docs.following import exercises
from tests.docs.snippets import DOCS, files
from wsframework import Timeouts

PAGE = DOCS / "howto/kubernetes.md"
TEXT = files(PAGE)["chat.yaml"]


@exercises("howto/kubernetes.md", "chat.yaml")
def test_the_container_answers_its_probes_until_it_drains(tmp_path: Path) -> None:
    (tmp_path / "chat.py").write_text(
        "import trio\nfrom wsframework import App\napp = App()\n"
        "@app.http('/health', guarded=False)\nasync def health(request):\n    return 'fine'\n"
        "@app.lifespan\nasync def live():\n    yield\n    print('left')\n    await trio.sleep(60)\n"
    )
    command = re.findall(r"(?m)^ {12}- (\S+)$", TEXT)
    assert command[:3] == ["wsframework", "run", "chat:app"]
    arguments = [re.sub("^--port=.*", "--port=0", each) for each in command[1:]]
    with running("-m", "wsframework", *arguments, cwd=tmp_path) as program:
        port = int(program.url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as probe:
            probe.sendall(b"GET /health HTTP/1.1\r\nHost: 10.1.2.3:8000\r\nConnection: close\r\n\r\n")
            assert probe.recv(1000).startswith(b"HTTP/1.1 200 ")
        program.process.terminate()
        program.wait_for("left")
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_the_grace_period_is_long_enough() -> None:
    grace = int(re.findall(r"terminationGracePeriodSeconds: (\d+)", TEXT)[0])
    before = int(re.findall(r'command: \[sleep, "(\d+)"\]', TEXT)[0])
    steps = [int(seconds) for seconds in re.findall(r"(?m)^\|.*\| (\d+) \|$", PAGE.read_text())]
    assert steps[:3] == [before, Timeouts().drain, Timeouts().lifespan]
    assert sum(steps[:-1]) == steps[-1] <= grace
