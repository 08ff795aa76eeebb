"""HTTP: when the time of the last change tells that nothing has changed since."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from spine.sources.readers.base import Item, Unchanged, Validators

from tests.sources.readers.support import OPEN, config_of, fresh, known_of, limits, raw, read
from tests.support.receivers import Behaviour, Handler, Receiver, receiver

LONG_AGO = datetime(2025, 12, 15, 6, tzinfo=UTC)


@pytest.fixture(scope="module")
def server() -> Iterator[Receiver]:
    with receiver() as started:
        yield started


@pytest.fixture
def site(server: Receiver) -> Receiver:
    return fresh(server)


def content(content: bytes, modified: datetime) -> Behaviour:
    """Answer as a server that knows nothing but the time of the last change, and tells its own."""
    told = format_datetime(modified, usegmt=True)

    def behave(handler: Handler) -> None:
        same = handler.headers.get("If-Modified-Since") == told
        handler.answer(304 if same else 200, b"" if same else content, {"Last-Modified": told})

    return behave


def fetch(site: Receiver, known: dict[str, Validators] | None = None) -> list[tuple[Item, bytes] | Unchanged]:
    source = config_of("http", url=f"http://127.0.0.1:{site.port}/rows.csv")
    return read(source.open_reader({}, OPEN, limits()), known)


def test_a_change_in_the_second_of_the_fetch_is_noticed(site: Receiver) -> None:
    # All of it is to be within one second.
    time.sleep(1 - time.time() % 1)
    now = datetime.now(UTC)
    site.always = content(b"1", now)
    known = known_of(fetch(site))
    site.always = content(b"2", now)
    [changed] = fetch(site, known)
    assert not isinstance(changed, Unchanged)
    assert changed[1] == b"2"


def test_what_was_old_when_it_was_fetched_is_asked_for_by_its_time(site: Receiver) -> None:
    site.always = content(b"1", datetime.now(UTC) - timedelta(seconds=2))
    known = known_of(fetch(site))
    assert isinstance(fetch(site, known)[0], Unchanged)


@pytest.mark.parametrize(
    ("age", "date", "etag", "kept"),
    [
        (timedelta(0), LONG_AGO, None, False),
        (timedelta(seconds=1), LONG_AGO, None, True),
        (timedelta(seconds=-5), LONG_AGO, None, False),
        (timedelta(0), LONG_AGO, 'W/"1"', False),
        (timedelta(0), LONG_AGO, '"1"', True),
        (timedelta(hours=1), None, None, True),
        (timedelta(seconds=20), None, None, False),
    ],
)
def test_the_time_of_a_change_counts_once_the_servers_clock_has_ticked_on(
    site: Receiver, age: timedelta, date: datetime | None, etag: str | None, kept: bool
) -> None:
    modified = (date or datetime.now(UTC)) - age
    told = {"Date": date and format_datetime(date, usegmt=True), "ETag": etag}
    lines = [f"{name}: {value}\r\n" for name, value in told.items() if value]
    last = f"Last-Modified: {format_datetime(modified, usegmt=True)}\r\n"
    site.always = raw(f"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n{last}{''.join(lines)}\r\n1".encode())
    [known] = known_of(fetch(site)).values()
    assert (known.last_modified is not None) is kept
    assert known.etag == etag
