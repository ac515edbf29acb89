"""wsframework in an asyncio program, in Trio's guest mode."""

import asyncio

import wsframework.asyncio

from benchmarks.servers import arguments, ready, tls
from benchmarks.servers.wsframework_native import build


async def main(port: int, mode: str) -> None:
    async with wsframework.asyncio.serve(build(mode), port=port, ssl=tls(mode)) as house:
        ready(house.port)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*arguments()))
