"""A structured-concurrency WebSocket server framework on Trio."""

from wsframework.access_log import AccessLog
from wsframework.app import App
from wsframework.certificates import Certificate
from wsframework.closes import SENT_CODES, Closed, CloseFrame, SentCode
from wsframework.config import Deflate, Keepalive, Limits, Timeouts
from wsframework.connection import Connection
from wsframework.cookies import set_cookie_field
from wsframework.errors import (
    Accept,
    Close,
    ConfigurationError,
    ConnectionClosed,
    HandshakeError,
    ImportStringError,
    ListenError,
    MountError,
    PluginError,
    PostRefused,
    Reject,
    RoomUnavailable,
    RouteError,
    SessionUnavailable,
    TooManyRooms,
    Unavailable,
    WrongThread,
    WSFrameworkError,
)
from wsframework.headers import Headers
from wsframework.observer import ObservedFrame, Observer
from wsframework.parameters import Parameters
from wsframework.plugins import Plugin
from wsframework.records import JsonFormatter
from wsframework.request import Address, Request, Response
from wsframework.rooms import (
    Engine,
    GapPolicy,
    History,
    LocalEngine,
    Member,
    Position,
    PresenceChange,
    Replay,
    Room,
    RoomMessage,
    Rooms,
    RoomStatistics,
    SlowPolicy,
    Stamp,
    Subscriber,
)
from wsframework.server import Server, ServerStatistics
from wsframework.sessions import (
    LocalSessionStore,
    Session,
    SessionClaim,
    Sessions,
    SessionStatistics,
    SessionStore,
)
from wsframework.statistics import ConnectionStatistics
from wsframework.wire import DeflateParameters

__all__ = [
    "App",
    "Connection",
    "Request",
    "Response",
    "Headers",
    "Parameters",
    "Address",
    "Certificate",
    "set_cookie_field",
    "Limits",
    "Timeouts",
    "Keepalive",
    "Deflate",
    "DeflateParameters",
    "Close",
    "Reject",
    "Accept",
    "Closed",
    "CloseFrame",
    "SentCode",
    "SENT_CODES",
    "ConnectionClosed",
    "WrongThread",
    "PostRefused",
    "ConnectionStatistics",
    "Server",
    "ServerStatistics",
    "Room",
    "Rooms",
    "Member",
    "SlowPolicy",
    "RoomStatistics",
    "Unavailable",
    "RoomUnavailable",
    "TooManyRooms",
    "SessionUnavailable",
    "History",
    "Position",
    "PresenceChange",
    "GapPolicy",
    "Stamp",
    "Engine",
    "LocalEngine",
    "RoomMessage",
    "Replay",
    "Subscriber",
    "Session",
    "Sessions",
    "SessionStatistics",
    "SessionStore",
    "LocalSessionStore",
    "SessionClaim",
    "Plugin",
    "Observer",
    "AccessLog",
    "ObservedFrame",
    "JsonFormatter",
    "WSFrameworkError",
    "ConfigurationError",
    "RouteError",
    "ListenError",
    "PluginError",
    "MountError",
    "ImportStringError",
    "HandshakeError",
]
