"""The forms of a host and of an HTTP URL that a user may configure.

Whether an address may be connected to is another question, which `spine.egress.addresses` answers.
"""

from urllib.parse import SplitResult, urlsplit


def check_host(host: str) -> str:
    """The host, if it is one host name or one IP address. Raises `ValueError`.

    Clients and drivers read a list of hosts, the path of a socket or a part of a URL as more than one host.
    """
    if host.startswith("-") or not all(char.isalnum() or char in ".-_:[]" for char in host):
        raise ValueError("must be one host name or IP address, without a port, a user or a path")
    return host


def split_http_url(url: str) -> SplitResult:
    """The parts of a complete http or https URL. Raises `ValueError`, which does not contain the URL."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    # URL parsers disagree on whether the text after a backslash belongs to the host.
    if not usable or not url.isprintable() or " " in url or "\\" in url:
        raise ValueError("must be a complete http or https URL")
    return parts
