"""References to secrets that others keep: `env:NAME`, `file:/path`, `prefect:block`, `vault:path#field`.

They are looked up at the moment of use, so that a secret which is changed where it is kept is changed everywhere.
"""

import asyncio
import json
import os
import re
from pathlib import Path
from urllib.parse import quote

import httpx

from spine.errors import BadRequest, NotFound, SpineError, Unavailable
from spine.prefect.client import Prefect
from spine.settings import get_settings

SCHEMES = ("env", "file", "prefect", "vault")
# With these a channel could send Spine's own secrets to whoever may make channels.
PROTECTED_VARIABLES = ("SPINE_", "PREFECT_", "VAULT_")
_BLOCK_NAME = re.compile("[A-Za-z0-9_-]+")
LARGEST_SECRET = 64 * 1024
SECONDS_FOR_VAULT = 5
DEFAULT_FIELD = "password"


class SecretMissing(SpineError):
    """A reference names a secret that is not there or cannot be read."""

    status_code = 400


def check_ref(ref: str) -> str:
    """The reference, if it has the form of one; raises `ValueError`, which does not show it: it may be a secret."""
    scheme, colon, name = ref.partition(":")
    if scheme not in SCHEMES or not colon or not name.partition("#")[0].strip() or not ref.isprintable():
        raise ValueError(
            "it names a secret and never holds it: "
            "env:NAME, file:/run/secrets/x, prefect:block-name or vault:path#field"
        )
    if scheme == "env" and name.upper().startswith(PROTECTED_VARIABLES):
        raise ValueError("variables of Spine, Prefect and Vault themselves cannot be used")
    if scheme == "file" and not name.startswith("/"):
        raise ValueError("a file is named by its absolute path")
    # What is more than a name would lead to other routes of Prefect and Vault, under Spine's own credentials.
    if scheme == "prefect" and not _BLOCK_NAME.fullmatch(name):
        raise ValueError("the name of a Prefect block has letters, digits, - and _ only")
    if scheme == "vault" and not _is_vault_path(name.partition("#")[0].strip("/").split("/")):
        raise ValueError("a secret of Vault is named by mount/path#field")
    return ref


def _is_vault_path(segments: list[str]) -> bool:
    return len(segments) > 1 and not {"", ".", ".."} & set(segments)


async def resolve_ref(ref: str, prefect: Prefect | None) -> str:
    """The secret that a reference names; without `prefect` its blocks are out of reach.

    Raises `BadRequest` for what is no reference, `SecretMissing`, and `Unavailable` when its keeper is out of reach.
    """
    try:
        scheme, _, name = check_ref(ref).partition(":")
    except ValueError as reason:
        raise BadRequest(f"The reference to a secret cannot be used: {reason}.") from None
    if scheme == "env":
        return _from_environment(name)
    if scheme == "file":
        return await asyncio.to_thread(_from_file, name)
    if scheme == "prefect":
        return await _from_prefect(prefect, name)
    return await _from_vault(name)


def _from_environment(name: str) -> str:
    value = os.environ.get(name)
    if value is None:
        raise SecretMissing(f"The environment has no variable {name}, which env:{name} names.")
    return value


def _from_file(name: str) -> str:
    path = Path(name)
    try:
        real = path.resolve(strict=True)
        if real.is_relative_to(get_settings().home.resolve()) or not real.is_file():
            raise SecretMissing(f"file:{name} is not a file that secrets may be read from.")
        with real.open("rb") as file:
            # What the kernel makes up has no size: /proc/self/environ, say, which holds all that `env:` refuses.
            size = os.fstat(file.fileno()).st_size
            content = file.read(min(size, LARGEST_SECRET)).decode()
    # A loop of links is a RuntimeError up to Python 3.12.
    except (OSError, RuntimeError, UnicodeDecodeError):
        raise SecretMissing(f"file:{name} cannot be read.") from None
    if not content:
        raise SecretMissing(f"file:{name} is empty.")
    return content.removesuffix("\n")


async def _from_prefect(prefect: Prefect | None, name: str) -> str:
    if prefect is None:
        raise Unavailable(f"Spine is not connected to Prefect here, which keeps prefect:{name}.")
    try:
        value = await prefect.read_secret_block(name)
    except NotFound:
        raise SecretMissing(f"Prefect has no Secret block named {name}.") from None
    return value if isinstance(value, str) else json.dumps(value)


async def _from_vault(name: str) -> str:
    path, _, field = name.partition("#")
    field = field or DEFAULT_FIELD
    address, token = os.environ.get("VAULT_ADDR"), os.environ.get("VAULT_TOKEN")
    if not address or not token:
        raise SecretMissing(f"vault:{name} needs VAULT_ADDR and VAULT_TOKEN in Spine's environment.")
    mount, _, rest = quote(path.strip("/")).partition("/")
    headers = {"X-Vault-Token": token}
    if namespace := os.environ.get("VAULT_NAMESPACE"):
        headers["X-Vault-Namespace"] = namespace
    try:
        async with asyncio.timeout(SECONDS_FOR_VAULT), httpx.AsyncClient(timeout=SECONDS_FOR_VAULT) as client:
            url = f"{address.rstrip('/')}/v1/{mount}/data/{rest.removeprefix('data/')}"
            response = await client.get(url, headers=headers)
    except (TimeoutError, httpx.HTTPError, httpx.InvalidURL, UnicodeError):
        raise Unavailable(f"Vault, which keeps vault:{name}, is out of reach; try again in a few seconds.") from None
    if response.status_code >= 500 or response.status_code == 429:
        raise Unavailable(f"Vault answers {response.status_code} for vault:{name}; try again in a few seconds.")
    if response.status_code != 200:
        raise SecretMissing(f"Vault does not give vault:{name} (it answers {response.status_code}).")
    try:
        value = response.json()["data"]["data"][field]
    except (ValueError, KeyError, TypeError):
        raise SecretMissing(f"The secret that vault:{name} names has no field {field}.") from None
    return value if isinstance(value, str) else json.dumps(value)
