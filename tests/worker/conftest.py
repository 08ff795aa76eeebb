"""What the tests of the worker share: a project with an engine server, which needs no Prefect server."""

from collections.abc import Iterator

import pytest

from tests.worker.engine import Project, engine_server


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A project with an engine server."""
    folder, home = (tmp_path_factory.mktemp(name) for name in ("project", "home"))
    with engine_server(folder, home) as (engine, ready):
        yield Project(folder, home, engine, ready)
