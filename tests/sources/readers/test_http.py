"""HTTP: whole contents only, and only new ones."""

import gzip
import logging
import time
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from spine.egress.fetch_failure import FetchFailure
from spine.schemas import ErrorCategory
from spine.sources.readers.base import Item, Unchanged, Validators
from spine.sources.types.base import SourceConfig

from tests.sources.readers.support import (
    CONTENT,
    OPEN,
    config_of,
    failure,
    fresh,
    known_of,
    limits,
    raw,
    read,
    read_one,
)
from tests.support.receivers import Behaviour, Handler, Receiver, drop, receiver, refuse
from tests.support.receivers import drip as drip_headers

Reading = tuple[Item, bytes] | Unchanged


@pytest.fixture(scope="module")
def server() -> Iterator[Receiver]:
    with receiver() as started:
        yield started


@pytest.fixture
def site(server: Receiver) -> Receiver:
    fresh(server).always = with_validators(CONTENT, '"one"')
    return server


def url(site: Receiver, path: str = "/weekly.csv") -> str:
    return f"http://127.0.0.1:{site.port}{path}"


def source(site: Receiver, **fields: object) -> SourceConfig:
    return config_of("http", **{"url": url(site), **fields})


def fetch(
    config: SourceConfig, known: dict[str, Validators] | None = None, secrets: dict[str, str] | None = None
) -> list[Reading]:
    return read(config.open_reader(secrets or {}, OPEN, limits()), known)


def with_validators(content: bytes, etag: str | None = None, modified: str | None = None) -> Behaviour:
    """Answer as a server that knows conditions."""
    told = {name: value for name, value in (("ETag", etag), ("Last-Modified", modified)) if value}

    def behave(handler: Handler) -> None:
        wanted = handler.headers
        same = wanted.get("If-None-Match") == etag if etag else wanted.get("If-Modified-Since") == modified
        if same and (etag or modified):
            handler.answer(304, b"", told)
        else:
            handler.answer(200, content, {"Content-Type": "text/csv; charset=latin-1", **told})

    return behave


def test_a_response_is_read_with_its_validators(site: Receiver) -> None:
    site.always = with_validators(CONTENT, 'W/"one"', "Mon, 15 Dec 2025 06:00:00 GMT")
    item, content = read_one(source(site).open_reader({}, OPEN, limits()))
    assert content == CONTENT
    assert item.validators == Validators('W/"one"', datetime(2025, 12, 15, 6, tzinfo=UTC), len(CONTENT))
    assert (item.key, item.name, item.content_type, item.encoding) == (url(site), "weekly.csv", "text/csv", "latin-1")


def test_chunks_are_of_a_few_mebibytes(site: Receiver) -> None:
    reader = source(site).open_reader({}, OPEN, limits())
    [sizes] = [[len(part) for part in item.chunks] for item in reader.items({}, False) if isinstance(item, Item)]
    reader.close()
    assert sum(sizes) == len(CONTENT)
    assert all(1024 * 1024 <= size <= 4 * 1024 * 1024 for size in sizes[:-1])
    assert len(sizes) > 1


@pytest.mark.parametrize(
    ("etag", "modified"),
    [('"one"', None), ('W/"one"', None), (None, "Mon, 15 Dec 2025 06:00:00 GMT")],
)
def test_unchanged_content_is_sent_only_with_force(site: Receiver, etag: str, modified: str) -> None:
    site.always = with_validators(b"a,b", etag, modified)
    known = known_of(fetch(source(site)))
    [unchanged] = fetch(source(site), known)
    assert isinstance(unchanged, Unchanged)
    assert {unchanged.key: unchanged.validators} == known
    [again] = read(source(site).open_reader({}, OPEN, limits()), known, force=True)
    assert not isinstance(again, Unchanged)
    assert "If-None-Match" not in site.requests[-1].headers
    site.always = with_validators(b"a,c", '"two"')
    assert read_one(source(site).open_reader({}, OPEN, limits()), known)[1] == b"a,c"


def test_a_server_that_ignores_conditions_but_has_the_same_strong_etag_is_believed(site: Receiver) -> None:
    site.always = refuse(200, b"a,b", ETag='"one"')
    known = known_of(fetch(source(site)))
    assert isinstance(fetch(source(site), known)[0], Unchanged)
    site.always = refuse(200, b"a,b", ETag='W/"one"')
    known = known_of(fetch(source(site)))
    assert not isinstance(fetch(source(site), known)[0], Unchanged)


def test_a_304_without_a_conditional_request_is_a_failure(site: Receiver) -> None:
    site.always = refuse(304)
    assert failure(source(site).open_reader({}, OPEN, limits())).category is ErrorCategory.SOURCE


def test_a_post_is_never_conditional(site: Receiver) -> None:
    known = known_of(fetch(source(site, method="post")))
    assert not isinstance(fetch(source(site, method="POST"), known)[0], Unchanged)
    assert [(request.method, request.headers.get("If-None-Match")) for request in site.requests] == [("POST", None)] * 2


@pytest.mark.parametrize(
    ("status", "category", "transient"),
    [
        (401, "AUTH", False),
        (403, "AUTH", False),
        (404, "SOURCE", False),
        (410, "SOURCE", False),
        (400, "SOURCE", False),
        (204, "SOURCE", False),
        (206, "SOURCE", False),
        (408, "NETWORK", True),
        (429, "NETWORK", True),
        (500, "NETWORK", True),
        (503, "NETWORK", True),
    ],
)
def test_other_answers_are_failures(site: Receiver, status: int, category: str, transient: bool) -> None:
    site.always = refuse(status)
    failed = failure(source(site).open_reader({}, OPEN, limits()))
    assert (failed.category, failed.transient) == (category, transient)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(CONTENT)[:5_000],
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 0\r\n\r\n",
    ],
    ids=["length", "chunked", "gzip", "no gzip at all"],
)
def test_an_incomplete_response_is_a_failure(site: Receiver, answer: bytes) -> None:
    site.always = raw(answer)
    failed = failure(source(site).open_reader({}, OPEN, limits()))
    assert (failed.category, failed.transient) == (ErrorCategory.NETWORK, True)
    assert "before all of" in failed.sentence


@pytest.mark.parametrize(
    "answer", [b"", b"what?\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4"]
)
def test_invalid_http_is_a_network_failure(site: Receiver, answer: bytes) -> None:
    site.always = raw(answer) if answer else drop
    failed = failure(source(site).open_reader({}, OPEN, limits()))
    assert (failed.category, failed.transient) == (ErrorCategory.NETWORK, True)


def test_compressed_content_is_decoded_whatever_its_name(site: Receiver) -> None:
    members = gzip.compress(CONTENT[:1000]) + gzip.compress(CONTENT[1000:]) + b"\0" * 20
    site.always = refuse(200, members, Content_Encoding="gzip")
    item, content = read_one(source(site, url=url(site, "/weekly.csv.gz")).open_reader({}, OPEN, limits()))
    assert content == CONTENT
    assert (item.name, item.validators.size) == ("weekly.csv", None)
    assert site.requests[-1].headers["Accept-Encoding"] == "gzip"


@pytest.mark.parametrize(("coding", "body"), [("br", b"x"), ("gzip, gzip", b"x"), ("gzip", b"no gzip")])
def test_a_coding_that_cannot_be_read_is_a_failure(site: Receiver, coding: str, body: bytes) -> None:
    site.always = refuse(200, body, Content_Encoding=coding)
    assert failure(source(site).open_reader({}, OPEN, limits())).category is ErrorCategory.SOURCE


def test_a_gzip_bomb_meets_max_bytes(site: Receiver) -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join(packer.compress(bytes(2**20)) for _ in range(64)) + packer.flush()
    site.always = refuse(200, bomb, Content_Encoding="gzip")
    reader = source(site).open_reader({}, OPEN, limits(max_bytes=3_000_000))
    sizes: list[int] = []

    def take() -> None:
        for item in reader.items({}, False):
            assert isinstance(item, Item)
            sizes.extend(map(len, item.chunks))

    with pytest.raises(FetchFailure, match="3,000,000 bytes that max_bytes allows"):
        take()
    reader.close()
    assert sum(sizes) <= 3_000_000
    assert max(sizes) <= 4 * 1024 * 1024


def test_max_bytes_is_checked_against_the_content_length_and_while_the_body_is_read(site: Receiver) -> None:
    failed = failure(source(site).open_reader({}, OPEN, limits(max_bytes=1000)))
    assert (failed.category, failed.transient) == (ErrorCategory.SOURCE, False)
    site.always = raw(b"HTTP/1.1 200 OK\r\n\r\n" + CONTENT)
    assert "1,000 bytes" in failure(source(site).open_reader({}, OPEN, limits(max_bytes=1000))).sentence


def drip(length: bytes) -> Behaviour:
    """Promise a body and send a byte of it now and then."""

    def behave(handler: Handler) -> None:
        handler.close_connection = True
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n" + length + b"\r\n")
        while not handler.receiver.stopped.wait(0.1):
            handler.wfile.write(b"x")

    return behave


def hang(handler: Handler) -> None:
    handler.receiver.stopped.wait(10)
    handler.close_connection = True


@pytest.mark.parametrize(
    "behaviour",
    [drip(b"Content-Length: 100000\r\n"), drip(b""), hang, drip_headers],
    ids=["drip", "endless", "hang", "headers"],
)
def test_the_deadline_ends_a_server_that_drips_or_hangs(site: Receiver, behaviour: Behaviour) -> None:
    site.always = behaviour
    began = time.monotonic()
    failed = failure(source(site).open_reader({}, OPEN, limits(seconds=0.7)))
    assert time.monotonic() - began < 2
    assert (failed.category, failed.transient) == (ErrorCategory.NETWORK, True)
    assert "0.7 s that timeout_seconds allows" in failed.sentence


def test_a_server_that_is_not_running_is_a_network_failure(site: Receiver) -> None:
    failed = failure(config_of("http", url="http://127.0.0.1:1/a").open_reader({}, OPEN, limits()))
    assert (failed.category, failed.transient) == (ErrorCategory.NETWORK, True)


SECRETS = ("s3cr3t-query", "s3cr3t-header", "s3cr3t-password", "czNjcjN0")


def test_query_headers_and_login_are_sent_and_never_shown(site: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    secret = {"url": f"{url(site)}?key=s3cr3t-query#part", "headers": {"X-Key": "s3cr3t-header"}}
    auth = {"type": "basic", "username": "me", "password_ref": "env:PW"}
    config = source(site, **secret, auth=auth)
    assert config.secret_refs() == {"auth.password_ref": "env:PW"}
    items = fetch(config, secrets={"auth.password_ref": "s3cr3t-password"})
    site.always = refuse(500)
    failed = failure(config.open_reader({"auth.password_ref": "s3cr3t-password"}, OPEN, limits()))
    request = site.requests[0]
    assert request.path == "/weekly.csv?key=s3cr3t-query"
    assert request.headers["X-Key"] == "s3cr3t-header"
    assert request.headers["Authorization"] == "Basic bWU6czNjcjN0LXBhc3N3b3Jk"
    told = f"{failed.sentence} {list(known_of(items))} {config!r} {caplog.text}"
    assert not [text for text in SECRETS if text in told]


def test_a_token_is_sent_and_one_that_no_header_can_have_is_refused(site: Receiver) -> None:
    config = source(site, auth={"type": "Bearer", "token_ref": "env:T"})
    fetch(config, secrets={"auth.token_ref": "abc"})
    assert site.requests[0].headers["Authorization"] == "Bearer abc"
    with pytest.raises(FetchFailure, match="characters that a header cannot have"):
        config.open_reader({"auth.token_ref": "a\r\nX: y"}, OPEN, limits())


def test_each_query_has_a_key_of_its_own_that_does_not_show_it(site: Receiver) -> None:
    known = known_of(fetch(source(site, url=url(site, "/a?week=1"))))
    [other] = fetch(source(site, url=url(site, "/a?week=2")), known)
    assert not isinstance(other, Unchanged)
    assert other[0].key.startswith(url(site, "/a?"))
    assert other[0].key not in known
    assert isinstance(fetch(source(site, url=url(site, "/a?week=1")), known)[0], Unchanged)


def test_the_name_is_what_the_server_or_the_url_says(site: Receiver) -> None:
    site.always = refuse(200, b"x", Content_Disposition='attachment; filename="../up/x.psv"')
    assert read_one(source(site).open_reader({}, OPEN, limits()))[0].name == "x.psv"
    site.behaviours = [refuse(302, b"", Location="/2025/december.psv"), refuse(200, b"x")]
    assert read_one(source(site, url=url(site, "/latest")).open_reader({}, OPEN, limits()))[0].name == "december.psv"
