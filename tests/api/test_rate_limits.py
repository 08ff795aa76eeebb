"""Wrong credentials are slowed down for each address, and requests for each key; addresses come from proxies."""

from collections.abc import Iterator
from ipaddress import ip_network
from typing import Any

import httpx
import pytest
from spine.auth.rate_limits import MOST_REMEMBERED, TokenBuckets, WrongCredentials
from spine.errors import TooManyRequests
from spine.http.client_address import client_address
from spine.settings import Settings
from structlog.testing import capture_logs

from tests.api.test_auth import make_key
from tests.support.api_here import api_here
from tests.support.processes import free_port
from tests.support.stack import ADMIN_KEY, Api
from tests.support.web import WEB

PATH = "/sources"


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """An API without Prefect that trusts proxies on this machine."""
    settings = {"SPINE_WRONG_KEYS_PER_MINUTE": "5", "SPINE_REQUESTS_PER_MINUTE": "30"}
    settings |= {"SPINE_TRUSTED_PROXIES": "127.0.0.0/8,::1"}
    folder = tmp_path_factory.mktemp("guarded")
    with api_here(f"http://127.0.0.1:{free_port()}/api", folder, folder / "home", None, **settings) as started:
        yield started


def ask(api: Api, key: str, address: str, **headers: str) -> httpx.Response:
    """A request over a proxy that names the client's address."""
    headers = {"X-API-Key": key, "X-Forwarded-For": address, **headers}
    return WEB.get(f"{api.url}/api/v1{PATH}", headers=headers)


def test_wrong_keys_of_an_address_are_answered_by_429_and_logged(guarded: Api) -> None:
    with capture_logs() as logs:
        answers = [ask(guarded, f"spine_wrong_{number}", "203.0.113.1") for number in range(9)]
    assert [answer.status_code for answer in answers] == [401] * 5 + [429] * 4
    assert 1 <= int(answers[-1].headers["Retry-After"]) <= 12
    assert "wait" in answers[-1].json()["detail"]
    assert answers[-1].headers["X-Request-ID"]
    refused = [line for line in logs if line["event"] == "credential_refused"]
    assert [line["address_is_limited"] for line in refused] == [False] * 4 + [True]
    assert "spine_wrong" not in str(logs)
    assert ask(guarded, "spine_wrong", "203.0.113.2").status_code == 401


def test_a_right_key_is_not_tried_from_a_limited_address_unless_it_was_used_before(guarded: Api) -> None:
    known, new = make_key(guarded, "known", "read"), make_key(guarded, "new", "read")
    assert ask(guarded, known, "203.0.113.3").status_code == 200
    while ask(guarded, "spine_wrong", "203.0.113.3").status_code != 429:
        pass
    assert ask(guarded, known, "203.0.113.3").status_code == 200
    assert ask(guarded, new, "203.0.113.3").status_code == 429
    assert ask(guarded, new, "203.0.113.4").status_code == 200


def test_requests_without_a_credential_do_not_count(guarded: Api) -> None:
    headers = {"X-Forwarded-For": "203.0.113.5"}
    for _ in range(10):
        assert WEB.get(f"{guarded.url}/api/v1{PATH}", headers=headers).status_code == 401
    assert ask(guarded, "spine_wrong", "203.0.113.5").status_code == 401


def test_a_key_may_send_so_many_requests_a_minute_and_no_more(guarded: Api) -> None:
    busy, other = make_key(guarded, "busy", "read"), make_key(guarded, "other", "read")
    statuses = [ask(guarded, busy, "203.0.113.6").status_code for _ in range(35)]
    assert statuses[:30] == [200] * 30
    assert statuses[-1] == 429
    limited = ask(guarded, busy, "203.0.113.7")
    assert (limited.status_code, int(limited.headers["Retry-After"]) >= 1) == (429, True)
    assert ask(guarded, other, "203.0.113.6").status_code == 200


def test_there_is_no_limit_for_keys_by_default() -> None:
    assert Settings().requests_per_minute is None
    assert Settings().wrong_keys_per_minute == 20
    assert Settings().trusted_proxies == ()


def test_a_bucket_refills_with_time() -> None:
    clock = Clock()
    buckets = TokenBuckets(6, clock)
    assert [buckets.take("a") for _ in range(6)] == [0.0] * 6
    assert buckets.take("a") == pytest.approx(10)
    clock.now += 9
    assert buckets.take("a") == pytest.approx(1)
    clock.now += 1
    assert buckets.take("a") == 0
    assert buckets.take("b") == 0
    clock.now += 3600
    assert [buckets.take("a") for _ in range(7)].count(0.0) == 6


def test_memory_stays_bounded_however_many_addresses_and_keys_come() -> None:
    wrong = WrongCredentials(5)
    for number in range(MOST_REMEMBERED + 500):
        wrong.was_wrong(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", f"key-{number}", "wrong")
        wrong.was_right(f"key-{number}")
    assert len(wrong._known) == len(wrong._buckets._buckets) == MOST_REMEMBERED


def test_the_addresses_of_one_ipv6_network_count_together() -> None:
    wrong = WrongCredentials(2)
    for last in (1, 2):
        wrong.was_wrong(f"2001:db8:1:2::{last}", "a", "wrong")
    with pytest.raises(TooManyRequests):
        wrong.refuse_guess("2001:db8:1:2:ffff::9", "b")
    wrong.refuse_guess("2001:db8:1:3::1", "b")


def test_a_credential_that_was_refused_is_no_longer_known() -> None:
    wrong = WrongCredentials(1)
    wrong.was_right("a")
    wrong.was_wrong("10.0.0.1", "a", "revoked")
    with pytest.raises(TooManyRequests):
        wrong.refuse_guess("10.0.0.1", "a")


TRUSTED = [ip_network("10.0.0.0/8"), ip_network("2001:db8::/32")]


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("192.0.2.1", [], "192.0.2.1"),
        ("192.0.2.1", ["203.0.113.9"], "192.0.2.1"),
        ("10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["1.1.1.1, 203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["1.1.1.1", "203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["203.0.113.9, 10.0.0.2"], "203.0.113.9"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", ["203.0.113.9:4711"], "203.0.113.9"),
        ("10.0.0.1", ["[2001:db9::7]:4711"], "2001:db9::7"),
        ("2001:db8::1", ["2001:db9::7"], "2001:db9::7"),
        ("::ffff:10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["unknown"], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.9, <script>"], "10.0.0.1"),
        ("10.0.0.1", [""], "10.0.0.1"),
        (None, ["203.0.113.9"], None),
    ],
)
def test_the_address_is_what_the_nearest_trusted_proxies_say(
    peer: str | None, forwarded: list[str], address: str | None
) -> None:
    headers = [(b"x-forwarded-for", value.encode()) for value in forwarded]
    scope: dict[str, Any] = {"type": "http", "headers": headers, "client": (peer, 1) if peer else None}
    assert client_address(scope, TRUSTED) == address


def test_without_trusted_proxies_a_client_cannot_choose_its_address(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("no-proxy")
    settings = {"SPINE_WRONG_KEYS_PER_MINUTE": "3"}
    with api_here(f"http://127.0.0.1:{free_port()}/api", folder, folder / "home", None, **settings) as api:
        statuses = [ask(api, "spine_wrong", f"203.0.113.{number}").status_code for number in range(6)]
        assert statuses == [401] * 3 + [429] * 3
        assert ask(api, ADMIN_KEY, "203.0.113.1").status_code == 429


@pytest.mark.parametrize("given", ["here", "10.0.0.0/99", "10.0.0.1/8"])
def test_a_proxy_that_is_no_network_is_refused_with_a_sentence(given: str) -> None:
    with pytest.raises(ValueError, match="trusted_proxies"):
        Settings.model_validate({"trusted_proxies": given})
