"""Tokens that are limited to domains."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from spine.auth.domains import Domains
from spine.auth.jwt import JwtVerifier
from spine.errors import Unauthorized

from tests.api.test_jwt import AUDIENCE, ISSUER, RSA_KEY, KeyServer, published, signed
from tests.support.web import serving


@pytest.fixture(scope="module")
def issuer() -> Iterator[KeyServer]:
    """What publishes the key of the tokens."""
    keys = KeyServer({"keys": [published(RSA_KEY, "rsa-1")]})
    with serving(keys.server):
        yield keys


@pytest.mark.parametrize(
    ("claim", "domains"),
    [
        ({}, Domains()),
        ({"domains": ["finra.*", "sec"]}, Domains(("finra.*", "sec"))),
        ({"domains": "finra.* sec"}, Domains(("finra.*", "sec"))),
        ({"domains": []}, Domains(())),
        ({"domains": ""}, Domains(())),
        ({"domains": 5}, Domains(())),
        ({"domains": {"finra.*": True}}, Domains(())),
        ({"domains": False}, Domains(())),
    ],
    ids=str,
)
def test_the_domains_of_a_token_limit_it(claim: dict[str, Any], domains: Domains, issuer: KeyServer) -> None:
    caller = asyncio.run(JwtVerifier(issuer.url, ISSUER, AUDIENCE).check(signed(**claim)))
    assert caller.domains == domains


def test_a_token_with_an_invalid_pattern_is_rejected(issuer: KeyServer) -> None:
    with pytest.raises(Unauthorized, match="`domains`"):
        asyncio.run(JwtVerifier(issuer.url, ISSUER, AUDIENCE).check(signed(domains=["[a-z]*"])))
