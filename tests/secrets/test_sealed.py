"""Stored secrets: keys, sealing and masks."""

import os
import stat
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr, ValidationError
from spine.errors import BadRequest, FieldError
from spine.secrets import keyring as keyring_module
from spine.secrets.keyring import KEY_FILE, Keyring, SecretUnreadable, ensure_key_file, read_key_file, replace_key_file
from spine.secrets.sealed import redact, restore_masked, seal, secret_values, unseal
from spine.settings import Settings

TREE = {
    "url": SecretStr("https://h/t0psecret"),
    "headers": {"X-A": SecretStr("1"), "X-B": SecretStr("2")},
    "n": [1, None],
}


def settings_in(home: Path, **fields: Any) -> Settings:
    return Settings.model_validate({"home": home, **fields})


MAKE_AND_SHOW = """
import sys
from pathlib import Path
from spine.secrets.keyring import ensure_key_file
path = Path(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
ensure_key_file(path)
print(path.read_text(), end="")
"""


@pytest.mark.slow
def test_many_processes_create_one_key_file_which_only_its_owner_may_read(tmp_path: Path) -> None:
    path = tmp_path / "home" / KEY_FILE
    command = [sys.executable, "-c", MAKE_AND_SHOW, str(path)]
    makers = [subprocess.Popen(command, stdin=PIPE, stdout=PIPE, text=True) for _ in range(4)]
    for maker in makers:
        assert maker.stdout is not None
        assert maker.stdout.readline() == "ready\n"
    for maker in makers:
        assert maker.stdin is not None
        maker.stdin.write("\n")
        maker.stdin.flush()
    keys = {maker.communicate(timeout=30)[0] for maker in makers}
    assert keys == {path.read_text()}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [one.name for one in path.parent.iterdir()] == [KEY_FILE]


def test_a_late_process_uses_the_existing_key_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / KEY_FILE
    ensure_key_file(path)
    before = path.read_text()
    monkeypatch.setattr(Path, "exists", lambda _: False)
    ensure_key_file(path)
    assert path.read_text() == before
    assert [one.name for one in tmp_path.iterdir()] == [KEY_FILE]


def test_secrets_are_stored_sealed_and_shown_masked(tmp_path: Path) -> None:
    keyring = Keyring.from_settings(settings_in(tmp_path))
    stored = seal(TREE, keyring)
    assert "t0psecret" not in str(stored)
    assert redact(stored) == {"url": "***", "headers": {"X-A": "***", "X-B": "***"}, "n": [1, None]}
    assert unseal(stored, keyring)["url"] == "https://h/t0psecret"
    kept = restore_masked({"url": "***", "headers": {"X-A": "new", "X-B": "***"}}, stored)
    assert unseal(kept, keyring) == {"url": "https://h/t0psecret", "headers": {"X-A": "new", "X-B": "2"}}
    for forged in ({"n": "***"}, {"url": stored["url"]}, {"headers": {"X-C": "***"}}):
        with pytest.raises(BadRequest):
            restore_masked(forged, stored)


def test_a_mask_without_a_secret_is_refused_with_its_location(tmp_path: Path) -> None:
    stored = seal({"hooks": [SecretStr("1")]}, Keyring.from_settings(settings_in(tmp_path)))
    assert restore_masked({"hooks": ["***"]}, stored) == stored
    with pytest.raises(BadRequest) as refused:
        restore_masked({"hooks": ["***", "***"]}, stored)
    assert [error.loc for error in refused.value.errors] == [("body", "config", "hooks", 1)]
    assert isinstance(refused.value.errors[0], FieldError)


def test_sealed_values_are_not_sealed_again(tmp_path: Path) -> None:
    keyring = Keyring.from_settings(settings_in(tmp_path))
    stored = seal(TREE, keyring)
    mixed = seal({**stored, "more": SecretStr("3")}, keyring)
    assert {name: mixed[name] for name in stored} == stored
    assert secret_values(mixed, keyring) == ["https://h/t0psecret", "1", "2", "3"]


def test_a_secret_cannot_be_read_without_its_key(tmp_path: Path) -> None:
    stored = seal(TREE, Keyring.from_settings(settings_in(tmp_path / "one")))
    with pytest.raises(SecretUnreadable):
        unseal(stored, Keyring.from_settings(settings_in(tmp_path / "two")))


def test_the_setting_may_contain_several_keys_and_is_never_shown(tmp_path: Path) -> None:
    old, new = Fernet.generate_key().decode(), Fernet.generate_key().decode()
    stored = seal(TREE, Keyring.from_settings(settings_in(tmp_path, secret_key=old)))
    both = Keyring.from_settings(settings_in(tmp_path, secret_key=f"{new},{old}"))
    assert unseal(stored, both)["url"] == "https://h/t0psecret"
    assert not (tmp_path / KEY_FILE).exists()
    with pytest.raises((ValueError, ValidationError)) as refused:
        Keyring.from_settings(settings_in(tmp_path, secret_key="s3cret-that-is-no-key"))
    assert "s3cret-that" not in str(refused.value)


def test_a_running_process_loads_the_new_key(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    running = Keyring.from_settings(settings)
    before = running.encrypt("x")
    path = tmp_path / KEY_FILE
    replace_key_file(path, [Fernet.generate_key().decode(), *read_key_file(path)])
    assert running.decrypt(Keyring.from_settings(settings).encrypt("y")) == "y"
    assert running.decrypt(before) == "x"


def test_a_key_written_while_the_file_is_read_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / KEY_FILE
    ensure_key_file(path)
    newer = Fernet.generate_key().decode()

    def read_just_before_a_rotation(_: Path) -> list[str]:
        monkeypatch.undo()
        keys = read_key_file(path)
        replace_key_file(path, [newer, *keys])
        return keys

    monkeypatch.setattr(keyring_module, "read_key_file", read_just_before_a_rotation)
    running = Keyring.from_settings(settings_in(tmp_path))
    assert Keyring([newer]).decrypt(running.encrypt("x")) == "x"


def test_a_key_file_that_was_overwritten_in_place_is_read_again(tmp_path: Path) -> None:
    running = Keyring.from_settings(settings_in(tmp_path))
    running.encrypt("x")
    path = tmp_path / KEY_FILE
    before = path.stat()
    other = Fernet.generate_key().decode()
    path.write_text(f"{other}\n")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert running.decrypt(Keyring([other]).encrypt("y")) == "y"


def test_an_unusable_key_file_is_reported_without_its_content(tmp_path: Path) -> None:
    running = Keyring.from_settings(settings_in(tmp_path))
    (tmp_path / KEY_FILE).write_text("s3cret-that-is-no-key\n")
    with pytest.raises(SecretUnreadable, match=r"^The key file (?!.*s3cret)"):
        running.encrypt("x")
    (tmp_path / KEY_FILE).unlink()
    (tmp_path / KEY_FILE).mkdir()
    with pytest.raises(SecretUnreadable, match="is a directory"):
        Keyring.from_settings(settings_in(tmp_path))
