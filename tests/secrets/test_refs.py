"""References to secrets that other systems store."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings
from spine.errors import BadRequest, Unavailable
from spine.prefect.client import Prefect
from spine.secrets import refs
from spine.secrets.refs import SecretMissing, check_ref, resolve_ref
from spine.settings import get_settings

from tests.support.receivers import Handler, Receiver, drip, receiver, refuse
from tests.support.stack import PrefectStack


@pytest.fixture
async def prefect(stack: PrefectStack) -> AsyncIterator[Prefect]:
    with temporary_settings({PREFECT_API_URL: stack.url}):
        async with Prefect.connect(8) as door:
            yield door


@pytest.fixture
def vault(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """An HTTP server that responds as KV v2 of Vault does."""

    def answer(handler: Handler) -> None:
        if handler.headers["X-Vault-Token"] != "root":
            handler.answer(403, b'{"errors": ["permission denied"]}')
        elif handler.path == "/v1/secret/data/team/db":
            handler.answer(200, b'{"data": {"data": {"password": "v4ult", "other": "0ther"}, "metadata": {}}}')
        else:
            handler.answer(404, b'{"errors": []}')

    with receiver() as made:
        made.always = answer
        monkeypatch.setenv("VAULT_ADDR", f"http://127.0.0.1:{made.port}")
        monkeypatch.setenv("VAULT_TOKEN", "root")
        yield made


async def test_the_environment(prefect: Prefect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DESK_SECRET", "fr0m-env")
    assert await resolve_ref("env:DESK_SECRET", prefect) == "fr0m-env"
    with pytest.raises(SecretMissing):
        await resolve_ref("env:DESK_NO_SECRET", prefect)
    for own in ("env:SPINE_API_KEY", "env:PREFECT_API_KEY", "env:VAULT_TOKEN"):
        with pytest.raises(BadRequest):
            await resolve_ref(own, prefect)


async def test_files(prefect: Prefect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").write_text("fr0m-file\n")
    assert await resolve_ref(f"file:{tmp_path}/secret", prefect) == "fr0m-file"
    home = tmp_path / "home"
    home.mkdir()
    (home / "api-key").write_text("s3cret")
    (tmp_path / "link").symlink_to(home / "api-key")
    monkeypatch.setenv("SPINE_HOME", str(home))
    get_settings.cache_clear()
    for name in ("nothing", "home", "home/api-key", "link"):
        with pytest.raises(SecretMissing) as refused:
            await resolve_ref(f"file:{tmp_path}/{name}", prefect)
        assert "s3cret" not in str(refused.value)
    get_settings.cache_clear()


async def test_secrets_are_read_only_from_regular_files(
    prefect: Prefect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPINE_HOME", str(tmp_path / "home"))
    get_settings.cache_clear()
    (tmp_path / "environment").symlink_to("/proc/self/environ")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    os.mkfifo(tmp_path / "pipe")
    for name in ("/proc/self/environ", "/proc/self/task/../environ", "/dev/zero"):
        with pytest.raises(SecretMissing):
            await resolve_ref(f"file:{name}", prefect)
    for name in ("environment", "loop", "pipe"):
        with pytest.raises(SecretMissing):
            await resolve_ref(f"file:{tmp_path}/{name}", prefect)
    get_settings.cache_clear()


async def test_blocks_of_prefect(prefect: Prefect, stack: PrefectStack) -> None:
    name = f"desk-{uuid4().hex[:8]}"
    kind = stack.get("/block_types/slug/secret")["id"]
    schemas = stack.post("/block_schemas/filter", {"block_schemas": {"block_type_id": {"any_": [kind]}}})
    body = {"name": name, "block_type_id": kind, "block_schema_id": schemas[0]["id"], "data": {"value": "fr0m-block"}}
    stack.post("/block_documents/", body)
    assert await resolve_ref(f"prefect:{name}", prefect) == "fr0m-block"
    with pytest.raises(SecretMissing):
        await resolve_ref("prefect:no-such-block", prefect)
    with pytest.raises(Unavailable):
        await resolve_ref(f"prefect:{name}", None)
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        async with Prefect.connect(2) as nowhere:
            with pytest.raises(Unavailable):
                await resolve_ref(f"prefect:{name}", nowhere)


async def test_blocks_whose_value_is_not_text_are_returned_as_json(prefect: Prefect, stack: PrefectStack) -> None:
    name = f"desk-{uuid4().hex[:8]}"
    kind = stack.get("/block_types/slug/secret")["id"]
    schemas = stack.post("/block_schemas/filter", {"block_schemas": {"block_type_id": {"any_": [kind]}}})
    body = {"name": name, "block_type_id": kind, "block_schema_id": schemas[0]["id"], "data": {"value": {"a": [1]}}}
    stack.post("/block_documents/", body)
    assert await resolve_ref(f"prefect:{name}", prefect) == '{"a": [1]}'


async def test_vault(prefect: Prefect, vault: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await resolve_ref("vault:secret/team/db", prefect) == "v4ult"
    assert await resolve_ref("vault:secret/data/team/db#other", prefect) == "0ther"
    for missing in ("vault:secret/team/db#none", "vault:secret/other"):
        with pytest.raises(SecretMissing):
            await resolve_ref(missing, prefect)
    assert [request.path for request in vault.requests] == [
        f"/v1/secret/data/{path}" for path in ("team/db", "team/db", "team/db", "other")
    ]
    with pytest.raises(SecretMissing):
        await resolve_ref("vault:secret/a?b%2e/c", prefect)
    assert vault.requests[-1].path == "/v1/secret/data/a%3Fb%252e/c"
    vault.always = refuse(503)
    with pytest.raises(Unavailable):
        await resolve_ref("vault:secret/team/db", prefect)
    for nowhere in ("http://127.0.0.1:9", "http://vault:port"):
        monkeypatch.setenv("VAULT_ADDR", nowhere)
        with pytest.raises(Unavailable, match="vault:secret/team/db"):
            await resolve_ref("vault:secret/team/db", prefect)


async def test_vault_has_five_seconds_for_the_whole_response(
    prefect: Prefect, vault: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refs, "SECONDS_FOR_VAULT", 0.5)
    vault.always = drip
    with pytest.raises(Unavailable):
        await asyncio.wait_for(resolve_ref("vault:secret/team/db", prefect), 2)


@pytest.mark.parametrize(
    "ref",
    [
        *("s3cret", "env:", "file:relative", "http://x", "vault:#f", "env:SPINE_X", "", "prefect: "),
        *("prefect:../../s3cret", "prefect:a?b", "vault:s3cret", "vault:secret/../sys/x", "vault:secret//x"),
    ],
)
def test_an_invalid_reference_is_refused_and_not_shown(ref: str) -> None:
    with pytest.raises(ValueError, match=r"^(?!.*s3cret)"):
        check_ref(ref)
