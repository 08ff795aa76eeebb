"""Configurations: what is plainly forbidden is refused when a source is made, and no secret is shown."""

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr, ValidationError
from spine.errors import BadRequest
from spine.secrets.keyring import Keyring
from spine.secrets.sealed import redact, restore_masked, seal, unseal
from spine.settings import Settings

from tests.sources.readers.support import CLOSED, OPEN, config_of

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGq0mOGTvs8Fx6rJ8Y7i4ZBv3OsbqXkeDyGgqGJ6vJ0P"
GOOD: dict[str, dict[str, Any]] = {
    "file": {"path": "weekly/*.csv"},
    "http": {"url": "https://example.com/a.csv"},
    "s3": {"bucket": "desk", "key": "in/*.csv"},
    "sftp": {
        "host": "example.com",
        "username": "me",
        "password_ref": "env:SPINE_SECRET_PW",
        "host_key": KEY,
        "path": "/in/*",
    },
}
BAD = [
    ("file", {"path": "simplecache::file:///etc/hostname"}),
    ("file", {"path": "zip://a.csv::/data/a.zip"}),
    ("file", {"path": "file:///data/a"}),
    ("file", {"path": "a\x00b"}),
    ("file", {"path": ""}),
    ("file", {"path": "a", "format": "exe"}),
    ("file", {"path": "a", "other": 1}),
    ("http", {"url": "ftp://example.com/a"}),
    ("http", {"url": "file:///etc/hostname"}),
    ("http", {"url": "simplecache::https://example.com/a"}),
    ("http", {"url": "https://me:s3cr3t@example.com/a"}),
    ("http", {"url": "https://me@example.com/a"}),
    ("http", {"url": "https://example.com\\@169.254.169.254/"}),
    ("http", {"url": "https://example.com/a\x00"}),
    ("http", {"url": "https:///a"}),
    ("http", {"method": "DELETE"}),
    ("http", {"headers": {"Host": "internal"}}),
    ("http", {"headers": {"X-A": "1\r\nX-B: s3cr3t"}}),
    ("http", {"headers": {"a b": "1"}}),
    ("http", {"auth": {"type": "basic", "username": "me", "password": "s3cr3t"}}),
    ("http", {"auth": {"type": "basic", "username": "me", "password_ref": "s3cr3t"}}),
    ("http", {"auth": {"type": "digest"}}),
    ("http", {"auth": {"type": "bearer", "token_ref": "env:T"}, "headers": {"authorization": "x"}}),
    ("http", {"url": "https://example.com/?a=1", "query": "b=2"}),
    ("http", {"max_bytes": 0}),
    ("http", {"timeout_seconds": 0}),
    ("http", {"timeout_seconds": float("inf")}),
    ("http", {"cache_ttl_seconds": -1}),
    ("s3", {"key": "zip://a::b"}),
    ("s3", {"bucket": "desk/../other"}),
    ("s3", {"bucket": "evil.example.com/x"}),
    ("s3", {"region": "x.evil.example.com/"}),
    ("s3", {"endpoint_url": "gopher://x"}),
    ("s3", {"endpoint_url": "https://a:s3cr3t@x"}),
    ("s3", {"access_key_ref": "env:A"}),
    ("s3", {"access_key_ref": "AKIDs3cr3t", "secret_key_ref": "env:B"}),
    ("sftp", {"private_key_ref": "env:K"}),
    ("sftp", {"password_ref": None}),
    ("sftp", {"host_key": "any"}),
    ("sftp", {"host_key": KEY[:40]}),
    ("sftp", {"host_key": KEY.replace("ssh-ed25519", "ssh-rsa", 1)}),
    ("sftp", {"host_key": "MD5:aa:bb"}),
    ("sftp", {"host": "a b"}),
    ("sftp", {"port": 0}),
    ("sftp", {"path": "/a\x00"}),
]


@pytest.mark.parametrize("source_type", GOOD)
def test_a_good_config_is_taken_and_stays_what_it_is_when_it_is_stored(source_type: str) -> None:
    config = config_of(source_type, **GOOD[source_type])
    again = config_of(source_type, **config.model_dump(exclude_none=True))
    assert again == config


@pytest.mark.parametrize(("source_type", "fields"), BAD)
def test_a_bad_config_is_refused_without_repeating_it(source_type: str, fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        config_of(source_type, **{**GOOD[source_type], **fields})
    assert "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize(
    ("source_type", "fields", "field"),
    [
        ("http", {"url": "http://169.254.169.254/latest"}, "url"),
        ("http", {"url": "http://[::ffff:169.254.169.254]/"}, "url"),
        ("http", {"url": "http://0x7f.1/"}, "url"),
        ("http", {"url": "http://localhost:5432/"}, "url"),
        ("s3", {"endpoint_url": "http://10.0.0.1:9000"}, "endpoint_url"),
        ("sftp", {"host": "127.1"}, "host"),
        ("sftp", {"host": "[::1]"}, "host"),
    ],
)
def test_a_literal_address_that_is_forbidden_is_refused(source_type: str, fields: dict[str, Any], field: str) -> None:
    config = config_of(source_type, **{**GOOD[source_type], **fields})
    with pytest.raises(BadRequest) as caught:
        config.check(CLOSED)
    assert caught.value.errors[0].loc == ("body", "config", field)
    if "169" not in str(fields):
        config.check(OPEN)


def test_names_and_public_addresses_are_judged_when_they_are_used() -> None:
    for source_type in ("http", "s3", "sftp"):
        config_of(source_type, **GOOD[source_type]).check(CLOSED)


@pytest.mark.parametrize("path", ["/etc/hostname", "{root}/../x", "../x", "/", "{root}x/a"])
def test_a_path_outside_of_the_roots_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(BadRequest) as caught:
        config_of("file", path=path.format(root=tmp_path)).check(Settings(file_roots=(tmp_path,)))
    assert caught.value.errors[0].loc == ("body", "config", "path")


def test_a_path_below_a_root_is_taken_and_none_without_roots(tmp_path: Path) -> None:
    for path in (str(tmp_path / "a" / "*.csv"), "a/*.csv", "a"):
        config_of("file", path=path).check(Settings(file_roots=(tmp_path,)))
        with pytest.raises(BadRequest, match="SPINE_FILE_ROOTS"):
            config_of("file", path=path).check(Settings(file_roots=()))


def test_what_is_secret_is_sealed_masked_and_kept() -> None:
    keyring = Keyring.from_settings(Settings(secret_key=SecretStr(Fernet.generate_key().decode())))
    sent = {"url": "https://example.com/a.csv?key=s3cr3t#x", "headers": {"X-Key": "s3cr3t"}}
    config = config_of("http", **sent)
    stored = seal(config.model_dump(exclude_none=True), keyring)
    assert "s3cr3t" not in json.dumps(stored)
    shown = redact(stored)
    assert shown == {
        "url": "https://example.com/a.csv",
        "query": "***",
        "method": "GET",
        "headers": {"X-Key": "***"},
    }
    assert config_of("http", **unseal(restore_masked(shown, stored), keyring)) == config


def test_the_references_are_named_by_their_paths() -> None:
    login = {"type": "basic", "username": "me", "password_ref": "env:SPINE_SECRET_PW"}
    assert config_of("http", **GOOD["http"], auth=login).secret_refs() == {"auth.password_ref": "env:SPINE_SECRET_PW"}
    assert config_of("sftp", **GOOD["sftp"]).secret_refs() == {"password_ref": "env:SPINE_SECRET_PW"}
    assert config_of("file", **GOOD["file"]).secret_refs() == {}
