"""A site that changes on POST, with members, and a page that any host can show: the programs of
`test_foreign_pages`."""

from __future__ import annotations

from wsframework import App, Connection, Reject, Request, Response

app = App()
changes: list[str] = []

PAGE = """<!doctype html><title>page</title>
<form method="post"><button>Send</button></form>
<p id="cookie"></p><script>document.getElementById("cookie").textContent = document.cookie</script>"""


@app.http("/page")
async def page(request: Request) -> Response:
    """Show a form, which the test gives a target, and what scripts can see of the cookies."""
    headers = {"Referrer-Policy": request.query.get("policy", "")}
    if "sandbox" in request.query:
        headers["Content-Security-Policy"] = "sandbox allow-forms allow-scripts"
    return Response.html(PAGE, headers=headers)


@app.http("/login")
async def login(request: Request) -> Response:
    """Set a cookie that scripts cannot see, and one that they can."""
    answer = Response.html(PAGE).set_cookie("session", "s3cret", secure=False, max_age=3600)
    return answer.set_cookie("theme", "dark", secure=False, http_only=False)


@app.http("/logout")
async def logout(request: Request) -> Response:
    """Delete them."""
    return Response.html(PAGE).delete_cookie("session", secure=False).delete_cookie("theme", secure=False)


@app.http("/embedded/{what}")
async def embedded(request: Request, what: str) -> Response:
    """Set and delete a cookie on pages of other sites."""
    answer = Response("done")
    match what:
        case "login":
            return answer.set_cookie("embedded", "yes", same_site="none", partitioned=True)
        case "logout":
            return answer.delete_cookie("embedded", same_site="none", partitioned=True)
        case _:
            return answer.delete_cookie("embedded", partitioned=True)


@app.http("/cookies")
async def cookies(request: Request) -> Response:
    """Tell what arrives."""
    return Response.json(dict(request.cookies))


@app.http("/change", methods=["POST", "DELETE", "OPTIONS"])
async def change(request: Request) -> Response:
    """Change something, and let any page ask for it, as a careless program would."""
    changes.append(request.method)
    allow = {"Origin": request.origin or "*", "Credentials": "true", "Methods": "DELETE"}
    return Response("changed", headers={f"Access-Control-Allow-{name}": text for name, text in allow.items()})


async def member(request: Request) -> str:
    """Refuse every client, with a close code if the query has one."""
    code = request.query.get("close")
    raise Reject(401, "please sign in", close=None if code is None else int(code))


@app.websocket("/members", given={"user": member})
@app.websocket("/members", subprotocols=["chat"], given={"user": member})
async def club(ws: Connection, user: str) -> None:
    """Never run."""


@app.http("/changes")
async def told(request: Request) -> Response:
    """Tell what was changed."""
    return Response.json(changes)
