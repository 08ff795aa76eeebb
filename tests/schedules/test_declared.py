"""Which schedules `prefect.yaml` declares `active: true`, and files that declare nothing."""

import os
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
import yaml
from spine.prefect.client import Deployment
from spine.schedules.deploy_guard.declared import declared_active

from tests.schedules.support import now

CRON = {"cron": "0 3 * * *", "timezone": "UTC"}
HOURLY = {"interval": 3600.0, "anchor_date": "2026-01-01T00:00:00Z", "timezone": "UTC"}


def deployment(folder: Path | str, *rows: dict[str, Any], entrypoint: str = "flows.py:only") -> Deployment:
    made = [{"id": UUID(int=number), "schedule": CRON, "active": True, **row} for number, row in enumerate(rows)]
    return Deployment.model_validate(
        {
            "id": uuid4(),
            "name": "nightly",
            "flow_id": uuid4(),
            "created": now(),
            "updated": now(),
            "entrypoint": entrypoint,
            "schedules": made,
            "pull_steps": [{"prefect.deployments.steps.set_working_directory": {"directory": str(folder)}}],
        }
    )


def write(folder: Path, *schedules: Any, **more: Any) -> None:
    entry = {"name": "nightly", "entrypoint": "flows.py:only", "schedules": list(schedules), **more}
    (folder / "prefect.yaml").write_text(yaml.safe_dump({"deployments": [entry]}))


def declared(deployment: Deployment) -> set[int]:
    return {one.int for one in declared_active(deployment)}


def test_a_single_schedule_matches_the_single_one_in_the_file(tmp_path: Path) -> None:
    write(tmp_path, {"cron": "7 7 * * *", "active": True})
    assert declared(deployment(tmp_path, {})) == {0}


@pytest.mark.parametrize(
    "said", [{}, {"active": False}, {"active": "true"}, {"active": "{{ $ACTIVE }}"}, {"active": 1}]
)
def test_only_a_literal_true_counts(tmp_path: Path, said: dict[str, Any]) -> None:
    write(tmp_path, {"cron": "0 3 * * *", **said})
    assert declared(deployment(tmp_path, {})) == set()


def test_several_schedules_are_matched_by_slug_timing_and_parameters(tmp_path: Path) -> None:
    on = {"active": True}
    write(
        tmp_path,
        {"slug": "a", "cron": "0 3 * * *", **on},
        {"cron": "0 3 * * *", "parameters": {"tier": "T1"}, **on},
        {"cron": "0 4 * * *"},
        {"interval": "PT1H", **on},
        {"cron": "0 5 * * *", "timezone": "Europe/Berlin", **on},
    )
    rows: list[dict[str, Any]] = [
        {"slug": "a"},
        {"slug": "b"},
        {"parameters": {"tier": "T1"}},
        {"parameters": {"tier": "OTC"}},
        {"schedule": {"cron": "0 4 * * *", "timezone": "UTC"}},
        {"schedule": HOURLY},
        {"schedule": {"cron": "0 5 * * *", "timezone": "Europe/Berlin"}},
        {"schedule": {"cron": "0 5 * * *", "timezone": "UTC"}},
    ]
    assert declared(deployment(tmp_path, *rows)) == {0, 2, 5, 6}


def test_only_the_entry_of_this_deployment_counts(tmp_path: Path) -> None:
    write(tmp_path, {"cron": "0 3 * * *", "active": True}, entrypoint="./flows.py:only")
    assert declared(deployment(tmp_path, {})) == {0}
    assert declared(deployment(tmp_path, {}, entrypoint="flows.py:other")) == set()
    write(tmp_path, {"cron": "0 3 * * *", "active": True}, name="weekly")
    assert declared(deployment(tmp_path, {})) == set()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"deployments: 3",
        b"deployments: [3, null]",
        b"deployments: [{name: nightly, schedules: 3}]",
        b"- a list",
        b"not: [closed",
        b"!!python/object/apply:os.system ['exit']",
        b"\xff\xfe\x00",
        b"[" * 100_000,
    ],
)
def test_an_invalid_file_declares_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "prefect.yaml").write_bytes(content)
    assert declared(deployment(tmp_path, {})) == set()


def test_an_unreadable_file_declares_nothing(tmp_path: Path) -> None:
    assert declared(deployment(tmp_path, {})) == set()
    assert declared(deployment("relative", {})) == set()
    assert declared(deployment("/nowhere\0", {})) == set()
    os.mkfifo(tmp_path / "prefect.yaml")
    assert declared(deployment(tmp_path, {})) == set()
    cloned = [{"prefect.deployments.steps.git_clone": {"repository": "https://example.org/flows.git"}}]
    assert declared(deployment(tmp_path, {}).model_copy(update={"pull_steps": cloned})) == set()
