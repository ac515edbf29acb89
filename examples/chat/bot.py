"""A bot in the chat: it answers !roll with a roll of the dice. Open http://127.0.0.1:3000/

python examples/chat/bot.py
"""

import contextlib
import random
from collections.abc import AsyncIterator

import trio

from wsframework import App
from wsframework.chat import Chat, Message

app = App()
chat = Chat(reserved_names=["Dice"])
app.install(chat)
rolls, to_roll = trio.open_memory_channel[Message](100)


@chat.on_message
def listen(message: Message) -> None:
    """Hear every message of every room; this must not wait, so the work is for a task."""
    if message.text == "!roll":
        with contextlib.suppress(trio.WouldBlock):
            rolls.send_nowait(message)


@app.lifespan
async def roll() -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        yield
        nursery.cancel_scope.cancel()


async def answer() -> None:
    async for message in to_roll:
        await chat.say(message.room, f"{message.name} rolls {random.randint(1, 6)}", name="Dice")


if __name__ == "__main__":
    app.run(port=3000)
