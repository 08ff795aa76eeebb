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
from spine.secrets.refs import SecretMissing, check_ref, ref_refusal, resolve_ref
from spine.settings import Settings

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


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Spine's home is inside of the directory of secrets, which must not open it."""
    home = tmp_path / "home"
    home.mkdir()
    return Settings(home=home, secret_dirs=(tmp_path, home / "secrets"))


async def test_the_environment(prefect: Prefect, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPINE_SECRET_DESK", "fr0m-env")
    assert await resolve_ref("env:SPINE_SECRET_DESK", prefect, settings) == "fr0m-env"
    with pytest.raises(SecretMissing):
        await resolve_ref("env:SPINE_SECRET_NONE", prefect, settings)
    for own in ("env:SPINE_API_KEY", "env:PREFECT_API_KEY", "env:VAULT_TOKEN"):
        with pytest.raises(BadRequest):
            await resolve_ref(own, prefect, settings)


async def test_files(tmp_path: Path, settings: Settings) -> None:
    (tmp_path / "secret").write_text("fr0m-file\n")
    assert await resolve_ref(f"file:{tmp_path}/secret", None, settings) == "fr0m-file"
    for name in ("nothing", "home"):
        with pytest.raises((SecretMissing, BadRequest)):
            await resolve_ref(f"file:{tmp_path}/{name}", None, settings)
    (own := settings.home / "secrets").mkdir()
    (own / "db").write_text("fr0m-home")
    only_defaults = Settings(home=settings.home)
    assert await resolve_ref(f"file:{own}/db", None, only_defaults) == "fr0m-home"
    with pytest.raises(BadRequest, match="SPINE_SECRET_DIRS"):
        await resolve_ref(f"file:{tmp_path}/secret", None, only_defaults)


async def test_only_regular_files_of_the_secret_directories_are_read(tmp_path: Path, settings: Settings) -> None:
    home, outside = settings.home, tmp_path.parent / f"{tmp_path.name}-outside"
    for folder in (home / "prefect", tmp_path / "kubernetes.io" / "serviceaccount", outside):
        folder.mkdir(parents=True)
    for file in (home / "api-key", home / "prefect" / "prefect.db", outside / "x"):
        file.write_text("s3cret")
    (tmp_path / "kubernetes.io" / "serviceaccount" / "token").write_text("s3cret")
    links: dict[str, str | Path] = {
        "key": home / "api-key",
        "state": home,
        "shadow": "/etc/shadow",
        "outside": outside,
        "environment": "/proc/self/environ",
        "loop": tmp_path / "loop",
        "root": "/",
    }
    for name, target in links.items():
        (tmp_path / name).symlink_to(target)
    os.link(home / "api-key", tmp_path / "hard")
    os.mkfifo(tmp_path / "pipe")
    opened = (home / "api-key").open()
    paths = [
        *(f"{tmp_path}/{name}" for name in (*links, "hard", "pipe", "home/api-key", "home/../home/api-key")),
        *(f"{tmp_path}/{name}" for name in ("state/api-key", "state/prefect/prefect.db", "outside/x")),
        *(f"{tmp_path}/../{outside.name}/x", f"{tmp_path}/root{home}/api-key", f"/proc/self/root{home}/api-key"),
        *(f"{tmp_path}/kubernetes.io/serviceaccount/token", f"/proc/self/cwd/../..{home}/api-key"),
        *(f"/proc/self/fd/{opened.fileno()}", f"/dev/fd/{opened.fileno()}", "/dev/stdin", "/dev/zero"),
        *("/proc/self/environ", "/proc/self/task/../environ", "/proc/1/environ", "/etc/shadow", "/etc/hostname"),
        *(f"/{home}/api-key", f"{home}/api-key", f"{home}/secret-key", f"{home}/./api-key", str(outside / "x")),
    ]
    # Even if the operator opens the whole machine, Spine's state and the system stay closed.
    everywhere = settings.model_copy(update={"secret_dirs": (Path("/"), home)})
    with opened:
        for path in paths:
            is_of_the_machine = "outside" in path or path.endswith(("shadow", "hostname"))
            for allowed in (settings,) if is_of_the_machine else (settings, everywhere):
                with pytest.raises((SecretMissing, BadRequest)) as refused:
                    await resolve_ref(f"file:{path}", None, allowed)
                assert "s3cret" not in str(refused.value)
        with pytest.raises(BadRequest, match="SPINE_SECRET_DIRS"):
            await resolve_ref("file:/etc/shadow", None, settings)


@pytest.mark.parametrize(
    ("allowed", "name", "is_allowed"),
    [
        (None, "SPINE_SECRET_DB", True),
        (None, "HOME", False),
        (None, "AWS_SECRET_ACCESS_KEY", False),
        (None, "spine_secret_db", False),
        ("DB_PASSWORD", "DB_PASSWORD", True),
        ("DB_PASSWORD", "DB_PASSWORD2", False),
        ("DB_PASSWORD", "SPINE_SECRET_DB", False),
        ("DB_*, FEED", "DB_X", True),
        ("DB_*, FEED", "FEED", True),
        ("*", "HOME", True),
        *(
            ("*", name, False)
            for name in ("SPINE_SECRET_KEY", "Spine_Secret_Key", "SPINE_API_KEY", "SPINE_DATABASE_URL")
        ),
        *(("*", name, False) for name in ("SPINE_SECRET_ENV", "PREFECT_API_KEY", "VAULT_TOKEN", "SPINE_UP_X")),
    ],
)
async def test_only_variables_that_the_operator_names_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, allowed: str | None, name: str, is_allowed: bool
) -> None:
    settings = Settings.model_validate({"home": tmp_path} | ({"secret_env": allowed} if allowed else {}))
    monkeypatch.setenv(name, "s3cret")
    if is_allowed:
        assert await resolve_ref(f"env:{name}", None, settings) == "s3cret"
        return
    with pytest.raises(BadRequest) as refused:
        await resolve_ref(f"env:{name}", None, settings)
    assert "s3cret" not in str(refused.value)


async def test_blocks_and_paths_of_vault_can_be_limited(tmp_path: Path) -> None:
    limited = Settings.model_validate({"home": tmp_path, "secret_blocks": "desk-*", "secret_vault": "kv/desk/*"})
    for ref in ("prefect:other", "vault:kv/other", "vault:kv/data/other#password"):
        with pytest.raises(BadRequest, match=r"SPINE_SECRET_(BLOCKS|VAULT)"):
            await resolve_ref(ref, None, limited)
    assert ref_refusal("prefect:desk-db", limited) is None
    assert ref_refusal("vault:kv/data/desk/db#x", limited) is None
    assert ref_refusal("vault:kv/desk/db", limited) is None


async def test_only_blocks_named_for_spine_are_allowed_by_default(settings: Settings) -> None:
    for name in ("desk-password", "spine", "aspine-x", "Spine-x"):
        with pytest.raises(BadRequest, match="SPINE_SECRET_BLOCKS"):
            await resolve_ref(f"prefect:{name}", None, settings)
    assert ref_refusal("prefect:spine-desk", settings) is None


async def test_blocks_of_prefect(prefect: Prefect, stack: PrefectStack, settings: Settings) -> None:
    name = f"spine-{uuid4().hex[:8]}"
    kind = stack.get("/block_types/slug/secret")["id"]
    schemas = stack.post("/block_schemas/filter", {"block_schemas": {"block_type_id": {"any_": [kind]}}})
    body = {"name": name, "block_type_id": kind, "block_schema_id": schemas[0]["id"], "data": {"value": "fr0m-block"}}
    stack.post("/block_documents/", body)
    assert await resolve_ref(f"prefect:{name}", prefect, settings) == "fr0m-block"
    with pytest.raises(SecretMissing):
        await resolve_ref("prefect:spine-no-such-block", prefect, settings)
    with pytest.raises(Unavailable):
        await resolve_ref(f"prefect:{name}", None, settings)
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        async with Prefect.connect(2) as nowhere:
            with pytest.raises(Unavailable):
                await resolve_ref(f"prefect:{name}", nowhere, settings)


async def test_blocks_whose_value_is_not_text_are_returned_as_json(
    prefect: Prefect, stack: PrefectStack, settings: Settings
) -> None:
    name = f"spine-{uuid4().hex[:8]}"
    kind = stack.get("/block_types/slug/secret")["id"]
    schemas = stack.post("/block_schemas/filter", {"block_schemas": {"block_type_id": {"any_": [kind]}}})
    body = {"name": name, "block_type_id": kind, "block_schema_id": schemas[0]["id"], "data": {"value": {"a": [1]}}}
    stack.post("/block_documents/", body)
    assert await resolve_ref(f"prefect:{name}", prefect, settings) == '{"a": [1]}'


async def test_vault(prefect: Prefect, vault: Receiver, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await resolve_ref("vault:secret/team/db", prefect, settings) == "v4ult"
    assert await resolve_ref("vault:secret/data/team/db#other", prefect, settings) == "0ther"
    for missing in ("vault:secret/team/db#none", "vault:secret/other"):
        with pytest.raises(SecretMissing):
            await resolve_ref(missing, prefect, settings)
    assert [request.path for request in vault.requests] == [
        f"/v1/secret/data/{path}" for path in ("team/db", "team/db", "team/db", "other")
    ]
    with pytest.raises(SecretMissing):
        await resolve_ref("vault:secret/a?b%2e/c", prefect, settings)
    assert vault.requests[-1].path == "/v1/secret/data/a%3Fb%252e/c"
    vault.always = refuse(503)
    with pytest.raises(Unavailable):
        await resolve_ref("vault:secret/team/db", prefect, settings)
    for nowhere in ("http://127.0.0.1:9", "http://vault:port"):
        monkeypatch.setenv("VAULT_ADDR", nowhere)
        with pytest.raises(Unavailable, match="vault:secret/team/db"):
            await resolve_ref("vault:secret/team/db", prefect, settings)


async def test_vault_has_five_seconds_for_the_whole_response(
    prefect: Prefect, vault: Receiver, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refs, "SECONDS_FOR_VAULT", 0.5)
    vault.always = drip
    with pytest.raises(Unavailable):
        await asyncio.wait_for(resolve_ref("vault:secret/team/db", prefect, settings), 2)


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
