"""JWT bearer tokens, verified with keys that a real server publishes."""

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, RSAAlgorithm
from pydantic import ValidationError
from spine.auth.callers import Scope
from spine.auth.jwt import SECONDS_BETWEEN_FETCHES, SECONDS_KEYS_STAY_FRESH, JwtVerifier
from spine.errors import Unauthorized, Unavailable
from spine.settings import Settings

from tests.support.api_here import api_here
from tests.support.processes import free_port
from tests.support.stack import Api, PrefectStack
from tests.support.web import WEB, serving

ISSUER = "https://issuer.example"
AUDIENCE = "spine"
RUNS = "/api/v1/workflows/runs"
TRIGGER = "/api/v1/workflows/trigger/demo.nothing"

RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
ANOTHER_RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())


def published(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, key_id: str) -> dict[str, Any]:
    """A key in the format of a JWKS."""
    if isinstance(key, rsa.RSAPrivateKey):
        return {**RSAAlgorithm.to_jwk(key.public_key(), as_dict=True), "kid": key_id, "alg": "RS256", "use": "sig"}
    return {**ECAlgorithm.to_jwk(key.public_key(), as_dict=True), "kid": key_id, "alg": "ES256", "use": "sig"}


@dataclass
class KeyServer:
    """Publishes `document` and counts how often it was fetched."""

    document: object
    fetches: int = 0
    server: ThreadingHTTPServer = field(init=False)

    def __post_init__(self) -> None:
        keys = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                keys.fetches += 1
                body = json.dumps(keys.document).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/jwks.json"

    def publish(self, *keys: dict[str, Any]) -> None:
        self.document = {"keys": list(keys)}


@pytest.fixture
def key_server() -> Iterator[KeyServer]:
    keys = KeyServer({"keys": [published(RSA_KEY, "rsa-1")]})
    with serving(keys.server):
        yield keys


@pytest.fixture(scope="module")
def jwt_api(stack: PrefectStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """An API that accepts tokens signed with either key."""
    keys = KeyServer({"keys": [published(RSA_KEY, "rsa-1"), published(EC_KEY, "ec-1")]})
    jwt_settings = {"SPINE_JWKS_URL": keys.url, "SPINE_JWT_ISSUER": ISSUER, "SPINE_JWT_AUDIENCE": AUDIENCE}
    folder = tmp_path_factory.mktemp("jwt-api")
    with serving(keys.server), api_here(stack.url, stack.home, folder, None, **jwt_settings) as started:
        yield started


def claims(**changes: object) -> dict[str, Any]:
    """Valid claims with these changes; None removes a claim."""
    whole = {"iss": ISSUER, "aud": AUDIENCE, "sub": "dashboard", "exp": int(time.time()) + 300, "scope": "read write"}
    return {name: value for name, value in {**whole, **changes}.items() if value is not None}


def signed(key: Any = RSA_KEY, algorithm: str = "RS256", key_id: str = "rsa-1", **changes: object) -> str:
    return jwt.encode(claims(**changes), key, algorithm=algorithm, headers={"kid": key_id})


def encoded(part: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


def signed_with_the_public_key_as_a_secret() -> str:
    """A token that confuses two algorithms, made by hand because PyJWT does not make one."""
    secret = RSA_KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    content = f"{encoded({'alg': 'HS256', 'typ': 'JWT', 'kid': 'rsa-1'})}.{encoded(claims())}"
    signature = hmac.new(secret, content.encode(), hashlib.sha256).digest()
    return f"{content}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def tampered() -> str:
    header, _, signature = signed(scope="read").split(".")
    return f"{header}.{encoded(claims(scope='admin'))}.{signature}"


def ask(api: Api, token: str, method: str = "GET", path: str = RUNS) -> httpx.Response:
    return WEB.request(method, f"{api.url}{path}", headers={"Authorization": f"Bearer {token}"}, timeout=20)


@pytest.mark.parametrize(
    "make",
    [
        signed,
        lambda: signed(EC_KEY, "ES256", "ec-1"),
        lambda: signed(aud=["other", AUDIENCE]),
        lambda: signed(scope=None, scp=["read"]),
    ],
    ids=["RS256", "ES256", "several audiences", "scp as a list"],
)
def test_a_valid_token_can_read(make: Callable[[], str], jwt_api: Api) -> None:
    assert ask(jwt_api, make()).status_code == 200


@pytest.mark.parametrize(
    "make",
    [
        lambda: signed(exp=int(time.time()) - 5),
        lambda: signed(exp=None),
        lambda: signed(nbf=int(time.time()) + 300),
        lambda: signed(iss="https://evil.example"),
        lambda: signed(iss=None),
        lambda: signed(aud="another-api"),
        lambda: signed(aud=None),
        lambda: signed(sub=None),
        lambda: signed(key_id="unheard-of"),
        lambda: signed(ANOTHER_RSA_KEY),
        lambda: signed(EC_KEY, "ES256", "rsa-1"),
        lambda: signed(RSA_KEY, "RS512"),
        lambda: jwt.encode(claims(), RSA_KEY, algorithm="RS256"),
        lambda: jwt.encode(claims(), "", algorithm="none", headers={"kid": "rsa-1"}),
        signed_with_the_public_key_as_a_secret,
        tampered,
        lambda: signed()[:-4],
        lambda: "a.b.c",
        lambda: "..",
    ],
    ids=[
        "expired",
        "without exp",
        "not valid yet",
        "wrong issuer",
        "without iss",
        "wrong audience",
        "without aud",
        "without sub",
        "unknown kid",
        "signed with another key",
        "kid of a key of another type",
        "RS512",
        "without kid, of two keys",
        "alg none",
        "HS256 with the public key",
        "tampered payload",
        "cut signature",
        "no JSON",
        "only dots",
    ],
)
def test_an_invalid_token_is_rejected(make: Callable[[], str], jwt_api: Api) -> None:
    response = ask(jwt_api, make())
    assert response.status_code == 401, response.text
    assert isinstance(response.json()["detail"], str)
    assert response.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize(
    ("scope", "reads", "starts"),
    [
        ("", 403, 403),
        (None, 403, 403),
        ("openid profile", 403, 403),
        ("read", 200, 403),
        ("write", 200, 404),
        ("openid admin", 200, 404),
        (5, 403, 403),
        ([["read"]], 403, 403),
        ({"read": True}, 403, 403),
    ],
)
def test_the_scope_of_a_token_decides_what_it_can_do(scope: object, reads: int, starts: int, jwt_api: Api) -> None:
    token = signed(scope=scope)
    assert ask(jwt_api, token).status_code == reads
    # Past the scope, the workflow that does not exist is a 404.
    assert ask(jwt_api, token, "POST", TRIGGER).status_code == starts


def test_a_run_carries_the_subject_of_the_token_that_started_it(jwt_api: Api) -> None:
    body = {"params": {"day": "2025-12-12", "tier": "A"}}
    headers = {"Authorization": f"Bearer {signed(sub='ops@example.com')}"}
    started = WEB.post(f"{jwt_api.url}/api/v1/workflows/trigger/demo.typed", json=body, headers=headers)
    assert started.status_code == 201
    assert jwt_api.run(started.json()["run_id"])["triggered_by"] == "ops@example.com"


def test_api_keys_work_beside_tokens(jwt_api: Api) -> None:
    assert jwt_api.client.get("/workflows/runs").status_code == 200


def test_a_rotation_is_picked_up_and_bad_key_ids_do_not_flood_the_issuer(key_server: KeyServer) -> None:
    verifier = JwtVerifier(key_server.url, ISSUER, AUDIENCE)
    rotated = signed(ANOTHER_RSA_KEY, key_id="rsa-2")

    async def rotate() -> None:
        assert (await verifier.check(signed())).scopes == {Scope.READ, Scope.WRITE}
        key_server.publish(published(RSA_KEY, "rsa-1"), published(ANOTHER_RSA_KEY, "rsa-2"))
        for _ in range(3):
            with pytest.raises(Unauthorized, match="does not publish"):
                await verifier.check(rotated)
        assert key_server.fetches == 1
        verifier._fetched_at -= SECONDS_BETWEEN_FETCHES + 1
        assert (await verifier.check(rotated)).name == "dashboard"
        await verifier.check(signed())
        assert key_server.fetches == 2

    asyncio.run(rotate())


def test_a_key_that_the_issuer_withdrew_is_rejected_after_five_minutes(key_server: KeyServer) -> None:
    verifier = JwtVerifier(key_server.url, ISSUER, AUDIENCE)

    async def withdraw() -> None:
        await verifier.check(signed())
        key_server.publish(published(ANOTHER_RSA_KEY, "rsa-2"))
        verifier._fetched_at -= SECONDS_KEYS_STAY_FRESH + 1
        with pytest.raises(Unauthorized):
            await verifier.check(signed())

    asyncio.run(withdraw())


@pytest.mark.parametrize("document", [[], None, "keys", {}, {"keys": []}, {"keys": "x"}, {"keys": [5]}], ids=str)
def test_an_issuer_that_publishes_invalid_keys_counts_as_out_of_reach(key_server: KeyServer, document: object) -> None:
    key_server.document = document
    with pytest.raises(Unavailable, match="out of reach"):
        asyncio.run(JwtVerifier(key_server.url, ISSUER, AUDIENCE).check(signed()))


def test_tokens_are_503_and_keys_work_while_the_issuer_is_down(
    stack: PrefectStack, tmp_path_factory: pytest.TempPathFactory
) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}/jwks.json"
    jwt_settings = {"SPINE_JWKS_URL": nowhere, "SPINE_JWT_ISSUER": ISSUER, "SPINE_JWT_AUDIENCE": AUDIENCE}
    with api_here(stack.url, stack.home, tmp_path_factory.mktemp("no-issuer"), None, **jwt_settings) as api:
        response = ask(api, signed())
        assert response.status_code == 503
        assert int(response.headers["Retry-After"]) > 0
        assert isinstance(response.json()["detail"], str)
        assert api.client.get("/workflows/runs").status_code == 200


def test_a_token_is_rejected_where_tokens_are_not_configured(api: Api) -> None:
    assert ask(api, signed()).status_code == 401


@pytest.mark.parametrize("given", ["jwks_url", "jwt_issuer", "jwt_audience"])
def test_settings_with_one_of_the_three_variables_are_rejected_with_a_sentence(given: str) -> None:
    with pytest.raises(ValidationError, match="must be set together or not at all"):
        Settings.model_validate({given: "https://issuer.example"})
