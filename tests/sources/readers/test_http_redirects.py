"""HTTP: where redirects may lead, and what they may be told."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import trustme
from spine.schemas import ErrorCategory
from spine.sources.readers.base import Unchanged
from spine.sources.readers.http import HttpReader
from spine.sources.readers.http_semantics import same_origin

from tests.sources.readers.support import (
    CLOSED,
    OPEN,
    config_of,
    failure,
    fresh,
    known_of,
    limits,
    read,
    read_one,
    tls_receiver,
)
from tests.support.receivers import Receiver, receiver, refuse

SECRET = {"headers": {"X-Key": "s3cr3t", "Accept": "text/csv"}, "auth": {"type": "bearer", "token_ref": "env:T"}}
TOKEN = {"auth.token_ref": "t0ken"}


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Receiver, Receiver]]:
    with receiver() as first, receiver() as second:
        yield first, second


@pytest.fixture
def site(servers: tuple[Receiver, Receiver]) -> Receiver:
    return fresh(servers[0])


@pytest.fixture
def other(servers: tuple[Receiver, Receiver]) -> Receiver:
    return fresh(servers[1])


def url(site: Receiver, path: str = "/a", host: str = "127.0.0.1") -> str:
    return f"http://{host}:{site.port}{path}"


def reader(site: Receiver, **fields: object) -> HttpReader:
    found = config_of("http", url=url(site), **fields).open_reader(TOKEN, OPEN, limits())
    assert isinstance(found, HttpReader)
    return found


def test_secrets_go_with_a_redirect_on_the_same_server_only(site: Receiver, other: Receiver) -> None:
    site.behaviours = [
        refuse(302, b"", Location="/b"),
        refuse(307, b"", Location=url(other)),
        refuse(200, b"never"),
    ]
    other.behaviours = [refuse(302, b"", Location=url(site, "/c"))]
    read_one(reader(site, **SECRET))
    sent = [
        (request.path, request.headers.get("Authorization"), request.headers.get("X-Key"), request.headers["Accept"])
        for request in (*site.requests[:2], *other.requests, *site.requests[2:])
    ]
    with_secrets = ("Bearer t0ken", "s3cr3t", "text/csv")
    assert sent == [
        ("/a", *with_secrets),
        ("/b", *with_secrets),
        ("/a", None, None, "text/csv"),
        ("/c", None, None, "text/csv"),
    ]


def test_another_name_of_the_same_server_is_another_server(site: Receiver) -> None:
    site.behaviours = [refuse(302, b"", Location=url(site, "/b", "localhost")), refuse(200, b"x")]
    read_one(reader(site, **SECRET))
    assert "Authorization" not in site.requests[1].headers
    assert site.requests[1].headers["Host"] == f"localhost:{site.port}"


@pytest.mark.parametrize(
    ("one", "two", "same"),
    [
        ("https://a/x", "https://a/y", True),
        ("https://a/x", "https://a:443/y", True),
        ("http://a/x", "https://a/x", True),
        ("http://a/x", "https://a:8443/x", False),
        ("https://a/x", "https://b.a/x", False),
        ("http://a:8080/x", "https://a/x", False),
    ],
)
def test_what_is_the_same_server(one: str, two: str, same: bool) -> None:
    assert same_origin(httpx.URL(one), httpx.URL(two)) is same


def test_a_post_becomes_a_get_where_browsers_do_so(site: Receiver) -> None:
    site.behaviours = [refuse(307, b"", Location="/b"), refuse(303, b"", Location="/c")]
    read_one(reader(site, method="POST"))
    assert [request.method for request in site.requests] == ["POST", "POST", "GET"]


@pytest.mark.parametrize("count", [5, 6])
def test_five_redirects_are_followed(site: Receiver, count: int) -> None:
    site.behaviours = [refuse(302, b"", Location="/loop") for _ in range(count)]
    if count <= 5:
        assert read_one(reader(site))[1] == b"ok"
    else:
        failed = failure(reader(site))
        assert (failed.category, len(site.requests)) == (ErrorCategory.SOURCE, 6)


@pytest.mark.parametrize(
    "target",
    ["http://169.254.169.254/latest/meta-data", "http://[::ffff:a9fe:a9fe]/", "http://0.0.0.0/", "http://[fe80::1]/"],
)
def test_a_redirect_to_a_forbidden_address_is_not_followed(site: Receiver, target: str) -> None:
    site.always = refuse(302, b"", Location=target)
    failed = failure(reader(site))
    assert (failed.category, failed.transient) == (ErrorCategory.CONFIG, False)
    assert "never allowed" in failed.sentence


def test_a_name_that_leads_to_a_forbidden_address_is_not_connected_to(site: Receiver) -> None:
    config = config_of("http", url=url(site, host="localhost"))
    failed = failure(config.open_reader({}, CLOSED, limits()))
    assert failed.category is ErrorCategory.CONFIG
    assert "SPINE_ALLOW_PRIVATE_ADDRESSES" in failed.sentence
    assert not site.requests


@pytest.mark.parametrize("target", ["file:///etc/hostname", "ftp://a/b", "http://", "http://a:b:c/", "gopher:x"])
def test_a_redirect_to_anything_but_http_is_a_failure(site: Receiver, target: str) -> None:
    site.always = refuse(302, b"", Location=target)
    assert failure(reader(site)).category is ErrorCategory.SOURCE


def test_over_tls_a_certificate_must_be_trusted_and_no_redirect_leaves_it(
    site: Receiver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    authority = trustme.CA()
    with tls_receiver(authority) as safe:
        config = config_of("http", url=f"https://127.0.0.1:{safe.port}/a")
        failed = failure(config.open_reader({}, OPEN, limits()))
        assert (failed.category, failed.transient) == (ErrorCategory.NETWORK, False)
        assert "certificate that is not trusted" in failed.sentence
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        assert read_one(config.open_reader({}, OPEN, limits()))[1] == b"ok"
        safe.always = refuse(302, b"", Location=url(site))
        failed = failure(config.open_reader({}, OPEN, limits()))
    assert failed.category is ErrorCategory.SOURCE
    assert "from https to http" in failed.sentence
    assert not site.requests


def test_if_modified_since_is_not_sent_to_the_target_of_a_redirect(site: Receiver) -> None:
    # The newest file may be older than the one that was the newest before.
    modified = {"Last_Modified": "Mon, 15 Dec 2025 06:00:00 GMT", "ETag": '"1"'}
    site.behaviours = [refuse(302, b"", Location="/old"), refuse(200, b"1", **modified)]
    known = known_of(read(reader(site)))
    site.behaviours = [refuse(302, b"", Location="/new"), refuse(304, b"", **modified)]
    assert isinstance(read(reader(site), known)[0], Unchanged)
    asked, redirected = (request.headers for request in site.requests[2:])
    assert "If-Modified-Since" in asked
    assert "If-Modified-Since" not in redirected
    assert redirected["If-None-Match"] == '"1"'


def test_no_proxy_of_the_environment_is_used(site: Receiver, other: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{other.port}")
    read_one(reader(site))
    assert not other.requests
