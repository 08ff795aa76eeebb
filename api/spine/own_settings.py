"""The settings of Spine's own flows, some of which are secrets that the flows of teams do not need.

A worker gives its environment to every flow that it runs. `spine up` therefore keeps these variables out of the
worker's environment and writes them to a private file of the state folder, which Spine's own flows and `read_source`
read. The file is removed when `spine up` ends. A worker of type `spine` that was started with these variables does the
same with a file of its own, which `SPINE_SETTINGS_FILE` names.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from spine.errors import Unavailable
from spine.private_files import write_private_file
from spine.settings import Settings

# The fields of `Settings` that can contain a secret.
SECRET_FIELDS = ("api_key", "database_url", "secret_key", "cache_url")
SETTINGS_FILE = "SPINE_SETTINGS_FILE"


def variable_of(field: str) -> str:
    """The environment variable of a field of `Settings`."""
    return f"SPINE_{field.upper()}"


# No flow calls the API as an administrator.
_OF_OWN_FLOWS = tuple(variable_of(field) for field in SECRET_FIELDS if field != "api_key")


def settings_path(home: Path) -> Path:
    """The file with these settings that `spine up` writes."""
    return home.absolute() / "own-flows.json"


def keep_for_own_flows(home: Path, environ: Mapping[str, str] = os.environ) -> None:
    """Write what the environment has of these settings to the file, or remove the file if it has none."""
    given = {name: environ[name] for name in _OF_OWN_FLOWS if environ.get(name)}
    if given:
        write_private_file(settings_path(home), json.dumps(given))
    else:
        forget_own_flows(home)


def forget_own_flows(home: Path) -> None:
    """Remove the file, if there is one."""
    settings_path(home).unlink(missing_ok=True)


def own_settings() -> Settings:
    """The settings of this process: from its environment, and what that lacks from the file.

    The file is the one that `SPINE_SETTINGS_FILE` names, else that of the state folder, if there is one. Raises
    `Unavailable` if it cannot be used.
    """
    settings = Settings()
    chosen = os.environ.get(SETTINGS_FILE)
    path = Path(chosen) if chosen else settings_path(settings.home)
    try:
        kept = json.loads(path.read_bytes())
        if not isinstance(kept, dict):
            raise TypeError
    except FileNotFoundError:
        if not chosen:
            return settings
        raise Unavailable(f"The file that {SETTINGS_FILE} names was not found.") from None
    except (OSError, ValueError, TypeError):
        raise Unavailable(f"The file with the settings of Spine's own flows, {path}, cannot be read.") from None
    lacking = {name for name in _OF_OWN_FLOWS if kept.get(name) and not os.environ.get(name)}
    return Settings(**{name.removeprefix("SPINE_").lower(): kept[name] for name in lacking})
