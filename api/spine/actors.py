"""Who makes a change, as the audit trail names them."""

import getpass
import os
from dataclasses import dataclass
from enum import StrEnum


class ActorKind(StrEnum):
    """What kind of actor made a change."""

    # The name of an API key.
    KEY = "KEY"
    # The `sub` of a bearer token.
    JWT = "JWT"
    # The user of the operating system who ran a command.
    CLI = "CLI"
    # A task of Spine's own, such as `spine.prune`.
    SYSTEM = "SYSTEM"
    # A change that was made in Prefect and that Spine has noticed.
    PREFECT = "PREFECT"


@dataclass(frozen=True)
class Actor:
    """Who makes a change, and the request that it is part of, if any."""

    name: str
    kind: ActorKind
    request_id: str | None = None
    address: str | None = None


def operator() -> Actor:
    """The user of the operating system who runs this process."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError):
        # Containers often run as a user without a name.
        name = f"user {os.getuid()}"
    return Actor(name, ActorKind.CLI)
