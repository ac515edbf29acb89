"""Who takes part, how each is started, and which version it is."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import attrs

__all__ = ["CONTENDERS", "Contender", "HERE", "OURS", "build", "find", "python", "versions"]

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
OURS = "wsframework"
CEILINGS = ("ceiling", "ceiling-python")


@attrs.frozen
class Contender:
    """One server: its name in tables, its module or file, and the distributions whose versions count.

    `lacks` names the modes that the library cannot do: they are left out for it, and the tables say so.
    """

    name: str
    server: str
    distributions: tuple[str, ...] = ()
    lacks: frozenset[str] = frozenset()
    note: str = ""
    first_warm_up: float = 0.4  # seconds before a new server's first turn

    @property
    def kind(self) -> str:
        return {".js": "node", ".c": "c"}.get(Path(self.server).suffix, "python")

    def command(self, mode: str) -> list[str]:
        """Return the command line that serves `mode` on a port of the server's choice."""
        if self.kind == "node":
            return ["node", str(HERE / "servers" / self.server), "0", mode]
        if self.kind == "c":
            return [str(build(f"servers/{self.server}")), "0", mode]
        return [python(), "-m", f"benchmarks.servers.{self.server}", "0", mode]


def _lacks(*modes: str) -> frozenset[str]:
    return frozenset(modes)


_POST = ("post", "post-fast")
_BARE = _lacks("deflate", "tls", "keepalive", *_POST)


CONTENDERS = (
    Contender("wsframework", "wsframework_native", ("wsframework", "trio")),
    Contender(
        "wsframework-hosted", "wsframework_hosted", ("wsframework", "trio-websocket"),
        _lacks("deflate", *_POST),
        note="on trio-websocket's server",
    ),
    Contender(
        "wsframework-asyncio", "wsframework_asyncio", ("wsframework", "trio"), note="in an asyncio program"
    ),
    Contender(
        "wsframework-uvloop", "wsframework_uvloop", ("wsframework", "trio", "uvloop"),
        note="in an asyncio program",
    ),
    Contender("picows", "picows_uvloop", ("picows", "uvloop"), _lacks("deflate", *_POST), note="frames, C"),
    Contender("aiohttp", "aiohttp_uvloop", ("aiohttp", "uvloop")),
    # Cold, its churn is a quarter of what it becomes in its first second.
    Contender("node-ws", "node_ws.js", (), _lacks(*_POST), note="JavaScript", first_warm_up=1.2),
    Contender("websockets", "websockets_uvloop", ("websockets", "uvloop"), _lacks(*_POST)),
    Contender("starlette", "starlette_uvicorn", ("starlette", "uvicorn", "uvloop")),
    Contender("websockets-trio", "websockets_trio", ("websockets", "trio"), _lacks(*_POST)),
    Contender(
        "trio-websocket", "trio_websocket_alone", ("trio-websocket", "wsproto"),
        _lacks("deflate", "keepalive", *_POST),
    ),
    Contender("quart-trio", "quart_trio_hypercorn", ("quart-trio", "hypercorn"), _lacks(*_POST)),
    Contender("socketify", "socketify_uws", ("socketify",), _lacks(*_POST), note="uWebSockets, C++"),
    Contender(
        "granian", "granian_rsgi", ("granian", "uvloop"), _lacks("deflate", "keepalive", *_POST), note="Rust"
    ),
    Contender("ceiling", "ceiling.c", (), _BARE, note="C, epoll, no library"),
    Contender("ceiling-python", "ceiling_python", ("websockets",), _BARE, note="Python, epoll, no library"),
)  # fmt: skip


def find(name: str) -> Contender:
    """Return the contender of that name; distribution-like spellings are understood."""
    wanted = name.strip().lower().replace("_", "-").replace("websockets.trio", "websockets-trio")
    for contender in CONTENDERS:
        if contender.name == {"node": "node-ws", "ws": "node-ws", "uvicorn": "starlette"}.get(wanted, wanted):
            return contender
    raise ValueError(f"no contender {name!r}; there are: {', '.join(c.name for c in CONTENDERS)}")


def python() -> str:
    """Return the interpreter that has the contenders: benchmarks/.venv where it exists, else this one."""
    own = HERE / ".venv" / "bin" / "python"
    return str(own) if own.exists() else sys.executable


def build(source: str, *options: str, suffix: str = "") -> Path:
    """Compile a C file of ours where the result is missing or older; return the result's path.

    Raises:
        RuntimeError: there is no C compiler, or it failed.
    """
    path = HERE / source
    result = HERE / ".build" / (path.stem + suffix)
    if not result.exists() or result.stat().st_mtime < path.stat().st_mtime:
        compiler = shutil.which(os.environ.get("CC", "cc"))
        if compiler is None:
            raise RuntimeError("no C compiler")
        result.parent.mkdir(exist_ok=True)
        # Beside it first: another process may be loading the result, or making it too.
        made = result.with_name(f"{result.name}.{os.getpid()}")
        command = [compiler, "-O3", "-Wall", *options, "-o", str(made), str(path)]
        finished = subprocess.run(command, capture_output=True, text=True)
        if finished.returncode:
            raise RuntimeError(f"{path.name} does not compile: {finished.stderr}")
        made.replace(result)
    return result


_ASK = """
import importlib.metadata, json, sys
found = {}
for name in sys.argv[1:]:
    try:
        found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        pass
print(json.dumps(found))
"""


def versions(contenders: list[Contender]) -> dict[str, str]:
    """Return name → what is installed, without the contenders that are not there."""
    names = sorted({d for c in contenders for d in c.distributions})
    output = subprocess.run([python(), "-c", _ASK, *names], capture_output=True, text=True, check=True).stdout
    installed: dict[str, str] = json.loads(output)
    source = (ROOT / "pyproject.toml").read_text()
    own = next(line.split('"')[1] for line in source.splitlines() if line.startswith("version"))
    installed["wsframework"] = f"{own}{_revision()}"
    found = {}
    for contender in contenders:
        if contender.kind == "node":
            package = HERE / "node_modules" / "ws" / "package.json"
            if shutil.which("node") and package.exists():
                node = subprocess.run(
                    ["node", "--version"], capture_output=True, text=True, check=True
                ).stdout
                found[contender.name] = (
                    f"ws {json.loads(package.read_text())['version']}, Node {node.strip()}"
                )
        elif contender.kind == "c":
            try:
                build(f"servers/{contender.server}")
            except RuntimeError:
                continue
            found[contender.name] = "C"
        elif all(d in installed for d in contender.distributions):
            found[contender.name] = ", ".join(f"{d} {installed[d]}" for d in contender.distributions)
    return found


def _revision() -> str:
    try:
        git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
        return "+" + subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
