"""Requests of many clients at once, with so little work for each that the clients leave both cores to the server."""

import asyncio
import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Answer:
    """The status of an answer, and the seconds that it took."""

    status: int
    seconds: float


def request(method: str, path: str, key: str | None, body: object = None) -> bytes:
    """The bytes of a request with an API key, and perhaps with a body of JSON."""
    content = b"" if body is None else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(content)}"]
    lines += [f"X-API-Key: {key}"] if key else []
    lines += ["Content-Type: application/json"] if content else []
    return "\r\n".join([*lines, "", ""]).encode() + content


def send_all(url: str, requests: Iterable[bytes], clients: int) -> list[Answer]:
    """Send these requests, each by the next client that is free, over one connection a client."""
    return asyncio.run(_send_all(url, requests, clients))


async def _send_all(url: str, requests: Iterable[bytes], clients: int) -> list[Answer]:
    waiting = iter(requests)
    answers: list[Answer] = []
    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(_client(url, waiting, answers))
    return answers


async def _client(url: str, waiting: Iterator[bytes], answers: list[Answer]) -> None:
    place = urlsplit(url)
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    for one in waiting:
        began = time.perf_counter()
        writer.write(one)
        status = await _read_answer(reader)
        answers.append(Answer(status, time.perf_counter() - began))
    writer.close()
    await writer.wait_closed()


async def _read_answer(reader: asyncio.StreamReader) -> int:
    """Read an answer whose length is known, and give its status."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    _, _, rest = head.partition(b"content-length: ")
    await reader.readexactly(int(rest.partition(b"\r\n")[0]))
    return int(head.split(b" ", 2)[1])
