from dataclasses import replace
from pathlib import Path

import pytest
from spine.settings import Settings
from spine.up import plan
from spine.up.plan import MARKER, Plan, api_environment, server_environment, shared_environment, worker_environment
from spine_worker import withheld

from tests.up.support import plan_for

USER = {
    "PATH": "/bin",
    "SPINE_API_KEY": "secret-key-of-the-admin",
    "SPINE_DATABASE_URL": "postgresql://spine:secret@db/spine",
    "SPINE_SECRET_KEY": "secret-that-encrypts-secrets",
    "SPINE_CACHE_URL": "s3://key:secret@cache",
    "PREFECT_SERVER_DATABASE_CONNECTION_URL": "postgresql+asyncpg://prefect:secret@db/prefect",
    "PREFECT_API_DATABASE_PASSWORD": "secret",
    "PREFECT_SERVER_DOCKET_URL": "redis://:secret@redis/1",
    "PREFECT_REDIS_MESSAGING_PASSWORD": "secret",
}
SECRETS_OF_SPINE = {name for name in USER if name.startswith("SPINE_")}
SECRETS_OF_PREFECTS_SERVER = {name for name in USER if name.startswith("PREFECT_")}


def test_each_child_gets_only_the_secrets_that_it_needs(tmp_path: Path) -> None:
    made = replace(plan_for(tmp_path), prefect_auth="spine:made-up")
    api, server, worker = (given(made, USER) for given in (api_environment, server_environment, worker_environment))
    assert {name for name in USER if name in api} == {"PATH"} | SECRETS_OF_SPINE
    assert {name for name in USER if name in server} == {"PATH"} | SECRETS_OF_PREFECTS_SERVER
    assert {name for name in USER if name in worker} == {"PATH"}
    assert not [name for name, value in worker.items() if "secret" in value]
    # Every one of them calls Prefect's API; only its server decides who may.
    assert {given["PREFECT_API_AUTH_STRING"] for given in (api, server, worker)} == {"spine:made-up"}
    assert [given.get("PREFECT_SERVER_API_AUTH_STRING") for given in (api, server, worker)] == [
        None,
        "spine:made-up",
        None,
    ]


def test_the_worker_and_spine_up_withhold_the_same_variables() -> None:
    assert set(withheld.SPINE_SECRETS) == set(plan.SPINE_SECRETS)
    assert set(withheld.PREFECT_SERVER_SECRETS) == set(plan.PREFECT_SERVER_SECRETS)


@pytest.mark.parametrize("field", Settings.model_fields)
def test_every_setting_that_can_hold_a_secret_is_withheld_from_flows(field: str) -> None:
    is_secret = "SecretStr" in str(Settings.model_fields[field].annotation)
    assert not is_secret or f"SPINE_{field.upper()}" in plan.SPINE_SECRETS


def test_only_the_servers_own_ui_may_use_it_from_a_browser(tmp_path: Path) -> None:
    made = replace(plan_for(tmp_path), prefect_ui="https://prefect.example.com/ui/")
    origins = server_environment(made, {})["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"].split(",")
    port = made.prefect_port
    assert set(origins) == {"https://prefect.example.com", f"http://127.0.0.1:{port}", f"http://localhost:{port}"}


def test_every_child_knows_where_prefect_and_the_home_are(tmp_path: Path) -> None:
    plan = plan_for(tmp_path)
    for given in (api_environment, worker_environment, server_environment):
        variables = given(plan, {**USER, "SPINE_HOME": "relative"})
        assert variables["PREFECT_API_URL"] == f"http://127.0.0.1:{plan.prefect_port}/api"
        assert variables["SPINE_HOME"] == str(tmp_path)
        assert variables[MARKER] == str(tmp_path)


def test_worker_and_api_use_the_same_absolute_folder_for_results(tmp_path: Path) -> None:
    plan = plan_for(tmp_path)
    name = "PREFECT_RESULTS_LOCAL_STORAGE_PATH"
    assert worker_environment(plan, USER)[name] == api_environment(plan, USER)[name]
    assert Path(api_environment(plan, USER)[name]).is_absolute()


def test_what_the_user_sets_wins_over_the_defaults(tmp_path: Path) -> None:
    plan = plan_for(tmp_path)
    user = {
        "PREFECT_WORKER_QUERY_SECONDS": "7",
        "PREFECT_HOME": "/srv/prefect",
        "SPINE_WAREHOUSE_URL": "s3://warehouse",
        "PREFECT_LOCAL_STORAGE_PATH": "/srv/results",
    }
    given = worker_environment(plan, user)
    assert {name: given[name] for name in user} == user
    assert "PREFECT_RESULTS_LOCAL_STORAGE_PATH" not in given


def test_prefect_accepts_every_setting_that_is_passed_to_it(tmp_path: Path) -> None:
    from prefect.settings import Settings

    plan = plan_for(tmp_path)
    given = {**server_environment(plan, {}), **worker_environment(plan, {})}
    # Settings without a default, such as the URL, are not among these.
    known = {name.upper() for name in Settings().to_environment_variables(include_aliases=True)} | {"PREFECT_API_URL"}
    assert {name for name in given if name.startswith("PREFECT_")} <= known


def test_clients_leave_out_the_requests_that_the_own_server_makes_needless(tmp_path: Path) -> None:
    off = {"PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED": "false", "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED": "false"}

    def of_clients(made: Plan, **user: str) -> dict[str, str]:
        return {name: value for name, value in shared_environment(made, user).items() if "_CLIENT_" in name}

    own = replace(plan_for(tmp_path), project=tmp_path)
    assert of_clients(own) == off
    with_csrf = {"PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED": "false"}
    assert of_clients(own, PREFECT_SERVER_CSRF_PROTECTION_ENABLED="true") == with_csrf
    (tmp_path / "prefect.toml").write_text("[server.api]\ncsrf_protection_enabled = true\n")
    assert of_clients(own) == with_csrf
    assert of_clients(plan_for(tmp_path, "https://prefect.example.com/api")) == {}
