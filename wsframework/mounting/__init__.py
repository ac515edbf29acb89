"""ASGI applications in an App: a bridge of ours between one server and any number of them.

We parse and route every request. What no route of ours has goes to the application that is mounted at the
longest prefix of its path: `http` and `websockets` are the two bridges, `lifespans` starts and ends the
applications, and `worlds` says where they run.
"""

from wsframework.mounting.http import HTTPCall
from wsframework.mounting.lifespans import mounted
from wsframework.mounting.mounts import Mount, Mounts, check_app, check_mount_path
from wsframework.mounting.websockets import MountedAcceptance, WebSocketCall
from wsframework.mounting.worlds import ASGIApp

__all__ = [
    "ASGIApp",
    "HTTPCall",
    "Mount",
    "MountedAcceptance",
    "Mounts",
    "WebSocketCall",
    "check_app",
    "check_mount_path",
    "mounted",
]
