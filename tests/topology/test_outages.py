"""The topology is examined by the doctor, and restored from a backup with the commands of the README."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.support.processes import wait_until
from tests.support.receivers import Receiver
from tests.support.stack import Api
from tests.topology.backends import PASSWORD, postgresql_program
from tests.topology.behaviour import completes, fails_with_one_alert, members_of
from tests.topology.definitions import DEPLOYMENTS
from tests.topology.running import Topology, is_reachable

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("service", "options"), [("spine-api", ()), ("worker", ("--worker",))])
def test_the_doctor_finds_nothing_where_the_api_and_where_a_worker_runs(
    whole: Topology, service: str, options: tuple[str, ...]
) -> None:
    environment = members_of(whole, service)[0].environment
    report = whole.command("spine", "doctor", *options, **environment)
    # An alert of another test may still be on its way.
    assert {line[0] for line in report.splitlines() if " alerts " not in line} == {"✓"}, report


def commands(heading: str, number: int) -> list[str]:
    """The lines of a block of shell commands below a heading of the README."""
    text = (DEPLOYMENTS / "README.md").read_text().partition(f"### {heading}\n")[2]
    blocks: list[str] = re.findall(r"(?s)```sh\n(.*?)```", text)
    return blocks[number].splitlines()


def run(whole: Topology, folder: Path, lines: list[str]) -> None:
    """Run commands of the README with the topology's processes in the place of containers."""
    server = whole.backends.postgresql
    assert server is not None
    assert whole.backends.redis_port is not None
    port = server.command[server.command.index("-p") + 1]
    programs = Path(str(postgresql_program("pg_dump"))).parent
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "PGHOST": "127.0.0.1"}
    environment |= {"PGPORT": port, "PGPASSWORD": PASSWORD}
    for line in lines:
        if stopped := re.fullmatch(r"docker compose stop (.*)", line):
            for member in [one for name in stopped[1].split() for one in members_of(whole, name)]:
                member.close()
            continue
        if line == "docker compose up -d":
            for name in ("prefect-api", "prefect-services", "spine-api", "worker"):
                for member in members_of(whole, name):
                    member.start()
            continue
        here = re.sub(r"docker compose (?:exec -T postgres|run --rm -T --no-deps worker|exec -T redis) ", "", line)
        here = here.replace("/var/lib/spine", str(whole.folder / "state"))
        here = here.replace("redis-cli", f"redis-cli -p {whole.backends.redis_port}")
        assert "docker" not in here
        done = subprocess.run(
            ["sh", "-ec", here], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{line}\n{done.stderr}"


def test_what_is_backed_up_is_there_after_it_is_restored(
    whole: Topology, balanced: Api, desk: Receiver, tmp_path: Path
) -> None:
    if whole.backends.postgresql is None:
        pytest.skip("this machine has no programs of PostgreSQL")
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "spine.env").write_text("SPINE_SECRET_KEY=of-the-operator\n")
    run_before = balanced.trigger("demo.three_steps", marks=str(tmp_path / "marks"), unless=str(tmp_path))
    before = balanced.wait_for(run_before)
    source = {"name": "kept", "source_type": "http", "config": {"url": desk.url}, "parser_type": "csv"}
    assert balanced.client.post("/sources", json=source).status_code == 201
    (content := whole.folder / "state" / "cache").mkdir(exist_ok=True)
    (content / "kept").write_text("content")
    run(whole, tmp_path, commands("Backup and restore", 0))

    assert balanced.client.delete("/sources/kept").status_code == 200
    assert balanced.client.patch("/alerts/channels/desk", json={"config": {"url": desk.url + "-else"}}).is_success
    (content / "kept").unlink()
    (tmp_path / "secrets" / "spine.env").unlink()
    later = balanced.trigger("demo.three_steps", marks=str(tmp_path / "marks"), unless=str(tmp_path))
    balanced.wait_for(later)

    run(whole, tmp_path, commands("Backup and restore", 1))
    wait_until(lambda: is_reachable(f"{whole.api_url}/health/ready"), "everything to be back", 180)
    assert balanced.client.get("/sources/kept").status_code == 200
    assert (content / "kept").read_text() == "content"
    assert (tmp_path / "secrets" / "spine.env").read_text() == "SPINE_SECRET_KEY=of-the-operator\n"
    assert balanced.run(run_before)["steps"] == before["steps"]
    assert balanced.client.get(f"/workflows/runs/{later}").status_code == 404
    # The secret of the channel can still be decrypted, and is the one of the backup.
    assert balanced.client.post("/alerts/channels/desk/test").json()["success"] is True
    completes(balanced, tmp_path / "marks")
    fails_with_one_alert(balanced, desk)
