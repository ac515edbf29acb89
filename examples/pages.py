"""Plain HTTP on the same port: a page that opens the WebSocket, and a health check.

python examples/pages.py, then http://127.0.0.1:8000/ in a browser
"""

from wsframework import App, Connection, Request, Response

app = App()
open_now: set[Connection] = set()

PAGE = """<!doctype html><meta charset="utf-8"><title>echo</title>
<form><input autofocus> <button>send</button></form><pre></pre>
<script>
  const ws = new WebSocket(location.href.replace(/^http/, "ws") + "echo"), [form] = document.forms;
  ws.onmessage = (event) => document.querySelector("pre").append(event.data + "\\n");
  form.onsubmit = () => { ws.send(form[0].value); return false; };
</script>"""


@app.http("/")
async def page(request: Request) -> Response:
    return Response.html(PAGE)


@app.http("/health")
async def health(request: Request) -> Response:
    return Response.json({"status": "ok", "connections": len(open_now)})


@app.websocket("/echo")
async def echo(ws: Connection) -> None:
    open_now.add(ws)
    try:
        async for message in ws:
            await ws.send(message)
    finally:
        open_now.remove(ws)


if __name__ == "__main__":
    app.run(port=8000)
