"""The native server: listeners, the HTTP head, transports, keepalive and the drain."""

from wsframework.server.native import Server, ServerStatistics, run_server, serve, serve_streams

__all__ = ["Server", "ServerStatistics", "run_server", "serve", "serve_streams"]
