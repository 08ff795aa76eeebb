"""S3: through the guard, as nobody without keys, and whole objects only."""

import gzip
import logging
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3  # type: ignore[import-untyped]
import pytest
import s3fs  # type: ignore[import-untyped]  # noqa: F401 (its import takes seconds, which are not the reader's)
from spine.schemas import ErrorCategory
from spine.sources.readers.base import Item, Reader, Unchanged, Validators

from tests.sources.readers.support import (
    CLOSED,
    CONTENT,
    OPEN,
    config_of,
    failure,
    fresh,
    known_of,
    limits,
    read,
    read_one,
)
from tests.support.receivers import Behaviour, Handler, Receiver, receiver, refuse

KEYS = {"access_key_ref": "AKIDTEST", "secret_key_ref": "s3cr3t-key"}


@pytest.fixture(scope="module")
def endpoint(s3_url: str) -> str:
    return s3_url


@pytest.fixture(scope="module")
def store(endpoint: str) -> Any:
    client = boto3.client(
        "s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="y"
    )
    for key in ("in/b.csv", "in/a.csv", "in/deep/c.csv", "in/.part.csv", "in/d.txt", "in/", "out.csv"):
        client.put_object(Bucket="desk", Key=key, Body=key.encode(), ContentType="text/csv; charset=latin-1")
    client.put_object(Bucket="desk", Key="big", Body=CONTENT)
    return client


@pytest.fixture(scope="module")
def server() -> Iterator[Receiver]:
    with receiver() as started:
        yield started


@pytest.fixture
def site(server: Receiver) -> Receiver:
    return fresh(server)


def reader(endpoint: str, key: str, *, seconds: float = 60, max_bytes: int | None = None, keys: bool = True) -> Reader:
    refs = dict.fromkeys(KEYS, "env:X") if keys else {}
    config = config_of("s3", bucket="desk", key=key, endpoint_url=endpoint, **refs)
    return config.open_reader({name: KEYS[name] for name in config.secret_refs()}, OPEN, limits(max_bytes, seconds))


def test_an_object_is_read_with_its_validators(endpoint: str, store: Any) -> None:
    item, content = read_one(reader(endpoint, "in/a.csv"))
    assert content == b"in/a.csv"
    told = store.head_object(Bucket="desk", Key="in/a.csv")
    assert (item.validators.etag, item.validators.size) == (told["ETag"], 8)
    assert item.validators.last_modified == told["LastModified"]
    assert (item.key, item.name) == ("s3://desk/in/a.csv", "a.csv")
    assert (item.content_type, item.encoding) == ("text/csv", "latin-1")


def test_a_big_object_is_read_in_chunks(endpoint: str, store: Any) -> None:
    opened = reader(endpoint, "big")
    [parts] = [list(item.chunks) for item in opened.items({}, False) if isinstance(item, Item)]
    opened.close()
    assert b"".join(parts) == CONTENT
    assert all(1024 * 1024 <= len(part) <= 4 * 1024 * 1024 for part in parts[:-1])


@pytest.mark.parametrize("key", ["in/a.csv", "in/?.csv"])
def test_an_unchanged_object_is_read_only_with_force(endpoint: str, store: Any, key: str) -> None:
    known = known_of(read(reader(endpoint, key)))
    unchanged = read(reader(endpoint, key), known)
    assert all(isinstance(one, Unchanged) for one in unchanged)
    assert known_of(unchanged) == known
    assert not any(isinstance(one, Unchanged) for one in read(reader(endpoint, key), known, force=True))
    store.put_object(Bucket="desk", Key="in/a.csv", Body=b"in/A.csv")
    try:
        changed = [one for one in read(reader(endpoint, key), known) if not isinstance(one, Unchanged)]
        assert [(item.key, content) for item, content in changed] == [("s3://desk/in/a.csv", b"in/A.csv")]
    finally:
        store.put_object(Bucket="desk", Key="in/a.csv", Body=b"in/a.csv", ContentType="text/csv; charset=latin-1")


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("in/*.csv", ["in/a.csv", "in/b.csv"]),
        ("in/**/*.csv", ["in/a.csv", "in/b.csv", "in/deep/c.csv"]),
        ("*.csv", ["out.csv"]),
    ],
)
def test_a_pattern_gives_every_object_in_order(endpoint: str, store: Any, pattern: str, expected: list[str]) -> None:
    found = [one for one in read(reader(endpoint, pattern)) if not isinstance(one, Unchanged)]
    assert [content.decode() for _, content in found] == expected


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("exact/rep[1].csv", ["exact/rep[1].csv"]),
        ("exact/rep[12].csv", ["exact/rep1.csv", "exact/rep2.csv"]),
        ("exact/rep?.csv", ["exact/rep?.csv"]),
        ("exact/d[1]/*.csv", ["exact/d[1]/a.csv"]),
        ("*/rep[1].csv", ["exact/rep[1].csv"]),
        ("**/rep[1].csv", ["exact/rep[1].csv"]),
    ],
)
def test_an_exact_key_wins_over_a_pattern(endpoint: str, store: Any, pattern: str, expected: list[str]) -> None:
    for name in ("rep[1].csv", "rep1.csv", "rep2.csv", "rep?.csv", "d[1]/a.csv", "d1/a.csv"):
        store.put_object(Bucket="desk", Key=f"exact/{name}", Body=f"exact/{name}".encode())
    try:
        found = [one for one in read(reader(endpoint, pattern)) if not isinstance(one, Unchanged)]
    finally:
        for name in ("rep[1].csv", "rep1.csv", "rep2.csv", "rep?.csv", "d[1]/a.csv", "d1/a.csv"):
            store.delete_object(Bucket="desk", Key=f"exact/{name}")
    assert [content.decode() for _, content in found] == expected


def listing(*keys: str, following: str | None = None) -> Behaviour:
    """A page of a list, where `following` names the next one."""
    contents = "".join(f'<Contents><Key>{key}</Key><ETag>"1"</ETag><Size>2</Size></Contents>' for key in keys)
    more = f"<NextContinuationToken>{following}</NextContinuationToken>" if following else ""
    cut = str(bool(following)).lower()
    body = f"<ListBucketResult><IsTruncated>{cut}</IsTruncated>{more}{contents}</ListBucketResult>"
    return refuse(200, f"<?xml version='1.0'?>{body}".encode())


def test_a_list_of_more_than_one_page_is_read_to_its_end(site: Receiver) -> None:
    site.behaviours = [listing("b", "a", following="more"), listing("c")]
    known = {f"s3://desk/{key}": Validators('"1"', None, 2) for key in "abc"}
    found = read(reader(f"http://127.0.0.1:{site.port}", "*"), known)
    assert [one.key for one in found if isinstance(one, Unchanged)] == list(known)
    assert "continuation-token=more" in site.requests[1].path
    assert len(site.requests) == 2


def test_a_compressed_object_is_decoded_as_over_http(endpoint: str, store: Any) -> None:
    store.put_object(Bucket="desk", Key="z.csv.gz", Body=gzip.compress(b"a,b"), ContentEncoding="gzip")
    item, content = read_one(reader(endpoint, "z.csv.gz"))
    assert (item.name, content) == ("z.csv", b"a,b")


def test_missing_objects_are_reported(endpoint: str, store: Any) -> None:
    for key in ("none", "none/*"):
        failed = failure(reader(endpoint, key))
        assert (failed.category, failed.transient) == (ErrorCategory.SOURCE, False)
    config = config_of("s3", bucket="no-such-bucket", key="*", endpoint_url=endpoint)
    assert failure(config.open_reader({}, OPEN, limits())).category is ErrorCategory.SOURCE


def test_without_references_access_is_anonymous(site: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDSPINE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of spine")
    monkeypatch.setenv("AWS_PROFILE", "no-such-profile")
    url = f"http://127.0.0.1:{site.port}"
    assert read_one(reader(url, "a", keys=False))[1] == b"ok"
    assert read_one(reader(url, "a"))[1] == b"ok"
    anonymous, signed = (request.headers.get("Authorization") for request in site.requests)
    assert anonymous is None
    assert "AKIDTEST" in (signed or "")


def test_proxy_endpoint_and_credential_files_of_the_environment_are_ignored(
    site: Receiver, endpoint: str, store: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    elsewhere = f"http://127.0.0.1:{site.port}"
    for name in ("HTTP_PROXY", "http_proxy", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.setenv(name, elsewhere)
    (tmp_path / "config").write_text(f"[default]\nendpoint_url = {elsewhere}\nregion = eu-north-1\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    assert read_one(reader(endpoint, "in/a.csv"))[1] == b"in/a.csv"
    assert not site.requests


@pytest.mark.parametrize("key", ["in/a.csv", "in/*"])
def test_a_forbidden_address_is_not_connected_to(endpoint: str, store: Any, key: str) -> None:
    for host, settings in (("localhost", CLOSED), ("169.254.169.254", OPEN)):
        url = f"http://{host}:{endpoint.rpartition(':')[2]}"
        config = config_of("s3", bucket="desk", key=key, endpoint_url=url)
        failed = failure(config.open_reader({}, settings, limits()))
        assert (failed.category, failed.transient) == (ErrorCategory.CONFIG, False)
        assert "address" in failed.sentence


def answer(status: int, code: str) -> Behaviour:
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>s3cr3t-key</Message></Error>".encode()
    return refuse(status, body, Content_Type="application/xml")


@pytest.mark.parametrize(
    ("status", "code", "category", "transient"),
    [
        (403, "AccessDenied", "AUTH", False),
        (403, "SignatureDoesNotMatch", "AUTH", False),
        (404, "NoSuchBucket", "SOURCE", False),
        (412, "PreconditionFailed", "SOURCE", True),
        (400, "InvalidRequest", "SOURCE", False),
        (503, "SlowDown", "NETWORK", True),
        (500, "InternalError", "NETWORK", True),
        (429, "TooMany", "NETWORK", True),
    ],
)
def test_what_a_store_answers_is_a_failure(
    site: Receiver, status: int, code: str, category: str, transient: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    site.always = answer(status, code)
    failed = failure(reader(f"http://127.0.0.1:{site.port}", "a"))
    assert (failed.category, failed.transient) == (category, transient)
    assert "s3cr3t" not in failed.sentence + caplog.text


def half(handler: Handler) -> None:
    handler.close_connection = True
    handler.wfile.write(b'HTTP/1.1 200 OK\r\nETag: "1"\r\nContent-Length: 100\r\n\r\nhalf')


def drip(handler: Handler) -> None:
    handler.close_connection = True
    handler.wfile.write(b'HTTP/1.1 200 OK\r\nETag: "1"\r\nContent-Length: 10000\r\n\r\n')
    while not handler.receiver.stopped.wait(0.1):
        handler.wfile.write(b"x")


def test_an_incomplete_object_is_a_failure(site: Receiver) -> None:
    site.always = half
    failed = failure(reader(f"http://127.0.0.1:{site.port}", "a"))
    assert (failed.category, failed.transient) == (ErrorCategory.NETWORK, True)
    assert "before all of" in failed.sentence


def test_an_object_that_is_replaced_after_it_was_listed_is_not_mixed_up(site: Receiver) -> None:
    site.behaviours = [listing("a"), answer(412, "PreconditionFailed")]
    failed = failure(reader(f"http://127.0.0.1:{site.port}", "*"))
    assert (failed.category, failed.transient) == (ErrorCategory.SOURCE, True)
    assert site.requests[1].headers["If-Match"] == '"1"'
    site.behaviours = [listing("a"), refuse(200, b"ok", ETag='"2"')]
    assert "was changed" in failure(reader(f"http://127.0.0.1:{site.port}", "*")).sentence


def test_limits_are_enforced(site: Receiver, endpoint: str, store: Any) -> None:
    assert "1,000 bytes that max_bytes" in failure(reader(endpoint, "big", max_bytes=1000)).sentence
    site.always = drip
    began = time.monotonic()
    failed = failure(reader(f"http://127.0.0.1:{site.port}", "a", seconds=0.8))
    assert time.monotonic() - began < 5
    assert (failed.category, failed.transient) == (ErrorCategory.NETWORK, True)
    assert "0.8 s that timeout_seconds" in failed.sentence


def test_a_server_that_is_not_running_is_a_network_failure() -> None:
    failed = failure(reader("http://127.0.0.1:1", "a"))
    assert (failed.category, failed.transient) == (ErrorCategory.NETWORK, True)


def test_without_an_endpoint_it_is_amazon_whatever_the_environment_says(
    site: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def look_up(host: str, *args: Any, **options: Any) -> Any:
        asked.append(host)
        raise socket.gaierror("nobody is known here")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{site.port}")
    failed = failure(config_of("s3", bucket="desk", key="a").open_reader({}, OPEN, limits()))
    assert (failed.category, failed.transient) == (ErrorCategory.NETWORK, True)
    assert set(asked) == {"desk.s3.amazonaws.com"}
    assert not site.requests


def test_the_deadline_ends_the_look_up_of_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: time.sleep(10))
    began = time.monotonic()
    assert "timeout_seconds" in failure(reader("http://some-store:9000", "a", seconds=0.5)).sentence
    assert time.monotonic() - began < 8
