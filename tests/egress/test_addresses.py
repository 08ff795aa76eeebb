"""Which addresses are refused, in every notation."""

import pytest
from spine.egress.addresses import address_refusal, host_refusal

ALWAYS = [
    "169.254.169.254",
    "169.254.1.1",
    "fe80::1%eth0",
    "fd00:ec2::254",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "fe80::1",
    "fd20:ce::254",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::a9fe:a9fe",
    "64:ff9b:1:a9fe:a9:fe00::",
    "64:ff9b:1:a8:3f:8110::",
    "64:ff9b:1:0:a8:3f81:1000:0",
    "::169.254.169.254",
    # Teredo: the server, then the client.
    "2001:0:a9fe:a9fe:0:0:f7f7:f7f7",
    "2001:0:808:808:0:0:5601:5601",
    "::ffff:169.254.169.254",
    "2002:a9fe:a9fe::",
    "224.0.0.1",
    "ff02::1",
    "0.0.0.0",  # noqa: S104
    "0.1.2.3",
    "::ffff:0.0.0.0",
    "::",
    "4000::1",
    "::ffff:0:127.0.0.1",
    "255.255.255.255",
    "240.0.0.1",
]
PRIVATE = [
    "127.0.0.1",
    "::1",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "192.0.0.8",
    "192.0.2.1",
    "192.88.99.1",
    "198.18.0.1",
    "203.0.113.1",
    "::1%lo",
    "fec0::1",
    "100::1",
    "2001:db8::1",
    "3fff::1",
    "::8.8.8.8",
    "64:ff9b:1::808:808",
    "64:ff9b:1:a00:0:100::",
    "fd12::1",
    "::ffff:127.0.0.1",
    "::127.0.0.1",
    "2002:7f00:1::",
    "64:ff9b::7f00:1",
    "2001:0:808:808:0:0:80ff:fffe",
]
PUBLIC = ["8.8.8.8", "2606:4700::1111", "64:ff9b::808:808", "2002:808:808::", "::ffff:8.8.8.8"]


@pytest.mark.parametrize("address", ALWAYS)
def test_some_addresses_are_always_refused(address: str) -> None:
    assert address_refusal(address, allow_private=True)
    assert address_refusal(address, allow_private=False)


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_are_refused_unless_they_are_allowed(address: str) -> None:
    assert "SPINE_ALLOW_PRIVATE_ADDRESSES" in (address_refusal(address, allow_private=False) or "")
    assert address_refusal(address, allow_private=True) is None


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_allowed(address: str) -> None:
    assert address_refusal(address, allow_private=False) is None


@pytest.mark.parametrize(
    "host",
    [
        "127.1",
        "2130706433",
        "0x7f.1",
        "0177.0.0.1",
        "[::1]",
        "[::1].",
        "localhost",
        "a.localhost.",
        "127.0.0.1.",
        "127%2e0.0.1",
        "\uff11\uff12\uff17.0.0.1",
        "127\u30020.0.1",
        "LOCALHOST",
    ],
)
def test_an_ip_address_is_recognized_in_every_notation(host: str) -> None:
    assert host_refusal(host, allow_private=False)
    assert host_refusal(host, allow_private=True) is None


@pytest.mark.parametrize(
    "host", ["example.com", "4chan.org", "1password.com", "deadbeef.example", "", "1\x00", "1\ud800"]
)
def test_host_names_are_checked_only_when_they_are_resolved(host: str) -> None:
    assert host_refusal(host, allow_private=False) is None


@pytest.mark.parametrize("text", ["", "example.com", "127.1", "<broadcast>", "b'8.8.8.8'", "8.8.8.8 ", "1:2"])
def test_text_that_is_not_an_address_is_refused(text: str) -> None:
    assert address_refusal(text, allow_private=True)


@pytest.mark.parametrize("host", ["169.254.169.254", "0xa9fea9fe", "[fe80::1%25ee0]", "fe80::1%ee0", "0"])
def test_a_forbidden_address_is_refused_in_every_notation(host: str) -> None:
    assert host_refusal(host, allow_private=True)


def test_the_reason_states_the_kind_of_address() -> None:
    assert (
        address_refusal("169.254.1.1", allow_private=True)
        == "169.254.1.1 is a link-local address, which is never allowed"
    )
