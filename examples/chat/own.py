"""A chat of one's own on nothing but rooms: /rooms/tea?name=Ada, each line is told to the others.

python examples/chat/own.py
"""

from wsframework import App, Close, Connection, Rooms, SlowPolicy

app = App()
rooms = Rooms(slow=SlowPolicy(action="drop_oldest", max_bytes=64 * 1024))


@app.websocket("/rooms/{name}")
async def talk(ws: Connection, name: str) -> None:
    """Be in a room for as long as the connection lasts."""
    room, nick = rooms[name], ws.request.query.get("name", "")
    if not nick or nick in room.present():
        raise Close(4000, "choose another name")
    async with room.join(ws, data=nick) as member:
        await ws.send(f"here are: {', '.join(room.present())}")
        room.broadcast(f"{nick} comes in", exclude=member)
        async for line in ws:
            reached = room.broadcast(f"{nick}: {line!s}", exclude=member)
            await ws.send(f"told {reached}")
    # Here the connection is over and the room is left, however that came about.
    room.broadcast(f"{nick} has gone")


if __name__ == "__main__":
    app.run(port=3000)
