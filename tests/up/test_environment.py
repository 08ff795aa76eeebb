from pathlib import Path

from spine.up.plan import MARKER, api_environment, server_environment, worker_environment

from tests.up.support import plan_for

USER = {"PATH": "/bin", "SPINE_API_KEY": "secret", "SPINE_DATABASE_URL": "postgresql://db/spine"}


def test_only_the_api_gets_the_key(tmp_path: Path) -> None:
    plan = plan_for(tmp_path)
    assert api_environment(plan, USER)["SPINE_API_KEY"] == "secret"
    assert "secret" not in worker_environment(plan, USER).values()
    assert "secret" not in server_environment(plan, USER).values()


def test_every_child_knows_where_prefect_and_the_home_are(tmp_path: Path) -> None:
    plan = plan_for(tmp_path)
    for given in (api_environment, worker_environment, server_environment):
        variables = given(plan, {**USER, "SPINE_HOME": "relative"})
        assert variables["PREFECT_API_URL"] == f"http://127.0.0.1:{plan.prefect_port}/api"
        assert variables["SPINE_HOME"] == str(tmp_path)
        assert variables["SPINE_DATABASE_URL"] == "postgresql://db/spine"
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
