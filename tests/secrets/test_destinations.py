"""A stored secret is kept by `***` only while every field stays that could send it to someone else."""

from collections.abc import Iterator
from typing import Any, get_args

import pytest
from cryptography.fernet import Fernet
from pydantic import BaseModel, SecretStr
from spine.alerts.channels import CHANNEL_TYPES
from spine.errors import BadRequest
from spine.secrets.configs import SealedConfigs, SecretConfig
from spine.secrets.keyring import Keyring
from spine.sources.types import SOURCE_TYPES

TYPES: dict[str, type[SecretConfig]] = {**CHANNEL_TYPES, **SOURCE_TYPES}
# A whole configuration of each type that stores secrets, and another value of each field that it has.
STORED: dict[str, dict[str, Any]] = {
    "slack": {"webhook_url": "https://a.example.com/x", "channel": "#a", "username": "u"},
    "teams": {"webhook_url": "https://a.example.com/x"},
    "discord": {"webhook_url": "https://a.example.com/x"},
    "webhook": {"url": "https://a.example.com/x", "headers": {"A": "s3cret"}, "secret": "s3cret"},
    "pagerduty": {"routing_key": "s3cret"},
    "apprise": {"url": "json://a.example.com/x"},
    "http": {
        "url": "https://a.example.com/x",
        "query": "key=s3cret",
        "headers": {"A": "s3cret"},
        "method": "GET",
        "auth": {"type": "bearer", "token_ref": "env:SPINE_SECRET_A"},
        "cache_ttl_seconds": 1,
        "max_bytes": 1,
        "timeout_seconds": 1.0,
    },
}
OTHER: dict[str, Any] = {
    "channel": "#b",
    "username": "v",
    "webhook_url": "https://b.example.com/x",
    "url": "https://b.example.com/x",
    "secret": "other",
    "method": "POST",
    "headers": {"A": "***", "B": "other"},
    "query": "key=other",
    "auth": {"type": "bearer", "token_ref": "env:SPINE_SECRET_B"},
    "cache_ttl_seconds": 2,
    "max_bytes": 2,
    "timeout_seconds": 2.0,
}


def has_secrets(model: type[BaseModel]) -> bool:
    return any(is_secret(field.annotation) for field in model.model_fields.values())


def is_secret(annotation: Any) -> bool:
    return annotation is SecretStr or any(is_secret(part) for part in get_args(annotation))


def masked(name: str) -> dict[str, Any]:
    """What a client gets, and sends back."""
    shown = dict(STORED[name])
    for field, described in TYPES[name].model_fields.items():
        if field in shown and is_secret(described.annotation):
            shown[field] = dict.fromkeys(shown[field], "***") if isinstance(shown[field], dict) else "***"
    return shown


def test_every_type_that_stores_secrets_is_listed_here() -> None:
    assert {name for name, model in TYPES.items() if has_secrets(model)} == set(STORED)


def changes() -> Iterator[tuple[str, str]]:
    for name, stored in STORED.items():
        yield from ((name, field) for field in stored)


@pytest.mark.parametrize(("name", "field"), list(changes()))
def test_a_changed_field_loses_the_secrets_unless_it_is_free(name: str, field: str) -> None:
    keyring = Keyring([Fernet.generate_key().decode()])
    configs = SealedConfigs("thing", TYPES, keyring, lambda _: None)
    stored, before = configs.store(name, STORED[name], {})
    kept, _ = configs.store(name, masked(name), stored)
    assert configs.open(name, kept) == before
    other = "json://b.example.com/x" if name == "apprise" else OTHER.get(field, "other")
    changed = {**masked(name), field: other}
    secrets_left = "***" in str(changed)
    if field in TYPES[name].free_fields or not secrets_left:
        configs.store(name, changed, stored)
        return
    with pytest.raises(BadRequest, match="send the secret again") as refused:
        configs.store(name, changed, stored)
    assert "s3cret" not in str(refused.value)


def test_a_field_that_is_left_out_is_a_change_too() -> None:
    class Proxied(SecretConfig):
        host: str
        proxy: str | None = None
        verify: bool = True
        password: SecretStr

    configs = SealedConfigs("thing", {"x": Proxied}, Keyring([Fernet.generate_key().decode()]), lambda _: None)
    stored, _ = configs.store("x", {"host": "h", "proxy": "p", "password": "s"}, {})
    for sent in ({"host": "h"}, {"host": "h", "proxy": "q"}, {"host": "h", "proxy": "p", "verify": False}):
        with pytest.raises(BadRequest, match="send the secret again"):
            configs.store("x", {**sent, "password": "***"}, stored)
        configs.store("x", {**sent, "password": "s"}, stored)
