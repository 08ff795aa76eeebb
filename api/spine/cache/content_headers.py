"""The headers that name content for a client: its type and its file name, both of which the source chose."""

import re
from urllib.parse import quote

_MEDIA_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,126}/[a-z0-9][a-z0-9!#$&^_.+-]{0,126}")
_CHARSET = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:+-]{0,39}")
# Types that a browser may run as a page or take apart itself.
_ACTIVE = re.compile(r"html|xml|svg|script|^multipart/|^message/")
_OPAQUE = "application/octet-stream"
_LONGEST_NAME = 200


def media_type(content_type: str | None, encoding: str | None) -> str:
    """The `Content-Type` for content of this type, with the charset if it is text.

    Types that a browser would run as a page become `application/octet-stream`.
    """
    kind = (content_type or "").partition(";")[0].strip().lower()
    if not _MEDIA_TYPE.fullmatch(kind) or _ACTIVE.search(kind):
        return _OPAQUE
    has_charset = kind.startswith("text/") and encoding and _CHARSET.fullmatch(encoding)
    return f"{kind}; charset={encoding}" if has_charset else kind


def content_disposition(name: str) -> str:
    """The `Content-Disposition` that saves content under a name of any characters (RFC 6266)."""
    base = re.split(r"[/\\]", name)[-1]
    safe = "".join(char if char.isprintable() else "_" for char in base)[-_LONGEST_NAME:].lstrip(". ") or "content"
    plain = re.sub(r"[^A-Za-z0-9 ._-]", "_", safe)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(safe, safe='', errors='replace')}"
