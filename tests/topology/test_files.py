"""The files of `deployments/`: checked by the schemas and programs of those who read them, and alike in all three."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from tests.support.processes import PROJECT
from tests.topology.definitions import DEPLOYMENTS, compose, services

KUBERNETES = "1.33"
PATCHES = {"every-pod.yaml", "state-volume.yaml"}
# The unit of systemd for a service of Compose and a container of Kubernetes.
UNITS = {
    "prefect-migrate": "spine-prefect-migrate.service",
    "spine-migrate": "spine-migrate.service",
    "setup": "spine-setup.service",
    "prefect-api": "spine-prefect-api@.service",
    "prefect-services": "spine-prefect-services.service",
    "spine-api": "spine-api@.service",
    "worker": "spine-worker@.service",
}
# What differs between the three: addresses, and the time to drain, in which a proxy learns of it.
_PLACES = re.compile(r"--(?:host|port|drain-seconds) \S+")


def unit(name: str) -> dict[str, list[str]]:
    """The lines of a unit by their names."""
    found: dict[str, list[str]] = {}
    for line in (DEPLOYMENTS / "systemd" / UNITS[name]).read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            key, value = line.split("=", 1)
            found.setdefault(key, []).append(value)
    return found


@cache
def documents() -> list[dict[str, Any]]:
    """The objects of Kubernetes, as they are in the files."""
    found = [path for path in sorted((DEPLOYMENTS / "kubernetes").glob("*.yaml")) if path.name not in PATCHES]
    return [document for path in found for document in yaml.safe_load_all(path.read_text())]


@cache
def container(name: str) -> dict[str, Any]:
    pods = [one["spec"]["template"]["spec"] for one in documents() if one["kind"] in ("Job", "Deployment")]
    (found,) = [each for pod in pods for each in pod["containers"] if each["name"] == name]
    return dict(found)


def of_compose(name: str) -> str:
    return name if name in services() else f"{name}-1"


def test_compose_fits_its_schema() -> None:
    schema = json.loads((files("check_jsonschema") / "builtin_schemas/vendor/compose-spec.json").read_text())
    jsonschema.Draft7Validator(schema).validate(compose())


def test_services_of_compose_wait_for_services_and_use_volumes_that_it_has() -> None:
    found = compose()
    for name, service in found["services"].items():
        assert set(service.get("depends_on", {})) <= set(found["services"]), name
        named = [one.partition(":")[0] for one in service.get("volumes", []) if not one.startswith("./")]
        assert set(named) <= set(found["volumes"]), name
        for one in [one for one in service.get("volumes", []) if one.startswith("./")]:
            assert (DEPLOYMENTS / one.partition(":")[0]).is_file(), name


@pytest.mark.parametrize("document", documents(), ids=lambda one: f"{one['kind']}-{one['metadata']['name']}")
def test_objects_of_kubernetes_fit_its_schema(document: dict[str, Any]) -> None:
    kubernetes_validate.validate(document, KUBERNETES, strict=True)


def with_secrets(folder: Path) -> Path:
    """A copy of the files with files of secrets, as an operator has them."""
    copy = folder / "deployments"
    shutil.copytree(DEPLOYMENTS, copy, ignore=shutil.ignore_patterns("spine_worker", "secrets"))
    (copy / "secrets").mkdir()
    for name in ("all", "prefect", "spine"):
        (copy / "secrets" / f"{name}.env").write_text("A=1\n")
    return copy


@pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl builds the kustomization")
def test_the_kustomization_builds_closed_pods(tmp_path: Path) -> None:
    built = subprocess.run(["kubectl", "kustomize", str(with_secrets(tmp_path))], capture_output=True, check=False)
    assert built.returncode == 0, built.stderr
    found = list(yaml.safe_load_all(built.stdout))
    pods = [one["spec"]["template"] for one in found if one["kind"] in ("Job", "Deployment")]
    assert len(pods) == len(UNITS)
    for document in found:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
    for pod in pods:
        spec = pod["spec"]
        (process,) = spec["containers"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert process["securityContext"]["readOnlyRootFilesystem"] is True
        assert process["securityContext"]["allowPrivilegeEscalation"] is False
        assert {mount["name"] for mount in process["volumeMounts"]} == {volume["name"] for volume in spec["volumes"]}
    names = {one["metadata"]["name"] for one in found if one["kind"] in ("ConfigMap", "Secret")}
    used = {each["name"] for pod in pods for one in pod["spec"]["containers"][0]["envFrom"] for each in one.values()}
    assert used == names


def test_every_deployment_that_answers_has_probes_a_budget_and_a_policy() -> None:
    deployments = {one["metadata"]["name"]: one for one in documents() if one["kind"] == "Deployment"}
    budgets = {one["metadata"]["name"] for one in documents() if one["kind"] == "PodDisruptionBudget"}
    assert budgets == {name for name, one in deployments.items() if one["spec"]["replicas"] > 1}
    served = {one["metadata"]["name"] for one in documents() if one["kind"] == "Service"}
    policies = {one["metadata"]["name"] for one in documents() if one["kind"] == "NetworkPolicy"}
    assert policies == {*served, "nothing-by-default"}
    for name in served:
        assert container(name).keys() >= {"startupProbe", "livenessProbe", "readinessProbe"}


@pytest.mark.parametrize("name", UNITS)
def test_commands_and_settings_are_the_same_in_all_three(name: str) -> None:
    service, its_unit, its_container = services()[of_compose(name)], unit(name), container(name)
    started = shlex.split(its_unit["ExecStart"][0].removeprefix("/opt/spine/bin/"))
    commands = [list(service.command), its_container["command"], started]
    assert len({_PLACES.sub("", shlex.join(command)) for command in commands}) == 1
    read = [one.rpartition("/etc/spine/")[2] for one in its_unit["EnvironmentFile"]]
    maps = [
        f"environment/{one['configMapRef']['name']}.env"
        if "configMapRef" in one
        else f"secrets/{one['secretRef']['name'].removeprefix('spine-secrets-')}.env"
        for one in its_container["envFrom"]
    ]
    assert sorted(service.files) == sorted(read) == sorted(maps)


@pytest.mark.parametrize("name", ["spine-api", "worker"])
def test_whatever_stops_a_process_waits_longer_than_the_process_takes(name: str) -> None:
    (pod,) = [one for one in documents() if one["kind"] == "Deployment" and one["metadata"]["name"] == name]
    waits = {
        shlex.join(services()[of_compose(name)].command): compose()["services"][of_compose(name)]["stop_grace_period"],
        shlex.join(container(name)["command"]): str(pod["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]),
        unit(name)["ExecStart"][0]: unit(name)["TimeoutStopSec"][0],
    }
    for command, seconds in waits.items():
        takes = sum(int(each) for each in re.findall(r"-seconds (\d+)", command)) or 30
        assert int(seconds.rstrip("s")) > takes + 5


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze checks the units")
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("python", "prefect", "spine"):
        (programs / name).symlink_to(sys.executable)
    for path in (DEPLOYMENTS / "systemd").iterdir():
        (tmp_path / path.name).write_text(path.read_text().replace("/opt/spine/bin", str(programs)))
    names = [name.replace("@.", "@8001.") for name in UNITS.values()]
    given = [str(tmp_path / name) for name in (*names, "spine.target")]
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *given], capture_output=True, text=True, check=False
    )
    complaints = [line for line in done.stderr.splitlines() if str(tmp_path) in line or line.startswith("spine")]
    assert complaints == []


@pytest.mark.skipif(not shutil.which("caddy"), reason="Caddy checks its file")
def test_caddy_takes_its_file(tmp_path: Path) -> None:
    given = compose()["services"]["proxy"]["environment"]
    environment = {name: value.partition(":-")[2].rstrip("}") or value for name, value in given.items()}
    command = ["caddy", "validate", "--adapter", "caddyfile", "--config", str(DEPLOYMENTS / "proxy" / "Caddyfile")]
    done = subprocess.run(
        [str(shutil.which("caddy")), *command[1:]],
        env={**environment, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_image_copies_what_is_there_and_runs_as_a_user_of_its_own() -> None:
    text = (DEPLOYMENTS / "image" / "Dockerfile").read_text().replace("\\\n", " ")
    copies = re.findall(r"(?m)^COPY (?!--from)(.*)$", text)
    sources = [source for line in copies for source in line.split()[:-1]]
    assert [source for source in sources if not (PROJECT / source).exists()] == []
    ignored = (DEPLOYMENTS / "image" / "Dockerfile.dockerignore").read_text().splitlines()
    assert {f"!{source}" for source in sources} == {line for line in ignored if line.startswith("!")}
    assert re.findall(r"(?m)^USER (.*)$", text) == ["10001:10001"]
    installs = re.findall(r"pip install [^&]*", text)
    assert [one for one in installs if "--require-hashes" not in one and "--no-index" not in one] == []
