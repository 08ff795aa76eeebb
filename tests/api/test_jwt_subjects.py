"""Claims of a token obey the limits of the columns they are stored in, and what PyJWT does not catch is 401."""

import asyncio
import base64

import jwt
import pytest
from spine.auth.jwt import LONGEST_SUBJECT, JwtVerifier
from spine.errors import Unauthorized

from tests.api.test_jwt import AUDIENCE, ISSUER, RSA_KEY, KeyServer, claims, key_server, signed

__all__ = ["key_server"]


@pytest.mark.parametrize(
    "subject",
    ["", "a" * (LONGEST_SUBJECT + 1), "a\x00b", "a\nb", "a\ud800b", "\u202edesk"],
    ids=["empty", "too long", "NUL", "line break", "lone surrogate", "text direction"],
)
def test_a_subject_that_cannot_be_stored_or_shown_is_rejected(subject: str, key_server: KeyServer) -> None:
    with pytest.raises(Unauthorized, match="'sub' must have 1 to 255 printable characters"):
        asyncio.run(JwtVerifier(key_server.url, ISSUER, AUDIENCE).check(signed(sub=subject)))


def test_the_longest_subject_is_accepted(key_server: KeyServer) -> None:
    subject = "é" * LONGEST_SUBJECT
    assert asyncio.run(JwtVerifier(key_server.url, ISSUER, AUDIENCE).check(signed(sub=subject))).name == subject


def test_a_header_of_nested_lists_is_rejected(key_server: KeyServer) -> None:
    header = base64.urlsafe_b64encode(b'{"alg":' + b"[" * 40_000).rstrip(b"=").decode()
    with pytest.raises(Unauthorized):
        asyncio.run(JwtVerifier(key_server.url, ISSUER, AUDIENCE).check(f"{header}.e30.e30"))


@pytest.mark.parametrize("time", [float("inf"), float("-inf"), float("nan")], ids=str)
@pytest.mark.parametrize("claim", ["exp", "nbf", "iat"])
def test_a_time_that_is_no_number_is_rejected(claim: str, time: float, key_server: KeyServer) -> None:
    with pytest.raises(Unauthorized):
        asyncio.run(
            JwtVerifier(key_server.url, ISSUER, AUDIENCE).check(
                jwt.encode(claims(**{claim: time}), RSA_KEY, "RS256", {"kid": "rsa-1"})
            )
        )
