"""The environment files of `deployments/`: every setting is in the file of those who read it."""

import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from prefect.settings import Settings as PrefectSettings
from prefect.settings.legacy import _get_valid_setting_names
from spine.own_settings import SECRET_FIELDS, variable_of
from spine.settings import Settings
from spine_worker.withheld import PREFECT_SERVER_SECRETS

from tests.support.processes import PROJECT
from tests.support.source_code import python_files
from tests.topology.definitions import DEPLOYMENTS, variables_in

FILES = sorted((DEPLOYMENTS / "environment").glob("*.env"))
# Those of `spine up`, which sets or reads them itself.
OF_SPINE_UP = {"SPINE_UP_DATABASE", "SPINE_UP_CHILD_OF"}
# The name of a constant, what others begin with, and an example in a docstring.
NOT_VARIABLES = {"SPINE_SECRETS", "SPINE_SECRET", "SPINE_URL", "SPINE_SECRET_WAREHOUSE"}
# Those of other programs.
OTHERS = {"DO_NOT_TRACK", "PYTHONTZPATH"}
SECRETS = {
    *(variable_of(field) for field in SECRET_FIELDS if field != "cache_url"),
    *("PREFECT_API_AUTH_STRING", "PREFECT_SERVER_API_AUTH_STRING", "PREFECT_SERVER_DATABASE_CONNECTION_URL"),
}


def listed_in(file: Path) -> dict[str, str]:
    """Each variable of a file with its value, or with its default after a #."""
    return dict(re.findall(r"(?m)^#?([A-Z][A-Z0-9_]*)=(.*)$", file.read_text()))


def everything() -> dict[str, str]:
    return {name: value for file in FILES for name, value in listed_in(file).items()}


def test_each_setting_is_in_one_file() -> None:
    counts = Counter(name for file in FILES for name in listed_in(file))
    assert {name for name, count in counts.items() if count > 1} == set()
    assert {variable_of(field) for field in Settings.model_fields} - counts.keys() == set()


@cache
def code() -> str:
    return "".join((PROJECT / file).read_text() for file in python_files("api", "deployments", "flows"))


def test_each_variable_that_the_code_reads_is_listed() -> None:
    read = set(re.findall(r"\bSPINE_[A-Z][A-Z_]+[A-Z]\b(?![*_])", code()))
    assert read - everything().keys() - OF_SPINE_UP - NOT_VARIABLES == set()


def test_each_variable_that_is_listed_is_read() -> None:
    known = {variable_of(field) for field in Settings.model_fields} | OTHERS
    known |= {name.upper() for name in _get_valid_setting_names(PrefectSettings)}
    # prefect-redis has settings of its own.
    known |= {f"PREFECT_REDIS_MESSAGING_{name}" for name in ("HOST", "PORT", "DB")}
    assert {name for name in everything() if name not in known and f'"{name}"' not in code()} == set()


@pytest.mark.parametrize("field", Settings.model_fields)
def test_a_line_with_a_hash_shows_the_default(field: str) -> None:
    name = variable_of(field)
    (line,) = re.findall(rf"(?m)^#?{name}=.*$", "\n".join(file.read_text() for file in FILES))
    if line.startswith("#"):
        assert line == f"#{name}={as_text(Settings.model_fields[field].default)}"


def as_text(default: Any) -> str:
    match default:
        case None:
            return ""
        case bool():
            return str(default).lower()
        case tuple():
            return ",".join(default)
        case _:
            return str(default)


def test_no_secret_is_in_a_file_that_is_committed() -> None:
    assert everything().keys() >= SECRETS
    assert {name for file in FILES for name in variables_in(file)} & SECRETS == set()
    secrets = [name for name, field in Settings.model_fields.items() if "SecretStr" in str(field.annotation)]
    assert {variable_of(name) for name in secrets} <= SECRETS


def test_what_is_only_for_prefects_servers_is_in_their_file_alone() -> None:
    of_servers = tuple(PREFECT_SERVER_SECRETS)
    others = [name for file in FILES if file.stem != "prefect" for name in listed_in(file)]
    assert [name for name in others if name.startswith(of_servers)] == []


def test_the_settings_of_the_files_are_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    for file in FILES:
        for name, value in variables_in(file).items():
            monkeypatch.setenv(name, value)
    assert Settings().home == Path("/var/lib/spine/home")
    assert PrefectSettings().server.database.migrate_on_start is False
