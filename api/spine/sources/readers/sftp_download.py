"""The bytes of one file over SFTP, with many requests under way at once and no more than those in memory.

paramiko's own prefetch takes its work for done whenever the answers overtake the requests; from then on it asks for one
part at a time, and keeps what still comes in memory.
"""

from collections import deque
from collections.abc import Iterator
from typing import Any

import paramiko
from paramiko.sftp import CMD_DATA, CMD_READ, CMD_STATUS, int64

from spine.egress.limits import Limits
from spine.sources.readers.base import CHUNK

# What every server gives at once, and as many of them as fill a fast and distant line.
LARGEST_READ = 32 * 1024
MOST_UNDER_WAY = 128


class _Answers:
    """Takes in the answers to requests, in whatever order they come; paramiko calls it by this name."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._found: dict[int, bytes | Exception] = {}

    def _async_response(self, kind: int, message: paramiko.Message, number: int) -> None:
        if kind == CMD_DATA:
            self._found[number] = message.get_string()
        elif kind == CMD_STATUS:
            try:
                self._client._convert_status(message)
            except (EOFError, OSError) as error:
                self._found[number] = error
        else:
            raise paramiko.SFTPError("an answer that fits no request to read")

    def wait_for(self, number: int) -> bytes:
        """The bytes that a request brought; none at the end of the file."""
        while number not in self._found:
            self._client._read_response()
        answer = self._found.pop(number)
        if isinstance(answer, EOFError):
            return b""
        if isinstance(answer, Exception):
            raise answer
        return answer


def download(client: Any, file: paramiko.SFTPFile, size: int, limits: Limits) -> Iterator[bytes]:
    """The file in chunks, to its end or to one byte more than `size`, which shows that it has grown.

    Raises what paramiko raises.
    """
    answers = _Answers(client)
    under_way: deque[tuple[int, int, int]] = deque()
    asked, end = 0, size + 1
    found: list[bytes] = []
    gathered = 0
    while asked < end or under_way:
        while asked < end and len(under_way) < MOST_UNDER_WAY:
            length = min(LARGEST_READ, end - asked)
            number = client._async_request(answers, CMD_READ, file.handle, int64(asked), length)
            under_way.append((number, asked, length))
            asked += length
        limits.check_time()
        number, offset, length = under_way.popleft()
        part = answers.wait_for(number)
        if 0 < len(part) < length:
            # Servers may give less than what was asked for; only the rest tells whether the file ends here.
            file.seek(offset + len(part))
            part += file.read(length - len(part))
        found.append(part)
        gathered += len(part)
        if gathered >= CHUNK:
            yield b"".join(found)
            found, gathered = [], 0
        if len(part) < length:
            break
    if gathered:
        yield b"".join(found)
