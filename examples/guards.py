"""Guards and given functions decide before the upgrade: a client that is refused gets a real HTTP answer.

python examples/guards.py
"""

from hmac import compare_digest

from wsframework import App, Close, Connection, Reject, Request, Response

app = App(origins=["https://chat.example"])  # pages from elsewhere get a 403 before any guard is asked
TOKENS = {"open sesame": "ali baba"}


@app.guard
async def not_while_painting(request: Request) -> Response | None:
    """Refuse everyone with a 503 when the query says so; None lets the request through."""
    if "painting" in request.query:
        return Response("the paint is wet\n", 503, {"Retry-After": "60"})
    return None


async def user(request: Request) -> str:
    """Find who knows the words, for the handler, or refuse with a 401."""
    token = request.headers.get("authorization", "").removeprefix("Bearer ")
    for words, name in TOKENS.items():
        if compare_digest(words.encode(), token.encode()):
            return name
    raise Reject(401, "say the words\n", {"WWW-Authenticate": "Bearer"})


@app.websocket("/cave", given={"name": user})
async def cave(ws: Connection, name: str) -> None:
    """Greet, and show out with a close code of our own who says too little."""
    await ws.send(f"welcome, {name}")
    if len(await ws.receive()) < 3:
        raise Close(4000, "speak up")


if __name__ == "__main__":
    app.run(port=8000)
