"""Refuses versions of packages with which Prefect's server would start and not do its work."""

import prefect
import sqlalchemy


def refusal(prefect_version: str = prefect.__version__, sqlalchemy_version: str = sqlalchemy.__version__) -> str | None:
    """Why these versions do not work together, and what to install instead; None if they do."""
    if _minor(prefect_version) < (3, 9) and _minor(sqlalchemy_version) >= (2, 1):
        return (
            f"Prefect {prefect_version} plans no runs of schedules with SQLAlchemy {sqlalchemy_version}. "
            "Install Prefect 3.9 or newer, or 'prefect-spine[prefect-3-8]', which has the SQLAlchemy of Prefect 3.8."
        )
    return None


def _minor(version: str) -> tuple[int, int]:
    major, minor = version.split(".")[:2]
    return int(major), int(minor)
