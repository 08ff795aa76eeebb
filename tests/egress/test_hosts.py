"""The forms of hosts and URLs that may be configured."""

import pytest
from spine.egress.hosts import check_host, split_http_url


@pytest.mark.parametrize(
    "host", ["db.example.com", "a_b-1", "8.8.8.8", "2606:4700::1111", "[::1]", "b\u00f6rse.example"]
)
def test_a_host_name_or_an_address_is_accepted(host: str) -> None:
    assert check_host(host) == host


@pytest.mark.parametrize(
    "host", ["a,b", "/run/db", "me@h", "http://h", "h x", "h\r\nx", "-h", "fe80::1%eth0", "h?x", "h;x"]
)
def test_more_than_one_host_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match="one host name or IP address"):
        check_host(host)


def test_a_url_is_split() -> None:
    parts = split_http_url("https://example.com:8443/a?b")
    assert (parts.hostname, parts.port, parts.path) == ("example.com", 8443, "/a")


@pytest.mark.parametrize(
    "url",
    ["", "example.com", "ftp://h/", "http:///a", "http://h:0/", "http://h:99999/", "http://h\\@x/", "http://h/ "],
)
def test_an_incomplete_or_ambiguous_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="must be a complete http or https URL"):
        split_http_url(url)
