"""Spine's own database and the admin key in it: `python -m spine.up.own_database <socket>`.

It has the environment of the API.
"""

import socket
import sys

from sqlalchemy import URL

from spine.auth.bootstrap import ensure_admin_key
from spine.errors import SpineError
from spine.migrations.migrate import upgrade
from spine.settings import Settings
from spine.up.calls import serve_calls
from spine.up.console import presentable
from spine.up.waiting import UpError


def migrate() -> None:
    """Upgrade the database to the newest revision. Raises `UpError`."""
    url: URL = Settings().sqlalchemy_url
    try:
        upgrade(url)
    except SpineError as error:
        raise UpError(presentable(error.detail)) from error
    except Exception as error:
        # Each SQL statement, driver and database has errors of its own.
        reason = presentable(f"{type(error).__name__}: {str(error).partition(chr(10))[0]}")
        raise UpError(f"Spine's database {url.render_as_string()} could not be migrated: {reason}.") from error


def admin_key() -> tuple[str | None, str]:
    """The admin key to show, if it is new, and where it is. Raises `UpError`."""
    settings = Settings()
    try:
        key = ensure_admin_key(settings)
    except SpineError as error:
        raise UpError(presentable(error.detail)) from error
    except OSError as error:
        raise UpError(f"The admin key cannot be kept in {settings.home}: {error.strerror}.") from error
    return key.secret_to_show, key.note


if __name__ == "__main__":
    serve_calls(socket.socket(fileno=int(sys.argv[1])), {"migrate": migrate, "admin_key": admin_key})
