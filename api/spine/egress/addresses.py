"""Which addresses Spine may connect to on behalf of a user."""

import socket
import unicodedata
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import unquote

Address = IPv4Address | IPv6Address

# The metadata services of clouds; some of these addresses are in private or even global ranges.
_METADATA = {
    ip_address(text)
    for text in (
        "169.254.169.254",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
        "fd00:ec2::254",
        "fd20:ce::254",
        "fd00:c1::a9fe:a9fe",
    )
}
_THIS_NETWORK = IPv4Network("0.0.0.0/8")
_NAT64, _NAT64_LOCAL = IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48")
_V4_COMPATIBLE, _V4_MAPPED = IPv6Network("::/96"), IPv6Network("::ffff:0:0/96")
_GLOBAL_UNICAST, _SIX_TO_FOUR = IPv6Network("2000::/3"), IPv6Network("2002::/16")
# The other assigned ranges of IPv6: unique local, site local and discard-only addresses.
_LOCAL = tuple(IPv6Network(text) for text in ("fc00::/7", "fec0::/10", "100::/64"))
_ASSIGNED = (_GLOBAL_UNICAST, *_LOCAL, _V4_COMPATIBLE, _V4_MAPPED, _NAT64, _NAT64_LOCAL)
# These only carry an IPv4 address.
_CARRIERS = (_V4_MAPPED, _NAT64, _SIX_TO_FOUR)
# The tables of Python's ipaddress differ between versions here.
_NOT_PUBLIC = tuple(ip_network(text) for text in ("192.0.0.0/24", "192.88.99.0/24", "2001::/23", "3fff::/20"))


def address_refusal(address: str, allow_private: bool) -> str | None:
    """The reason why an IP address is refused; None if it is allowed."""
    every = addresses_in(address)
    if not every:
        return f"{address} is not an IP address"
    for one in every:
        if kind := _never_allowed(one):
            return f"{address} is {kind}, which is never allowed"
    if not allow_private and not all(_is_public(one) for one in every):
        return f"{address} is a private address, which only SPINE_ALLOW_PRIVATE_ADDRESSES allows"
    return None


def host_refusal(host: str, allow_private: bool) -> str | None:
    """The reason why a host is refused that is an IP address, in any form that the system's resolver accepts.

    None for a host name: it is checked when it is resolved, by the address that is then connected to.
    """
    address = parse_host(host)
    return address_refusal(str(address), allow_private) if address is not None else None


def parse_host(host: str) -> Address | None:
    """The IP address that a host is in any notation, also for `localhost`; None for other names."""
    # The zone of fe80::1%ee0 looks percent-encoded, so both readings are checked.
    for text in (host, unquote(host)):
        # The full stop of Chinese separates labels, too.
        name = unicodedata.normalize("NFKC", text).replace("\u3002", ".").strip("[]. \t\r\n").lower()
        if name == "localhost" or name.endswith(".localhost"):
            return IPv4Address("127.0.0.1")
        if (address := _parse_literal(name)) is not None:
            return address
    return None


def addresses_in(address: str) -> tuple[Address, ...]:
    """An IP address and the IPv4 addresses that it contains; empty for any other text."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return ()
    return (parsed, *_embedded(parsed))


def _parse_literal(name: str) -> Address | None:
    with suppress(ValueError):
        return ip_address(name.partition("%")[0])
    # Also 127.1, 2130706433, 0x7f.1 and 0177.0.0.1; but no name that begins with a letter.
    if not name[:1].isdigit() or " " in name:
        return None
    try:
        return IPv4Address(socket.inet_aton(name))
    except (OSError, ValueError):
        return None


def _never_allowed(address: Address) -> str | None:
    if address in _METADATA:
        return "a cloud's metadata address"
    if address.is_link_local:
        return "a link-local address"
    if address.is_multicast:
        return "a multicast address"
    if address.is_unspecified or (isinstance(address, IPv4Address) and address in _THIS_NETWORK):
        return "an unspecified address"
    if _is_reserved(address):
        return "a reserved address"
    return None


def _is_reserved(address: Address) -> bool:
    if isinstance(address, IPv4Address):
        return address.is_reserved
    return not any(address in network for network in _ASSIGNED)


def _is_public(address: Address) -> bool:
    if isinstance(address, IPv6Address):
        if any(address in network for network in _CARRIERS):
            return True
        if address not in _GLOBAL_UNICAST:
            return False
    return address.is_global and not any(address in network for network in _NOT_PUBLIC)


def _embedded(address: Address) -> list[IPv4Address]:
    """The IPv4 addresses that an IPv6 address contains: mapped, compatible, NAT64, 6to4 or Teredo."""
    if isinstance(address, IPv4Address):
        return []
    if address.ipv4_mapped:
        return [address.ipv4_mapped]
    if address.sixtofour:
        return [address.sixtofour]
    if address.teredo:
        return list(address.teredo)
    if address in _NAT64:
        return [IPv4Address(int(address) & 0xFFFFFFFF)]
    if address in _NAT64_LOCAL:
        return _translated(int(address))
    if address in _V4_COMPATIBLE and int(address) > 1:
        return [IPv4Address(int(address))]
    return []


def _translated(value: int) -> list[IPv4Address]:
    """The IPv4 addresses that a NAT64 translator may read, one for each prefix length of RFC 6052 (48, 56, 64, 96)."""
    readings = [
        IPv4Address((value >> 64 & 0xFFFF) << 16 | value >> 40 & 0xFFFF),
        IPv4Address((value >> 64 & 0xFF) << 24 | value >> 32 & 0xFFFFFF),
        IPv4Address(value >> 24 & 0xFFFFFFFF),
        IPv4Address(value & 0xFFFFFFFF),
    ]
    # A reading with the wrong length is mostly zeros.
    return [reading for reading in readings if reading not in _THIS_NETWORK] or readings[-1:]
