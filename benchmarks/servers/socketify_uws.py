"""socketify: the uWebSockets core, called from Python."""

from socketify import App, AppListenOptions, AppOptions, CompressOptions, OpCode, WebSocket

from benchmarks.servers import KEEPALIVE_SECONDS, MESSAGE_LIMIT, arguments, certificate, ready


def main(port: int, mode: str) -> None:
    app = App(
        AppOptions(key_file_name=certificate(), cert_file_name=certificate()) if mode == "tls" else None
    )

    def echo(ws: WebSocket, message: str | bytes, opcode: OpCode) -> None:
        ws.send(message, opcode, mode == "deflate")

    def fanout(ws: WebSocket, message: str | bytes, opcode: OpCode) -> None:
        ws.publish("room", message, opcode)

    def join(ws: WebSocket) -> None:
        ws.subscribe("room")

    behaviour = {
        "compression": CompressOptions.DEDICATED_COMPRESSOR
        if mode == "deflate"
        else CompressOptions.DISABLED,
        "max_payload_length": MESSAGE_LIMIT,
        "max_backpressure": 64 * MESSAGE_LIMIT,  # it drops messages above this
        "message": echo,
    }
    if mode == "fanout":
        behaviour |= {"open": join, "message": fanout}
    if mode == "keepalive":
        # uWebSockets pings a quiet peer shortly before the idle timeout ends.
        behaviour |= {"idle_timeout": int(KEEPALIVE_SECONDS), "send_pings_automatically": True}
    app.ws("/", behaviour)
    app.listen(AppListenOptions(port=port, host="127.0.0.1"), lambda config: ready(config.port))
    app.run()


if __name__ == "__main__":
    main(*arguments())
