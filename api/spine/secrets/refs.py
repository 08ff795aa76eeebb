"""References to secrets that other systems store: `env:NAME`, `file:/path`, `prefect:block`, `vault:path#field`.

A reference is resolved each time it is used, so that a changed secret takes effect at once. Whoever may create a source
can have its secret sent to any server, so only what the operator has named for that purpose can be referred to.
"""

import asyncio
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import httpx

from spine.egress.paths import SYSTEM_FOLDERS, ClosedPaths, state_paths
from spine.egress.tls import http_context
from spine.errors import BadRequest, NotFound, SpineError, Unavailable
from spine.prefect.client import Prefect
from spine.settings import Settings

SCHEMES = ("env", "file", "prefect", "vault")
# The credentials of Spine itself, which no setting allows.
PROTECTED_VARIABLES = ("SPINE_", "PREFECT_", "VAULT_")
OPEN_PREFIX = "SPINE_SECRET_"
_SETTINGS = {f"SPINE_{name.upper()}" for name in Settings.model_fields}
# Where platforms put the identity of a machine or pod, below /run/secrets.
PLATFORM_FOLDERS = {"kubernetes.io", "eks.amazonaws.com", "azure", "tokens"}
_BLOCK_NAME = re.compile("[A-Za-z0-9_-]+")
LARGEST_SECRET = 64 * 1024
SECONDS_FOR_VAULT = 5
DEFAULT_FIELD = "password"


class SecretMissing(SpineError):
    """The secret of a reference does not exist or cannot be read."""

    status_code = 400


def check_ref(ref: str) -> str:
    """The reference, if it is valid. Raises `ValueError`, which does not contain it: it may be a secret."""
    scheme, colon, name = ref.partition(":")
    if scheme not in SCHEMES or not colon or not name.partition("#")[0].strip() or not ref.isprintable():
        raise ValueError(
            "it must be a reference to a secret, not the secret itself: "
            "env:NAME, file:/run/secrets/x, prefect:block-name or vault:path#field"
        )
    if scheme == "env" and _is_protected(name.upper()):
        raise ValueError("environment variables of Spine, Prefect and Vault are not allowed")
    if scheme == "file" and not name.startswith("/"):
        raise ValueError("file: takes an absolute path")
    # Anything but a name could reach other routes of Prefect and Vault with Spine's own credentials.
    if scheme == "prefect" and not _BLOCK_NAME.fullmatch(name):
        raise ValueError("the name of a Prefect block may only contain letters, digits, - and _")
    if scheme == "vault" and not _is_vault_path(name.partition("#")[0].strip("/").split("/")):
        raise ValueError("vault: takes mount/path#field")
    return ref


def _is_protected(variable: str) -> bool:
    if variable.startswith(OPEN_PREFIX):
        return variable in _SETTINGS
    return variable.startswith(PROTECTED_VARIABLES)


def _is_vault_path(segments: list[str]) -> bool:
    return len(segments) > 1 and not {"", ".", ".."} & set(segments)


def ref_refusal(ref: str, settings: Settings) -> str | None:
    """The reason why the settings do not allow a valid reference; None if they do."""
    scheme, _, name = ref.partition(":")
    if scheme == "env":
        allowed, setting = _matches(name, settings.secret_env), "SPINE_SECRET_ENV"
    elif scheme == "file":
        allowed = ".." not in Path(name).parts and _is_secret_file(Path(name), settings)
        setting = "SPINE_SECRET_DIRS"
    elif scheme == "prefect":
        allowed, setting = _matches(name, settings.secret_blocks), "SPINE_SECRET_BLOCKS"
    else:
        allowed, setting = _matches(_vault_path(name), settings.secret_vault), "SPINE_SECRET_VAULT"
    return None if allowed else f"{ref} is not among the secrets that {setting} allows"


def _matches(name: str, allowed: Sequence[str]) -> bool:
    return any(name == one or (one.endswith("*") and name.startswith(one[:-1])) for one in allowed)


def _vault_path(name: str) -> str:
    """The path as Vault's CLI writes it, without the field and the inner `data` of KV version 2."""
    mount, _, rest = name.partition("#")[0].strip("/").partition("/")
    return f"{mount}/{rest.removeprefix('data/')}"


def _is_secret_file(path: Path, settings: Settings) -> bool:
    """Whether a path, in which no link is followed, is below a directory of secrets.

    Spine's state stays closed, even where such a directory contains it; only `secrets` in the home is for references.
    """
    own = settings.home.absolute() / "secrets"
    folders = [folder.absolute() for folder in settings.secret_folders]
    folders += [Path(os.path.realpath(folder)) for folder in folders]
    folder = next((one for one in folders if path != one and path.is_relative_to(one)), None)
    if folder is None or PLATFORM_FOLDERS & set(path.relative_to(folder).parts):
        return False
    if any(path.is_relative_to(one) for one in SYSTEM_FOLDERS):
        return False
    return path.is_relative_to(own) or not any(path.is_relative_to(one) for one in state_paths(settings))


async def resolve_ref(ref: str, prefect: Prefect | None, settings: Settings) -> str:
    """The secret of a reference; without `prefect`, blocks are unavailable.

    Raises `BadRequest` if the reference is invalid or not allowed, `SecretMissing`, and `Unavailable` if Prefect or
    Vault is unreachable.
    """
    try:
        scheme, _, name = check_ref(ref).partition(":")
    except ValueError as reason:
        raise BadRequest(f"The reference to a secret is invalid: {reason}.") from None
    if refusal := ref_refusal(ref, settings):
        raise BadRequest(f"The reference to a secret is not allowed: {refusal}.")
    if scheme == "env":
        return _from_environment(name)
    if scheme == "file":
        return await asyncio.to_thread(_from_file, name, settings)
    if scheme == "prefect":
        return await _from_prefect(prefect, name)
    return await _from_vault(name)


def _from_environment(name: str) -> str:
    value = os.environ.get(name)
    if value is None:
        raise SecretMissing(f"env:{name} was not found: Spine has no environment variable {name}.")
    return value


def _from_file(name: str, settings: Settings) -> str:
    path = Path(name)
    try:
        real = path.resolve(strict=True)
        if not _is_real_secret_file(real, settings) or not real.is_file():
            raise SecretMissing(f"file:{name} must be a regular file below SPINE_SECRET_DIRS.")
        with real.open("rb") as file:
            # Files of the kernel have size 0; /proc/self/environ, for one, contains all that `env:` refuses.
            size = os.fstat(file.fileno()).st_size
            content = file.read(min(size, LARGEST_SECRET)).decode()
    # A loop of links is a RuntimeError up to Python 3.12.
    except (OSError, RuntimeError, UnicodeDecodeError):
        raise SecretMissing(f"file:{name} cannot be read.") from None
    if not content:
        raise SecretMissing(f"file:{name} is empty.")
    return content.removesuffix("\n")


def _is_real_secret_file(real: Path, settings: Settings) -> bool:
    """The same for a path without links, under any name that the file has."""
    if not _is_secret_file(real, settings) or ClosedPaths(SYSTEM_FOLDERS).contain(real):
        return False
    own = settings.home.resolve() / "secrets"
    return ClosedPaths(state_paths(settings)).contain(real) <= real.is_relative_to(own)


async def _from_prefect(prefect: Prefect | None, name: str) -> str:
    if prefect is None:
        raise Unavailable(f"prefect:{name} cannot be read, because this process is not connected to Prefect.")
    try:
        value = await prefect.read_secret_block(name)
    except NotFound:
        raise SecretMissing(f"prefect:{name} was not found: Prefect has no Secret block named {name}.") from None
    return value if isinstance(value, str) else json.dumps(value)


async def _from_vault(name: str) -> str:
    path, _, field = name.partition("#")
    field = field or DEFAULT_FIELD
    address, token = os.environ.get("VAULT_ADDR"), os.environ.get("VAULT_TOKEN")
    if not address or not token:
        raise SecretMissing(f"vault:{name} requires VAULT_ADDR and VAULT_TOKEN in Spine's environment.")
    mount, _, rest = quote(path.strip("/")).partition("/")
    headers = {"X-Vault-Token": token}
    if namespace := os.environ.get("VAULT_NAMESPACE"):
        headers["X-Vault-Namespace"] = namespace
    try:
        async with (
            asyncio.timeout(SECONDS_FOR_VAULT),
            httpx.AsyncClient(verify=http_context(), timeout=SECONDS_FOR_VAULT) as client,
        ):
            url = f"{address.rstrip('/')}/v1/{mount}/data/{rest.removeprefix('data/')}"
            response = await client.get(url, headers=headers)
    except (TimeoutError, httpx.HTTPError, httpx.InvalidURL, UnicodeError):
        raise Unavailable(f"vault:{name} cannot be read: Vault is unreachable; try again in a few seconds.") from None
    if response.status_code >= 500 or response.status_code == 429:
        raise Unavailable(f"Vault responded {response.status_code} to vault:{name}; try again in a few seconds.")
    if response.status_code != 200:
        raise SecretMissing(f"vault:{name} cannot be read: Vault responded {response.status_code}.")
    try:
        value = response.json()["data"]["data"][field]
    except (ValueError, KeyError, TypeError):
        raise SecretMissing(f"vault:{name} has no field {field}.") from None
    return value if isinstance(value, str) else json.dumps(value)
