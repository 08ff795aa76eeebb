"""`python -m tests.topology.balancer <port> <host:port> ...`: passes connections on to the servers in turn.

It takes the place of the proxy on a machine without Caddy. A server that refuses a connection is left out.
"""

import asyncio
import itertools
import sys
from contextlib import suppress


async def serve(port: int, servers: list[str]) -> None:
    """Pass on connections until this process ends."""
    turns = itertools.cycle(range(len(servers)))

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = next(turns)
        for server in [*servers[first:], *servers[:first]]:
            host, _, its_port = server.rpartition(":")
            with suppress(OSError):
                other_reader, other_writer = await asyncio.open_connection(host, int(its_port))
                await asyncio.gather(_copy(reader, other_writer), _copy(other_reader, writer))
                return
        writer.close()

    async with await asyncio.start_server(pass_on, "127.0.0.1", port) as server:
        await server.serve_forever()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), sys.argv[2:]))
