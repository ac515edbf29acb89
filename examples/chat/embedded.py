"""The chat as a part of one's own program: on paths of one's choice, and only for those who may.

python examples/chat/embedded.py
"""

from wsframework import App, Request, Response
from wsframework.chat import Chat, Rate, Retention

app = App()
app.install(
    Chat(
        path="/team/ws",
        page="/team",
        room="general",
        history="team.db",
        retention=Retention(days=90, messages_per_room=50_000),
        rate=Rate(per_second=5, burst=30),
    )
)


@app.guard
async def members_only(request: Request) -> Response | None:
    """Let in who has the cookie that /enter gives, to the page and to the chat."""
    if "member=yes" in request.headers.get("cookie", ""):
        return None
    return Response.error(403, "members only; begin at /enter")


@app.http("/enter", guarded=False)
async def enter(request: Request) -> Response:
    return Response(
        status=303, headers={"Location": "/team", "Set-Cookie": "member=yes; HttpOnly; SameSite=Strict"}
    )


if __name__ == "__main__":
    app.run(port=3000)
