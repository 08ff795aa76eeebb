"""The drivers, one module for each type of database, imported only when it is used."""

from importlib import import_module

from spine.connections.drivers.base import Driver
from spine.egress.fetch_failure import FetchFailure
from spine.schemas import ErrorCategory

_MODULES = {
    "postgresql": "spine.connections.drivers.postgresql",
    "mysql": "spine.connections.drivers.mysql",
    "sqlite": "spine.connections.drivers.sqlite",
    "oracle": "spine.connections.drivers.oracle",
    "db2": "spine.connections.drivers.db2",
}


def driver_of(db_type: str) -> Driver:
    """The driver of a type of database. Raises `FetchFailure` for an unknown type, and if it cannot be loaded."""
    if db_type not in _MODULES:
        raise FetchFailure(ErrorCategory.CONFIG, "The connection has a type of database that Spine does not know.")
    try:
        driver: Driver = import_module(_MODULES[db_type]).DRIVER
    except ImportError as broken:
        sentence = f"The driver for {db_type} cannot be loaded on this machine: {broken}."
        raise FetchFailure(ErrorCategory.CONFIG, sentence) from None
    return driver
