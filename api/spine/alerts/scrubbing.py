"""Scrubbing: remove a channel's secrets from what its receiver answered, in every encoding."""

import html
import json
import re
from base64 import b64encode
from collections.abc import Callable, Collection, Iterator, Mapping, Set
from contextlib import suppress
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl, quote, quote_plus, unquote, urlsplit

from pydantic import SecretStr

from spine.alerts.channels.base import ChannelConfig
from spine.secrets.sealed import MASK

# A shorter part of a URL does not count as a secret: it is not enough to post with.
SHORTEST_SECRET_PART = 8
# Words are shorter than this.
SHORTEST_UNLIKE_A_WORD = 16
# Except for the last part of a path and the user name, which are often tokens.
SHORTEST_TOKEN = 4


class PathWord(str):
    """A part of a URL that consists of letters: it may be a word, so that it is a secret only where it stands alone."""


def scrub(text: str, secrets: Collection[str]) -> str:
    """The text with the secrets masked, in any encoding that a receiver may have applied or decoded."""
    lowered = text.lower()
    words = {secret.lower() for secret in secrets if isinstance(secret, PathWord)}
    found = sorted((form for form in encoded_forms(secrets) if form.lower() in lowered), key=len, reverse=True)
    patterns = [_alone(form) if form.lower() in words else re.escape(form) for form in found]
    return re.sub("|".join(patterns), MASK, text, flags=re.IGNORECASE) if found else text


def _alone(word: str) -> str:
    """What matches a word, but not a part of a longer one, such as `redir` in "redirect"."""
    return f"(?<![^\\W\\d_]){re.escape(word)}(?![^\\W\\d_])"


def encoded_forms(secrets: Collection[str]) -> Set[str]:
    """The secrets as they are, and encoded for URLs, JSON, HTML and logins."""
    return _encoded_forms(frozenset(secrets))


# Those of the channels that were used last: every delivery of a channel needs the same ones.
@lru_cache(maxsize=64)
def _encoded_forms(secrets: frozenset[str]) -> Set[str]:
    plain = set(secrets) | {unquote(secret) for secret in secrets}
    encode: list[Callable[[str], str]] = [
        lambda secret: quote(secret, safe=""),
        quote,
        quote_plus,
        lambda secret: json.dumps(secret)[1:-1],
        html.escape,
        lambda secret: b64encode(secret.encode()).decode(),
    ]
    encoded = {form(secret) for secret in plain for form in encode}
    return plain | encoded | {part for secret in plain for part in _inside_base64(secret.encode())}


def _inside_base64(secret: bytes) -> Iterator[str]:
    """The characters that a secret causes in the Base64 of a longer text, for each offset at which it can begin."""
    for before in range(3):
        encoded = b64encode(bytes(before) + secret).decode()
        certain = encoded[(0, 2, 3)[before] : (before + len(secret)) * 8 // 6]
        if len(certain) >= SHORTEST_SECRET_PART:
            yield certain


def secret_parts(config: ChannelConfig, secrets: Mapping[str, str]) -> set[str]:
    """All secrets of a channel: each as a whole, and of each URL the parts that would be enough to post with."""
    found = set(secrets.values())
    for user in (getattr(config, "username", None), getattr(config, "smtp_user", None)):
        # A login, as HTTP and SMTP encode it.
        found |= {login for word in secrets.values() for login in (f"{user}:{word}", f"\0{user}\0{word}")}
    for text in _secret_texts(dict(config)):
        found.add(text)
        with suppress(ValueError):
            found |= _url_parts(text)
    return {part for part in found if part}


def _url_parts(url: str) -> set[str]:
    parts = urlsplit(url)
    if not parts.scheme:
        return set()
    login, _, _ = parts.netloc.rpartition("@")
    values = [value for _, value in parse_qsl(parts.query)]
    pieces = [*parts.path.split("/"), *values, parts.path.strip("/"), parts.query]
    if parts.scheme not in ("http", "https"):
        # In an Apprise URL a token can be anywhere, even in place of the host.
        pieces += [parts.netloc, *re.split(r"[/:@?&=#,]+", url.partition("://")[2])]
    last = parts.path.rpartition("/")[2]
    found = {piece for piece in pieces if len(piece) >= SHORTEST_SECRET_PART}
    found |= {piece for piece in (last, parts.username or "") if len(piece) >= SHORTEST_TOKEN}
    found |= {login, parts.password or ""}
    return {PathWord(one) if one.isalpha() and len(one) < SHORTEST_UNLIKE_A_WORD else one for one in found}


def _secret_texts(tree: Any) -> Iterator[str]:
    if isinstance(tree, SecretStr):
        yield tree.get_secret_value()
    elif isinstance(tree, Mapping):
        for value in tree.values():
            yield from _secret_texts(value)
