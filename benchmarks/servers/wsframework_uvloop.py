"""wsframework in an asyncio program on uvloop, in Trio's guest mode."""

import uvloop

from benchmarks.servers import arguments
from benchmarks.servers.wsframework_asyncio import main

if __name__ == "__main__":
    uvloop.run(main(*arguments()))
