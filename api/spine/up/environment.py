"""Which child gets which environment variables.

Everything set here is a default: what the user's own environment says wins, apart from the names that tie the
children to this start.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from spine.up.plan import Plan

# Every child and all that descends from it carries the home in this variable; it is how processes that outlived
# a killed worker are recognised as ours. Users have no reason to set it, unlike `SPINE_HOME`.
MARKER = "SPINE_UP_CHILD_OF"

# Prefect checks each schedule's time zone against the list of all zones on every read, and Python makes that list by
# opening hundreds of files below the system's folders. The tzdata package has it in one file: a page of 100 deployments
# then takes 45 ms instead of 670.
_ZONES_FROM_PACKAGE = {"PYTHONTZPATH": ""}
_FOR_SERVER = {
    **_ZONES_FROM_PACKAGE,
    # A cancelled run whose worker is gone reads CANCELLED after this time instead of Prefect's five minutes.
    # In each loop the service looks at all runs that were cancelled within a day.
    "PREFECT_SERVER_SERVICES_CANCELLATION_CLEANUP_LOOP_SECONDS": "10",
    "PREFECT_SERVER_SERVICES_CANCELLATION_CLEANUP_CANCELLING_TIMEOUT_SECONDS": "30",
}
_FOR_WORKER = {
    # Prefect's default is ten seconds, most of what a triggered run would wait for.
    "PREFECT_WORKER_QUERY_SECONDS": "1",
    # A stop is to be over within seconds, and the worker has runs to hand back after their processes have ended.
    "SPINE_WORKER_GRACE_SECONDS": "3",
}


def shared(plan: Plan, user: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What every process of this start sees, `spine up` itself included."""
    prefect_home = Path(user.get("PREFECT_HOME") or plan.home / "prefect").expanduser().absolute()
    defaults = {
        "PREFECT_HOME": str(prefect_home),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "SPINE_WAREHOUSE_URL": str(plan.home / "warehouse"),
        # On a laptop, what one reads from and tells people of is on that laptop, too.
        "SPINE_ALLOW_PRIVATE_ADDRESSES": "true",
        "SPINE_FILE_ROOTS": str(plan.project / "data"),
    }
    if "PREFECT_LOCAL_STORAGE_PATH" not in user:
        # Flow runs write results and the API reads them, from other working directories: the path is absolute.
        defaults["PREFECT_RESULTS_LOCAL_STORAGE_PATH"] = str(prefect_home / "storage")
    fixed = {"PREFECT_API_URL": plan.prefect_api, "SPINE_HOME": str(plan.home), "PYTHONUNBUFFERED": "1"}
    return {**defaults, **user, **fixed}


def for_server(plan: Plan, user: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment of the Prefect server."""
    return {**_FOR_SERVER, **_without(_child(plan, user), "SPINE_API_KEY", "SPINE_SECRET_KEY")}


def for_worker(plan: Plan, user: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment of the worker, of its flow runs and of `prefect deploy`: flow code gets no API key.

    It does get the key of stored secrets, since the flow that fetches sources needs those.
    """
    return {**_FOR_WORKER, **_without(_child(plan, user), "SPINE_API_KEY")}


def for_api(plan: Plan, user: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment of Spine's API."""
    return {**_ZONES_FROM_PACKAGE, **_child(plan, user)}


def _child(plan: Plan, user: Mapping[str, str]) -> dict[str, str]:
    return {**shared(plan, user), MARKER: str(plan.home)}


def _without(environment: dict[str, str], *names: str) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name not in names}
