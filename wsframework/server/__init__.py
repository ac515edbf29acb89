"""The native server: listeners, the HTTP head, the hub, transports, keepalive and the drain."""

from wsframework.server.native import TransportChoice
from wsframework.server.server import Server, ServerStatistics
from wsframework.server.serving import serve, serve_streams
from wsframework.server.signals import run_server

__all__ = ["Server", "ServerStatistics", "TransportChoice", "run_server", "serve", "serve_streams"]
