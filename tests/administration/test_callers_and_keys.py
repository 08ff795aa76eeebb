"""`GET /me`, and API keys over the API."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
from spine.tables.base import utc_now

from tests.administration.support import made_by
from tests.api.test_auth import invoke, make_key, unique
from tests.api.test_jwt import AUDIENCE, ISSUER, RSA_KEY, KeyServer, published, signed
from tests.support.api_here import api_here
from tests.support.processes import free_port
from tests.support.stack import Api
from tests.support.web import WEB, serving


@pytest.fixture(scope="module")
def lonely(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """An API without Prefect that accepts tokens."""
    keys = KeyServer({"keys": [published(RSA_KEY, "rsa-1")]})
    settings = {"SPINE_JWKS_URL": keys.url, "SPINE_JWT_ISSUER": ISSUER, "SPINE_JWT_AUDIENCE": AUDIENCE}
    folder = tmp_path_factory.mktemp("callers")
    nowhere = f"http://127.0.0.1:{free_port()}/api"
    with serving(keys.server), api_here(nowhere, folder, folder / "home", None, **settings) as started:
        yield started


def as_token(api: Api, method: str, path: str, body: Any = None, **claims: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {signed(**claims)}"}
    return WEB.request(method, f"{api.url}/api/v1{path}", headers=headers, json=body)


def test_me_is_the_caller_with_its_scopes_and_domains(lonely: Api) -> None:
    name = unique("desk")
    client = lonely.as_key(make_key(lonely, name, "write", "read", domains=["finra.*", "sec"]))
    me = client.get("/me").json()
    assert me.pop("id")
    assert me == {"name": name, "kind": "KEY", "scopes": ["read", "write"], "domains": ["finra.*", "sec"]}
    assert lonely.get("/me")["domains"] is None
    token = as_token(lonely, "GET", "/me", sub="ann", scope="read configure", domains=["a.*"]).json()
    assert token == {
        "id": "jwt:ann",
        "name": "ann",
        "kind": "JWT",
        "scopes": ["read", "configure"],
        "domains": ["a.*"],
    }


def test_a_key_of_the_api_works_at_once_and_not_after_it_is_revoked(lonely: Api) -> None:
    name, ends = unique("desk"), (utc_now() + timedelta(days=1)).isoformat()
    body = {"name": name, "scopes": ["write"], "domains": ["finra.*"], "expires_at": ends}
    made = lonely.client.post("/keys", json=body)
    assert (made.status_code, made.headers["Cache-Control"]) == (201, "no-store")
    key = made.json().pop("key")
    client = lonely.as_key(key)
    assert client.get("/me").json()["scopes"] == ["write"]
    (listed,) = [one for one in lonely.get("/keys", limit=100)["data"] if one["name"] == name]
    assert (listed["state"], listed["domains"]) == ("ACTIVE", ["finra.*"])
    assert "key" not in listed
    assert key not in str(listed)
    entry = made_by(lonely, made)
    assert (entry["resource_name"], entry["after"]["scopes"]) == (name, ["write"])
    assert key not in str(entry)
    again = lonely.client.post("/keys", json=body)
    assert again.status_code == 409
    gone = lonely.client.delete(f"/keys/{name}")
    assert (gone.status_code, gone.json()["status"]) == (200, "deleted")
    assert client.get("/me").status_code == 401
    assert lonely.client.delete(f"/keys/{name}").status_code == 404
    shown = next(one for one in lonely.get("/keys", limit=100)["data"] if one["name"] == name)
    assert (shown["state"], shown["revoked_at"] is None) == ("REVOKED", False)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 422),
        ({"name": ""}, 422),
        ({"name": "a/b"}, 400),
        ({"name": "x", "scopes": []}, 422),
        ({"name": "x", "scopes": ["root"]}, 422),
        ({"name": "x", "domains": ["[a]*"]}, 400),
        ({"name": "x", "scopes": ["admin"], "domains": ["a.*"]}, 400),
        ({"name": "x", "expires_at": "2020-01-01"}, 400),
        ({"name": "x", "expires_at": 4_000_000_000}, 422),
        ({"name": "x", "key": "my-own"}, 422),
    ],
    ids=str,
)
def test_a_wrong_body_makes_no_key(lonely: Api, body: dict[str, Any], status: int) -> None:
    before = lonely.get("/keys")["pagination"]["total"]
    assert lonely.client.post("/keys", json=body).status_code == status
    assert lonely.get("/keys")["pagination"]["total"] == before


def test_an_administrator_that_is_limited_to_domains_cannot_escape_them(lonely: Api) -> None:
    limits = {"scope": "admin", "domains": ["finra.*"], "sub": "limited"}
    body = {"name": unique("escape"), "scopes": ["admin"]}
    for method, path in (("POST", "/keys"), ("GET", "/keys"), ("DELETE", "/keys/admin"), ("GET", "/audit")):
        answer = as_token(lonely, method, path, body if method == "POST" else None, **limits)
        assert answer.status_code == 403, (method, path, answer.text)
        assert "'finra.*'" in answer.json()["detail"]
    whole = as_token(lonely, "POST", "/keys", body, scope="admin", sub="whole")
    assert made_by(lonely, whole)["actor_kind"] == "JWT"


def test_no_key_revokes_itself(lonely: Api) -> None:
    name = unique("own")
    client = lonely.as_key(make_key(lonely, name, "admin"))
    refused = client.delete(f"/keys/{name}")
    assert refused.status_code == 409
    assert "itself" in refused.json()["detail"]
    assert client.get("/me").status_code == 200
    assert lonely.client.delete(f"/keys/{name}").status_code == 200


def test_a_key_of_the_command_line_can_be_revoked_by_its_id(lonely: Api) -> None:
    name = unique("by hand / with a slash")
    make_key(lonely, name)
    (listed,) = [one for one in lonely.get("/keys", limit=100)["data"] if one["name"] == name]
    assert lonely.client.delete(f"/keys/{listed['id']}").status_code == 200
    assert "revoked" in next(line for line in invoke(lonely, "keys", "list").stdout.splitlines() if name in line)
